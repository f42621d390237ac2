from typing import get_args

import pytest
import torch

from gan.params import Augmentation
from gan.training.augment import AUGMENTATIONS, augment
from gan.training.processes import Stream


def stream() -> Stream:
    return Stream(0, torch.device("cpu"))


def picture(count: int = 200, channels: int = 3, side: int = 32) -> torch.Tensor:
    return stream().uniform(count, channels, side, side, low=-1, high=1)


def test_the_schema_names_every_augmentation() -> None:
    assert get_args(Augmentation) == tuple(AUGMENTATIONS)


def test_no_policy_changes_nothing() -> None:
    images = picture()
    assert augment(images, [], stream()) is images


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_shape_stays_each_image_differs_and_the_stream_decides(name: str) -> None:
    images = picture(1).expand(50, -1, -1, -1)
    changed = augment(images, [name], stream())
    assert changed.shape == images.shape
    assert len({image.numpy().tobytes() for image in changed}) > 25
    assert torch.equal(changed, augment(images, [name], stream()))


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_pass_through(name: str, channels: int) -> None:
    images = picture(4, channels).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augment(x[:, :, :6, :6], [name], stream()).sum(), images, fast_mode=True)


def test_translation_moves_by_up_to_an_eighth_and_repeats_the_edge() -> None:
    ramp = torch.arange(32.0)[None, None, :, None] * 100 + torch.arange(32.0)
    moved = augment(ramp.expand(2000, 1, 32, 32), ["translation"], stream())
    corner = moved[:, 0, 16, 16]
    assert sorted(set((corner // 100 - 16).tolist())) == list(range(-4, 5))
    assert sorted(set((corner % 100 - 16).tolist())) == list(range(-4, 5))
    down = moved[corner == 2016][0, 0]  # four rows down in the source, none across
    assert torch.equal(down[:28], ramp[0, 0, 4:])
    assert torch.equal(down[28:], ramp[0, 0, 31:].expand(4, 32))


def test_cutout_blanks_a_square_of_half_the_side() -> None:
    blank = augment(torch.ones(2000, 3, 32, 32), ["cutout"], stream()) == 0
    assert blank.sum((1, 2, 3)).max() == 3 * 16 * 16
    assert blank.sum((1, 2, 3)).min() == 3 * 8 * 8  # centred on a corner
    assert (blank[:, 0] == blank[:, 2]).all()


def test_colour_keeps_what_its_definition_keeps() -> None:
    images = picture()
    changed = augment(images, ["colour"], stream())
    shift = changed.mean((1, 2, 3)) - images.mean((1, 2, 3))
    assert shift.abs().max() <= 0.5 + 1e-6  # saturation and contrast keep the mean; brightness moves it
    assert shift.max() > 0.45
    grey = picture(channels=1)
    spread = augment(grey, ["colour"], stream()).std((1, 2, 3)) / grey.std((1, 2, 3))
    assert 0.5 <= spread.min() <= 0.55
    assert 1.45 <= spread.max() <= 1.5 + 1e-5
