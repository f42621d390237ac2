"""The networks whose features the scores compare, by the names of `evaluate.extractor`."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan.device import deal
from gan.errors import InputError
from gan.metrics.classifier import load_classifier
from gan.metrics.inception_v3 import load_inception_v3
from gan.metrics.published import exact_convolutions
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


def load_extractors(name: str, folder: Path, devices: Iterable[torch.device]) -> dict[torch.device, Extractor]:
    """The extractor `name` on each of `devices`, as `load_extractor` gives it."""
    return {device: load_extractor(name, folder, device) for device in devices}


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
    extractors: Mapping[torch.device, Extractor],
    batches: Iterable[Tensor],
    count: int,
    advance: Callable[[int], object],
) -> Described:
    """Describe `count` images, which come in batches N×C×H×W, uint8, by the same extractor on one or more devices.

    `advance` is called with the number of each few that are done. Raises InputError for features that are not finite.
    """
    first, *_ = extractors.values()
    features = np.empty((count, first.width), np.float32)
    probabilities: NDArray[np.float64] | None = None
    workers = [partial(_describe, extractor, device) for device, extractor in extractors.items()]
    done = 0
    with exact_convolutions():  # for all threads: it is one switch, and each extractor's own use of it changes nothing
        for found, classes in deal(workers, (few for batch in batches for few in batch.split(first.batch))):
            rows = slice(done, done + len(found))
            features[rows] = found
            if classes is not None:
                if probabilities is None:
                    probabilities = np.empty((count, classes.shape[1]))
                probabilities[rows] = classes
            done += len(found)
            advance(len(found))
    assert done == count
    if not (np.isfinite(features).all() and (probabilities is None or np.isfinite(probabilities).all())):
        raise InputError("the features are not all finite (NaN); the extractor's weights are damaged")
    return features, probabilities


def _describe(extractor: Extractor, device: torch.device, images: Tensor) -> Described:
    features, classes = extractor.describe(images.to(device))
    return features.cpu().numpy(), None if classes is None else classes.cpu().numpy()
