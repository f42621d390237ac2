"""The networks whose features the scores compare, by the names of `evaluate.extractor`."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan.errors import InputError
from gan.metrics.classifier import load_classifier
from gan.metrics.inception_v3 import load_inception_v3
from gan.metrics.squeezenet import load_squeezenet

Described = tuple[NDArray[np.float32], NDArray[np.float64] | None]
"""Features, N×D, and class probabilities, N×K, where the network gives any."""


class Extractor(Protocol):
    """A network that describes images."""

    @property
    def batch(self) -> int:
        """Images at a time."""

    @property
    def width(self) -> int:
        """Number of features, D."""

    def describe(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features, N×D float32, and class probabilities, N×K float64, if any, of images N×C×H×W, uint8."""


def weights_name(name: str) -> str:
    """The file that holds the weights of the extractor `name`."""
    return f"{name}.safetensors"


def load_extractor(name: str, folder: Path, device: torch.device) -> Extractor:
    """The extractor `name`, its weights read from `folder`. Raises ValueError for an unknown name."""
    path = folder / weights_name(name)
    match name:
        case "classifier":
            return load_classifier(path, device)
        case "inception_v3":
            return load_inception_v3(path, device)
        case "squeezenet1_1":
            return load_squeezenet(path, device)
    raise ValueError(f"no extractor is named {name!r}")


def describe(
    extractor: Extractor, batches: Iterable[Tensor], count: int, advance: Callable[[int], object]
) -> Described:
    """Describe `count` images, which come in batches N×C×H×W, uint8, on the extractor's device.

    `advance` is called with the number of each few that are done. Raises InputError for features that are not finite.
    """
    features = np.empty((count, extractor.width), np.float32)
    probabilities: NDArray[np.float64] | None = None
    done = 0
    for batch in batches:
        for images in batch.split(extractor.batch):
            found, classes = extractor.describe(images)
            rows = slice(done, done + len(images))
            features[rows] = found.cpu().numpy()
            if classes is not None:
                if probabilities is None:
                    probabilities = np.empty((count, classes.shape[1]))
                probabilities[rows] = classes.cpu().numpy()
            done += len(images)
            advance(len(images))
    assert done == count
    if not (np.isfinite(features).all() and (probabilities is None or np.isfinite(probabilities).all())):
        raise InputError("the features are not all finite (NaN); the extractor's weights are damaged")
    return features, probabilities
