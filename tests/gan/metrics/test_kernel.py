import tracemalloc

import numpy as np
import pytest

from gan.metrics import kernel_distance, maximum_mean_discrepancy, neighbours


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def test_known_values_in_one_dimension() -> None:
    assert maximum_mean_discrepancy(column(0, 0), column(1, 1)) == pytest.approx(7, abs=1e-12)
    assert maximum_mean_discrepancy(column(0, 1), column(0, 1)) == pytest.approx(-3.5, abs=1e-12)


@pytest.mark.parametrize("rows", [3, 2048])
def test_agrees_with_the_definition_written_out(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_ROWS", rows)
    random = np.random.default_rng(0)
    samples, real = random.normal(0.2, 1, (10, 4)), random.normal(size=(13, 4))

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 4 + 1) ** 3)

    among = [kernel(x, y) for i, x in enumerate(samples) for j, y in enumerate(samples) if i != j]
    among_real = [kernel(x, y) for i, x in enumerate(real) for j, y in enumerate(real) if i != j]
    between = [kernel(x, y) for x in samples for y in real]
    expected = np.mean(among) + np.mean(among_real) - 2 * np.mean(between)
    assert maximum_mean_discrepancy(samples, real) == pytest.approx(expected, rel=1e-12)


def test_whole_sets_are_measured_once() -> None:
    random = np.random.default_rng(1)
    samples, real = random.normal(0.2, 1, (50, 4)), random.normal(size=(50, 4))
    found = kernel_distance(samples, real, seed=0, subsets=7, size=50)
    assert (found.value, found.spread) == (maximum_mean_discrepancy(samples, real), 0)
    other = kernel_distance(samples, real, seed=1, subsets=1, size=1000)
    assert other.value == found.value
    np.testing.assert_array_equal(other.contributions, found.contributions)


@pytest.mark.parametrize(("count", "real_count"), [(30, 50), (50, 30), (40, 40)])
def test_value_and_spread_are_those_of_seeded_subsets(count: int, real_count: int) -> None:
    random = np.random.default_rng(2)
    samples, real = random.normal(0.2, 1, (count, 4)), random.normal(size=(real_count, 4))
    found = kernel_distance(samples, real, seed=5, subsets=6, size=35)
    assert found.value == kernel_distance(samples, real, seed=5, subsets=6, size=35).value
    assert found.value != kernel_distance(samples, real, seed=6, subsets=6, size=35).value
    assert found.spread > 0
    assert found.contributions.shape == (count,)
    assert found.contributions.mean() == pytest.approx(found.value, rel=1e-12)
    # Every subset is of 30 or 35 images: over many of them, the mean comes to that over the whole sets.
    many = kernel_distance(samples, real, seed=0, subsets=2000, size=35)
    error = many.spread / np.sqrt(2000)
    assert many.value == pytest.approx(maximum_mean_discrepancy(samples, real), abs=4 * error)
    assert many.spread == pytest.approx(found.spread, rel=0.7)


def test_images_of_one_distribution_are_at_no_distance_on_average() -> None:
    random = np.random.default_rng(3)
    values = [maximum_mean_discrepancy(*random.normal(size=(2, 100, 4))) for _ in range(300)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(300)
    assert min(values) < 0


def test_contributions_are_what_a_change_of_an_image_s_weight_does() -> None:
    random = np.random.default_rng(4)
    samples, real = random.normal(0.5, 1, (400, 4)), random.normal(size=(400, 4))
    whole = kernel_distance(samples, real, seed=0)
    without = np.array([maximum_mean_discrepancy(np.delete(samples, i, axis=0), real) for i in range(20)])
    jackknife = 399 * (whole.value - without)
    np.testing.assert_allclose(whole.contributions[:20] - whole.value, jackknife, rtol=0.05, atol=0.02)


def test_images_in_no_subset_contribute_the_value_alone() -> None:
    random = np.random.default_rng(4)
    samples, real = random.normal(0.5, 1, (400, 4)), random.normal(size=(400, 4))
    found = kernel_distance(samples, real, seed=0, subsets=2, size=25)
    assert 25 < np.sum(found.contributions != found.value) <= 50


def test_large_features_of_float32_are_computed_in_float64() -> None:
    random = np.random.default_rng(5)
    samples, real = ((10 + random.normal(size=(200, 64))).astype(np.float32) for _ in range(2))
    exact = maximum_mean_discrepancy(samples.astype(np.float64), real.astype(np.float64))
    assert maximum_mean_discrepancy(samples, real) == exact


def test_memory_is_bounded() -> None:
    features = np.ones((8000, 64), np.float32)
    tracemalloc.start()
    assert maximum_mean_discrepancy(features, features) == pytest.approx(0, abs=1e-6)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 250e6  # all kernels at once would be 512 MB


@pytest.mark.parametrize("shapes", [((9, 3), (9, 2)), ((1, 2), (9, 2)), ((9, 2), (1, 2)), ((9,), (9,))])
def test_refuses_shapes_that_do_not_fit(shapes: tuple[tuple[int, ...], ...]) -> None:
    samples, real = map(np.zeros, shapes)
    with pytest.raises(ValueError, match="at least 2"):
        maximum_mean_discrepancy(samples, real)
    with pytest.raises(ValueError, match="at least 2"):
        kernel_distance(samples, real, seed=0)


@pytest.mark.parametrize(("subsets", "size"), [(0, 10), (10, 1)])
def test_refuses_subsets_that_measure_nothing(subsets: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"{subsets} subsets of {size} images"):
        kernel_distance(np.zeros((9, 2)), np.zeros((9, 2)), seed=0, subsets=subsets, size=size)


def test_refuses_features_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="image 1 of 2 has values that are not finite"):
        maximum_mean_discrepancy(column(0, np.nan), column(0, 1))
