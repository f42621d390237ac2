import errno
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gan.data import batches
from gan.data.batches import AHEAD, epoch_order, packed_batches, to_bytes, to_float, to_packed, training_batches
from gan.data.packed import Images, read_images

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (23, 4, 5, 3), np.uint8)
STEPS = 5
"""In an epoch, in batches of 4; three images are left over."""


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


def order(epoch: int) -> np.ndarray:
    return epoch_order(len(IMAGES), 7, epoch)


def direct(step: int) -> np.ndarray:
    epoch, position = divmod(step, STEPS)
    images: np.ndarray = IMAGES[order(epoch)[position * 4 : position * 4 + 4]]
    return images


def reading_threads() -> int:
    return sum(thread.name.startswith("batches") for thread in threading.enumerate())


def from_file(folder: Path, images: Images = IMAGES) -> Images:
    np.save(folder / "train.npy", images)
    return read_images(folder, "train")


@pytest.fixture(params=["resident", "resident-file", "streamed", "streamed-file"])
def images(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Images:
    """The images, in each of the ways in which batches come from them."""
    way, _, file = request.param.partition("-")
    monkeypatch.setattr(batches, "RESIDENT_BYTES", IMAGES.nbytes if way == "resident" else IMAGES.nbytes - 1)
    return from_file(tmp_path) if file else IMAGES


@pytest.mark.parametrize("start", [0, 3, 5, 12])
def test_training_has_the_same_batches_in_each_way_and_from_each_step(images: Images, start: int) -> None:
    with training_batches(images, order, start, 4, CPU) as stream:
        for step in range(start, start + 2 * STEPS + 1):
            batch = next(stream)
            assert (batch.dtype, batch.device) == (torch.uint8, CPU)
            assert (batch.numpy() == direct(step)).all(), step


def test_processes_share_each_batch(images: Images) -> None:
    with (
        training_batches(images, order, 3, 4, CPU, slice(0, 2)) as first,
        training_batches(images, order, 3, 4, CPU, slice(2, 4)) as second,
    ):
        for step in range(3, 3 + 2 * STEPS):
            both = np.concatenate([next(first).numpy(), next(second).numpy()])
            assert (both == direct(step)).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_gpu_gets_the_same_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    monkeypatch.setattr(batches, "RESIDENT_SHARE", share)
    with training_batches(from_file(tmp_path), order, 3, 4, torch.device("cuda")) as stream:
        for step in range(3, 3 + 3 * STEPS):
            batch = next(stream)
            assert batch.is_cuda
            assert (batch.cpu().numpy() == direct(step)).all()
            assert reading_threads() == (share == 0)


def test_what_is_used_is_the_users_own(images: Images) -> None:
    with training_batches(images, order, 0, 4, CPU) as stream:
        kept = list(islice(stream, STEPS + AHEAD))
        kept[0].zero_()
        assert all((batch.numpy() == direct(step)).all() for step, batch in enumerate(kept) if step)
    assert (np.array(images) == IMAGES).all()


def test_a_part_of_a_file_is_read_from_its_own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "RESIDENT_BYTES", 0)
    part = from_file(tmp_path)[3:]
    with training_batches(part, lambda _: np.arange(20), 0, 4, CPU) as stream:
        assert (next(stream).numpy() == IMAGES[3:7]).all()


def test_only_a_large_split_has_a_thread_and_only_in_its_block(images: Images) -> None:
    streamed = images.nbytes > batches.RESIDENT_BYTES
    with training_batches(images, order, 0, 4, CPU) as stream:
        next(stream)
        assert reading_threads() == streamed
    assert reading_threads() == 0
    for end in (ValueError, KeyboardInterrupt):
        with pytest.raises(end):
            use_one_and_raise(images, end)
        assert reading_threads() == 0


def use_one_and_raise(images: Images, end: type[BaseException]) -> None:
    with training_batches(images, order, 0, 4, CPU) as stream:
        next(stream)
        raise end


class Counted(np.ndarray):
    """An array that counts the batches taken from it."""

    taken = 0

    def __getitem__(self, key: Any) -> Any:
        type(self).taken += isinstance(key, list)
        return super().__getitem__(key)


def test_a_few_batches_are_read_ahead_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "RESIDENT_BYTES", 0)
    with training_batches(IMAGES.view(Counted), order, 0, 4, CPU) as stream:
        for used in range(1, 30):
            next(stream)
            for _ in range(5000):  # the thread reads them when it comes to it
                if Counted.taken >= used + AHEAD:
                    break
                time.sleep(0.001)
            assert Counted.taken == used + AHEAD


def test_a_file_that_cannot_be_read_is_an_error_where_its_images_are_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "RESIDENT_BYTES", 0)
    images = from_file(tmp_path)
    path = tmp_path / "train.npy"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 12 * images[0].nbytes)  # 11 are left: two batches and three images
    with training_batches(images, lambda _: np.arange(len(IMAGES)), 0, 4, CPU) as stream:
        assert (next(stream).numpy() == IMAGES[:4]).all()
        assert (next(stream).numpy() == IMAGES[4:8]).all()
        with pytest.raises(OSError, match="shorter") as caught:
            next(stream)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(path))
    assert reading_threads() == 0
    monkeypatch.setattr(batches, "RESIDENT_BYTES", images.nbytes)
    with pytest.raises(OSError, match="shorter"), training_batches(images, order, 0, 4, CPU):
        pass


def test_an_order_that_cannot_be_made_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "RESIDENT_BYTES", 0)

    def order_of_one_epoch(epoch: int) -> np.ndarray:
        if epoch:
            raise MemoryError
        return order(epoch)

    with training_batches(IMAGES, order_of_one_epoch, 0, 4, CPU) as stream:
        assert sum(1 for _ in islice(stream, STEPS)) == STEPS
        with pytest.raises(MemoryError):
            next(stream)
    assert reading_threads() == 0


def memory(kind: str) -> int:
    """Bytes of this process in the main memory: its own, or those of the files that it has mapped."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


def test_a_large_file_is_streamed_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "RESIDENT_BYTES", 2**24)
    shape = (2**14, 64, 64, 3)  # 201 MB, all of it a hole in the file
    np.lib.format.open_memmap(tmp_path / "train.npy", mode="w+", dtype=np.uint8, shape=shape)
    images = read_images(tmp_path, "train")
    with training_batches(images, lambda epoch: epoch_order(len(images), 0, epoch), 0, 64, CPU) as stream:
        next(stream)
        before = [memory("Pss_Anon"), memory("Pss_File")]
        grown = []
        for step in range(1, 256):
            next(stream)
            if step % 16 == 0:
                grown.append([memory("Pss_Anon") - before[0], memory("Pss_File") - before[1]])
    own, mapped = np.max(grown, axis=0)
    assert own < (AHEAD + 2) * 64 * images[0].nbytes + 2**24  # an allocator keeps some of what it was given back
    assert mapped < 2**25
