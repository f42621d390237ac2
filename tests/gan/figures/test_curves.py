import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from gan.figures.curves import (
    BUCKETS,
    DISCRIMINATOR,
    GENERATOR,
    LATER,
    SAMPLES,
    Curve,
    draw_class_shares,
    draw_curves,
    draw_distance,
    draw_precision_recall,
    smooth,
    thin,
)
from gan.figures.style import FAINT, INK

COLUMNS = (
    "loss_d", "loss_g", "d_real", "d_fake_before", "d_fake_after", "saturated", "z_spread",
    "grad_norm_d", "grad_norm_g", "grad_norm_g_first",
)  # fmt: skip
BOTH = {DISCRIMINATOR, GENERATOR}


def noisy_curves(points: int) -> dict[str, Curve]:
    random = np.random.default_rng(0)
    steps = np.arange(1.0, points + 1)
    return {"step": steps, "kimg": steps * 0.032} | {column: random.uniform(0.1, 1, points) for column in COLUMNS}


def lines(svg: str) -> list[tuple[str, int]]:
    """Colour, and number of points, of each path that is a line of data."""
    found = re.findall(r'<path d="([^"]*)" clip-path="[^"]*" style="fill: none; stroke: (#\w{6})[^"]*"', svg)
    return [(color, path.count("M") + path.count("L")) for path, color in found]


