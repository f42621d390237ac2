"""The kernel distance between two sets of features: unlike the Fréchet distance, not too large for few images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gan.metrics.neighbours import blocks


@dataclass(frozen=True)
class KernelDistance:
    """The distance as the mean over random subsets."""

    value: float
    """May be slightly below 0, as the estimate is unbiased."""
    spread: float
    """Population standard deviation over the subsets."""
    contributions: NDArray[np.float64]
    """What each sample adds, N, to first order in its weight: their mean is the value."""


def maximum_mean_discrepancy(samples: NDArray[np.floating], real: NDArray[np.floating]) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy with the kernel (x·y/D + 1)³; N×D, M×D.

    Bińkowski et al. 2018, "Demystifying MMD GANs", section 4: called KID only when the features are those of one
    Inception network.

    Raises ValueError for shapes that do not fit, for fewer than two images and for features that are not finite.
    """
    _check(samples, real)
    return _discrepancy(samples, real)[0]


def kernel_distance(
    samples: NDArray[np.floating], real: NDArray[np.floating], *, seed: int, subsets: int = 100, size: int = 1000
) -> KernelDistance:
    """Mean of `maximum_mean_discrepancy` over random subsets of at most `size` images of either set.

    A subset holds min(size, N, M) samples and as many real images, drawn without replacement. If all subsets would
    be the whole sets, there is one.

    The contributions are those of the very subsets that were drawn, with their real images held fixed: a sample in
    several subsets contributes in each of them, one in none contributes the value itself. Where the two distributions
    are all but the same, their spread is somewhat too large (by 15% in the limit), as what is of second order in the
    samples then no longer vanishes beside the first.

    samples: N×D features; real: M×D features.

    Raises ValueError for shapes that do not fit, for fewer than two images, a size below 2, no subsets, and for
    features that are not finite.
    """
    _check(samples, real)
    if size < 2 or subsets < 1:
        raise ValueError(f"{subsets} subsets of {size} images: there must be at least one, of at least 2 images")
    size = min(size, len(samples), len(real))
    if size == len(samples) == len(real):
        value, influences = _discrepancy(samples, real)
        return KernelDistance(value, 0.0, value + influences)
    random = np.random.default_rng(seed)
    values = np.zeros(subsets)
    totals = np.zeros(len(samples))
    for subset in range(subsets):
        chosen, beside = (np.sort(random.choice(len(all_), size, replace=False)) for all_ in (samples, real))
        values[subset], influences = _discrepancy(samples[chosen], real[beside])
        totals[chosen] += influences
    value = float(values.mean())
    return KernelDistance(value, float(values.std()), value + totals * (len(samples) / (size * subsets)))


def _check(samples: NDArray[np.floating], real: NDArray[np.floating]) -> None:
    if samples.ndim != 2 or samples.shape[1:] != real.shape[1:] or min(len(samples), len(real)) < 2:
        raise ValueError(
            f"samples and real images must be N×D and M×D with N and M at least 2; they are {samples.shape} "
            f"and {real.shape}"
        )


def _discrepancy(samples: NDArray[np.floating], real: NDArray[np.floating]) -> tuple[float, NDArray[np.float64]]:
    among_samples, among_real = _means_of_others(samples), _means_of_others(real)
    between = _kernel_sums(samples, real) / len(real)
    value = float(among_samples.mean() + among_real.mean() - 2 * between.mean())
    gains = among_samples - between
    return value, 2 * (gains - gains.mean())


def _means_of_others(features: NDArray[np.floating]) -> NDArray[np.float64]:
    own = np.concatenate([(block.squares / features.shape[1] + 1) ** 3 for block in blocks(features)])
    means: NDArray[np.float64] = (_kernel_sums(features, features) - own) / (len(features) - 1)
    return means


def _kernel_sums(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    sums = np.zeros(len(first))
    for rows in blocks(first):
        for columns in blocks(second):
            kernel = rows.rows @ columns.rows.T
            kernel /= first.shape[1]
            kernel += 1
            sums[rows.span] += (kernel * kernel * kernel).sum(axis=1)
    return sums
