import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from gan.metrics import (
    feature_diversity,
    feature_statistics,
    frechet_contributions,
    frechet_distance,
    neighbours,
)

Gaussian = tuple[np.ndarray, np.ndarray]


def random_gaussian(size: int, rank: int, seed: int) -> Gaussian:
    random = np.random.default_rng(seed)
    root = random.normal(size=(size, rank))
    return random.normal(size=size), root @ root.T


def test_isotropic_gaussians() -> None:
    assert frechet_distance(np.zeros(4), np.eye(4), np.array([1.0, 2, 3, 4]), 4 * np.eye(4)) == pytest.approx(34)


def test_covariances_that_do_not_commute() -> None:
    distance = frechet_distance(
        np.zeros(2), np.array([[2.0, 1.0], [1.0, 2.0]]), np.ones(2), np.array([[1.0, 0.0], [0.0, 3.0]])
    )
    assert distance == pytest.approx(2.516685, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_the_matrix_square_root(seed: int) -> None:
    (mean1, cov1), (mean2, cov2) = random_gaussian(12, 20, seed), random_gaussian(12, 20, seed + 100)
    root = sqrtm(cov1 @ cov2).real
    expected = np.sum((mean1 - mean2) ** 2) + np.trace(cov1 + cov2 - 2 * root)
    assert frechet_distance(mean1, cov1, mean2, cov2) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rank", [0, 1, 5, 40])
def test_rank_deficient_covariance_is_at_no_distance_from_itself(rank: int) -> None:
    gaussian = random_gaussian(40, rank, rank)
    assert frechet_distance(*gaussian, *gaussian) == pytest.approx(0, abs=1e-10)


def test_rank_deficient_covariances_of_different_spaces() -> None:
    first, second = np.diag([1.0, 1.0, 0.0, 0.0]), np.diag([0.0, 0.0, 4.0, 0.0])
    assert frechet_distance(np.zeros(4), first, np.zeros(4), second) == pytest.approx(6, abs=1e-12)


@pytest.mark.parametrize("rank", [5, 40])
@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_features_of_any_scale(rank: int, scale: float) -> None:
    (mean1, cov1), (mean2, cov2) = random_gaussian(40, rank, 0), random_gaussian(40, rank, 1)
    scaled = frechet_distance(scale * mean1, scale**2 * cov1, scale * mean2, scale**2 * cov2)
    assert scaled == pytest.approx(scale**2 * frechet_distance(mean1, cov1, mean2, cov2), rel=1e-9, abs=0)


@given(st.integers(1, 8), st.integers(0, 8), st.integers(0, 8), st.integers(0, 10_000))
@settings(max_examples=50)
def test_symmetric_and_not_negative(size: int, rank1: int, rank2: int, seed: int) -> None:
    first, second = random_gaussian(size, rank1, seed), random_gaussian(size, rank2, seed + 1)
    distance = frechet_distance(*first, *second)
    assert distance >= 0
    assert distance == pytest.approx(frechet_distance(*second, *first), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("count", "expected", "tolerance"), [(256, 8.4, 0.4), (1024, 2.15, 0.1), (4096, 0.53, 0.03)])
def test_estimates_from_few_images_are_too_large_by_the_known_amount(
    count: int, expected: float, tolerance: float
) -> None:
    random = np.random.default_rng(0)
    first, second = (feature_statistics(random.normal(size=(count, 64))) for _ in range(2))
    assert frechet_distance(*first, *second) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mean1", (np.zeros((2, 1)), np.eye(2), np.zeros(2), np.eye(2))),
        ("cov1", (np.zeros(2), np.eye(3), np.zeros(2), np.eye(2))),
        ("mean2", (np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))),
        ("cov2", (np.zeros(2), np.eye(2), np.zeros(2), np.ones(2))),
    ],
)
def test_refuses_shapes_that_do_not_fit(name: str, arguments: tuple[np.ndarray, ...]) -> None:
    with pytest.raises(ValueError, match=f"one D.*{name}"):
        frechet_distance(*arguments)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_refuses_values_that_are_not_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="cov2 holds values that are not finite"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(2), np.diag([1.0, bad]))


def test_statistics_are_the_mean_and_unbiased_covariance_in_float64() -> None:
    mean, cov = feature_statistics(np.array([[1.0, 2.0], [3.0, 6.0]], np.float32))
    assert mean.dtype == cov.dtype == np.float64
    np.testing.assert_array_equal(mean, [2, 4])
    np.testing.assert_array_equal(cov, [[2, 4], [4, 8]])
    assert feature_statistics(np.array([[1.0], [3.0]]))[1].shape == (1, 1)