def panels(path: Path) -> list[str]:
    return re.split(r'<g id="axes_\d+">', path.read_text())[1:]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures, not written."""
    figures: list[Figure] = []
    monkeypatch.setattr("gan.figures.curves.save_svg", lambda figure, _: figures.append(figure))
    return figures


@pytest.mark.parametrize("points", [0, 1, 10, 300])
def test_curves_of_any_length_are_drawn(tmp_path: Path, points: int) -> None:
    draw_curves(tmp_path / "curves.svg", noisy_curves(points))
    assert len(panels(tmp_path / "curves.svg")) == 5


def test_each_panel_shows_its_curves(tmp_path: Path) -> None:
    draw_curves(tmp_path / "curves.svg", noisy_curves(40))
    expected = (BOTH, {*BOTH, LATER}, {DISCRIMINATOR}, {GENERATOR}, {*BOTH, LATER})
    for panel, colors in zip(panels(tmp_path / "curves.svg"), expected, strict=True):
        # matplotlib leaves out points that lie on the line between their neighbours.
        assert {color for color, points in lines(panel) if points > 30} == colors


def test_the_same_bytes_twice_whatever_the_users_style_and_the_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_curves(tmp_path / "a.svg", noisy_curves(60))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "black", "svg.fonttype": "none", "svg.hashsalt": "other"}):
        draw_curves(tmp_path / "b.svg", noisy_curves(60))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_chart_needs_no_font_and_tells_neither_day_nor_version(tmp_path: Path) -> None:
    draw_curves(tmp_path / "a.svg", noisy_curves(60))
    svg = (tmp_path / "a.svg").read_text()
    assert not re.search(r"<text|font-family|dc:date|dc:creator|[Mm]atplotlib(?!\.axis_)", svg)


def test_the_file_of_a_long_run_stays_small_and_keeps_its_extremes(tmp_path: Path) -> None:
    curves = noisy_curves(50_000)
    draw_curves(tmp_path / "curves.svg", curves)
    assert (tmp_path / "curves.svg").stat().st_size < 300_000
    assert max(points for _, points in lines((tmp_path / "curves.svg").read_text())) <= 2 * BUCKETS + 2
    curves["loss_d"][31_234] = 50.0
    _, kept = thin(curves["kimg"], curves["loss_d"], BUCKETS)
    assert kept.max() == 50.0


def test_thinning_keeps_each_stretchs_lowest_and_highest_point_in_order() -> None:
    values = np.array([3.0, 1.0, 2.0, 5.0, 4.0, 9.0, 7.0, 8.0])
    kimg, kept = thin(np.arange(8.0), values, 2)
    np.testing.assert_array_equal(kimg, [1, 3, 4, 5])
    np.testing.assert_array_equal(kept, [1, 5, 4, 9])


def test_thinning_leaves_a_gap_where_a_stretch_has_no_value() -> None:
    values = np.array([1.0, 2.0, 3.0, np.nan, np.inf, np.nan, 4.0, np.nan, 5.0])
    kimg, kept = thin(np.arange(9.0), values, 3)
    np.testing.assert_array_equal(kimg, [0, 2, 3, 6, 8])
    np.testing.assert_array_equal(kept, [1, 3, np.nan, 4, 5])


def test_few_points_are_all_kept() -> None:
    values = np.random.default_rng(0).normal(size=6)
    np.testing.assert_array_equal(thin(np.arange(6.0), values, 3)[1], values)


def test_values_that_no_axis_has_leave_gaps(tmp_path: Path) -> None:
    curves = noisy_curves(200)
    curves["loss_d"][50:] = np.nan
    curves["loss_g"][:] = np.inf
    curves["grad_norm_g"][:10] = 0
    curves["z_spread"][:] = 0
    draw_curves(tmp_path / "curves.svg", curves)
    losses, *_, spread, _ = panels(tmp_path / "curves.svg")
    assert {color for color, points in lines(losses) if points > 30} == {DISCRIMINATOR}
    assert not [color for color, points in lines(spread) if color == GENERATOR and points > 2]


@pytest.mark.parametrize("points", [1, 2, 16])
def test_the_distance_is_drawn_with_its_floor(tmp_path: Path, points: int) -> None:
    kimg = np.arange(1.0, points + 1)
    for name in ("a.svg", "b.svg"):
        draw_distance(tmp_path / name, kimg, 100 / kimg, "classifier-FD", 1.2)
    draw_distance(tmp_path / "bare.svg", kimg, 100 / kimg, "classifier-FD", None)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    floors = [color for name in ("a.svg", "bare.svg") for color, _ in lines((tmp_path / name).read_text())]
    assert floors.count(GENERATOR) == 2
    with_floor, bare = ((tmp_path / name).read_text().count("stroke-dasharray") for name in ("a.svg", "bare.svg"))
    assert with_floor > bare


def test_the_distance_names_its_log_scale(drawn: list[Figure], tmp_path: Path) -> None:
    draw_distance(tmp_path / "a.svg", np.arange(1.0, 5), np.arange(1.0, 5), "squeezenet-FD", 0.5)
    (axes,) = drawn[0].axes
    assert (axes.get_ylabel(), axes.get_yscale()) == ("squeezenet-FD (log scale)", "log")
    assert axes.get_xlabel() == "thousands of real images shown (kimg)"


@pytest.mark.parametrize(
    ("distances", "best", "named"),
    [
        ([9.0, 4.0, 2.5, 3.0], (30, 2.5), "best: 2.5 at 30 kimg"),
        ([9.0, np.nan, 0.0, 12.0], (10, 9.0), "best: 9 at 10 kimg"),
    ],
)
def test_the_best_generator_is_ringed_and_named(
    drawn: list[Figure], tmp_path: Path, distances: list[float], best: tuple[float, float], named: str
) -> None:
    draw_distance(tmp_path / "a.svg", np.arange(10.0, 50, 10), np.array(distances), "FID", None)
    (axes,) = drawn[0].axes
    (ring,) = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert (ring.get_xdata(), ring.get_ydata()) == ([best[0]], [best[1]])
    assert [text.get_text() for text in axes.texts] == [named]


def test_a_distance_of_zero_leaves_a_gap_and_is_not_the_best(drawn: list[Figure], tmp_path: Path) -> None:
    draw_distance(tmp_path / "a.svg", np.arange(1.0, 5), np.array([9.0, 0.0, -1e-9, np.nan]), "squeezenet-FD", 0.0)
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.texts] == ["best: 9 at 1.0 kimg"]
    assert [line.get_label() for line in axes.lines][:1] == ["kept generators"]


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
    for name in ("a.svg", "b.svg"):
        draw_class_shares(tmp_path / name, names, np.array([0.5, 0.5, 0.0]), np.array([0.3, 0.3, 0.4]))
    svg = (tmp_path / "a.svg").read_text()
    assert svg.count(f"fill: {SAMPLES}") >= 3
    assert f"stroke: {INK}" in svg
    assert "<b>" not in svg
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_precision_stands_against_recall_with_intervals_and_the_floor(drawn: list[Figure], tmp_path: Path) -> None:
    draw_precision_recall(
        tmp_path / "a.svg", 0.8, 0.7, precision_interval=(0.75, 0.85), recall_interval=(0.6, 0.72), floor=(0.9, 0.95)
    )
    (axes,) = drawn[0].axes
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 1), (0, 1))
    assert axes.get_xlabel().startswith("recall")
    assert axes.get_ylabel().startswith("precision")
    points = [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in axes.lines]  # type: ignore[arg-type]
    assert points == [([0.95], [0.9]), ([0.6, 0.72], [0.8, 0.8]), ([0.7, 0.7], [0.75, 0.85]), ([0.7], [0.8])]


def test_precision_and_recall_alone_are_drawn_too(drawn: list[Figure], tmp_path: Path) -> None:
    draw_precision_recall(tmp_path / "a.svg", 1.0, 0.0, precision_interval=None, recall_interval=None, floor=None)
    (axes,) = drawn[0].axes
    assert len(axes.lines) == 1


def test_colours_are_told_apart_by_their_lightness_from_paper_too() -> None:
    def contrast_with_white(color: str) -> float:
        channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05)

    # WCAG 2.1, 1.4.11: graphics need 3 to 1, text 4.5 to 1.
    assert all(contrast_with_white(color) >= 3 for color in (DISCRIMINATOR, GENERATOR, LATER, FAINT))
    assert contrast_with_white(INK) >= 4.5
