"""Image files in one zip, which is quicker to hash and to link than 60,000 files.

Of what a folder or a zip holds, hidden files, `__MACOSX` and files that are not images are passed over.
"""

import hashlib
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from gan.data.progress import progress
from gan.data.sources.source import UnreadableError
from gan.errors import InputError

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
MAX_IMAGE_BYTES = 2**28
"""Largest image file read, unpacked: a few bytes of zip can announce any size."""

DAMAGED_MEMBER = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
    UnicodeDecodeError,
)
"""What reading a damaged zip member raises, by its way of compression."""
ENCRYPTED = 0x1
"""Bit of a zip member's flags."""
PLAIN_FILE = (stat.S_IFREG | 0o644) << 16
UNIX = 3
"""Code for the system that made a zip member; Python would write its own."""


def folder_images(folder: Path) -> list[str]:
    """Names of the images in a folder, relative to it, with forward slashes, sorted.

    Raises InputError for a folder without images, a link to a folder, and a name that is not UTF-8.
    """
    names = sorted(_image_files(folder))
    _check_some(names, folder)
    return names


def zip_images(path: Path) -> list[str]:
    """Names of the images in a zip, sorted.

    Raises InputError for a zip without images, and for a damaged or unsafe one.
    """
    with _open_zip(path) as archive:
        for member in archive.infolist():
            _check_member(member, path)
        names = list(_members(archive))
    _check_some(names, path)
    return names


def pack(folder: Path, names: Sequence[str], target: Path) -> None:
    """Write the images of a folder into one zip, uncompressed: the same bytes wherever it is made."""
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


@contextmanager
def open_archive(path: Path) -> Iterator[tuple[list[str], Callable[[int], bytes]]]:
    """The names of the images in a zip, sorted, and what reads the file at a position, or raises UnreadableError."""
    with _open_zip(path) as archive:
        members = _members(archive)
        names = list(members)

        def read(index: int) -> bytes:
            try:
                return archive.read(members[names[index]])
            except DAMAGED_MEMBER as error:
                raise UnreadableError(f"damaged in the archive: {' '.join(str(error).split())}") from None

        yield names, read


def check_digest(path: Path, wanted: str) -> None:
    """Raise InputError unless `wanted`, `md5:…` or `sha256:…`, is the file's digest."""
    algorithm, _, expected = wanted.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != expected:
        raise InputError(f"{path}: {algorithm.upper()} {found}, but data.checksum is {expected}")


def _image_files(folder: Path) -> Iterator[str]:
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


def _check_some(names: Sequence[str], origin: Path) -> None:
    if not names:
        raise InputError(f"{origin} holds no images ({', '.join(sorted(SUFFIXES))})")


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


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The archive's images by name, in the order of their names."""
    return {name: archive.getinfo(name) for name in sorted(archive.namelist()) if _is_image(name)}


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not name.endswith("/") and not _is_ignored(path)


def _is_ignored(path: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
