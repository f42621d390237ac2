"""Whole splits of the packed image set, for tests."""

from pathlib import Path

import numpy as np

from gan.data.packed import Images, Labels, Split, finish_split


def write_split(folder: Path, name: str, images: Images, labels: Labels | None, n_classes: int | None) -> Split:
    """Write `NAME.npy` and, for labelled images, `NAME_labels.npy`; return the split's entry in the manifest."""
    np.save(folder / f"{name}.npy", images)
    return finish_split(folder, name, len(images), labels, n_classes)
