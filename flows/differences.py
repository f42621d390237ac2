"""How two files differ, and by how much, in the terms of what they hold: elements, pixels, keys, columns, tensors."""

import csv
import json
import math
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open

Array = NDArray[Any]

CHUNK = 1 << 20
"""Elements, or bytes, that are compared at a time."""
DIGEST = re.compile(r"[0-9a-f]{32,}")
UNREADABLE = (
    ValueError, TypeError, KeyError, EOFError, OSError, SyntaxError,
    csv.Error, zipfile.BadZipFile, SafetensorError, Image.DecompressionBombError,
)  # fmt: skip
"""What the readers raise for a file that is not what its name says, or holds what numpy has no type for."""


def file_differences(committed: Path, reproduced: Path, name: str) -> list[str]:
    """How two files of one `name` differ, a line a finding, what matters most first; none if their bytes are the same.

    What cannot be read as what the name says is compared byte by byte.
    """
    in_bytes = _bytes(committed, reproduced)
    compare = _KINDS.get(Path(name).suffix.lower())
    if not in_bytes or compare is None:
        return in_bytes
    try:
        found = compare(committed, reproduced)
    except UNREADABLE:
        return [f"not readable as {Path(name).suffix}: {in_bytes[0]}"]
    return found or [f"the same content, written otherwise: {in_bytes[0]}"]


@dataclass(frozen=True)
class Measure:
    """How far two arrays of one shape are apart."""

    differing: int
    total: int
    largest: float | None
    """The largest absolute difference; infinite where a number is finite in one alone, None without any numbers."""
    scale: float
    """The largest finite magnitude."""

    @property
    def relative(self) -> float:
        """The largest difference as a share of the largest magnitude."""
        return self.largest / self.scale if self.largest and self.scale else self.largest or 0.0


def measure(committed: Array, reproduced: Array) -> Measure:
    """Compare element by element, a chunk at a time; NaN equals NaN. Raises ValueError if the shapes differ."""
    if committed.shape != reproduced.shape:
        raise ValueError(f"shapes {committed.shape} and {reproduced.shape}")
    numeric = all(array.dtype.kind in "biufc" for array in (committed, reproduced))
    differing, largest, scale = 0, 0.0, 0.0
    for x, y in _chunks(committed, reproduced):
        unequal = x != y
        if numeric:
            if x.dtype.kind not in "iu":
                unequal &= ~(np.isnan(x) & np.isnan(y))
            scale = max(scale, _magnitude(x), _magnitude(y))
        differing += int(np.count_nonzero(unequal))
        if numeric and unequal.any():
            largest = max(largest, _distance(x[unequal], y[unequal]))
    return Measure(differing, committed.size, largest if numeric else None, scale)


def _chunks(committed: Array, reproduced: Array) -> Iterator[tuple[Array, Array]]:
    contiguous = committed.flags.c_contiguous and reproduced.flags.c_contiguous
    pair: Any = (committed.reshape(-1), reproduced.reshape(-1)) if contiguous else (committed.flat, reproduced.flat)
    for start in range(0, committed.size, CHUNK):
        x, y = (np.asarray(flat[start : start + CHUNK]) for flat in pair)
        yield _plain(x), _plain(y)


def _plain(array: Array) -> Array:
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def _magnitude(array: Array) -> float:
    if array.dtype.kind in "iu":
        return float(max(int(array.max()), -int(array.min())))
    magnitudes = np.abs(array.astype(np.complex128 if array.dtype.kind == "c" else np.float64))
    return float(np.max(magnitudes, where=np.isfinite(magnitudes), initial=0.0))


def _distance(x: Array, y: Array) -> float:
    if np.result_type(x, y).kind in "iu":
        # In unsigned arithmetic the difference is right even where a signed one would overflow.
        return float(np.max(np.maximum(x, y).astype(np.uint64) - np.minimum(x, y).astype(np.uint64)))
    kind = np.complex128 if "c" in (x.dtype.kind, y.dtype.kind) else np.float64
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(x.astype(kind) - y.astype(kind))
    return float(np.max(np.where(np.isnan(apart), np.inf, apart)))


def share(part: int, total: int, what: str) -> str:
    """`3 of 100 pixels (3%)`."""
    return f"{part:,} of {total:,} {what} ({percent(part / total)})"


def percent(value: float) -> str:
    """A share in percent, to three digits."""
    return f"{100 * value:.3g}%"


