"""Brings a source's native files, verified, into a folder."""

from collections.abc import Callable
from pathlib import Path

from gan.data.packed import file_md5
from gan.data.sources import celeba, folder, idx, mnist, mnist_5k
from gan.data.sources.source import Record, Request, write_record
from gan.errors import InputError

SOURCES: dict[str, Callable[[Request, Path], None]] = {
    "mnist-5k": mnist_5k.fetch,
    "mnist": mnist.fetch,
    "idx": idx.fetch,
    "celeba": celeba.fetch,
    "folder": folder.fetch,
}
"""How each source is fetched, by `data.source`."""


def fetch_source(source: str, request: Request, out: Path) -> None:
    """Fetch a source into the empty folder `out`, with a `source.json` that names its files and their MD5.

    All structure is verified here. Raises InputError for anything wrong with the user's files or the download; what
    is in `out` then is of no use.
    """
    try:
        SOURCES[source](request, out)
    except OSError as error:
        raise InputError(f"{error.filename or out}: {error.strerror or error}") from error
    write_record(out, Record(source, {file.name: file_md5(file) for file in sorted(out.iterdir())}))
