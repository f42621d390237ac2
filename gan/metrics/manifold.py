"""Precision, recall, density and coverage: whether samples lie where real images lie, and the other way round."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gan.metrics.neighbours import blocks, squared_distances


@dataclass(frozen=True)
class ManifoldScores:
    """What each of N samples and M real images adds to a score; the mean of each array is the score."""

    precision: NDArray[np.bool_]
    """Whether the sample lies in the neighbourhood of any real image, N."""
    recall: NDArray[np.bool_]
    """Whether the real image lies in the neighbourhood of any sample, M."""
    density: NDArray[np.float64]
    """Real images in whose neighbourhoods the sample lies, divided by k, N."""
    coverage: NDArray[np.bool_]
    """Whether any sample lies in the neighbourhood of the real image, M."""


def neighbourhood_radii(features: NDArray[np.floating], k: int) -> NDArray[np.float64]:
    """Euclidean distance of each image from its k-th nearest other image: N×D features to N.

    Raises ValueError for another shape, for k below 1, for fewer than k + 1 images and for features that are not
    finite.
    """
    if features.ndim != 2:
        raise ValueError(f"features must be N×D, and have shape {features.shape}")
    if not 1 <= k < len(features):
        raise ValueError(f"{len(features)} images have no {k} nearest others: k must be from 1 to one less than them")
    smallest = np.full((len(features), k + 1), np.inf)  # squared, the image itself among them
    for first in blocks(features):
        for second in blocks(features, first.start):
            distances = squared_distances(first, second)
            _keep_smallest(smallest[first.span], distances)
            if second.start > first.start:
                _keep_smallest(smallest[second.span], distances.T)
    radii: NDArray[np.float64] = np.sqrt(smallest.max(axis=1))
    return radii


def manifold_scores(
    samples: NDArray[np.floating], real: NDArray[np.floating], real_radii: NDArray[np.float64], k: int
) -> ManifoldScores:
    """Precision and recall, density and coverage of N samples beside M real images.

    Precision and recall: Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative
    Models", equations 1 and 2. Density and coverage: Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for
    Generative Models", section 3. As in the latter authors' code, an image at exactly the radius lies outside.
    Precision, recall and coverage are from 0 to 1; density may exceed 1. All change with N, M and k.

    samples: N×D features; real: M×D features; real_radii: `neighbourhood_radii(real, k)`, M.

    Raises ValueError for shapes that do not fit, for fewer than k + 1 images and for features that are not finite.
    """
    if real.ndim != 2 or samples.shape[1:] != real.shape[1:] or real_radii.shape != (len(real),):
        raise ValueError(
            f"samples, real images and radii must be N×D, M×D and M; they are {samples.shape}, {real.shape} "
            f"and {real_radii.shape}"
        )
    if len(real) <= k:
        raise ValueError(f"{len(real)} real images have no {k} nearest others")
    sample_radii = neighbourhood_radii(samples, k)
    counts = np.zeros(len(samples), np.int64)
    recalled = np.zeros(len(real), np.bool_)
    smallest = np.full(len(real), np.inf)
    for sample in blocks(samples):
        for block in blocks(real):
            distances = np.sqrt(squared_distances(sample, block))
            counts[sample.span] += (distances < real_radii[block.span]).sum(axis=1)
            recalled[block.span] |= (distances < sample_radii[sample.span, None]).any(axis=0)
            smallest[block.span] = np.minimum(smallest[block.span], distances.min(axis=0))
    return ManifoldScores(counts > 0, recalled, counts / k, smallest < real_radii)


def _keep_smallest(smallest: NDArray[np.float64], distances: NDArray[np.float64]) -> None:
    kept = smallest.shape[1]
    if distances.shape[1] > kept:
        distances = np.partition(distances, kept - 1, axis=1)[:, :kept]
    smallest[:] = np.partition(np.concatenate([smallest, distances], axis=1), kept - 1, axis=1)[:, :kept]
