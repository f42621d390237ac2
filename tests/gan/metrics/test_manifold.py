import numpy as np
import pytest

from gan.metrics import ManifoldScores, manifold_scores, neighbourhood_radii, neighbours


def scores(samples: np.ndarray, real: np.ndarray, k: int) -> ManifoldScores:
    return manifold_scores(samples, real, neighbourhood_radii(real, k), k)


def means(found: ManifoldScores) -> list[float]:
    return [float(each.mean()) for each in (found.precision, found.recall, found.density, found.coverage)]


def original(samples: np.ndarray, real: np.ndarray, k: int) -> list[float]:
    """The definition of the authors of density and coverage (clovaai/generative-evaluation-prdc), without blocks."""

    def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.array([np.sqrt(((row.astype(float) - second) ** 2).sum(axis=1)) for row in first])

    real_radii, sample_radii = (np.partition(distances(each, each), k, axis=1)[:, k] for each in (real, samples))
    between = distances(real, samples)
    return [
        float((between < real_radii[:, None]).any(axis=0).mean()),
        float((between < sample_radii).any(axis=1).mean()),
        float((between < real_radii[:, None]).sum(axis=0).mean() / k),
        float((between.min(axis=1) < real_radii).mean()),
    ]


@pytest.mark.parametrize("rows", [7, 64, 2048])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_agrees_with_the_original(rows: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_ROWS", rows)
    random = np.random.default_rng(k)
    samples = random.normal(0.3, 0.8, (150, 5)).astype(np.float32)
    real = random.normal(size=(200, 5)).astype(np.float32)
    assert means(scores(samples, real, k)) == pytest.approx(original(samples, real, k), abs=1e-12)


def test_agrees_with_the_original_on_ties_and_duplicates() -> None:
    random = np.random.default_rng(0)
    samples, real = (random.integers(0, 4, (count, 2)).astype(np.float32) for count in (60, 90))
    expected = original(samples, real, 5)
    assert expected[0] < 1
    assert means(scores(samples, real, 5)) == pytest.approx(expected, abs=1e-12)


def test_radius_is_the_distance_of_the_kth_other_image() -> None:
    features = np.array([[0.0], [1.0], [3.0], [7.0]])
    np.testing.assert_array_equal(neighbourhood_radii(features, 1), [1, 1, 2, 4])
    np.testing.assert_array_equal(neighbourhood_radii(features, 2), [3, 2, 3, 6])
    np.testing.assert_array_equal(neighbourhood_radii(np.zeros((6, 3)), 5), np.zeros(6))


def test_each_array_says_which_images_count() -> None:
    real, samples = np.array([[0.0], [1.0], [10.0]]), np.array([[0.5], [3.0], [30.0]])
    found = scores(samples, real, 1)  # radii of the real images: 1, 1, 9; of the samples: 2.5, 2.5, 27
    np.testing.assert_array_equal(found.precision, [True, True, False])
    np.testing.assert_array_equal(found.density, [2, 1, 0])
    np.testing.assert_array_equal(found.recall, [True, True, True])
    np.testing.assert_array_equal(found.coverage, [True, True, True])


def test_copies_of_the_real_images_have_all_scores_one() -> None:
    real = np.random.default_rng(2).normal(size=(100, 8))
    assert means(scores(real.copy(), real, 5)) == pytest.approx([1, 1, 1, 1])


def test_a_tight_cluster_inside_the_real_images_is_precise_and_recalls_little() -> None:
    random = np.random.default_rng(0)
    cluster, real = 0.1 * random.normal(size=(1000, 8)), random.normal(size=(1000, 8))
    precision, recall, _, coverage = means(scores(cluster, real, 5))
    assert precision > 0.8
    assert recall < 0.3
    assert coverage < 0.3


@pytest.mark.slow
def test_published_numbers_of_two_equal_gaussians() -> None:
    random = np.random.default_rng(0)
    real, samples = (random.normal(size=(10_000, 1000)).astype(np.float32) for _ in range(2))
    # The published ones are of one draw, without its seed. Over six draws the standard deviations measured were .014,
    # .007, .055 and .006; two draws differ by less than these bounds, three times √2 as much.
    differences = np.abs(np.subtract(means(scores(samples, real, 5)), [0.4772, 0.4705, 1.0555, 0.9735]))
    assert (differences < [0.06, 0.03, 0.23, 0.026]).all()


@pytest.mark.parametrize("k", [0, 5, 6])
def test_refuses_fewer_than_k_others(k: int) -> None:
    with pytest.raises(ValueError, match=f"5 images have no {k} nearest others"):
        neighbourhood_radii(np.zeros((5, 2)), k)
    radii = np.zeros(9)
    with pytest.raises(ValueError, match=f"5 images have no {k} nearest others"):
        manifold_scores(np.zeros((5, 2)), np.zeros((9, 2)), radii, k)


def test_refuses_fewer_real_images_than_k_others() -> None:
    with pytest.raises(ValueError, match="5 real images have no 5 nearest others"):
        manifold_scores(np.zeros((9, 2)), np.zeros((5, 2)), np.zeros(5), 5)


@pytest.mark.parametrize("shapes", [((9, 3), (9, 2), (9,)), ((9, 2), (9, 2), (8,)), ((9, 2, 1), (9, 2, 1), (9,))])
def test_refuses_shapes_that_do_not_fit(shapes: tuple[tuple[int, ...], ...]) -> None:
    samples, real, radii = map(np.zeros, shapes)
    with pytest.raises(ValueError, match="must be N×D, M×D and M"):
        manifold_scores(samples, real, radii, 5)


def test_refuses_features_that_are_not_finite() -> None:
    features = np.zeros((8, 2))
    features[3] = np.inf
    with pytest.raises(ValueError, match=r"image 3 of 8 .*not finite"):
        neighbourhood_radii(features, 2)
