"""A folder or a zip of images.

A folder is kept as one uncompressed zip. Folders that all images have in common mean nothing; below them, either no
image is in a sub-folder and the set is unlabelled, or each image is in one sub-folder, which names its class.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import numpy as np

from gan.data.packed import Labels
from gan.data.sources.archive import check_digest, folder_images, open_archive, pack, zip_images
from gan.data.sources.source import Collection, Request
from gan.errors import InputError

ARCHIVE = "images.zip"


def fetch(request: Request, folder: Path) -> None:
    """Bring the images at `request.path` into `folder` as one zip: a copy of a zip, or a plain folder's images.

    The zip of a folder holds the same bytes wherever it is made. Raises InputError for a wrong checksum, a damaged or
    unsafe archive, a folder without images, and one whose classes are not clear.
    """
    path = request.path
    if path is None:
        raise InputError("data.path: null, but data.source folder reads a local folder or zip; give its path")
    if not path.exists():
        raise InputError(f"data.path: {path}: no such file or folder")
    wanted = None if request.checksum == "published" else request.checksum
    if path.is_dir():
        if wanted is not None:
            raise InputError(f"data.checksum: {wanted} is of one archive, and data.path {path} is a folder; use null")
        names = folder_images(path)
        _classes(names, path)
        pack(path, names, folder / ARCHIVE)
    else:
        if wanted is not None:
            check_digest(path, wanted)
        _classes(zip_images(path), path)
        shutil.copyfile(path, folder / ARCHIVE)


@contextmanager
def open_images(folder: Path) -> Iterator[Collection]:
    """The images of the zip that `fetch` put into `folder`, by name; closed at the end of the block."""
    path = folder / ARCHIVE
    with open_archive(path) as (names, read):
        labels, classes = _classes(names, path)
        yield Collection(names, labels, classes, read)


def _classes(names: Sequence[str], origin: Path) -> tuple[Labels, list[str]] | tuple[None, None]:
    """Class of each image and the class names, in alphabetical order; or neither, where there are no sub-folders."""
    parents = [tuple(part for part in name.split("/")[:-1] if part not in ("", ".")) for name in names]
    common = _common_depth(parents)
    inner = [parts[common:] for parts in parents]
    if all(not parts for parts in inner):
        return None, None
    for name, parts in zip(names, inner, strict=True):
        if len(parts) != 1:
            where = "in no sub-folder" if not parts else f"in {'/'.join(parts)}"
            raise InputError(
                f"data.path: {origin}: {name!r} is {where}; the images must all lie together, or each in one "
                f"sub-folder that names its class"
            )
    labelled = [parts[0] for parts in inner]
    classes, labels = np.unique(np.array(labelled), return_inverse=True)
    return labels.astype(np.int64), [str(name) for name in classes]


def _common_depth(parents: Sequence[tuple[str, ...]]) -> int:
    """How many leading folders all have in common: as many as the first and the last in order."""
    pairs = zip(min(parents), max(parents), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
