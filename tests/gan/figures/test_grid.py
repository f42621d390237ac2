from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan.figures.grid import GAP, PAPER, save_animation, save_png, tile


def numbered(count: int, height: int = 3, width: int = 4, channels: int = 1) -> np.ndarray:
    return np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, height, width, channels), np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_lies_where_its_row_and_column_say(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 4, channels), np.uint8)
    grid = tile(images, 3)
    assert grid.dtype == np.uint8
    assert grid.shape == (3 * (3 + GAP) + GAP, 3 * (4 + GAP) + GAP, channels)
    covered = np.zeros(grid.shape, bool)
    for index, image in enumerate(images):
        top, left = GAP + index // 3 * (3 + GAP), GAP + index % 3 * (4 + GAP)
        cell = np.s_[top : top + 3, left : left + 4]
        np.testing.assert_array_equal(grid[cell], image)
        covered[cell] = True
    assert (grid[~covered] == PAPER).all()


def test_a_row_wider_than_the_images_is_padded() -> None:
    assert tile(numbered(2), 5).shape == (3 + 2 * GAP, 5 * (4 + GAP) + GAP, 1)


@pytest.mark.parametrize(("count", "columns"), [(0, 3), (3, 0)])
def test_an_empty_grid_is_refused(count: int, columns: int) -> None:
    with pytest.raises(ValueError, match="a grid needs an image and a column"):
        tile(numbered(count), columns)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_holds_each_pixel_as_a_square_and_the_same_bytes_twice(tmp_path: Path, channels: int) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (5, 6, channels), np.uint8)
    for name in "ab":
        save_png(tmp_path / name, picture, scale=3)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with Image.open(tmp_path / "a") as image:
        assert image.format == "PNG"
        assert image.mode == {1: "L", 3: "RGB"}[channels]
        pixels = np.asarray(image).reshape(15, 18, channels)
    for row in range(15):
        for column in range(18):
            np.testing.assert_array_equal(pixels[row, column], picture[row // 3, column // 3])


def test_a_picture_of_two_channels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="H×W×1 or H×W×3"):
        save_png(tmp_path / "a.png", np.zeros((4, 4, 2), np.uint8))


@pytest.mark.parametrize("channels", [1, 3])
def test_animation_holds_every_frame_unchanged_and_rests_on_the_last(tmp_path: Path, channels: int) -> None:
    frames = list(np.random.default_rng(2).integers(0, 256, (4, 5, 6, channels), np.uint8))
    for name in ("a.png", "b.png"):
        save_animation(tmp_path / name, frames, seconds_per_frame=0.25, scale=2)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"
        assert getattr(image, "n_frames", 1) == 4
        assert image.info["loop"] == 0
        durations = []
        for index, frame in enumerate(frames):
            image.seek(index)
            durations.append(image.info["duration"])
            shown = np.asarray(image.convert("RGB" if channels == 3 else "L")).reshape(10, 12, channels)
            np.testing.assert_array_equal(shown, frame.repeat(2, 0).repeat(2, 1))
    assert durations == [250, 250, 250, 2250]


def test_animation_of_one_frame_is_that_picture(tmp_path: Path) -> None:
    frame = np.random.default_rng(3).integers(0, 256, (5, 6, 1), np.uint8)
    save_animation(tmp_path / "a.png", [frame], seconds_per_frame=0.25)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), frame[:, :, 0])


def test_animation_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a frame"):
        save_animation(tmp_path / "a.png", [], seconds_per_frame=0.25)