def relative(x: float, y: float) -> float:
    """The difference of two numbers as a share of the larger one; infinite where only one is finite."""
    if x == y or (math.isnan(x) and math.isnan(y)):
        return 0.0
    if not (math.isfinite(x) and math.isfinite(y)):
        return math.inf
    larger = max(abs(x), abs(y))
    return abs(x / larger - y / larger)


def _at_most(found: Measure) -> str:
    if found.largest is None:
        return ""
    if math.isinf(found.largest):
        return ", and some are finite in one only"
    return f", by at most {found.largest:.6g} ({percent(found.relative)} of the largest value)"


def _array_file(committed: Path, reproduced: Path) -> list[str]:
    x, y = (np.lib.format.open_memmap(path, mode="r") for path in (committed, reproduced))
    return _array(x, y)


def _array(x: Array, y: Array) -> list[str]:
    if x.shape != y.shape:
        return [f"shape {x.shape} → {y.shape}"]
    found = measure(x, y)
    lines = [f"{share(found.differing, found.total, 'elements')} differ{_at_most(found)}"] if found.differing else []
    return lines + ([f"type {x.dtype} → {y.dtype}"] if x.dtype != y.dtype else [])


def _named_arrays(noun: str, x: Mapping[str, Callable[[], Array]], y: Mapping[str, Callable[[], Array]]) -> list[str]:
    """One finding for all arrays of one shape, and one for each other; each pair is loaded in its turn."""
    lines, found = _only(x, y), {}
    for name in (name for name in x if name in y):
        mine, theirs = x[name](), y[name]()
        if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
            lines += [f"{name}: {line}" for line in _array(mine, theirs)]
        else:
            measured = measure(mine, theirs)
            if measured.differing:
                found[name] = measured
    if found:
        numbers = {name: measured for name, measured in found.items() if measured.largest is not None}
        text = f"{share(len(found), len({*x, *y}), noun)} differ"
        if numbers:
            absolute = max(numbers, key=lambda name: numbers[name].largest or 0.0)
            proportion = max(numbers, key=lambda name: numbers[name].relative)
            if math.isinf(numbers[absolute].largest or 0.0):
                text += f", and some numbers are finite in one only ({absolute})"
            else:
                text += (
                    f", by at most {numbers[absolute].largest:.6g} ({absolute}) and at most "
                    f"{percent(numbers[proportion].relative)} of an array's largest value ({proportion})"
                )
        lines.insert(0, text)
    return lines


def _only(x: Iterable[str], y: Iterable[str]) -> list[str]:
    return [f"{name}: only in what was committed" for name in x if name not in y] + [
        f"{name}: only in what was reproduced" for name in y if name not in x
    ]


def _npz(committed: Path, reproduced: Path) -> list[str]:
    # Unlike np.load, this takes nothing but an archive for one.
    with committed.open("rb") as one, reproduced.open("rb") as other, NpzFile(one) as x, NpzFile(other) as y:
        return _named_arrays("arrays", *({key: _getter(file, key) for key in file.files} for file in (x, y)))


def _getter(file: Any, key: str) -> Callable[[], Array]:  # noqa: ANN401 (numpy's archive)
    return lambda: np.asarray(file[key])


def _safetensors(committed: Path, reproduced: Path) -> list[str]:
    with safe_open(committed, "np") as x, safe_open(reproduced, "np") as y:
        lines = _named_arrays("tensors", *({key: _tensor(file, key) for key in file.keys()} for file in (x, y)))  # noqa: SIM118 (no mapping)
        before, after = x.metadata() or {}, y.metadata() or {}
    return lines + [f"metadata {line}" for line in _values(before, after)]


def _tensor(file: Any, key: str) -> Callable[[], Array]:  # noqa: ANN401 (safetensors has no types)
    return lambda: np.asarray(file.get_tensor(key))


def _image(committed: Path, reproduced: Path) -> list[str]:
    with Image.open(committed) as x, Image.open(reproduced) as y:
        frames = [getattr(image, "n_frames", 1) for image in (x, y)]
        for what, before, after in (
            ("size", "×".join(map(str, x.size)), "×".join(map(str, y.size))),
            ("mode", x.mode, y.mode),
            ("frames", *frames),
        ):
            if before != after:
                return [f"{what} {before} → {after}"]
        pixels = pictures = 0
        largest, full = 0.0, ""
        for number in range(frames[0]):
            x.seek(number)
            y.seek(number)
            before, after = _pixels(x), _pixels(y)
            unequal = before != after
            apart = int(np.count_nonzero(unequal.any(axis=-1) if unequal.ndim == 3 else unequal))
            if apart:
                pixels += apart
                pictures += 1
                largest = max(largest, measure(before, after).largest or 0.0)
                full = f" of {np.iinfo(before.dtype).max}" if before.dtype.kind == "u" else ""
        if not pixels:
            return []
        where = f", in {pictures} of {frames[0]} frames" if frames[0] > 1 else ""
        total = x.size[0] * x.size[1] * frames[0]
        return [f"{share(pixels, total, 'pixels')} differ, by at most {largest:.6g}{full}{where}"]


