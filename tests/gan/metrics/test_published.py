import numpy as np
import pytest
import torch
from torchvision.models import Inception_V3_Weights, SqueezeNet1_1_Weights

from gan.metrics.published import exact_convolutions, for_convolutions, resize_and_crop

IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.mark.parametrize(
    "size", [(32, 32), (64, 64), (128, 128), (256, 256), (97, 97), (500, 500), (45, 70), (600, 400)]
)
@pytest.mark.parametrize("weights", [SqueezeNet1_1_Weights.IMAGENET1K_V1, Inception_V3_Weights.IMAGENET1K_V1])
def test_resizes_and_crops_as_torchvision(size: tuple[int, int], weights: SqueezeNet1_1_Weights) -> None:
    transforms = weights.transforms()
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, *size), np.uint8))
    expected = (transforms(images) * IMAGENET_STD + IMAGENET_MEAN) * 255
    found = resize_and_crop(images, transforms.resize_size[0], transforms.crop_size[0])
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_grey_is_repeated_and_colours_keep_their_places() -> None:
    grey, colour = torch.rand(2, 1, 4, 4), torch.rand(2, 3, 4, 4)
    shown = for_convolutions(grey)
    assert torch.equal(shown, torch.cat([grey] * 3, 1))
    assert torch.equal(for_convolutions(colour), colour)
    for images in (shown, for_convolutions(colour)):
        assert images.is_contiguous(memory_format=torch.channels_last)


def settings() -> tuple[object, ...]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32


@pytest.mark.parametrize("allowed", [True, False])
def test_convolutions_are_in_whole_floats_for_a_while_only(monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", allowed)
    before = settings()
    with exact_convolutions():
        assert settings() == (True, False, True, False, before[4])
    assert settings() == before


def test_an_error_too_ends_the_whole_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    before = settings()
    with pytest.raises(RuntimeError), exact_convolutions():
        torch.ones(2) @ torch.ones(3)
    assert settings() == before
