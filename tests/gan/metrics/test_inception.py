import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan.metrics import inception, inception_contributions, inception_score


def random_probabilities(count: int, classes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), count)


def test_certain_and_balanced_predictions_score_the_number_of_classes() -> None:
    assert inception_score(np.tile(np.eye(10), (10, 1)), 1) == pytest.approx((10, 0))
    assert inception_score(np.tile(np.eye(10), (10, 1)), 5) == pytest.approx((10, 0))


def test_equal_predictions_score_one() -> None:
    certain = np.eye(10)[np.zeros(100, int)]
    assert inception_score(certain, 10) == pytest.approx((1, 0))
    assert inception_score(np.full((100, 10), 0.1), 10) == pytest.approx((1, 0))


def test_parts_are_contiguous_and_the_spread_is_of_the_population() -> None:
    # The first part holds one class, the second two: scores 1 and 2.
    probabilities = np.eye(2)[[0, 0, 0, 0, 0, 1, 0, 1]]
    assert inception_score(probabilities, 2) == pytest.approx((1.5, 0.5))


@pytest.mark.parametrize("rows", [7, 4096])
def test_agrees_with_the_definition_written_out(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "BLOCK_ROWS", rows)
    probabilities = random_probabilities(50, 4, 0)
    marginal = probabilities.mean(axis=0)
    divergences = [sum(p * np.log(p / q) for p, q in zip(row, marginal, strict=True)) for row in probabilities]
    assert inception_score(probabilities, 1)[0] == pytest.approx(np.exp(np.mean(divergences)), rel=1e-12)


def test_a_part_may_hold_one_more_image_than_another() -> None:
    probabilities = random_probabilities(11, 3, 1)
    scores = [inception_score(part, 1)[0] for part in (probabilities[:3], probabilities[3:7], probabilities[7:])]
    assert inception_score(probabilities, 3) == pytest.approx((np.mean(scores), np.std(scores)))


@given(st.integers(2, 6), st.integers(5, 40), st.integers(0, 1000))
def test_lies_between_one_and_the_number_of_classes(classes: int, count: int, seed: int) -> None:
    score, spread = inception_score(random_probabilities(count, classes, seed), 1)
    assert 1 - 1e-12 <= score <= classes + 1e-12
    assert spread == 0


@pytest.mark.parametrize(("count", "splits"), [(40, 1), (40, 5), (43, 5), (7, 7)])
def test_contributions_have_the_score_as_their_mean(count: int, splits: int) -> None:
    probabilities = random_probabilities(count, 4, 2)
    contributions = inception_contributions(probabilities, splits)
    assert contributions.shape == (count,)
    assert contributions.mean() == pytest.approx(inception_score(probabilities, splits)[0], rel=1e-12)


def test_contributions_are_what_a_change_of_an_image_s_weight_does() -> None:
    probabilities = random_probabilities(1000, 4, 3)
    score, _ = inception_score(probabilities, 1)
    without = np.array([inception_score(np.delete(probabilities, i, axis=0), 1)[0] for i in range(20)])
    contributions = inception_contributions(probabilities, 1)[:20]
    np.testing.assert_allclose(contributions - score, 999 * (score - without), rtol=0.02, atol=0.02)


def test_contributions_in_parts_are_of_the_part_s_own_score() -> None:
    probabilities = random_probabilities(7, 3, 4)
    score, _ = inception_score(probabilities, 2)
    for part, share in ((slice(3), 7 / 6), (slice(3, 7), 7 / 8)):  # each part is half of the score, in 3 or 4 images
        own = inception_contributions(probabilities[part], 1) - inception_score(probabilities[part], 1)[0]
        np.testing.assert_allclose(inception_contributions(probabilities, 2)[part] - score, share * own, atol=1e-12)


@pytest.mark.parametrize("splits", [0, -1, 9])
def test_refuses_impossible_splits(splits: int) -> None:
    with pytest.raises(ValueError, match="cannot be cut"):
        inception_score(np.full((8, 2), 0.5), splits)
    with pytest.raises(ValueError, match="cannot be cut"):
        inception_contributions(np.full((8, 2), 0.5), splits)


@pytest.mark.parametrize(
    "probabilities",
    [np.ones((4, 2)), np.array([[2.0, -1.0]]), np.array([[np.nan, 1.0]]), np.array([0.5, 0.5])],
)
def test_refuses_what_are_no_probabilities(probabilities: np.ndarray) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        inception_score(probabilities, 1)
