"""The networks whose features the scores compare, by the names of `evaluate.extractor`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gan.data.progress import progress
from gan.metrics.classifier import load_classifier
from gan.metrics.squeezenet import load_squeezenet

Described = tuple[NDArray[np.float32], NDArray[np.float64] | None]
"""Features, N×D, and class probabilities, N×K, where the network gives any."""
Extractor = Callable[[NDArray[np.uint8]], Described]
"""Describes N×H×W×C images."""

SHORT_NAMES = {"classifier": "classifier", "squeezenet1_1": "squeezenet"}
"""What the scores made with each extractor are called after."""

CHUNK = 500
"""Images between steps of the progress."""


def weights_name(name: str) -> str:
    """The file that holds the weights of the extractor `name`."""
    return f"{name}.safetensors"


def load_extractor(name: str, folder: Path, device: torch.device) -> Extractor:
    """The extractor `name`, its weights read from `folder`. Raises ValueError for an unknown name."""
    path = folder / weights_name(name)
    match name:
        case "classifier":
            return load_classifier(path, device).features_and_probabilities
        case "squeezenet1_1":
            squeezenet = load_squeezenet(path, device)
            return lambda images: (squeezenet.features(images), None)
    raise ValueError(f"no extractor is named {name!r}")


def describe(extractor: Extractor, images: NDArray[np.uint8], label: str) -> Described:
    """Describe many images, a memory map if they are large, and show the progress under `label`."""
    parts = []
    with progress(label, len(images), "images") as advance:
        for start in range(0, len(images), CHUNK):
            parts.append(extractor(images[start : start + CHUNK]))
            advance(len(parts[-1][0]))
    probabilities = [part for _, part in parts if part is not None]
    return np.concatenate([part for part, _ in parts]), np.concatenate(probabilities) if probabilities else None
