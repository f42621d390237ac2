import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from gan.metrics import nearest, neighbours


def random_images(count: int, side: int, channels: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_agrees_with_brute_force(channels: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_ROWS", rows)
    queries, images = random_images(15, 8, channels, 0), random_images(40, 8, channels, 1)
    differences = queries[:, None].astype(float) - images[None]
    expected = np.sqrt((differences**2).sum(axis=(2, 3, 4)))
    indices, distances = nearest(queries, images)
    np.testing.assert_array_equal(indices, expected.argmin(axis=1))
    np.testing.assert_allclose(distances, expected.min(axis=1), rtol=1e-12)


def test_features_are_compared_as_float64() -> None:
    random = np.random.default_rng(4)
    queries, images = (random.normal(100, 0.01, (n, 6)).astype(np.float32) for n in (20, 50))
    expected = np.linalg.norm(queries[:, None].astype(float) - images[None], axis=2)
    indices, distances = nearest(queries, images)
    np.testing.assert_array_equal(indices, expected.argmin(axis=1))
    np.testing.assert_allclose(distances, expected.min(axis=1), rtol=1e-4)  # 1e-2 and more in float32


def test_a_copy_is_at_no_distance_even_among_large_bright_images() -> None:
    images = 255 - random_images(6, 128, 3, 2) // 100
    indices, distances = nearest(images[[4, 2]], images)
    np.testing.assert_array_equal(indices, [4, 2])
    np.testing.assert_array_equal(distances, [0, 0])


def test_a_copy_of_features_is_at_no_distance_in_spite_of_round_off() -> None:
    features = np.random.default_rng(5).normal(50, 1, (300, 2048)).astype(np.float32)
    indices, distances = nearest(features[100:110], features)
    np.testing.assert_array_equal(indices, range(100, 110))
    np.testing.assert_array_equal(distances, 0)


@pytest.mark.parametrize("rows", [1, 2, 3, 16])
def test_the_first_of_equally_near_images_is_taken(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_ROWS", rows)
    far, near = np.zeros((1, 4, 4, 1), np.uint8), np.full((1, 4, 4, 1), 99, np.uint8)
    images = np.concatenate([far, near, far, near, near])
    indices, distances = nearest(np.full((1, 4, 4, 1), 100, np.uint8), images)
    assert (indices[0], distances[0]) == (1, 4)


def test_reads_a_memory_map(tmp_path: Path) -> None:
    images = random_images(20, 8, 1, 3)
    np.save(tmp_path / "images.npy", images)
    indices, _ = nearest(images[5:6], np.load(tmp_path / "images.npy", mmap_mode="r"))
    assert indices[0] == 5


def test_memory_is_bounded_by_the_block(tmp_path: Path) -> None:
    shape = (1000, 128, 128, 3)
    images = np.lib.format.open_memmap(tmp_path / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    images[700] = 3
    queries = np.full((10, *shape[1:]), 3, np.uint8)
    tracemalloc.start()
    indices, _ = nearest(queries, np.load(tmp_path / "images.npy", mmap_mode="r"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert set(indices) == {700}
    assert peak < 200e6  # as numbers of float64, all of the images would be 393 MB


@pytest.mark.parametrize("shape", [(3, 8, 8, 3), (3, 4, 4, 1), (0, 8, 8, 1), (3, 64)])
def test_refuses_shapes_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        nearest(np.zeros((2, 8, 8, 1), np.uint8), np.zeros(shape, np.uint8))


def test_names_the_image_with_values_that_are_not_finite() -> None:
    features = np.zeros((9, 2), np.float32)
    features[6, 1] = np.nan
    with pytest.raises(ValueError, match=r"image 6 of 9 .*not finite"):
        nearest(np.zeros((1, 2)), features)
