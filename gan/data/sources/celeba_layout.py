"""The files of CelebA: the archive of aligned faces, the official partition and the 40 attributes.

The two text files may be missing, and the archive may hold a part of the images that they list.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from gan.data.packed import Labels
from gan.data.sources.archive import open_archive
from gan.data.sources.source import Collection, Indices
from gan.errors import InputError

ARCHIVE = "img_align_celeba.zip"
PARTITION = "list_eval_partition.txt"
ATTRIBUTES = "list_attr_celeba.txt"

FOLDER = "https://drive.google.com/drive/folders/0B7EVK8r0v71pWEZsZE9oNnFzTm8?resourcekey=0-5BR16BdXnb8hVj6CNHKzLg"
"""Where the files are to be had by hand."""
IMAGES = 202_599
"""Images of the whole archive."""
MAX_TEXT_BYTES = 2**26
MAX_LINES = 2**20
"""Longest text file read; the official ones have 27 MB and 202,601 lines."""
SPLITS = {"0": "train", "1": "validation", "2": "test"}
"""The partition's codes."""


@contextmanager
def open_images(folder: Path, attribute: str | None) -> Iterator[Collection]:
    """The images that `fetch` put into `folder`, by name; closed at the end of the block.

    `attribute` labels each image with 1 where it has it and 0 where not; None: they are unlabelled. Raises InputError
    for an attribute that is not among those of the attributes' file, and where that file is missing.
    """
    with open_archive(folder / ARCHIVE) as (members, read):
        names = plain_names(members, folder / ARCHIVE)
        labels = None if attribute is None else _read_labels(folder / ATTRIBUTES, names, attribute)
        yield Collection(
            names=names,
            labels=labels,
            classes=None if attribute is None else [f"not {attribute}", attribute],
            read=read,
            official_splits=_read_splits(folder / PARTITION, names) if (folder / PARTITION).exists() else {},
            published_images=IMAGES,
        )


def check_texts(folder: Path, images: Path, origins: Mapping[str, Path]) -> None:
    """Hold the text files in `folder` against its archive; messages name the user's own files, `origins`."""
    with open_archive(folder / ARCHIVE) as (members, _):
        names = plain_names(members, images)
    if PARTITION in origins:
        for split, indices in _read_splits(origins[PARTITION], names).items():
            if len(indices) == 0:
                raise InputError(
                    f"{origins[PARTITION]}: none of the {len(names)} images of {images.name} is in the official "
                    f"{split} split; use more of them, or take the file away and set data.validation_fraction and "
                    f"data.test_fraction"
                )
    if ATTRIBUTES in origins:
        _, rows = _read_attributes(origins[ATTRIBUTES])
        _check_listed(names, rows, origins[ATTRIBUTES])


def plain_names(members: Iterable[str], origin: Path) -> list[str]:
    """The images' own names, as the text files have them: those of the archive without their common folder."""
    paths = [PurePosixPath(member) for member in members]
    for path in paths:
        if path.parent != paths[0].parent:
            raise InputError(
                f"data.path: {origin}: {str(path)!r} and {str(paths[0])!r} are in different folders; CelebA's images "
                f"must all lie together"
            )
    return [path.name for path in paths]


def _read_splits(path: Path, names: list[str]) -> dict[str, Indices]:
    """The official splits of the named images, as positions among them, from lines such as `000001.jpg 0`."""
    codes: dict[str, str] = {}
    for number, line in enumerate(_lines(path), 1):
        name, *rest = line.split() or [""]
        if len(rest) != 1 or rest[0] not in SPLITS:
            raise InputError(
                f"{path}, line {number}: {_shorten(line)} is not an image's name and its split, 0 (train), "
                f"1 (validation) or 2 (test)"
            )
        if name in codes:
            raise InputError(f"{path}, line {number}: {name!r} is listed for the second time")
        codes[name] = rest[0]
    _check_listed(names, codes, path)
    ours = np.array([codes[name] for name in names])
    return {split: np.flatnonzero(ours == code) for code, split in SPLITS.items()}


def _read_labels(path: Path, names: list[str], attribute: str) -> Labels:
    """1 for each of the named images that has the attribute, 0 for each that has not."""
    if not path.exists():
        raise InputError(
            f"data.attribute: {attribute!r} needs {ATTRIBUTES}, and none was fetched; fetch it by hand from {FOLDER} "
            f"(Anno), put it beside the images at data.path, and run dvc repro --force fetch"
        )
    attributes, rows = _read_attributes(path)
    if attribute not in attributes:
        raise InputError(f"data.attribute: {attribute!r} is not one of {', '.join(attributes)}")
    _check_listed(names, rows, path)
    column = attributes.index(attribute)
    return np.array([rows[name][column] for name in names], np.int64)


def _read_attributes(path: Path) -> tuple[list[str], dict[str, bytes]]:
    """The attributes' names, and for each image a byte each: 1 where it has the attribute, 0 where not.

    The first line of the file is the number of images, the second the attributes' names; then follow lines of an
    image's name and -1 or 1 for each attribute.
    """
    lines = _lines(path)
    announced, header = [*lines, "", ""][:2]
    attributes = header.split()
    if not attributes or len(set(attributes)) != len(attributes):
        raise InputError(f"{path}, line 2: {_shorten(header)} is not a list of different attributes")
    rows: dict[str, bytes] = {}
    for number, line in enumerate(lines[2:], 3):
        name, *values = line.split() or [""]
        if len(values) != len(attributes) or values.count("1") + values.count("-1") != len(values):
            raise InputError(
                f"{path}, line {number}: {_shorten(line)} is not an image's name and {len(attributes)} times -1 or 1"
            )
        if name in rows:
            raise InputError(f"{path}, line {number}: {name!r} is listed for the second time")
        rows[name] = bytes(map("1".__eq__, values))
    if announced.strip() != str(len(rows)):
        raise InputError(
            f"{path}, line 1: {_shorten(announced)} is not the number of images, of which {len(rows)} follow; "
            f"fetch the file again"
        )
    return attributes, rows


def _lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        content = file.read(MAX_TEXT_BYTES + 1)
    # Bytes that are no text make their line malformed, which is told with its number.
    lines = content.decode("utf-8", errors="replace").splitlines() if len(content) <= MAX_TEXT_BYTES else []
    if len(content) > MAX_TEXT_BYTES or len(lines) > MAX_LINES:
        raise InputError(f"{path}: more than {MAX_TEXT_BYTES} bytes or {MAX_LINES} lines; fetch the file again")
    return lines


def _shorten(line: str) -> str:
    return repr(line if len(line) <= 60 else f"{line[:60]}…")


def _check_listed(names: list[str], listed: Mapping[str, object], path: Path) -> None:
    missing = [name for name in names if name not in listed]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of the archive's {len(names)} images are not listed, as {missing[0]!r}; fetch the "
            "file again, or take it away"
        )
