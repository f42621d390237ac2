"""The packed image set: one uint8 array a split, its labels, and a manifest.

60,000 small files are slow to hash, to link and to read; one array opened by memory map is not.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan.errors import InputError

Images = NDArray[np.uint8]
"""Images, N×H×W×C, 0 to 255."""
Labels = NDArray[np.int64]
"""Class indices, N."""

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Skipped:
    """An image that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Split:
    """One split's size and content: `md5` is of the file `NAME.npy`, as `md5sum` and dvc.lock have it."""

    count: int
    md5: str
    labels_md5: str | None
    class_counts: Sequence[int] | None


@dataclass(frozen=True)
class Manifest:
    """What the arrays beside it hold, and how they were made."""

    source: str
    """Where the images come from, as `data.source`."""
    source_md5: Mapping[str, str]
    """Digest of each file of the source."""
    image_size: int
    """Side in pixels."""
    channels: int
    crop: int | None
    """Side in pixels of the centre crop taken first; null: the largest centred square."""
    resize: str
    """Resampling method."""
    classes: Sequence[str] | None
    """Class names, in label order; null: unlabelled."""
    splits: Mapping[str, Split]
    skipped: Sequence[Skipped] = field(default_factory=list)
    published_images: int | None = None
    """How many images the whole source holds, of which these may be a part; null: there is no such whole."""
    value_range: tuple[int, int] = (0, 255)
    layout: str = "N,H,W,C uint8"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into `folder`."""
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Read what `write_manifest` wrote. Raises InputError for a damaged one."""
    path = folder / MANIFEST
    try:
        values: dict[str, Any] = json.loads(path.read_text())
        values["splits"] = {name: Split(**split) for name, split in values["splits"].items()}
        values["skipped"] = [Skipped(**item) for item in values["skipped"]]
        values["value_range"] = tuple(values["value_range"])
        return Manifest(**values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(f"{path} is damaged; prepare the data again, with dvc repro --force prepare") from None


@contextmanager
def image_writer(folder: Path, name: str, shape: tuple[int, int, int]) -> Iterator[Callable[[Images], None]]:
    """Write `NAME.npy` image by image, for sets that do not fit into memory; call what is yielded with each, H×W×C.

    The file has the bytes that `np.save` writes.
    """
    count = 0

    def write_header() -> int:
        header = {"shape": (count, *shape), "fortran_order": False, "descr": "|u1"}
        np.lib.format.write_array_header_1_0(file, header)
        return file.tell()

    def append(image: Images) -> None:
        nonlocal count
        assert image.shape == shape
        assert image.dtype == np.uint8
        file.write(np.ascontiguousarray(image).data)
        count += 1

    with (folder / f"{name}.npy").open("wb") as file:
        size = write_header()
        yield append
        # How many images there are is known only now; numpy leaves room for it in the header.
        file.seek(0)
        assert write_header() == size


def finish_split(folder: Path, name: str, count: int, labels: Labels | None, n_classes: int | None) -> Split:
    """Write `NAME_labels.npy` beside `NAME.npy`, where there are labels; return the split's entry in the manifest."""
    md5 = file_md5(folder / f"{name}.npy")
    if labels is None or n_classes is None:
        return Split(count, md5, None, None)
    labels_path = folder / f"{name}_labels.npy"
    np.save(labels_path, labels)
    counts = np.bincount(labels, minlength=n_classes).tolist()
    return Split(count, md5, file_md5(labels_path), counts)


def read_images(folder: Path, name: str) -> Images:
    """A split's images, N×H×W×C uint8, as a read-only memory map. Raises InputError for a damaged file."""
    return _load(folder / f"{name}.npy", np.uint8, 4)


def read_labels(folder: Path, name: str) -> Labels:
    """A split's class indices, N. Raises InputError for a damaged file."""
    return np.array(_load(folder / f"{name}_labels.npy", np.int64, 1))


def _load(path: Path, dtype: type[np.generic], dimensions: int) -> NDArray[Any]:
    """An array as a read-only memory map, so that a header cannot announce more than the file holds."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of a shape beyond all numbers
            array = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - its header is read as a Python literal, and raises whatever that does
        raise InputError(
            f"{path} is damaged ({error}); run the stage that wrote it again, with dvc repro --force"
        ) from None
    if array.dtype != dtype or array.ndim != dimensions:
        raise InputError(
            f"{path} holds {array.dtype} of {array.ndim} dimensions, not {np.dtype(dtype)} of {dimensions}; run the "
            "stage that wrote it again, with dvc repro --force"
        )
    return array


def file_md5(path: Path) -> str:
    """MD5 of a file's bytes, as hexadecimal digits; the digest that DVC records too."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
