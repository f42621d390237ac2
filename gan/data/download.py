"""Downloads that survive a broken connection, and a server that is not what it should be."""

import fcntl
import hashlib
import http.client
import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import BaseAdapter

from gan.data.progress import progress
from gan.errors import InputError, one_line

LOG = logging.getLogger(__name__)

ATTEMPTS = 5
TIMEOUT = (10, 60)
"""Seconds to connect, and between two pieces of the answer."""
PIECE = 2**16
MAX_BYTES = 2**28
"""Longest download: over twice the largest file that is fetched in this way, Inception v3's weights of 109 MB."""
WINDOW = 60.0
SLOWEST = 1000.0
"""Over so many seconds, so many bytes a second must come on average: a timeout alone lets a server trickle for ever."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""This machine itself, to which nobody listens in: plain http goes there and nowhere else."""
DIGEST = re.compile(r"(md5|sha256):[0-9a-f]{6,64}")


class _RefusedError(Exception):
    """An answer that is not taken; the message says why."""


def download(urls: Sequence[str], path: Path, digest: str, use: str, first_wait: float = 1.0) -> None:
    """Bring a file from the first of its mirrors that works to `path`, unless it is there already.

    The file grows under the name `path.part`, goes on from where a broken connection or a killed process left it, and
    is renamed when its digest is right: `md5:…` or `sha256:…`, of which the beginning is enough. Attempts go round the
    mirrors, with waits of `first_wait` seconds, doubled each time. All of it goes over https, redirections too; only a
    server on this machine may speak http. Raises InputError after the last attempt, and where the disk is full; its
    message ends with `use`, how to use a file that was fetched in another way.
    """
    assert DIGEST.fullmatch(digest), digest
    partial = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path):
            if path.exists() and wrong_digest(path, digest) is None:
                return
            for attempt in range(ATTEMPTS):
                url = urls[attempt % len(urls)]
                reason = _attempt(url, partial, digest)
                if reason is None:
                    partial.replace(path)
                    return
                if attempt < ATTEMPTS - 1:
                    wait = first_wait * 2**attempt
                    LOG.warning("%s: %s; trying again in %g s", url, reason, wait)
                    time.sleep(wait)
    except OSError as error:
        raise InputError(
            f"{partial}: {error.strerror or error}; put that right and run it again, or fetch {path.name} in another "
            f"way and {use}"
        ) from None
    raise InputError(
        f"{url}: {reason}, in the last of {ATTEMPTS} attempts; try again later, or fetch {path.name} in another way "
        f"and {use}"
    )


def _attempt(url: str, partial: Path, digest: str) -> str | None:
    """Fetch what is missing from `partial`; what is wrong with it then, or None: nothing.

    What was fetched stays for the next attempt, unless it is no beginning of the file.
    """
    try:
        _continue(url, partial)
    except (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException) as error:
        return describe_failure(error)
    except _RefusedError as error:
        return str(error)
    except ValueError as error:  # an address that a redirection names, and that cannot be taken apart
        return describe_failure(error)
    wrong = wrong_digest(partial, digest)
    if wrong is not None:
        partial.unlink()
    return wrong


def _continue(url: str, partial: Path) -> None:
    """Fetch what is missing from `partial`, or all of it from a server that knows no ranges."""
    start = partial.stat().st_size if partial.exists() else 0
    # Any encoding would have to be undone, and the bytes would no longer be those of the archive.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with _Session(url) as session, session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if start and response.status_code == requests.codes.requested_range_not_satisfiable:
            return
        response.raise_for_status()
        goes_on = response.status_code == requests.codes.partial_content
        if goes_on and not re.match(rf"bytes {start}-", response.headers.get("Content-Range", "")):
            partial.unlink(missing_ok=True)  # so that the next attempt asks for all of it
            raise _RefusedError("the server sends another part of the file than it was asked for")
        start = start if goes_on else 0
        total = start + (response.raw.length_remaining or 0)
        with (
            partial.open("ab" if goes_on else "wb") as file,
            progress(partial.stem, min(total, MAX_BYTES), "B", done=start) as advance,
        ):
            for piece in _pieces(response.raw):
                start += len(piece)
                if max(start, total) > MAX_BYTES:
                    partial.unlink()
                    raise _RefusedError(f"the server sends more than the {MAX_BYTES} bytes allowed")
                file.write(piece)
                advance(len(piece))


def _pieces(raw: urllib3.response.BaseHTTPResponse) -> Iterator[bytes]:
    """The bytes of an answer's body just as they come, whatever encoding its header names."""
    began, came = time.monotonic(), 0
    while piece := raw.read1(PIECE, decode_content=False):
        yield piece
        came += len(piece)
        taken = time.monotonic() - began
        if taken > WINDOW:
            if came < SLOWEST * taken:
                raise requests.Timeout
            began, came = time.monotonic(), 0


class _Session(requests.Session):
    """Speaks http to no other machine, wherever it is redirected, and to none at all if it began with https."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._plain = urlsplit(url).scheme == "http"

    def get_adapter(self, url: str) -> BaseAdapter:
        """What sends a request to `url`, asked again for each redirection."""
        place = urlsplit(url)
        if place.scheme != "https" and not (self._plain and place.scheme == "http" and place.hostname in LOOPBACK):
            raise _RefusedError(f"it leads to {one_line(url, 200)}, and downloads go over https alone")
        return super().get_adapter(url)


def wrong_digest(path: Path, digest: str) -> str | None:
    """What is wrong with a file whose digest should begin as `digest`, `md5:…` or `sha256:…`; None: nothing."""
    algorithm, _, beginning = digest.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    if found.startswith(beginning):
        return None
    rest = "…" if len(beginning) < len(found) else ""
    return f"the file's {algorithm.upper()} is {found}, not {beginning}{rest}"


def describe_failure(error: Exception) -> str:
    """The reason without the addresses and nested causes that requests puts into its messages."""
    if isinstance(error, requests.HTTPError):
        return one_line(f"the server answers {error.response.status_code} {error.response.reason}", 100)
    return f"the connection failed ({type(error).__name__})"


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process downloads to `path`: experiments run side by side, and share their downloads."""
    with path.with_name(f"{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
