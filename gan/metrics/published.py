"""What the networks with published weights share: reading those, and what torchvision does to images before them."""

import mmap
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor
from torch.nn import functional

from gan.errors import InputError

Weights = Mapping[str, Tensor]
"""A network's weights by torchvision's names, float32."""

MAX_BYTES = 2**28
"""Largest file of weights read; Inception v3's have 109 MB."""


def read_state_dict(path: Path, takes: str) -> dict[str, Tensor]:
    """The tensors, by name, of a state dict that torch saved; what else it holds has no entry.

    Nothing in the file is run. Raises InputError for a file that cannot be read and for a damaged one; its message
    ends with what evaluate.weights `takes`.
    """
    try:
        _check_container(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wonders about a pickle before it refuses it
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
    # A name may be anything in a pickle, and the text of a tuple of tuples of tuples has no end.
    return {name: value for name, value in found.items() if isinstance(name, str) and _is_plain(value)}


def _check_container(path: Path) -> None:
    """Raise ValueError for a file that may become more in memory than it is on the disk."""
    if not (path.is_file() or path.is_dir()):
        path.stat()
        raise ValueError("not a file")  # to open a pipe is to wait for its other end
    with path.open("rb") as file:
        size = path.stat().st_size
        if not 0 < size <= MAX_BYTES:
            raise ValueError("empty or too large")
        # The one thing that a pickle without code can ask for in any size; weights have no use for it.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(b"bytearray") >= 0:
                raise ValueError("bytes of any number")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()  # torch compresses none
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("compressed")
        if sum(member.file_size for member in members) > size:
            raise ValueError("members that overlap")


def _is_plain(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.device.type == "cpu" and value.layout is torch.strided


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