def test_statistics_leave_the_features_as_they_are() -> None:
    features = np.random.default_rng(0).normal(size=(20, 5))
    before = features.copy()
    mean, cov = feature_statistics(features)
    np.testing.assert_array_equal(features, before)
    np.testing.assert_allclose(mean, before.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(cov, np.cov(before, rowvar=False), rtol=1e-12)
    np.testing.assert_array_equal(cov, cov.T)


def test_diversity_is_the_ratio_of_the_spreads() -> None:
    _, real = random_gaussian(6, 9, 0)
    assert feature_diversity(real, real) == 1
    assert feature_diversity(real / 4, real) == pytest.approx(0.5)
    assert feature_diversity(np.zeros((6, 6)), real) == 0


def test_diversity_needs_real_images_that_differ() -> None:
    with pytest.raises(ValueError, match="no spread"):
        feature_diversity(np.eye(2), np.zeros((2, 2)))


def test_fewer_samples_than_features_give_a_distance_that_falls_with_the_samples() -> None:
    random = np.random.default_rng(0)
    real = feature_statistics(random.normal(size=(2000, 64)))
    distances = [frechet_distance(*feature_statistics(random.normal(size=(n, 64))), *real) for n in (2, 8, 32, 128)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] > 0


@pytest.mark.parametrize("shape", [(1, 3), (0, 3), (4,)])
def test_statistics_refuse_too_few_features(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="N at least 2"):
        feature_statistics(np.zeros(shape))


@pytest.mark.parametrize("rows", [1, 7, 2048])
def test_statistics_are_the_same_in_blocks(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_ROWS", rows)
    features = np.random.default_rng(0).normal(100, 1, (50, 6)).astype(np.float32)
    mean, cov = feature_statistics(features)
    np.testing.assert_allclose(mean, features.astype(np.float64).mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(cov, np.cov(features.astype(np.float64), rowvar=False), rtol=1e-10)


def test_memory_is_bounded_by_the_block(tmp_path: Path) -> None:
    features = np.lib.format.open_memmap(tmp_path / "features.npy", mode="w+", dtype=np.float32, shape=(100_000, 256))
    features[:] = np.random.default_rng(0).normal(size=(1000, 256)).repeat(100, axis=0)
    tracemalloc.start()
    contributions = frechet_contributions(np.load(tmp_path / "features.npy", mmap_mode="r"), np.zeros(256), np.eye(256))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert contributions.shape == (100_000,)
    assert peak < 100e6  # as numbers of float64, all of the features would be 205 MB


def test_statistics_name_the_image_with_features_that_are_not_finite() -> None:
    features = np.zeros((9, 2), np.float32)
    features[4, 1] = np.inf
    with pytest.raises(ValueError, match="image 4 of 9 has values that are not finite"):
        feature_statistics(features)


@pytest.mark.parametrize("count", [5, 12, 13, 60])
@pytest.mark.parametrize("rank", [3, 12])
def test_contributions_have_the_distance_as_their_mean(count: int, rank: int) -> None:
    features = np.random.default_rng(count).normal(1, 2, (count, 12)).astype(np.float32)
    real_mean, real_cov = random_gaussian(12, rank, 0)
    contributions = frechet_contributions(features, real_mean, real_cov)
    assert contributions.shape == (count,)
    assert np.all(np.isfinite(contributions))
    expected = frechet_distance(*feature_statistics(features), real_mean, real_cov)
    assert contributions.mean() == pytest.approx(expected, rel=1e-12)


def test_contributions_of_one_feature_are_those_worked_out_by_hand() -> None:
    # d = (m - 1)² + (s - 2)², whose change with the weight of x is 2 (m - 1) (x - m) + (1 - 2 / s) ((x - m)² - s²).
    features = np.random.default_rng(0).normal(3, 1.5, 1000)
    mean, spread = features.mean(), features.std(ddof=1)
    centred = features - mean
    expected = 2 * (mean - 1) * centred + (1 - 2 / spread) * (centred**2 - np.mean(centred**2))
    distance = (mean - 1) ** 2 + (spread - 2) ** 2
    contributions = frechet_contributions(features[:, None], np.ones(1), np.full((1, 1), 4.0))
    np.testing.assert_allclose(contributions, distance + expected, rtol=1e-9)


@pytest.mark.parametrize("rank", [2, 6])
def test_contributions_are_what_a_change_of_an_image_s_weight_does(rank: int) -> None:
    features = np.random.default_rng(1).normal(0.5, 1, (2000, 6)) @ np.diag([3.0, 2, 1, 1, 1, 0.5])
    real = random_gaussian(6, rank, 2)
    distance = frechet_distance(*feature_statistics(features), *real)
    without = [frechet_distance(*feature_statistics(np.delete(features, i, axis=0)), *real) for i in range(20)]
    contributions = frechet_contributions(features, *real)[:20]
    np.testing.assert_allclose(contributions - distance, 1999 * (distance - np.array(without)), rtol=0.05, atol=0.2)


def test_real_images_without_spread_leave_the_samples_own() -> None:
    features = np.array([[-1.0, 0], [1, 0], [0, 2], [0, -2]])
    contributions = frechet_contributions(features, np.zeros(2), np.zeros((2, 2)))
    np.testing.assert_allclose(contributions - contributions.mean(), [-1.5, -1.5, 1.5, 1.5])
    assert contributions.mean() == pytest.approx(10 / 3)


def test_the_scores_do_not_import_torch() -> None:
    check = "import sys; import gan.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
