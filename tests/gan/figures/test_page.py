import base64
from pathlib import Path

import numpy as np
import pytest

from gan.figures.grid import save_animation, save_png
from gan.figures.page import CHART_SCALE, DISPLAY_WIDTH, embed, picture
from gan.figures.style import chart, save_svg


def test_a_small_picture_is_enlarged_by_a_whole_factor_unless_it_has_letters(tmp_path: Path) -> None:
    save_png(tmp_path / "a.png", np.zeros((10, DISPLAY_WIDTH // 3 - 1, 1), np.uint8))
    found = picture(tmp_path / "a.png")
    assert (found["width"], found["height"], found["enlarged"]) == (3 * (DISPLAY_WIDTH // 3 - 1), 30, True)
    found = picture(tmp_path / "a.png", enlarge=False)
    assert (found["width"], found["height"], found["enlarged"]) == (DISPLAY_WIDTH // 3 - 1, 10, False)


def test_a_large_picture_keeps_its_size(tmp_path: Path) -> None:
    save_png(tmp_path / "a.png", np.zeros((10, 2 * DISPLAY_WIDTH, 1), np.uint8))
    assert picture(tmp_path / "a.png")["width"] == 2 * DISPLAY_WIDTH


def test_only_an_animation_has_a_still(tmp_path: Path) -> None:
    frames = list(np.random.default_rng(0).integers(0, 256, (2, 4, 5, 1), np.uint8))
    save_animation(tmp_path / "moving.png", frames, 0.2)
    save_png(tmp_path / "last.png", frames[1])
    assert picture(tmp_path / "last.png")["still"] is None
    assert picture(tmp_path / "moving.png")["still"] == embed(tmp_path / "last.png")


def test_charts_have_letters_of_one_size_whatever_their_own(tmp_path: Path) -> None:
    with chart(height_inches=2.0, width_inches=3.0) as figure:
        save_svg(figure, tmp_path / "a.svg")
    found = picture(tmp_path / "a.svg")
    assert (found["kind"], found["width"], found["height"]) == ("chart", 216 * CHART_SCALE, 144 * CHART_SCALE)


def test_a_drawing_without_a_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text("<svg/>")
    with pytest.raises(ValueError, match=r"a\.svg: no chart of ours"):
        picture(tmp_path / "a.svg")


@pytest.mark.parametrize(("name", "kind"), [("a.csv", "text/csv"), ("a.json", "application/json")])
def test_numbers_are_embedded_byte_for_byte(tmp_path: Path, name: str, kind: str) -> None:
    content = "a,é\r\n1,2\n".encode()
    (tmp_path / name).write_bytes(content)
    head, encoded = embed(tmp_path / name).split(",")
    assert head == f"data:{kind};base64"
    assert base64.b64decode(encoded) == content
