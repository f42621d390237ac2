"""Features of SqueezeNet 1.1, trained on ImageNet: for images without classes, where Inception v3 costs too much.

Iandola et al. 2016 (arXiv 1602.07360); network, weights and preprocessing are torchvision's.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import SqueezeNet as TorchvisionSqueezeNet
from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

from gan.errors import InputError
from gan.metrics.published import (
    Weights,
    check_images,
    exact_convolutions,
    for_convolutions,
    read_state_dict,
    resize_and_crop,
    wrong_names,
)

PUBLISHED = SqueezeNet1_1_Weights.IMAGENET1K_V1
PUBLISHED_NAME = PUBLISHED.url.rpartition("/")[2]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, in [0, 1]: the published weights were trained on images normalised by them."""


class SqueezeNet:
    """The network up to its last Fire module's activations, averaged over the image, on `device`.

    `weights` are those of its convolutions.
    """

    width = 512
    """Number of features."""

    def __init__(self, weights: Weights, device: torch.device) -> None:
        # More are slower on a CPU, whose allocator takes tensors from 32 MiB on afresh from the system.
        self.batch = 64 if device.type == "cuda" else 8
        """Images at a time."""
        body: nn.Sequential = _empty_network().features
        body.load_state_dict(weights, assign=True)
        _normalise_within(body)
        self._body = body.requires_grad_(requires_grad=False).to(device).to(memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def describe(self, images: Tensor) -> tuple[Tensor, None]:
        """Features, N×512, of N×C×H×W uint8 images on the network's device, grey (C = 1) or colour (C = 3).

        The preprocessing is torchvision's for these weights: shorter side to 256 pixels, bilinear, antialiased;
        centre crop of 224; ImageNet's mean and standard deviation. Raises ValueError for other images.
        """
        check_images(images)
        with exact_convolutions():
            found: Tensor = self._body(for_convolutions(resize_and_crop(images, 256, 224)))
        return found.mean((2, 3)), None


def read_weights(path: Path) -> Weights:
    """The convolutions' weights out of a state dict of torchvision's `squeezenet1_1` that torch saved.

    Nothing in the file is run. Raises InputError for a damaged file and for anything but this network's weights.
    """
    takes = f"torchvision's {PUBLISHED_NAME}"
    found = read_state_dict(path, takes)
    wrong = wrong_names(found, _empty_network().state_dict())
    if wrong:
        raise InputError(
            f"evaluate.weights: {path} holds no weights of SqueezeNet 1.1: {len(wrong)} names or shapes differ, "
            f"as {wrong[0]}; it takes {takes}"
        )
    body = "features."
    return {name.removeprefix(body): tensor.float() for name, tensor in found.items() if name.startswith(body)}


def save_weights(path: Path, weights: Weights) -> None:
    """Write weights as safetensors: equal weights are equal files, however they were packed before."""
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)


def load_squeezenet(path: Path, device: torch.device) -> SqueezeNet:
    """Read what `save_weights` wrote."""
    return SqueezeNet(load_file(path), device)


def _empty_network() -> TorchvisionSqueezeNet:
    """The network without memory for its weights, so that none can be forgotten and left random."""
    with torch.device("meta"):
        return squeezenet1_1()


@torch.no_grad()
def _normalise_within(body: nn.Sequential) -> None:
    """Let the first convolution, which pads nothing, take values 0 to 255 and normalise them itself."""
    first = body[0]
    assert isinstance(first, nn.Conv2d)
    assert first.bias is not None
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (MEAN, STD))
    weight = first.weight.double() / std
    first.bias = nn.Parameter((first.bias.double() - (weight * mean).sum((1, 2, 3))).float())
    first.weight = nn.Parameter((weight / 255).float())
