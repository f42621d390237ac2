import numpy as np
import pytest

from gan.metrics import accuracy, class_divergence, class_shares, significant


def test_shares_count_the_most_probable_class() -> None:
    probabilities = np.array([[0.6, 0.4, 0.0], [0.1, 0.9, 0.0], [0.5, 0.3, 0.2], [1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(class_shares(probabilities), [0.75, 0.25, 0])
    assert accuracy(probabilities, np.array([0, 1, 2, 0])) == 0.75


def test_divergence_is_zero_for_equal_shares_and_log_k_for_a_collapse() -> None:
    uniform = np.full(10, 0.1)
    assert class_divergence(uniform, uniform) == 0
    assert class_divergence(np.eye(10)[3], uniform) == pytest.approx(np.log(10))


def test_divergence_is_taken_of_the_samples_from_the_real() -> None:
    expected = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    assert class_divergence(np.array([0.75, 0.25]), np.array([0.5, 0.5])) == pytest.approx(expected)
    assert class_divergence(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == np.inf


@pytest.mark.parametrize(
    ("value", "expected"), [(1 / 3, 0.333333), (123456789.0, 123457000.0), (0.0, 0.0), (1.23456789e-9, 1.23457e-9)]
)
def test_six_significant_digits(value: float, expected: float) -> None:
    assert significant(value) == expected
