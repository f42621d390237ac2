"""Samples that come from elsewhere: a folder or a zip of images, to be scored as they are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gan.data.decoding import measure_image, read_image
from gan.data.packed import Images
from gan.data.sources.archive import folder_images, open_archive, read_file
from gan.data.sources.source import UnreadableError
from gan.errors import InputError


@contextmanager
def open_samples(path: Path, image_size: int, channels: int, seed: int) -> Iterator[tuple[int, Iterator[Images]]]:
    """How many images the folder or zip `path` holds, and each of them, H×W×C uint8, in an order of the seed's.

    Scores that are measured on a part of the samples take the first ones, and names often sort by class.

    image_size: the side that all of them must have, in pixels: resizing them here would be part of what is scored.
    channels: 1, grey, or 3, colour; images are converted.

    Raises InputError for a path that is not there, one without images, an image that cannot be read, and one of
    another size.
    """
    if path.is_dir():
        names = folder_images(path)
        yield len(names), _read_all(names, lambda index: read_file(path / names[index]), image_size, channels, seed)
    elif path.exists():
        with open_archive(path) as (names, read):
            yield len(names), _read_all(names, read, image_size, channels, seed)
    else:
        raise InputError(f"{path}: no such file or folder")


def _read_all(
    names: list[str], read: Callable[[int], bytes], image_size: int, channels: int, seed: int
) -> Iterator[Images]:
    for index in np.random.default_rng(seed).permutation(len(names)).tolist():
        name = names[index]
        try:
            file = read(index)
            _check_size(name, measure_image(file), image_size)  # first, as a wrong one may be very large
            image = read_image(file, channels)
        except UnreadableError as error:
            raise InputError(f"{name!r}: {error}; repair or remove it") from None
        _check_size(name, (image.shape[1], image.shape[0]), image_size)
        yield image


def _check_size(name: str, size: tuple[int, int], image_size: int) -> None:
    if size != (image_size, image_size):
        raise InputError(
            f"{name!r} has {size[0]}x{size[1]} pixels, and the real images {image_size}x{image_size}; samples are "
            "scored as they are, so give them all in that size, or change data.image_size"
        )
