from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image, ImageColor

from gan.figures.curves import (
    DISCRIMINATOR,
    FAINT,
    GENERATOR,
    LATER,
    Curve,
    draw_class_shares,
    draw_curves,
    draw_distance,
    smooth,
)

COLUMNS = (
    "loss_d", "loss_g", "d_real", "d_fake_before", "d_fake_after", "saturated", "z_spread",
    "grad_norm_d", "grad_norm_g", "grad_norm_g_first",
)  # fmt: skip
BOTH = (DISCRIMINATOR, GENERATOR)


def noisy_curves(points: int) -> dict[str, Curve]:
    random = np.random.default_rng(0)
    steps = np.arange(1.0, points + 1)
    return {"step": steps, "kimg": steps * 0.032} | {column: random.uniform(0.1, 1, points) for column in COLUMNS}


def ink(path: Path) -> float:
    """Share of the pixels that are not white."""
    with Image.open(path) as image:
        return float((np.asarray(image.convert("L")) < 250).mean())


@pytest.mark.parametrize("points", [0, 1, 10, 300])
def test_curves_of_any_length_are_drawn(tmp_path: Path, points: int) -> None:
    draw_curves(tmp_path / "curves.png", noisy_curves(points))
    assert ink(tmp_path / "curves.png") > 0.02


def test_more_is_drawn_than_empty_axes(tmp_path: Path) -> None:
    draw_curves(tmp_path / "empty.png", noisy_curves(0))
    draw_curves(tmp_path / "full.png", noisy_curves(300))
    assert ink(tmp_path / "full.png") > ink(tmp_path / "empty.png") + 0.05


def test_each_panel_shows_its_curves(tmp_path: Path) -> None:
    draw_curves(tmp_path / "curves.png", noisy_curves(40))
    with Image.open(tmp_path / "curves.png") as image:
        panels = np.array_split(np.asarray(image.convert("RGB")), 5)
    expected = (BOTH, (*BOTH, LATER), (DISCRIMINATOR,), (GENERATOR,), (*BOTH, LATER))
    for panel, colors in zip(panels, expected, strict=True):
        for color in colors:
            # A legend's line alone is some 150 pixels.
            assert (panel == ImageColor.getrgb(color)).all(axis=2).sum() > 1000, color


def test_the_same_bytes_twice_whatever_the_users_style(tmp_path: Path) -> None:
    draw_curves(tmp_path / "a.png", noisy_curves(60))
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "black", "savefig.dpi": 30}):
        draw_curves(tmp_path / "b.png", noisy_curves(60))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"matplotlib" not in (tmp_path / "a.png").read_bytes()


def test_values_that_no_axis_has_leave_gaps(tmp_path: Path) -> None:
    curves = noisy_curves(200)
    curves["loss_d"][50:] = np.nan
    curves["loss_g"][:] = np.inf
    curves["grad_norm_g"][:10] = 0
    curves["z_spread"][:] = 0
    draw_curves(tmp_path / "curves.png", curves)
    assert ink(tmp_path / "curves.png") > 0.02


def colored(path: Path, color: str) -> int:
    with Image.open(path) as image:
        return int((np.asarray(image.convert("RGB")) == ImageColor.getrgb(color)).all(axis=2).sum())


@pytest.mark.parametrize("points", [1, 2, 16])
def test_the_distance_is_drawn_with_its_floor(tmp_path: Path, points: int) -> None:
    kimg = np.arange(1.0, points + 1)
    for name in ("a.png", "b.png"):
        draw_distance(tmp_path / name, kimg, 100 / kimg, "classifier-FD", 1.2)
    draw_distance(tmp_path / "bare.png", kimg, 100 / kimg, "classifier-FD", None)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert colored(tmp_path / "a.png", GENERATOR) > 100
    assert colored(tmp_path / "a.png", FAINT) > colored(tmp_path / "bare.png", FAINT) + 500


def test_the_distance_names_its_log_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr("gan.figures.curves._save", lambda figure, _: drawn.append(figure))
    draw_distance(tmp_path / "a.png", np.arange(1.0, 5), np.arange(1.0, 5), "squeezenet-FD", 0.5)
    (axes,) = drawn[0].axes
    assert (axes.get_ylabel(), axes.get_yscale()) == ("squeezenet-FD (log scale)", "log")


def test_distances_that_no_log_axis_has_leave_gaps(tmp_path: Path) -> None:
    draw_distance(tmp_path / "a.png", np.arange(1.0, 5), np.array([9.0, 0.0, -1e-9, np.nan]), "squeezenet-FD", 0.0)
    assert ink(tmp_path / "a.png") > 0.02


def test_a_constant_is_smoothed_to_itself() -> None:
    np.testing.assert_allclose(smooth(np.full(500, 3.0)), 3.0)


def test_a_window_averages_its_neighbours() -> None:
    values = np.arange(100.0) ** 2
    np.testing.assert_allclose(smooth(values)[50], np.mean(values[48:53]))


def test_smoothing_skips_what_is_not_finite() -> None:
    values = np.ones(300)
    values[10] = np.nan
    values[100:200] = np.inf
    smoothed = smooth(values)
    assert smoothed[10] == pytest.approx(1)
    assert np.isnan(smoothed[150])


def test_few_points_are_not_smoothed() -> None:
    values = np.random.default_rng(0).normal(size=30)
    np.testing.assert_array_equal(smooth(values), values)


@pytest.mark.parametrize("names", [["0", "1", "2"], ["$x", "<b>", r"\frac{$"], ["No_Beard", "5_o_Clock_Shadow", "é"]])
def test_class_shares_are_drawn_with_any_names(tmp_path: Path, names: list[str]) -> None:
    for name in ("a.png", "b.png"):
        draw_class_shares(tmp_path / name, names, np.array([0.5, 0.5, 0.0]), np.array([0.3, 0.3, 0.4]))
    assert ink(tmp_path / "a.png") > 0.1
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