def _pixels(image: Image.Image) -> Array:
    return np.asarray(image.convert("RGBA") if image.mode in ("P", "PA") else image)


def _json(committed: Path, reproduced: Path) -> list[str]:
    x, y = (dict(leaves(json.loads(path.read_text("utf-8")))) for path in (committed, reproduced))
    return _values(x, y)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 (any JSON)
    """Each number, text or empty container in what JSON or YAML holds, with its place, as `protocol[0].seed`."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def _values(x: Mapping[str, Any], y: Mapping[str, Any]) -> list[str]:
    """Each key whose values differ: texts, then numbers, those furthest apart first, then digests."""
    found = []
    for key in (key for key in x if key in y):
        before, after = x[key], y[key]
        name = f"{key}: " if key else ""
        if _is_number(before) and _is_number(after):
            apart = relative(before, after)
            if apart:
                by = f" ({percent(apart)})" if math.isfinite(apart) else ""
                found.append((apart, f"{name}{before!r} → {after!r}{by}"))
        elif json.dumps(before) != json.dumps(after):
            digests = all(isinstance(value, str) and DIGEST.fullmatch(value) for value in (before, after))
            found.append((-1.0 if digests else math.inf, f"{name}{json.dumps(before)} → {json.dumps(after)}"))
    return [line for _, line in sorted(found, key=lambda entry: -entry[0])] + _only(x, y)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _csv(committed: Path, reproduced: Path) -> list[str]:
    with committed.open(newline="", encoding="utf-8") as x, reproduced.open(newline="", encoding="utf-8") as y:
        before, after = csv.reader(x), csv.reader(y)
        header, header_now = next(before, []), next(after, [])
        if header != header_now:
            return [f"columns {', '.join(header)} → {', '.join(header_now)}"]
        counts, largest = [0, 0], dict.fromkeys(header, 0.0)
        changed = dict.fromkeys(header, 0)
        for row, row_now in zip_longest(before, after):
            counts = [counts[0] + (row is not None), counts[1] + (row_now is not None)]
            if row is None or row_now is None:
                continue
            if len(row) != len(header) or len(row_now) != len(header):
                raise csv.Error("a row is not as long as the header")
            for column, cell, cell_now in zip(header, row, row_now, strict=True):
                if cell != cell_now:
                    apart = _cells_apart(cell, cell_now)
                    changed[column] += apart > 0
                    largest[column] = max(largest[column], apart)
    lines = [f"{counts[0]} rows → {counts[1]} rows"] if counts[0] != counts[1] else []
    for column in sorted(header, key=lambda name: -largest[name]):
        if changed[column]:
            by = "" if math.isinf(largest[column]) else f", by at most {percent(largest[column])}"
            lines.append(f"{column}: {share(changed[column], min(counts), 'rows')} differ{by}")
    return lines


def _cells_apart(x: str, y: str) -> float:
    try:
        return relative(float(x), float(y))
    except ValueError:
        return math.inf


def _bytes(committed: Path, reproduced: Path) -> list[str]:
    sizes = committed.stat().st_size, reproduced.stat().st_size
    same = _common_bytes(committed, reproduced)
    if same == sizes[0] == sizes[1]:
        return []
    size = f"{sizes[0]:,} bytes" + (f" → {sizes[1]:,} bytes" if sizes[0] != sizes[1] else "")
    return [f"{size}, the first {same:,} the same"]


def _common_bytes(committed: Path, reproduced: Path) -> int:
    """How many bytes the files have in common from the beginning on."""
    same = 0
    with committed.open("rb") as x, reproduced.open("rb") as y:
        while (before := x.read(CHUNK)) == (after := y.read(CHUNK)) and before:
            same += len(before)
    pairs = enumerate(zip(before, after, strict=False))
    return same + next((at for at, (one, other) in pairs if one != other), min(len(before), len(after)))


_KINDS: dict[str, Callable[[Path, Path], list[str]]] = {
    ".csv": _csv,
    ".jpeg": _image,
    ".jpg": _image,
    ".json": _json,
    ".npy": _array_file,
    ".npz": _npz,
    ".png": _image,
    ".safetensors": _safetensors,
}
