"""What every source takes and gives."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gan.data.packed import Labels
from gan.errors import InputError, one_line

RECORD = "source.json"
LONGEST_REASON = 300
"""Characters of what is said of one image."""

Indices = NDArray[np.int64]
"""Positions in a collection."""


@dataclass(frozen=True)
class Request:
    """What to fetch."""

    path: Path | None
    """The user's own folder or archive; null: the source's usual place."""
    checksum: str | None
    """`published`: the digests the source publishes, where it does; `md5:…` or `sha256:…`: of the archive at
    `path`; null: unchecked."""
    downloads: Path
    """Folder where verified downloads stay, for other experiments to use."""


@dataclass(frozen=True)
class Collection:
    """The images of a source, in a fixed order."""

    names: Sequence[str]
    """What each image is called in messages and in the manifest."""
    labels: Labels | None
    """Class of each image, an index into `classes`; null: unlabelled."""
    classes: Sequence[str] | None
    """Class names, in label order."""
    read: Callable[[int], bytes | NDArray[np.uint8]]
    """The image at a position: an encoded file, or grey pixels, H×W. Raises UnreadableError."""
    official_splits: Mapping[str, Indices] = field(default_factory=dict)
    """The source's own splits, by name; `train` is one of them, unless there are none."""
    published_images: int | None = None
    """How many images the whole source holds, of which this may be a part; null: there is no such whole."""


class UnreadableError(Exception):
    """An image that cannot be used; the message is the reason, in one short line."""

    def __init__(self, reason: str) -> None:
        super().__init__(one_line(reason, LONGEST_REASON))


@dataclass(frozen=True)
class Record:
    """What was fetched: the `source.json` beside the files of a source."""

    source: str
    """As `data.source`."""
    files: Mapping[str, str]
    """MD5 of each file, by name."""


def write_record(folder: Path, record: Record) -> None:
    """Write `source.json` into `folder`."""
    (folder / RECORD).write_text(json.dumps(asdict(record), indent=2, sort_keys=True) + "\n")


def read_record(folder: Path) -> Record:
    """Read what `write_record` wrote; raises InputError where nothing was fetched, and for a damaged record."""
    path = folder / RECORD
    try:
        record = Record(**json.loads(path.read_text("utf-8")))
        if {*map(type, (record.source, *record.files, *record.files.values()))} != {str}:
            raise TypeError
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; fetch the data first, with dvc repro fetch") from None
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path} is damaged; fetch the data again, with dvc repro --force fetch") from None
    return record
