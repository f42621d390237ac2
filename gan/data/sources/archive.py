"""Image files in one zip, which is quicker to hash and to link than 60,000 files.

Of what a folder or a zip holds, hidden files, `__MACOSX` and files that are not images are passed over.
"""

import hashlib
import io
import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path, PureWindowsPath

from gan.data.progress import progress
from gan.data.sources.source import UnreadableError
from gan.errors import InputError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MAX_IMAGE_BYTES = 2**26
"""Largest image file read, unpacked: a few bytes of zip can announce any size."""
MAX_LIST_BYTES = 2**27
"""Longest list of members read, over a million: in memory, it is some ten times as large."""
PIECE = 2**12
"""Compressed bytes that are unpacked at a time: some of them become 80 MB."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
"""Ways of compression whose faults `DAMAGED_MEMBER` lists."""
LOCAL_HEADER = 30
"""Bytes before a member's content, at least."""

DAMAGED_MEMBER = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    struct.error,
)
"""What reading a damaged zip member raises, by its way of compression and what its own header says."""
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
    with open_archive(path) as (names, _):
        return names


def pack(folder: Path, names: Sequence[str], target: Path) -> None:
    """Write the images of a folder into one zip, uncompressed: the same bytes wherever it is made."""
    with zipfile.ZipFile(target, "w") as archive, progress("packing images", len(names), "images") as advance:
        for name in names:
            member = zipfile.ZipInfo(name)
            member.external_attr = PLAIN_FILE
            member.create_system = UNIX
            archive.writestr(member, read_file(folder / name))
            advance(1)


def read_file(path: Path) -> bytes:
    """The bytes of an image file. Raises InputError for one that is too large, and for what is no file."""
    # To open a pipe is to wait for its other end, and a device never ends.
    if not path.is_file():
        path.stat()
        raise InputError(f"{path} is not a file; remove it")
    with path.open("rb") as file:
        content = file.read(MAX_IMAGE_BYTES + 1)
    if len(content) > MAX_IMAGE_BYTES:
        raise InputError(f"{path}: larger than the {MAX_IMAGE_BYTES} bytes allowed for one image")
    return content


@contextmanager
def open_archive(path: Path) -> Iterator[tuple[list[str], Callable[[int], bytes]]]:
    """The names of the images in a zip, sorted, and what reads the file at a position, or raises UnreadableError.

    Raises InputError as `zip_images` does.
    """
    with _open_zip(path) as archive:
        for member in archive.infolist():
            _check_member(member, path)
        members = sorted(
            (member for member in archive.infolist() if _is_image(member.filename)), key=lambda member: member.filename
        )
        _check_apart(members, path)
        names = [member.filename for member in members]
        _check_some(names, path)

        def read(index: int) -> bytes:
            try:
                with archive.open(members[index]) as file:
                    # Read at once, a member that announces little and holds much is unpacked whole before it is cut.
                    return b"".join(iter(partial(file.read, PIECE), b""))
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
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                path = place / entry.name
                inner = path.relative_to(folder).as_posix()
                if not entry.is_dir():
                    if _is_image(inner):
                        _check_encodable(inner, folder)
                        yield inner
                elif not _is_ignored(entry.name):
                    # Followed, a link to a folder above would never end; passed over, its images would be missing.
                    if entry.is_symlink():
                        raise InputError(f"{path}: a link to a folder; link the images, or copy the folder")
                    waiting.append(path)


def _check_encodable(name: str, folder: Path) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{folder}: {name!a} is not a name in UTF-8; rename it") from None


def _check_some(names: Sequence[str], origin: Path) -> None:
    if not names:
        raise InputError(f"{origin} holds no images ({', '.join(SUFFIXES)})")


class _ZipReader(io.FileIO):
    """A zip's bytes; a list of members is the only long piece that is ever read of it at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_LIST_BYTES:
            raise zipfile.BadZipFile(f"a list of members of {size} bytes; {MAX_LIST_BYTES} are allowed")
        content = super().read(size)
        assert content is not None
        return content


@contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: neither a zip archive nor a folder; give one of them")
    with _ZipReader(path) as file:
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error) as error:
            raise InputError(f"{path}: not a zip archive, or a damaged one ({error}); give a zip or a folder") from None
        with archive:
            yield archive


def _check_member(member: zipfile.ZipInfo, path: Path) -> None:
    if _leads_out(member.filename):
        raise InputError(f"{path}: {member.filename!r} leads out of the archive's folder; the archive is not used")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise InputError(f"{path}: {member.filename!r} is a symbolic link; the archive is not used")
    if member.flag_bits & ENCRYPTED:
        raise InputError(f"{path}: {member.filename!r} is encrypted; give a zip without a password")
    if not _is_image(member.filename):
        return
    if member.file_size > MAX_IMAGE_BYTES:
        raise InputError(
            f"{path}: {member.filename!r} unpacks to {member.file_size} bytes; an image may have {MAX_IMAGE_BYTES}"
        )
    if member.compress_type not in METHODS:
        raise InputError(
            f"{path}: {member.filename!r} is compressed by method {member.compress_type}; pack it by deflate, or give "
            "a folder"
        )


def _check_apart(members: Sequence[zipfile.ZipInfo], path: Path) -> None:
    """Raise InputError where images share a name, or bytes: so a small zip can hold any number of large images."""
    for member, following in pairwise(members):  # sorted by name
        if member.filename == following.filename:
            raise InputError(f"{path}: it holds {member.filename!r} more than once; the archive is not used")
    for member, following in pairwise(sorted(members, key=lambda member: member.header_offset)):
        if member.header_offset + LOCAL_HEADER + member.compress_size > following.header_offset:
            raise InputError(f"{path}: {member.filename!r} and {following.filename!r} overlap; the archive is not used")


def _leads_out(name: str) -> bool:
    if not any(mark in name for mark in ("..", "\\", ":")):  # most names by far, of which there may be a million
        return name.startswith("/")
    # Windows' rules split at both slashes and know drives, so they find every way out.
    place = PureWindowsPath(name)
    return bool(place.anchor) or ".." in place.parts


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not any(map(_is_ignored, name.split("/")))


def _is_ignored(part: str) -> bool:
    """Whether a file or folder of this name is passed over."""
    return (part.startswith(".") and part != ".") or part == "__MACOSX"
