"""Features and class probabilities of Inception v3, in its two published kinds.

Szegedy et al. 2016 (arXiv 1512.00567). `fid` is the network of the Fréchet Inception Distance (Heusel et al. 2017,
arXiv 1706.08500), trained at Google in 2015 and converted to PyTorch; `imagenet` is torchvision's.
"""

from functools import partial
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models import Inception3, Inception_V3_Weights
from torchvision.models.inception import (
    BasicConv2d,
    InceptionA,
    InceptionAux,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
)

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

Kind = Literal["fid", "imagenet"]

PUBLISHED_IMAGENET = Inception_V3_Weights.IMAGENET1K_V1
PUBLISHED_FID_NAME = "pt_inception-2015-12-05-6726825d.pth"

SIDE = 299
"""Side of the images that the network sees, in pixels."""
CLASSES: dict[Kind, int] = {"fid": 1008, "imagenet": 1000}


class InceptionV3:
    """The network up to its last pooling, and its classes, on `device`."""

    width = 2048
    """Number of features."""

    def __init__(self, kind: Kind, weights: Weights, device: torch.device) -> None:
        self.batch = 64 if device.type == "cuda" else 8
        """Images at a time."""
        self._kind = kind
        network = _empty_network(kind)
        network.load_state_dict(weights, assign=True)
        network.requires_grad_(requires_grad=False).eval()
        _fuse(network)
        # In double, the product is the same with whatever short floats a GPU may multiply matrices.
        self._class_weight = network.fc.weight.double().T.contiguous().to(device)
        self._class_bias = network.fc.bias.double().to(device)
        network.fc = nn.Identity()
        self._network = network.to(device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def describe(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features, N×2048, and class probabilities, N×K float64, of N×C×H×W uint8 images on the network's device.

        Images are grey (C = 1) or colour (C = 3). `fid`: resized to 299×299 as TensorFlow 1 did; 1008 classes, without
        the last layer's bias, as in the Inception Score's own code (Salimans et al. 2016, arXiv 1606.03498).
        `imagenet`: torchvision's preprocessing for these weights, shorter side to 342 pixels, bilinear, antialiased,
        centre crop of 299; 1000 classes. Raises ValueError for other images.
        """
        check_images(images)
        if self._kind == "fid":
            shown = resize_like_tensorflow(images, SIDE).sub_(128).div_(128)
        else:
            # The network normalises to [-1, 1] again what torchvision's transforms normalised by ImageNet's statistics.
            shown = resize_and_crop(images, 342, SIDE).sub_(127.5).div_(127.5)
        with exact_convolutions():
            features: Tensor = self._network(for_convolutions(shown))
        logits = features.double() @ self._class_weight
        if self._kind == "imagenet":
            logits += self._class_bias
        return features, logits.softmax(1)


def resize_like_tensorflow(images: Tensor, side: int) -> Tensor:
    """N×C×H×W images resized bilinearly to side×side, float32, as TensorFlow 1 does without aligned corners.

    Pixel i of the result is at i·H/side, not at the (i + ½)·H/side − ½ that keeps the image centred; there is no
    antialiasing. FID is defined by the features of images that were resized so.
    """
    height, width = images.shape[2:]
    left, right, along = _neighbours(width, side, images.device)
    values = images.float()
    lines = values[..., left]
    lines += (values[..., right] - lines) * along
    above, below, down = _neighbours(height, side, images.device)
    result = lines[:, :, above]
    result += (lines[:, :, below] - result) * down[:, None]
    return result


def _neighbours(length: int, side: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of each of `side` positions on a line of `length` pixels: the pixel before, the one after, the share between."""
    positions = torch.arange(side, dtype=torch.float32, device=device) * (length / side)
    before = positions.long()
    return before, (before + 1).clamp_max(length - 1), positions - before


def read_inception_weights(path: Path) -> tuple[Kind, Weights]:
    """Which of the two networks a state dict that torch saved belongs to, and its weights without what is unused.

    Nothing in the file is run. Raises InputError for a damaged file and for anything but these networks' weights.
    """
    takes = f"{PUBLISHED_FID_NAME} or torchvision's {PUBLISHED_IMAGENET.url.rpartition('/')[2]}"
    # Older files have no counts of the batches that batch norm saw, and nothing reads them.
    found = _without(read_state_dict(path, takes), ".num_batches_tracked")
    wrong: dict[Kind, list[str]] = {}
    for kind in get_args(Kind):
        expected = _without(_empty_network(kind, aux_logits=kind == "imagenet").state_dict(), ".num_batches_tracked")
        wrong[kind] = wrong_names(found, expected)
    kind = min(wrong, key=lambda kind: len(wrong[kind]))
    if wrong[kind]:
        raise InputError(
            f"evaluate.weights: {path} holds no weights of Inception v3: {len(wrong[kind])} names or shapes differ, "
            f"as {wrong[kind][0]}; it takes {takes}"
        )
    return kind, {name: tensor.float() for name, tensor in found.items() if not name.startswith("AuxLogits.")}


def save_inception_weights(path: Path, kind: Kind, weights: Weights) -> None:
    """Write weights as safetensors: equal weights are equal files, however they were packed before."""
    # One entry only: the library writes several in random order.
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path, {"kind": kind})


def load_inception_v3(path: Path, device: torch.device) -> InceptionV3:
    """Read what `save_inception_weights` wrote."""
    with safe_open(path, framework="pt") as file:
        kind = file.metadata()["kind"]
    return InceptionV3(kind, load_file(path), device)


_average = partial(functional.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_largest = partial(functional.max_pool2d, kernel_size=3, stride=1, padding=1)


class _FIDInceptionA(InceptionA):  # type: ignore[misc]  # torchvision has no types
    """torchvision's block, but its average is of the pixels within the image, as in TensorFlow."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        return [
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(_average(x)),
        ]


class _FIDInceptionC(InceptionC):  # type: ignore[misc]  # torchvision has no types
    """The same of this block."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return [self.branch1x1(x), once, twice, self.branch_pool(_average(x))]


class _FIDInceptionE(InceptionE):  # type: ignore[misc]  # torchvision has no types
    """The same of this block, but the last of the network takes the maximum, as the network of 2015 did."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)
        self._pool = _average if in_channels == 1280 else _largest

    def _forward(self, x: Tensor) -> list[Tensor]:
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return [
            self.branch1x1(x),
            self.branch3x3_2a(once),
            self.branch3x3_2b(once),
            self.branch3x3dbl_3a(twice),
            self.branch3x3dbl_3b(twice),
            self.branch_pool(self._pool(x)),
        ]


_BLOCKS: dict[Kind, list[type[nn.Module]]] = {
    "fid": [
        BasicConv2d,
        _FIDInceptionA,
        InceptionB,
        _FIDInceptionC,
        InceptionD,
        _FIDInceptionE,
        InceptionAux,
    ],
    "imagenet": [BasicConv2d, InceptionA, InceptionB, InceptionC, InceptionD, InceptionE, InceptionAux],
}


def _empty_network(kind: Kind, *, aux_logits: bool = False) -> Inception3:
    """The network without memory for its weights, so that none can be forgotten and left random."""
    with torch.device("meta"):
        return Inception3(CLASSES[kind], aux_logits, inception_blocks=_BLOCKS[kind], init_weights=False)


def _fuse(network: nn.Module) -> None:
    """Take batch norm, which is linear here, into the convolutions before it."""
    for module in network.modules():
        if isinstance(module, BasicConv2d):
            conv, norm = module.conv, module.bn
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            module.bn = nn.Identity()


def _without(weights: Weights, ending: str) -> Weights:
    return {name: tensor for name, tensor in weights.items() if not name.endswith(ending)}
