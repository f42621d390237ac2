"""A small set of prepared images, and parameters to match."""

from pathlib import Path
from typing import Any

import numpy as np

from gan.data.packed import Manifest, write_manifest, write_split
from gan.params import Params, check_params, load_params
from stages.layout import PREPARED

ROOT = Path(__file__).parents[2]
CLASSES = ["corner, top", "middle", "corner, bottom"]


def marked_squares(count: int, seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels: a bright square on noise, whose place is its class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    images = random.integers(0, 100, (count, 32, 32, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        start = 2 + 10 * label
        image[start : start + 8, start : start + 8] = 250
    return images, labels


def write_prepared(classes: list[str] | None = CLASSES, **counts: int) -> None:
    """Write data/prepared into the current folder, with the given number of images a split."""
    PREPARED.mkdir(parents=True)
    splits = {}
    for seed, (name, count) in enumerate(counts.items()):
        images, labels = marked_squares(count, seed)
        splits[name] = write_split(
            PREPARED, name, images, labels if classes else None, len(classes) if classes else None
        )
    write_manifest(PREPARED, Manifest("folder", {"a.zip": "0" * 32}, 32, 1, None, "bicubic", classes, splits))


def small_params(**evaluate: Any) -> Params:
    """The project's parameters with a short training; `evaluate` overrides keys of that section."""
    document = load_params(ROOT / "params.yaml").model_dump()
    document["reference"] = {"epochs": 3, "batch_size": 8, "lr": 0.002}
    document["evaluate"] |= evaluate
    document["hardware"] |= {"device": "cpu", "threads": 1}
    return check_params(document)
