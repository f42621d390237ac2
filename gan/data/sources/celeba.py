"""CelebA: 202,599 aligned faces, from Google Drive or a local copy, or any part of them."""

import logging
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gdown
import requests

from gan.data.download import alone, describe_failure
from gan.data.packed import file_md5
from gan.data.sources.archive import check_digest, folder_images, pack, zip_images
from gan.data.sources.celeba_layout import ARCHIVE, ATTRIBUTES, FOLDER, PARTITION, check_texts, plain_names
from gan.data.sources.source import Request
from gan.errors import InputError

LOG = logging.getLogger(__name__)

UNPACKED = Path(ARCHIVE).stem
"""The archive's folder, where it is unpacked."""
FOLDER_OF_TORCHVISION = "celeba"
"""Where torchvision keeps it all, below the root that its users name."""

MD5 = {
    ARCHIVE: "00d2c5bc6d35e252742224ab0c1e8fcb",
    PARTITION: "d32c9cbf5e040fd4025c592c306e6668",
    ATTRIBUTES: "75e246fa4810816ffd6ee81facbd244c",
}
"""Digest of each file, as torchvision has it."""
DRIVE = {
    ARCHIVE: "0B7EVK8r0v71pZjFTYXZWM3FlRnM",
    PARTITION: "0B7EVK8r0v71pY0NSMzRuSXJEVkk",
    ATTRIBUTES: "0B7EVK8r0v71pblRyaVFSWGxPY0U",
}
"""Where each file is on Google Drive."""
TIMEOUT = (10, 60)
"""Seconds to connect, and between two pieces of the answer."""
RETRIES = 4
MAX_BYTES = 2**31
"""Longest download; the archive has 1.44 GB."""
STALLED = 600.0
"""Seconds in which one more piece of gdown's, 512 KiB, must come: a timeout alone lets a server trickle for ever."""


class _TooLongError(Exception):
    """More comes than any of the files holds."""


def fetch(request: Request, folder: Path) -> None:
    """Bring the archive, the partition and the attributes into `folder`: downloaded, or what is at `request.path`.

    The path is the archive, or a folder that holds it, or a folder of the images themselves, which become an archive
    of the same bytes wherever it is made; the text files lie beside the archive or beside the folder's images.
    Downloads are always checked against the published digests, files at the path if `checksum` is `published`. Raises
    InputError for a failed download, a wrong digest, a damaged or unsafe archive, and text files that do not match it.
    """
    if request.path is None:
        images, texts = _download_all(request.downloads / "celeba")
    else:
        images, texts = _find(request.path)
    if images.is_dir():
        _fetch_folder(images, request.checksum, folder / ARCHIVE)
    else:
        if request.path is not None and request.checksum == "published":
            _check_published(images, ARCHIVE, "set data.checksum to null to use a part of CelebA")
        elif request.checksum not in (None, "published"):
            check_digest(images, request.checksum)
        zip_images(images)
        shutil.copyfile(images, folder / ARCHIVE)
    for text in texts:
        if request.path is not None and request.checksum == "published":
            _check_published(text, text.name, "set data.checksum to null to use it all the same")
        shutil.copyfile(text, folder / text.name)
    check_texts(folder, images, {text.name: text for text in texts})


def _download_all(downloads: Path) -> tuple[Path, list[Path]]:
    """The archive and the text files, downloaded unless they are there already."""
    downloads.mkdir(parents=True, exist_ok=True)
    for name in (PARTITION, ATTRIBUTES, ARCHIVE):
        _download(name, downloads / name)
    return downloads / ARCHIVE, [downloads / PARTITION, downloads / ATTRIBUTES]


def _download(name: str, path: Path) -> None:
    """Bring a file from Google Drive to `path`, unless it is there already.

    gdown lets it grow under a name of its own, from where a broken connection or a killed process left it, and calls it
    `path.part` when it is complete; it is renamed when its MD5 is right.
    """
    with alone(path):
        if path.exists() and file_md5(path) == MD5[name]:
            return
        partial = path.with_name(f"{name}.part")
        LOG.info("fetching %s from Google Drive", name)
        reason = _fetch_from_drive(DRIVE[name], partial)
        if reason is None:
            found = file_md5(partial)
            if found == MD5[name]:
                partial.replace(path)
                return
            _discard(partial)
            reason = f"the file's MD5 is {found}, not {MD5[name]}"
    raise InputError(
        f"{name}: {reason}; try again later, or fetch {ARCHIVE}, {PARTITION} and {ATTRIBUTES} by hand from {FOLDER} "
        f"(Img, Eval, Anno), put them into one folder and set data.path to it"
    )


