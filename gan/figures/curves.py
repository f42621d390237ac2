"""Charts of the training curves, the distance over training, the classes' shares, and precision against recall."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from gan.diagnosis import SPREAD_ALARM
from gan.figures.style import (
    BLUE,
    GREEN,
    INK,
    KIMG,
    ORANGE,
    VERMILLION,
    chart,
    legend_above,
    level,
    log_axis,
    save_svg,
    tick_log_axis,
)

Curve = NDArray[np.float64]
Interval = tuple[float, float]

DISCRIMINATOR = BLUE
GENERATOR = VERMILLION
LATER = GREEN
SAMPLES = ORANGE

WINDOWS = 25
"""Windows of the moving average that fit side by side into a curve."""
BUCKETS = 160
"""Stretches of a curve of which no more than the lowest and the highest point are drawn: 1 mm wide each in print, and
a file stays small however long the run."""


def draw_curves(path: Path, curves: Mapping[str, Curve]) -> None:
    """Draw the training curves as an SVG of five panels against kimg.

    `curves` holds columns of equal length: `kimg`; `loss_d` and `loss_g`; `d_real`, `d_fake_before` and `d_fake_after`,
    probabilities; `saturated`, a share; `z_spread`, in units of [-1, 1]; `grad_norm_d`, `grad_norm_g` and
    `grad_norm_g_first`, Euclidean norms. Points that are not finite, and on a log axis those of zero, leave gaps. Equal
    curves give equal bytes.
    """
    kimg = curves["kimg"]
    with chart(height_inches=12.2) as figure:
        axes = figure.subplots(5, sharex=True)
        losses, answers, sure, spread, norms = axes

        losses.set(title="Losses", ylabel="loss")
        _line(losses, kimg, curves["loss_d"], DISCRIMINATOR, "discriminator")
        _line(losses, kimg, curves["loss_g"], GENERATOR, "generator")

        answers.set(title="Judged real", ylabel="mean probability", ylim=(-0.02, 1.02))
        level(answers, 0.5)
        _line(answers, kimg, curves["d_real"], DISCRIMINATOR, "real, D(x)")
        _line(answers, kimg, curves["d_fake_before"], GENERATOR, "generated, D(G(z))")
        _line(answers, kimg, curves["d_fake_after"], LATER, "after D's step")

        sure.set(title="Sure answers", ylabel="share of D's outputs", ylim=(-0.02, 1.02))
        _line(sure, kimg, curves["saturated"], DISCRIMINATOR, "surer than 0.993")

        spread.set(title="Spread across z", ylabel="of the generator's output")
        log_axis(spread)
        level(spread, SPREAD_ALARM, f"alarm, {SPREAD_ALARM:g}")
        _line(spread, kimg, curves["z_spread"], GENERATOR, "standard deviation")

        norms.set(title="Size of the gradients", ylabel="Euclidean norm")
        norms.set_xlabel(KIMG)
        log_axis(norms)
        _line(norms, kimg, curves["grad_norm_d"], DISCRIMINATOR, "discriminator")
        _line(norms, kimg, curves["grad_norm_g"], GENERATOR, "generator")
        _line(norms, kimg, curves["grad_norm_g_first"], LATER, "its first block")

        tick_log_axis(spread)
        tick_log_axis(norms)
        for panel in axes:
            panel.margins(x=0.01)
            legend_above(panel)
        figure.align_ylabels(axes)
        save_svg(figure, path)


def draw_distance(path: Path, kimg: Curve, distances: Curve, name: str, floor: float | None) -> None:
    """Draw the Fréchet distance `name` of the kept generators against kimg, and that of real images as a line, as SVG.

    The best generator is ringed and named. The distances have a log axis; what is not above zero leaves a gap. Equal
    arguments give equal bytes.
    """
    with chart(height_inches=3.2) as figure:
        axes = figure.subplots()
        axes.set(title="Distance over training", ylabel=f"{name} (log scale)")
        axes.set_xlabel(KIMG)
        log_axis(axes)
        axes.plot(kimg, distances, color=GENERATOR, label="kept generators", marker="o", markersize=3.5)
        if floor is not None and floor > 0:
            level(axes, floor, f"real images, {floor:.3g}")
        drawn = np.isfinite(distances) & (distances > 0)
        if drawn.any():
            best = int(np.argmin(np.where(drawn, distances, np.inf)))
            _mark_best(axes, float(kimg[best]), float(distances[best]), float(kimg.max()))
        axes.set_xlim(left=0)
        axes.margins(y=0.12)
        tick_log_axis(axes)
        legend_above(axes)
        save_svg(figure, path)


def draw_class_shares(path: Path, classes: Sequence[str], samples: Curve, real: Curve) -> None:
    """Draw each class's share of the samples as a bar and of the real images as a mark, as SVG.

    `samples` and `real` hold one share from 0 to 1 for each of `classes`. Equal shares give equal bytes.
    """
    positions = np.arange(len(classes))
    with chart(height_inches=1.1 + 0.3 * len(classes)) as figure:
        axes = figure.subplots()
        axes.set(title="Share of each class", xlabel="share of the images (%)")
        bars = axes.barh(positions, samples, height=0.62, color=SAMPLES, label="samples")
        marks = axes.vlines(real, positions - 0.42, positions + 0.42, color=INK, linewidth=2.2, label="real images")
        axes.set_yticks(positions, classes)
        axes.set_ylim(len(classes) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        legend_above(axes, [bars, marks])
        save_svg(figure, path)


def draw_precision_recall(
    path: Path,
    precision: float,
    recall: float,
    *,
    precision_interval: Interval | None,
    recall_interval: Interval | None,
    floor: tuple[float, float] | None,
) -> None:
    """Draw the samples' precision against their recall, both from 0 to 1, as SVG.

    The intervals, low and high, are bars. `floor` is the precision and the recall of held-out real images in the
    samples' place. Equal arguments give equal bytes.
    """
    with chart(height_inches=4.4, width_inches=4.4) as figure:
        axes = figure.subplots()
        axes.set(title="Precision and recall", aspect="equal", xlim=(0, 1), ylim=(0, 1))
        axes.set_xlabel("recall: share of real images among the samples")
        axes.set_ylabel("precision: share of samples among real images")
        if floor is not None:
            axes.plot(
                floor[1], floor[0], "D", markersize=8, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.6,
                linestyle="none", label="held-out real images", clip_on=False,
            )  # fmt: skip
        if recall_interval is not None:
            axes.plot(recall_interval, (precision, precision), color=GENERATOR, linewidth=1.6, clip_on=False)
        if precision_interval is not None:
            axes.plot((recall, recall), precision_interval, color=GENERATOR, linewidth=1.6, clip_on=False)
        axes.plot(recall, precision, "o", color=GENERATOR, markersize=7, label="samples", clip_on=False)
        axes.legend(loc="lower left", frameon=True, framealpha=0.9, edgecolor="none")
        save_svg(figure, path)


def smooth(values: Curve) -> Curve:
    """A centred moving average over about 1/25 of the length, NaN where it meets no finite value."""
    window = 2 * (len(values) // (2 * WINDOWS)) + 1
    if window == 1:
        return values
    finite = np.isfinite(values)
    ones = np.ones(window)
    total = np.convolve(np.where(finite, values, 0.0), ones, "same")
    count = np.convolve(finite, ones, "same")
    average: Curve = np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0.5)
    return average


def thin(kimg: Curve, values: Curve, buckets: int) -> tuple[Curve, Curve]:
    """The lowest and the highest point of each of `buckets` equal stretches of a curve, in their order.

    A stretch without a finite value keeps one point of it, as a gap. A curve of no more than two points a stretch is
    returned as it is.
    """
    if len(values) <= 2 * buckets:
        return kimg, values
    finite = np.isfinite(values)
    kept: set[int] = set()
    for start, end in pairwise(np.linspace(0, len(values), buckets + 1).astype(int)):
        here = np.flatnonzero(finite[start:end]) + start
        kept |= {here[values[here].argmin()], here[values[here].argmax()]} if len(here) else {start}
    indices = sorted(kept)
    return kimg[indices], values[indices]


def _line(axes: Axes, kimg: Curve, values: Curve, color: str, label: str) -> None:
    line = smooth(values)
    if np.array_equal(line, values, equal_nan=True):
        axes.plot(kimg, values, color=color, label=label, marker="o" if len(values) < 20 else None, markersize=3)
        return
    axes.plot(*thin(kimg, values, BUCKETS), color=color, alpha=0.3, linewidth=0.7)
    axes.plot(*thin(kimg, line, BUCKETS), color=color, label=label)


def _mark_best(axes: Axes, kimg: float, distance: float, end: float) -> None:
    """Ring a point and name it above, toward the side with more room."""
    axes.plot(kimg, distance, "o", markersize=9, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.4)
    side = "right" if kimg > end / 2 else "left"
    axes.annotate(
        f"best: {distance:.3g} at {kimg:,.{0 if kimg >= 10 else 1}f} kimg",
        (kimg, distance),
        (0, 26),
        textcoords="offset points",
        ha=side,
        fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
        arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 5},
    )
