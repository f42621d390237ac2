"""What the networks with published weights share: reading those, and what torchvision does to images before them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from gan.errors import InputError

Weights = Mapping[str, Tensor]
"""A network's weights by torchvision's names, float32."""


def read_state_dict(path: Path, takes: str) -> dict[str, Tensor]:
    """The tensors, by name, of a state dict that torch saved; what else it holds has no entry.

    Nothing in the file is run. Raises InputError for a file that cannot be read and for a damaged one; its message
    ends with what evaluate.weights `takes`.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        reason = f"cannot be read ({error.strerror or error})"
        raise InputError(f"evaluate.weights: {path} {reason}; it takes {takes}") from error
    # Damaged pickles raise nearly anything: KeyError, AssertionError, UnicodeDecodeError and half a dozen others.
    except Exception as error:
        raise InputError(
            f"evaluate.weights: {path} is cut short, damaged, or no file of weights ({type(error).__name__}); "
            f"it takes {takes}"
        ) from error
    if not isinstance(found, Mapping):
        return {}
    return {str(name): value for name, value in found.items() if isinstance(value, Tensor)}


def wrong_names(found: Weights, expected: Weights) -> list[str]:
    """Names that only one of two has, or that have another shape, sorted."""
    return sorted(
        name
        for name in {*expected, *found}
        if name not in expected or name not in found or expected[name].shape != found[name].shape
    )


def check_images(images: Tensor) -> None:
    """Raise ValueError unless images are N×C×H×W, uint8, grey (C = 1) or colour (C = 3)."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images must be N×C×H×W uint8 with C 1 or 3, and are {images.dtype} of shape {tuple(images.shape)}"
        )


def resize_and_crop(images: Tensor, side: int, crop: int) -> Tensor:
    """Shorter side to `side` pixels, bilinear, antialiased, rounded to whole levels; then the centre, crop×crop.

    As torchvision's transforms of its published weights do it, of N×C×H×W images; values stay 0 to 255, float32.
    """
    shorter = min(images.shape[2:])
    size = [int(side * length / shorter) for length in images.shape[2:]]
    top, left = (round((length - crop) / 2) for length in size)
    # It takes time, and changes nothing in an enlarged image but last bits, which whole multiples do not have.
    antialias = side % shorter != 0
    resized = functional.interpolate(images.float(), size, mode="bilinear", align_corners=False, antialias=antialias)
    return resized[:, :, top : top + crop, left : left + crop].round_()


def for_convolutions(images: Tensor) -> Tensor:
    """Images in three channels, grey repeated, laid out as convolutions are quickest with."""
    return images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Convolutions that repeat bit by bit, in whole floats: the short ones that a GPU may take show in the scores."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