def _fetch_from_drive(identity: str, partial: Path) -> str | None:
    """Bring a file to `partial`, or what is left of it; why that failed, or None: it did not."""
    try:
        with _watched() as (progress, cancel):
            gdown.download(
                id=identity,
                output=str(partial),
                quiet=not sys.stderr.isatty(),
                use_cookies=False,
                resume=True,
                timeout=TIMEOUT,
                retries=RETRIES,
                progress=progress,
                cancel=cancel,
            )
    except gdown.exceptions.FileURLRetrievalError:
        reason = "Google Drive does not give it out now, as when too many people have fetched it of late"
    except requests.RequestException as error:
        reason = describe_failure(error)
    except gdown.exceptions.DownloadCancelled:
        reason = f"less than 512 KiB came in {STALLED:g} seconds"
    except gdown.exceptions.DownloadError as error:
        if isinstance(error.__cause__, requests.RequestException):
            reason = describe_failure(error.__cause__)
        else:
            # Drive would not go on where the file ends; tried once more, it must begin anew.
            _discard(partial)
            reason = " ".join(str(error).split())
    except _TooLongError:
        _discard(partial)
        reason = f"Google Drive sends more than the {MAX_BYTES} bytes allowed"
    except OSError as error:
        reason = f"{error.filename or partial.parent}: {error.strerror or error}"
    # gdown takes Drive's pages and headers apart as it expects them, and raises whatever it stumbles over.
    except Exception as error:  # noqa: BLE001
        reason = f"Google Drive's answer is not understood ({type(error).__name__})"
    else:
        return None
    return reason


@contextmanager
def _watched() -> Iterator[tuple[Callable[[int, int | None], None], threading.Event]]:
    """What gdown is to call with the bytes so far and in all, and the event that ends it when none come."""
    cancel, done = threading.Event(), threading.Event()
    so_far = 0

    def progress(count: int, total: int | None) -> None:
        nonlocal so_far
        so_far = count
        if max(count, total or 0) > MAX_BYTES:
            raise _TooLongError

    def watch() -> None:
        seen = -1
        while not done.wait(STALLED):
            if so_far == seen:
                cancel.set()
            seen = so_far

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield progress, cancel
    finally:
        done.set()
        watcher.join()


def _discard(partial: Path) -> None:
    for file in partial.parent.glob(f"{partial.name}*"):
        file.unlink()


def _find(path: Path) -> tuple[Path, list[Path]]:
    """The archive, or the folder of the images, and the text files that are there."""
    if not path.exists():
        raise InputError(f"data.path: {path}: no such file or folder")
    if (path / FOLDER_OF_TORCHVISION).is_dir() and not (path / ARCHIVE).is_file():
        path = path / FOLDER_OF_TORCHVISION
    if path.is_file():
        images, places = path, [path.parent]
    elif (path / ARCHIVE).is_file():
        images, places = path / ARCHIVE, [path]
    elif (path / UNPACKED).is_dir():
        images, places = path / UNPACKED, [path]
    else:
        images, places = path, [path, path.parent] if path.name == UNPACKED else [path]
    found = [[place / name for place in places if (place / name).is_file()] for name in (PARTITION, ATTRIBUTES)]
    return images, [files[0] for files in found if files]


def _fetch_folder(images: Path, checksum: str | None, target: Path) -> None:
    if checksum is not None:
        raise InputError(f"data.checksum: {checksum} is of one archive, and {images} is a folder of images; use null")
    names = folder_images(images)
    plain_names(names, images)
    pack(images, names, target)


def _check_published(file: Path, name: str, otherwise: str) -> None:
    found = file_md5(file)
    if found != MD5[name]:
        raise InputError(
            f"{file}: MD5 {found}, but the official {name} has {MD5[name]}; fetch it again, or {otherwise}"
        )
