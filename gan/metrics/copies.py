"""Whether a generator has learned its training images by heart: samples that are all but copies of one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gan.metrics.neighbours import blocks, nearest, squared_distances

SAME = 1e-5
"""Distance, as a share of two images' lengths, that is none: features of equal images in unequal batches differ by
some 1e-6."""


@dataclass(frozen=True)
class NearCopies:
    """What each of Q queries owes to the training image nearest to it."""

    copies: NDArray[np.bool_]
    """Whether the query is a near copy, Q: their mean is the share of near copies."""
    indices: NDArray[np.int64]
    """The nearest training image, Q; the first of several equally near."""
    distances: NDArray[np.float64]
    """Euclidean distance from it, Q."""


def near_copies(queries: NDArray[np.number], training: NDArray[np.number]) -> NearCopies:
    """Which queries lie at most half as far from their nearest training image as that one lies from any other.

    "Any other" is the nearest training image that differs from it: images that stand twice in the training set are
    copied most readily, and would otherwise have no neighbourhood at all. An exact copy always counts.

    queries: Q×D features or Q×H×W×C pixels; training: N×D or N×H×W×C, N at least 2. Both of any real type, as
    memory maps if large.

    Raises ValueError for fewer than two training images, for shapes that do not fit and for values that are not
    finite.
    """
    if len(training) < 2:
        raise ValueError(f"near copies are told from at least 2 training images, and there are {len(training)}")
    indices, distances = nearest(queries, training)
    hit, which = np.unique(indices, return_inverse=True)
    radii = _distances_to_what_differs(training[hit], training)
    return NearCopies(distances <= radii[which] / 2, indices, distances)


def _distances_to_what_differs(images: NDArray[np.number], training: NDArray[np.number]) -> NDArray[np.float64]:
    smallest = np.full(len(images), np.inf)
    for image in blocks(images):
        for block in blocks(training):
            distances = squared_distances(image, block)
            same = SAME**2 * (image.squares[:, None] + block.squares)
            distances[distances <= same] = np.inf
            smallest[image.span] = np.minimum(smallest[image.span], distances.min(axis=1))
    return np.sqrt(np.where(np.isinf(smallest), 0.0, smallest))  # none if all training images are the same
