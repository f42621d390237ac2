import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom

from gan.metrics import (
    feature_statistics,
    frechet_contributions,
    inception_contributions,
    interval,
    kernel_distance,
    manifold_scores,
    neighbourhood_radii,
)

Draw = Callable[[np.random.Generator], np.ndarray]
"""Contributions of the score of samples newly drawn."""


def frechet_draw(count: int, shift: float, scale: float) -> Draw:
    real = feature_statistics(np.random.default_rng(100).normal(size=(2000, 4)))
    return lambda random: frechet_contributions(random.normal(shift, scale, (count, 4)), *real)


def kernel_draw(count: int, shift: float, size: int) -> Draw:
    real = np.random.default_rng(100).normal(size=(400, 4))
    return lambda random: (
        kernel_distance(random.normal(shift, 1, (count, 4)), real, seed=0, subsets=20, size=size).contributions
    )


def inception_draw(count: int, splits: int) -> Draw:
    return lambda random: inception_contributions(random.dirichlet(np.full(5, 0.3), count), splits)


def precision_draw() -> Draw:
    real = np.random.default_rng(100).normal(size=(200, 4))
    radii = neighbourhood_radii(real, 5)
    return lambda random: manifold_scores(random.normal(0.5, 1, (200, 4)), real, radii, 5).precision


def density_draw() -> Draw:
    real = np.random.default_rng(100).normal(size=(200, 4))
    radii = neighbourhood_radii(real, 5)
    return lambda random: manifold_scores(random.normal(0.5, 1, (200, 4)), real, radii, 5).density


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(frechet_draw(400, 0.5, 1.3), id="frechet-shifted"),
        pytest.param(frechet_draw(400, 0, 1.5), id="frechet-wider"),
        pytest.param(kernel_draw(400, 0.3, 400), id="kernel-whole"),
        pytest.param(kernel_draw(500, 0.3, 100), id="kernel-subsets"),
        pytest.param(inception_draw(500, 1), id="inception"),
        pytest.param(inception_draw(503, 10), id="inception-parts"),
        pytest.param(precision_draw(), id="precision"),
        pytest.param(density_draw(), id="density"),
    ],
)
def test_intervals_are_as_wide_as_the_scores_of_new_samples_spread(draw: Draw) -> None:
    contributions = [draw(np.random.default_rng(seed)) for seed in range(200)]
    scores = np.array([each.mean() for each in contributions])
    intervals = np.array([interval(each, 0, resamples=300) for each in contributions])
    half_width = np.diff(intervals, axis=1).mean() / 2
    assert half_width == pytest.approx(1.96 * scores.std(), rel=0.15)
    covered = (intervals[:, 0] < scores.mean()) & (scores.mean() < intervals[:, 1])
    assert covered.mean() > 0.9


@pytest.mark.parametrize("draw", [frechet_draw(400, 0, 1), kernel_draw(400, 0, 400)])
def test_intervals_are_too_wide_but_not_widely_where_there_is_no_difference(draw: Draw) -> None:
    contributions = [draw(np.random.default_rng(seed)) for seed in range(200)]
    spread = np.std([each.mean() for each in contributions])
    half_width = np.mean([np.diff(interval(each, 0, resamples=300)) for each in contributions]) / 2
    assert 0.95 < half_width / (1.96 * spread) < 1.6


def test_interval_of_a_share_is_the_binomial_one() -> None:
    low, high = interval(np.arange(400) < 100, 0)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 * 0.75 / 400), rel=0.05)
    assert binom.cdf(100, 400, high) == pytest.approx(0.025)
    assert binom.sf(99, 400, low) == pytest.approx(0.025)


def test_the_more_of_a_kind_the_higher_its_share() -> None:
    ends = [interval(np.arange(50) < count, 0) for count in range(51)]
    assert (np.diff(ends, axis=0) > 0).all()


def test_a_lower_level_gives_a_narrower_interval() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    low, high = interval(values, 0, level=0.6827, resamples=4000)
    assert (high - low) / 2 == pytest.approx(values.std() / np.sqrt(1000), rel=0.05)


def test_the_seed_decides() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert interval(values, 3) == interval(values, 3)
    assert interval(values, 3) != interval(values, 4)


def test_contributions_without_spread_are_both_ends() -> None:
    assert interval([2.5], 0) == (2.5, 2.5)
    assert interval([1.0, 1.0, 1.0], 0) == (1, 1)


def test_a_share_of_none_or_all_may_be_chance() -> None:
    """Clopper and Pearson: the share at which so many in a row are seen in a fortieth of the draws."""
    low, high = interval([False] * 100, 0)
    assert low == 0
    assert (1 - high) ** 100 == pytest.approx(0.025)
    low, high = interval([True] * 3, 0, level=0.9)
    assert high == 1
    assert low**3 == pytest.approx(0.05)


def test_many_contributions_take_little_memory() -> None:
    values = np.random.default_rng(0).normal(size=50_000)
    tracemalloc.start()
    low, high = interval(values, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / np.sqrt(50_000), rel=0.1)
    assert peak < 200e6


@pytest.mark.parametrize("contributions", [[], [1.0, np.nan], [[1.0, 2.0]]])
def test_refuses_what_are_no_contributions(contributions: list[float]) -> None:
    with pytest.raises(ValueError, match="contributions must be N finite numbers"):
        interval(contributions, 0)


@pytest.mark.parametrize(("level", "resamples"), [(0.0, 10), (1.0, 10), (0.5, 0)])
def test_refuses_impossible_intervals(level: float, resamples: int) -> None:
    with pytest.raises(ValueError, match="an interval of level"):
        interval([1.0, 2.0], 0, level, resamples)
