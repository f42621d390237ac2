"""A folder or a zip of images.

A folder is kept as one uncompressed zip, since one file is quicker to hash and to link than 60,000. Of what it
holds, hidden files, `__MACOSX` and files that are not images are passed over. Folders that all images have in common
mean nothing; below them, either no image is in a sub-folder and the set is unlabelled, or each image is in one
sub-folder, which names its class.
"""

import hashlib
import lzma
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from gan.data.packed import Labels
from gan.data.progress import progress
from gan.data.sources.source import Collection, Request, UnreadableError
from gan.errors import InputError

ARCHIVE = "images.zip"
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
MAX_IMAGE_BYTES = 2**28
"""Largest image file read, unpacked: a few bytes of zip can announce any size."""

ENCRYPTED = 0x1
"""Bit of a zip member's flags."""
PLAIN_FILE = (stat.S_IFREG | 0o644) << 16
UNIX = 3
"""Code for the system that made a zip member; Python would write its own."""


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
        _pack(path, folder / ARCHIVE)
    else:
        if wanted is not None:
            _check_digest(path, wanted)
        with _open_zip(path) as archive:
            for member in archive.infolist():
                _check_member(member, path)
            _classes(list(_images(archive)), path)
        shutil.copyfile(path, folder / ARCHIVE)


@contextmanager
def open_images(folder: Path) -> Iterator[Collection]:
    """The images of the zip that `fetch` put into `folder`, by name; closed at the end of the block."""
    path = folder / ARCHIVE
    with _open_zip(path) as archive:
        members = _images(archive)
        names = list(members)
        labels, classes = _classes(names, path)

        def read(index: int) -> bytes:
            try:
                return archive.read(members[names[index]])
            # What a damaged member raises, by its way of compression.
            except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError) as error:
                raise UnreadableError(f"damaged in the archive: {' '.join(str(error).split())}") from None

        yield Collection(names=names, labels=labels, classes=classes, official_test=None, read=read)


def _pack(folder: Path, target: Path) -> None:
    names = sorted(_image_files(folder))
    _classes(names, folder)
    with zipfile.ZipFile(target, "w") as archive, progress("packing images", len(names), "images") as advance:
        for name in names:
            file = folder / name
            if file.stat().st_size > MAX_IMAGE_BYTES:
                raise InputError(f"{file}: larger than the {MAX_IMAGE_BYTES} bytes allowed for one image")
            member = zipfile.ZipInfo(name)
            member.external_attr = PLAIN_FILE
            member.create_system = UNIX
            archive.writestr(member, file.read_bytes())
            advance(1)


def _image_files(folder: Path) -> Iterator[str]:
    """Names of the images in a folder, relative to it, with forward slashes."""
    for place, folders, files in os.walk(folder, onerror=_refuse):
        relative = Path(place).relative_to(folder)
        folders[:] = [name for name in folders if not _is_ignored(PurePosixPath(name))]
        for name in folders:
            # Followed, a link to a folder above would never end; passed over, its images would silently be missing.
            if (Path(place) / name).is_symlink():
                raise InputError(f"{Path(place) / name}: a link to a folder; link the images, or copy the folder")
        for name in files:
            inner = (relative / name).as_posix()
            if _is_image(inner):
                _check_encodable(inner, folder)
                yield inner


def _refuse(error: OSError) -> None:
    raise error


def _check_encodable(name: str, folder: Path) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{folder}: {name!a} is not a name in UTF-8; rename it") from None


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a zip archive, or a damaged one ({error}); give a zip or a folder") from None


def _check_member(member: zipfile.ZipInfo, path: Path) -> None:
    # Windows' rules split at both slashes and know drives, so they find every way out.
    place = PureWindowsPath(member.filename)
    if place.anchor or ".." in place.parts:
        raise InputError(f"{path}: {member.filename!r} leads out of the archive's folder; the archive is not used")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise InputError(f"{path}: {member.filename!r} is a symbolic link; the archive is not used")
    if member.flag_bits & ENCRYPTED:
        raise InputError(f"{path}: {member.filename!r} is encrypted; give a zip without a password")
    if _is_image(member.filename) and member.file_size > MAX_IMAGE_BYTES:
        raise InputError(
            f"{path}: {member.filename!r} unpacks to {member.file_size} bytes; an image may have {MAX_IMAGE_BYTES}"
        )


def _images(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The archive's images by name, in the order of their names."""
    return {name: archive.getinfo(name) for name in sorted(archive.namelist()) if _is_image(name)}


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not name.endswith("/") and not _is_ignored(path)


def _is_ignored(path: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _classes(names: Sequence[str], origin: Path) -> tuple[Labels, list[str]] | tuple[None, None]:
    """Class of each image and the class names, in alphabetical order; or neither, where there are no sub-folders."""
    if not names:
        raise InputError(f"data.path: {origin} holds no images ({', '.join(sorted(SUFFIXES))})")
    parents = [PurePosixPath(name).parent.parts for name in names]
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


def _check_digest(path: Path, wanted: str) -> None:
    algorithm, _, expected = wanted.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != expected:
        raise InputError(f"{path}: {algorithm.upper()} {found}, but data.checksum is {expected}")
