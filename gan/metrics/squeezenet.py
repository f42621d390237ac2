"""Features of SqueezeNet 1.1, trained on ImageNet: for images without classes, where Inception v3 costs too much.

Iandola et al. 2016 (arXiv 1602.07360); network, weights and preprocessing are torchvision's.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import SqueezeNet as TorchvisionSqueezeNet
from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

from gan.errors import InputError

FEATURES = 512
"""Width of the features."""
BATCH = 8
"""Images at a time: more are slower on a CPU, whose allocator takes tensors from 32 MiB on afresh from the system."""

PUBLISHED = SqueezeNet1_1_Weights.IMAGENET1K_V1
PUBLISHED_NAME = PUBLISHED.url.rpartition("/")[2]

Weights = Mapping[str, Tensor]
"""The weights of the network's convolutions, by torchvision's names."""


class SqueezeNet:
    """The network up to its last Fire module's activations, averaged over the image, on `device`."""

    def __init__(self, weights: Weights, device: torch.device) -> None:
        self.device = device
        self.preprocess = PUBLISHED.transforms()
        body: nn.Sequential = _empty_network().features
        body.load_state_dict(weights, assign=True)
        self.body = body.to(device).to(memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features, N×512, of N×H×W×C images, grey (C = 1) or colour (C = 3).

        The preprocessing is torchvision's for these weights: shorter side to 256 pixels, bilinear, antialiased;
        centre crop of 224; ImageNet's mean and standard deviation. Raises ValueError for another shape.
        """
        if images.ndim != 4 or images.shape[3] not in (1, 3):
            raise ValueError(f"images must be N×H×W×C with C 1 or 3, and have shape {images.shape}")
        features = np.empty((len(images), FEATURES), np.float32)
        # The short floats that a GPU may compute convolutions in would show in the scores.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            for start in range(0, len(images), BATCH):
                batch = np.array(images[start : start + BATCH])  # torch takes no read-only memory
                shown = torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2).contiguous().expand(-1, 3, -1, -1)
                found = self.body(self.preprocess(shown).contiguous(memory_format=torch.channels_last))
                features[start : start + BATCH] = found.mean((2, 3)).cpu().numpy()
        return features


def read_weights(path: Path) -> Weights:
    """The convolutions' weights out of a state dict of torchvision's `squeezenet1_1` that torch saved.

    Nothing in the file is run. Raises InputError for a damaged file and for anything but this network's weights.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    # Damaged pickles raise nearly anything: KeyError, AssertionError, UnicodeDecodeError and half a dozen others.
    except Exception as error:
        raise InputError(
            f"evaluate.weights: {path} is cut short, damaged, or no file of weights ({type(error).__name__}); "
            f"it takes torchvision's {PUBLISHED_NAME}"
        ) from error
    expected = _shapes(_empty_network().state_dict())
    shapes = _shapes(found) if isinstance(found, Mapping) else {}
    wrong = sorted(str(name) for name in {*expected, *shapes} if expected.get(name) != shapes.get(name))
    if wrong:
        raise InputError(
            f"evaluate.weights: {path} holds no weights of SqueezeNet 1.1: {len(wrong)} names or shapes differ, "
            f"as {wrong[0]}; it takes torchvision's {PUBLISHED_NAME}"
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


def _shapes(weights: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor; what is none has no entry."""
    return {name: tuple(value.shape) for name, value in weights.items() if isinstance(value, Tensor)}
