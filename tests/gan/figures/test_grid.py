from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gan.figures.grid import GAP, PAPER, STRIP_COLUMNS, draw_side_by_side, film_strip, save_animation, save_png, tile


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


@pytest.fixture
def headings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """Where each heading is centred, and what it says."""
    found: list[tuple[float, str]] = []
    draw = ImageDraw.ImageDraw.text

    def text(self: Any, xy: tuple[float, float], heading: str, **options: Any) -> None:
        found.append((xy[0], heading))
        draw(self, xy, heading, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return found


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).reshape(image.height, image.width, len(image.getbands()))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_film_strip_has_a_row_a_latent_and_a_column_a_generator(
    tmp_path: Path, headings: list[tuple[float, str]], channels: int
) -> None:
    frames = list(np.random.default_rng(4).integers(0, 256, (3, 2, 32, 32, channels), np.uint8))
    film_strip(tmp_path / "a.png", frames, [0.82, 12.3, 1280])
    pixels = read(tmp_path / "a.png")
    cell = 2 * (32 + 2 * GAP)
    top = len(pixels) - 2 * (2 * (32 + GAP) + GAP)
    assert pixels.shape[1:] == (3 * cell, channels)
    for column, frame in enumerate(frames):
        for row, image in enumerate(frame):
            y, x = top + 2 * GAP + row * 2 * (32 + GAP), column * cell + 2 * GAP
            np.testing.assert_array_equal(pixels[y : y + 64, x : x + 64], image.repeat(2, 0).repeat(2, 1))
    assert [text for _, text in headings] == ["0.8 kimg", "12 kimg", "1,280 kimg"]
    assert [round(x / cell - 0.5) for x, _ in headings] == [0, 1, 2]
    for column in range(3):
        head = pixels[:top, column * cell : (column + 1) * cell]
        assert head.min() < 40
        assert (head[:, [0, -1]] == PAPER).all(), "a heading runs into its neighbour"


def test_of_many_generators_a_film_strip_shows_some_evenly_with_the_first_and_the_last(
    tmp_path: Path, headings: list[tuple[float, str]]
) -> None:
    film_strip(tmp_path / "a.png", list(numbered(50, 64, 64)[:, None]), [10.0 * (index + 1) for index in range(50)])
    kimg = [int(text.split()[0]) for _, text in headings]
    assert len(kimg) == STRIP_COLUMNS
    assert (kimg[0], kimg[-1]) == (10, 500)
    assert set(np.diff(kimg)) == {70}
    assert len(np.unique(read(tmp_path / "a.png")[-10])) == STRIP_COLUMNS + 1


def test_equal_film_strips_are_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        film_strip(tmp_path / name, [numbered(3, 40, 40)] * 2, [1, 2])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert b"tEXt" not in (tmp_path / "a").read_bytes()


@pytest.mark.parametrize(("generators", "kimg"), [(0, []), (2, [1.0])])
def test_a_film_strip_without_its_kimg_is_refused(tmp_path: Path, generators: int, kimg: list[float]) -> None:
    with pytest.raises(ValueError, match="needs generators, each with its kimg"):
        film_strip(tmp_path / "a.png", [numbered(2)] * generators, kimg)


def test_real_images_stand_left_of_generated_ones(tmp_path: Path, headings: list[tuple[float, str]]) -> None:
    real, generated = np.random.default_rng(5).integers(0, 256, (2, 6, 64, 64, 3), np.uint8)
    draw_side_by_side(tmp_path / "a.png", real, generated, 3)
    pixels = read(tmp_path / "a.png")
    grids = tile(real, 3), tile(generated, 3)
    height, width, _ = grids[0].shape
    np.testing.assert_array_equal(pixels[-height:, :width], grids[0])
    np.testing.assert_array_equal(pixels[-height:, -width:], grids[1])
    assert headings == [(width / 2, "Real"), (pixels.shape[1] - width / 2, "Generated")]


def test_unlike_numbers_side_by_side_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"differ in shape: \(3, 3, 4, 1\), \(2, 3, 4, 1\)"):
        draw_side_by_side(tmp_path / "a.png", numbered(3), numbered(2), 2)
