"""Downloads that survive a broken connection."""

import fcntl
import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

from gan.data.progress import progress
from gan.errors import InputError

LOG = logging.getLogger(__name__)

ATTEMPTS = 5
TIMEOUT = (10, 60)
"""Seconds to connect, and between two pieces of the answer."""
PIECE = 2**16


def download(urls: Sequence[str], path: Path, digest: str, use: str, first_wait: float = 1.0) -> None:
    """Bring a file from the first of its mirrors that works to `path`, unless it is there already.

    The file grows under the name `path.part`, goes on from where a broken connection or a killed process left it, and
    is renamed when its digest is right: `md5:…` or `sha256:…`, of which the beginning is enough. Attempts go round the
    mirrors, with waits of `first_wait` seconds, doubled each time. Raises InputError after the last attempt; its
    message ends with `use`, how to use a file that was fetched in another way.
    """
    partial = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path):
        if path.exists() and wrong_digest(path, digest) is None:
            return
        for attempt in range(ATTEMPTS):
            url = urls[attempt % len(urls)]
            try:
                _continue(url, partial)
            except requests.RequestException as error:
                reason = describe_failure(error)
            else:
                wrong = wrong_digest(partial, digest)
                if wrong is None:
                    partial.replace(path)
                    return
                partial.unlink()
                reason = wrong
            if attempt < ATTEMPTS - 1:
                wait = first_wait * 2**attempt
                LOG.warning("%s: %s; trying again in %g s", url, reason, wait)
                time.sleep(wait)
    raise InputError(
        f"{url}: {reason}, in the last of {ATTEMPTS} attempts; try again later, or fetch {path.name} in another way "
        f"and {use}"
    )


def _continue(url: str, partial: Path) -> None:
    """Fetch what is missing from `partial`, or all of it from a server that knows no ranges."""
    start = partial.stat().st_size if partial.exists() else 0
    # Any encoding would be undone on the way, and the bytes would no longer be those of the archive.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if start and response.status_code == requests.codes.requested_range_not_satisfiable:
            return
        response.raise_for_status()
        goes_on = response.status_code == requests.codes.partial_content
        start = start if goes_on else 0
        total = start + int(response.headers.get("Content-Length", 0))
        with (
            partial.open("ab" if goes_on else "wb") as file,
            progress(partial.stem, total, "B", done=start) as advance,
        ):
            for piece in response.iter_content(PIECE):
                file.write(piece)
                advance(len(piece))


def wrong_digest(path: Path, digest: str) -> str | None:
    """What is wrong with a file whose digest should begin as `digest`, `md5:…` or `sha256:…`; None: nothing."""
    algorithm, _, beginning = digest.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    if found.startswith(beginning):
        return None
    rest = "…" if len(beginning) < len(found) else ""
    return f"the file's {algorithm.upper()} is {found}, not {beginning}{rest}"


def describe_failure(error: requests.RequestException) -> str:
    """The reason without the addresses and nested causes that requests puts into its messages."""
    if isinstance(error, requests.HTTPError):
        return f"the server answers {error.response.status_code} {error.response.reason}"
    return f"the connection failed ({type(error).__name__})"


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process downloads to `path`: experiments run side by side, and share their downloads."""
    with path.with_name(f"{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
