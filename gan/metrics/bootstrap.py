"""Confidence intervals of scores."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest

DRAWS = 4_000_000
"""Contributions drawn at a time: 50 MB."""


def interval(contributions: ArrayLike, seed: int, level: float = 0.95, resamples: int = 1000) -> tuple[float, float]:
    """Interval of the mean of the contributions: of truths the binomial one, of numbers a percentile bootstrap.

    Efron 1979, "Bootstrap Methods: Another Look at the Jackknife", of scores that are, exactly or to first order, a
    mean over images: the interval is over draws of those images, all else held fixed. The same seed gives the same
    interval. Numbers that are all alike have no spread: the mean is both ends. Of shares, which may be of none or all,
    Clopper and Pearson 1934, "The Use of Confidence or Fiducial Limits", is exact.

    contributions: N, numbers or truths; level: 0 to 1, both excluded.

    Raises ValueError for no contributions, for values that are not finite, and for an impossible level.
    """
    given = np.asarray(contributions)
    values = given.astype(np.float64)
    if values.ndim != 1 or not len(values) or not np.all(np.isfinite(values)):
        raise ValueError(f"contributions must be N finite numbers with N at least 1, and have shape {values.shape}")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"an interval of level {level} from {resamples} resamples: the level must be within 0 and 1")
    if given.dtype == bool:
        exact = binomtest(int(given.sum()), len(given)).proportion_ci(level)
        return float(exact.low), float(exact.high)
    random = np.random.default_rng(seed)
    means = np.zeros(resamples)
    step = max(1, DRAWS // len(values))
    for start in range(0, resamples, step):
        part = means[start : start + step]
        part[:] = values[random.integers(len(values), size=(len(part), len(values)), dtype=np.int32)].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
