"""Images in MNIST's IDX format: big-endian header, then unsigned bytes, gzipped or plain.

A folder holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and, where there is an official test split, the
same two as `t10k-…`, each with or without `.gz`.
"""

import gzip
import io
import math
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gan.data.sources.source import Collection, Request
from gan.errors import InputError

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

UNSIGNED_BYTE = 0x08
"""Third byte of the magic number: the type of the values. The fourth is the number of dimensions."""
MAX_BYTES = 2**30
"""What both pairs may hold together, unpacked: they are read whole, and a few bytes of gzip can announce any size."""
MAX_IMAGES = 2**21
"""Most images of a pair; a gzip of a kilobyte can hold a million of one pixel."""
MAX_SIDE = 4096
"""Largest side of an image, in pixels."""


def fetch(request: Request, folder: Path) -> None:
    """Copy the two or four files from `request.path` into `folder`, once they are verified.

    Raises InputError for a missing, damaged or mismatching file.
    """
    if request.path is None:
        raise InputError("data.path: null, but data.source idx reads a local folder; give its path")
    copy_files(find_files(request.path), folder)


def find_files(path: Path) -> dict[str, Path]:
    """The files of an IDX folder, by their name without `.gz`; an archive is preferred to its unpacked twin.

    Raises InputError where the train pair is incomplete or the test pair is there by half.
    """
    if not path.is_dir():
        raise InputError(f"data.path: {path}: no such folder")
    found = {}
    for name in (*TRAIN, *TEST):
        for candidate in (path / f"{name}.gz", path / name):
            if candidate.is_file():
                found[name] = candidate
                break
    needed = TRAIN if found.keys().isdisjoint(TEST) else (*TRAIN, *TEST)
    for name in needed:
        if name not in found:
            raise InputError(f"data.path: {path} holds no {name} or {name}.gz")
    return found


def copy_files(files: dict[str, Path], folder: Path) -> None:
    """Verify the structure of the files that `find_files` found, then copy them into the empty `folder`."""
    read_pairs(files)
    for file in files.values():
        shutil.copyfile(file, folder / file.name)


def open_images(folder: Path) -> Collection:
    """The images that `fetch` put into `folder`: the train pair, then the official test pair where there is one."""
    pairs = read_pairs(find_files(folder))
    values = np.concatenate([labels for _, labels in pairs.values()])
    present, labels = np.unique(values, return_inverse=True)
    positions, train = np.arange(len(values)), len(pairs["train"][0])

    def read(index: int) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = pairs["train"][0][index] if index < train else pairs["t10k"][0][index - train]
        return image

    return Collection(
        names=[f"{pair}/{index}" for pair, (_, values) in pairs.items() for index in range(len(values))],
        labels=labels.astype(np.int64),
        classes=[str(value) for value in present],
        read=read,
        official_splits={"train": positions[:train], "test": positions[train:]} if "t10k" in pairs else {},
    )


def read_pairs(files: dict[str, Path]) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Images, N×H×W, and labels, N, by the name of their pair: `train` and, if it is there, `t10k`.

    Raises InputError for a damaged file and for files that do not match.
    """
    pairs = {}
    allowed = MAX_BYTES
    for images_name, labels_name in (TRAIN, TEST):
        if images_name in files:
            images, labels = read_idx(files[images_name], 3, allowed), read_idx(files[labels_name], 1, MAX_IMAGES)
            allowed -= images.size
            if len(images) != len(labels):
                raise InputError(
                    f"{files[images_name]} holds {len(images)} images, but {files[labels_name].name} beside it "
                    f"{len(labels)} labels"
                )
            pairs[images_name.partition("-")[0]] = (images, labels)
    return pairs


def read_idx(path: Path, dimensions: int, allowed: int = MAX_BYTES) -> NDArray[np.uint8]:
    """The whole of an IDX file of unsigned bytes, which must have so many `dimensions` and at most `allowed` bytes.

    Raises InputError for another magic number, an absurd size, and a file that is damaged, cut short or too long.
    """
    try:
        with path.open("rb") as plain:
            if path.suffix != ".gz":
                return _parse(plain, path, dimensions, allowed)
            with gzip.open(plain) as unpacked:
                return _parse(unpacked, path, dimensions, allowed)
    except EOFError:
        raise InputError(f"{path}: the archive is cut short; fetch it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: not a gzip archive, or a damaged one ({error}); fetch it again") from None


def _parse(file: io.BufferedIOBase, path: Path, dimensions: int, allowed: int) -> NDArray[np.uint8]:
    size = 4 * (1 + dimensions)
    header = file.read(size)
    if len(header) < size:
        raise InputError(f"{path}: cut short within its header; fetch it again")
    magic, *shape = struct.unpack(f">{1 + dimensions}I", header)
    expected_magic = UNSIGNED_BYTE << 8 | dimensions
    if magic != expected_magic:
        raise InputError(
            f"{path}: magic number {magic:#010x}, but an IDX file of {dimensions}-dimensional unsigned bytes starts "
            f"with {expected_magic:#010x}"
        )
    count = math.prod(shape)
    if not 0 < count <= allowed or shape[0] > MAX_IMAGES or any(side > MAX_SIDE for side in shape[1:]):
        raise InputError(
            f"{path}: its header announces {'×'.join(map(str, shape))} values; allowed are 1 to {allowed} in all, and "
            f"at most {MAX_IMAGES} images of at most {MAX_SIDE} pixels a side"
        )
    # One byte more than announced: a longer file shows, and gzip checks its digest only at the end.
    content = file.read(count + 1)
    if len(content) != count:
        holds = f"only {len(content)}" if len(content) < count else "more"
        raise InputError(f"{path}: its header announces {count} values, and it holds {holds}; fetch it again")
    return np.frombuffer(content, np.uint8).reshape(shape)
