"""All scores of one set of features against real images', each a mean over images, with its interval."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gan.metrics.bootstrap import interval
from gan.metrics.frechet import feature_diversity, feature_statistics, frechet_contributions, frechet_distance
from gan.metrics.inception import inception_contributions, inception_score
from gan.metrics.kernel import kernel_distance
from gan.metrics.manifold import manifold_scores, neighbourhood_radii
from gan.seeds import derive_seed

KERNEL_SUBSETS = 100
KERNEL_SUBSET_SIZE = 1000
"""As in Binkowski et al. 2018 and the tools that follow it."""
NEIGHBOURS = 5
"""k of precision, recall, density and coverage, as in Naeem et al. 2020."""
MANIFOLD_IMAGES = 10_000
"""Images of each side, at most and the first ones, that those four are measured on; the cost grows with the square."""

COPY_SAMPLES = 1_000
"""Samples, the first ones, that are looked up among the training images."""
SAMPLES_PER_FEATURE = 2
"""Samples for each feature from which on a Fréchet distance has an interval."""
LEVEL = 0.95
RESAMPLES = 1000
"""Of the bootstrap intervals."""

Features = NDArray[np.float32]
"""N×D, as a read-only memory map if they are many."""
Vector = NDArray[np.float64]
Probabilities = NDArray[np.float64]
"""N×K, rows that sum to 1."""


@dataclass(frozen=True)
class Real:
    """What is computed once of the real images that samples are compared with."""

    features: Features
    mean: Vector
    cov: NDArray[np.float64]
    """D×D."""
    radii: Vector
    """Distance of each of the first `MANIFOLD_IMAGES` to its `NEIGHBOURS`-th neighbour among them."""


@dataclass(frozen=True)
class Scores:
    """Scores by name, and the 95 % interval of each that has one."""

    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]


def score_names(label: str) -> tuple[str, str]:
    """What the Fréchet and the kernel distance in the features of a network are called.

    FID and KID are those of the FID network alone, whose `label` is `fid`.
    """
    return ("FID", "KID") if label == "fid" else (f"{label}-FD", f"{label}-KD")


def describe_real(features: Features) -> Real:
    """Statistics of N×D features, N above `NEIGHBOURS`."""
    mean, cov = feature_statistics(features)
    return Real(features, mean, cov, neighbourhood_radii(features[:MANIFOLD_IMAGES], NEIGHBOURS))


def write_real(folder: Path, split: str, real: Real) -> None:
    """Write `SPLIT_features.npy` and `SPLIT_statistics.npz` into `folder`."""
    np.save(folder / f"{split}_features.npy", real.features)
    np.savez(folder / f"{split}_statistics.npz", mean=real.mean, cov=real.cov, radii=real.radii)


def read_real(folder: Path, split: str) -> Real:
    """Read what `write_real` wrote, the features as a memory map."""
    features: Features = np.load(folder / f"{split}_features.npy", mmap_mode="r")
    with np.load(folder / f"{split}_statistics.npz") as file:
        return Real(features, file["mean"], file["cov"], file["radii"])


def score(
    features: Features, probabilities: Probabilities | None, real: Real, *, label: str, splits: int, seed: int
) -> Scores:
    """Every score of samples' features, N×D, and of their class probabilities where there are any.

    label: of the network that made them, which names the distances.
    splits: parts for the Inception Score.
    seed: of the kernel distance's subsets and the intervals' resamples.

    An interval is over draws of the samples, the real images being as they are; those of recall and coverage, which
    are shares of the real images, are over draws of these. The bias of a Fréchet distance is not in its interval, and
    below `SAMPLES_PER_FEATURE` samples for each feature, where it is mostly that, it has none. Neither has a score to
    which all images contribute the same, unless it is a share.
    """
    values: dict[str, float] = {}
    contributions: dict[str, Vector | NDArray[np.bool_]] = {}
    frechet, kernel = score_names(label)

    if probabilities is not None:
        values["inception_score"], values["inception_score_std"] = inception_score(probabilities, splits)
        contributions["inception_score"] = inception_contributions(probabilities, splits)

    mean, cov = feature_statistics(features)
    if len(features) >= SAMPLES_PER_FEATURE * features.shape[1]:
        contributions[frechet] = frechet_contributions(features, real.mean, real.cov)
        values[frechet] = float(contributions[frechet].mean())
    else:
        values[frechet] = frechet_distance(mean, cov, real.mean, real.cov)

    distance = kernel_distance(
        features,
        real.features,
        seed=derive_seed(seed, "kernel distance"),
        subsets=KERNEL_SUBSETS,
        size=KERNEL_SUBSET_SIZE,
    )
    values[kernel] = distance.value
    if max(len(features), len(real.features)) > KERNEL_SUBSET_SIZE:  # else every subset is the whole
        values[f"{kernel}_std"] = distance.spread
    contributions[kernel] = distance.contributions

    manifold = manifold_scores(features[:MANIFOLD_IMAGES], real.features[:MANIFOLD_IMAGES], real.radii, NEIGHBOURS)
    contributions |= {
        "precision": manifold.precision,
        "recall": manifold.recall,
        "density": manifold.density,
        "coverage": manifold.coverage,
    }
    for name in ("precision", "recall", "density", "coverage"):
        values[name] = float(contributions[name].mean())
    values["feature_diversity"] = feature_diversity(cov, real.cov)
    intervals = {
        name: interval(each, derive_seed(seed, "bootstrap", name), LEVEL, RESAMPLES)
        for name, each in contributions.items()
        if each.dtype == bool or np.any(each != each[0])
    }
    return Scores(values, intervals)
