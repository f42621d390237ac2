import numpy as np
import torch

from gan.data.batches import epoch_order, packed_batches, to_bytes, to_float, to_packed

CPU = torch.device("cpu")


def test_uint8_goes_to_floats_and_back_unchanged() -> None:
    images = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    batch = to_float(images, CPU)
    assert batch.shape == (1, 3, 16, 16)
    assert batch.min() == -1
    assert batch.max() == 1
    assert (to_packed(to_bytes(batch)) == images).all()


def test_floats_outside_the_range_are_clipped() -> None:
    assert to_bytes(torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0])).tolist() == [0, 0, 128, 255, 255]


def test_packed_images_come_in_batches_in_their_order() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3), np.uint8)
    images.flags.writeable = False  # as a memory map
    batches = list(packed_batches(images, 3, CPU))
    assert [tuple(batch.shape) for batch in batches] == [(3, 3, 4, 5), (3, 3, 4, 5), (1, 3, 4, 5)]
    assert (torch.cat(batches).permute(0, 2, 3, 1).numpy() == images).all()


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own() -> None:
    first, second = epoch_order(1000, 0, 0), epoch_order(1000, 0, 1)
    assert sorted(first) == sorted(second) == list(range(1000))
    assert (first != second).any()
    assert (first == epoch_order(1000, 0, 0)).all()
    assert (first != epoch_order(1000, 1, 0)).any()
