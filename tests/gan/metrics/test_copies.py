import numpy as np
import pytest

from gan.metrics import near_copies, neighbours


def test_half_the_distance_to_the_next_training_image_is_the_limit() -> None:
    training = np.array([[0.0], [8.0], [100.0]])
    found = near_copies(np.array([[4.0], [3.9], [4.1], [146.0], [147.0], [-4.0], [-5.0]]), training)
    np.testing.assert_array_equal(found.copies, [True, True, True, True, False, True, False])
    np.testing.assert_array_equal(found.indices, [0, 0, 1, 2, 2, 0, 0])
    np.testing.assert_allclose(found.distances, [4, 3.9, 3.9, 46, 47, 4, 5])


@pytest.mark.parametrize("kind", ["pixels", "features"])
@pytest.mark.parametrize("rows", [3, 2048])
def test_copies_are_found_and_the_rest_is_not(kind: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_ROWS", rows)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    images: np.ndarray = pixels if kind == "pixels" else pixels.reshape(60, -1).astype(np.float32) / 255
    training, fresh = images[:40], images[40:]
    found = near_copies(np.concatenate([fresh, training[[7, 39]]]), training)
    np.testing.assert_array_equal(found.copies, [False] * 20 + [True] * 2)
    np.testing.assert_array_equal(found.indices[20:], [7, 39])
    np.testing.assert_array_equal(found.distances[20:], [0, 0])


def test_agrees_with_the_definition_written_out() -> None:
    random = np.random.default_rng(1)
    training, queries = random.normal(size=(50, 2)), random.normal(size=(80, 2))
    among = np.linalg.norm(training[:, None] - training, axis=2) + np.diag(np.full(50, np.inf))
    between = np.linalg.norm(queries[:, None] - training, axis=2)
    expected = between.min(axis=1) <= among.min(axis=1)[between.argmin(axis=1)] / 2
    assert 0 < expected.sum() < 80
    np.testing.assert_array_equal(near_copies(queries, training).copies, expected)


def test_an_image_that_stands_twice_in_the_training_set_can_be_copied() -> None:
    training = np.array([[0, 0], [0, 0], [10, 0]], np.uint8)
    found = near_copies(np.array([[0, 0], [4, 0], [0, 6]], np.uint8), training)
    np.testing.assert_array_equal(found.copies, [True, True, False])
    np.testing.assert_array_equal(found.indices, 0)


def test_only_exact_copies_count_where_all_training_images_are_the_same() -> None:
    found = near_copies(np.array([[5.0], [5.1]]), np.full((4, 1), 5.0))
    np.testing.assert_array_equal(found.copies, [True, False])


def test_one_training_image_has_no_neighbourhood() -> None:
    with pytest.raises(ValueError, match="at least 2 training images, and there are 1"):
        near_copies(np.zeros((3, 2)), np.zeros((1, 2)))
