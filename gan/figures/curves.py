"""Charts of the training curves, of the distance over training, and of the classes' shares."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from gan.diagnosis import SPREAD_ALARM

Curve = NDArray[np.float64]

DISCRIMINATOR = "#2b6cb0"
GENERATOR = "#d0661c"
SAMPLES = "#e39a5f"
LATER = "#1f9a8a"
INK = "#26282b"
FAINT = "#8a8f96"

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e7e9ec",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "lines.linewidth": 1.6,
    "figure.dpi": 160.0,
    "savefig.dpi": 160.0,
}
WIDTH_INCHES = 6.6
KIMG = "thousands of real images shown (kimg)"
WINDOWS = 25
"""Windows of the moving average that fit side by side into a curve."""


def draw_curves(path: Path, curves: Mapping[str, Curve]) -> None:
    """Draw the training curves as a PNG of five panels against kimg.

    `curves` holds columns of equal length: `kimg`; `loss_d` and `loss_g`; `d_real`, `d_fake_before` and `d_fake_after`,
    probabilities; `saturated`, a share; `z_spread`, in units of [-1, 1]; `grad_norm_d`, `grad_norm_g` and
    `grad_norm_g_first`, Euclidean norms. Points that are not finite, and on a log axis those of zero, leave gaps. Equal
    curves give equal bytes.
    """
    kimg = curves["kimg"]
    with _chart(height_inches=12.2) as figure:
        axes = figure.subplots(5, sharex=True)
        losses, answers, sure, spread, norms = axes

        losses.set(title="Losses", ylabel="loss")
        _line(losses, kimg, curves["loss_d"], DISCRIMINATOR, "discriminator")
        _line(losses, kimg, curves["loss_g"], GENERATOR, "generator")

        answers.set(title="Judged real", ylabel="mean probability", ylim=(-0.02, 1.02))
        _level(answers, 0.5)
        _line(answers, kimg, curves["d_real"], DISCRIMINATOR, "real, D(x)")
        _line(answers, kimg, curves["d_fake_before"], GENERATOR, "generated, D(G(z))")
        _line(answers, kimg, curves["d_fake_after"], LATER, "after D's step")

        sure.set(title="Sure answers", ylabel="share of D's outputs", ylim=(-0.02, 1.02))
        _line(sure, kimg, curves["saturated"], DISCRIMINATOR, "surer than 0.993")

        spread.set(title="Spread across z", ylabel="of the generator's output")
        _log_axis(spread)
        _level(spread, SPREAD_ALARM, f"alarm, {SPREAD_ALARM:g}")
        _line(spread, kimg, curves["z_spread"], GENERATOR, "standard deviation")

        norms.set(title="Size of the gradients", ylabel="Euclidean norm")
        norms.set_xlabel(KIMG)
        _log_axis(norms)
        _line(norms, kimg, curves["grad_norm_d"], DISCRIMINATOR, "discriminator")
        _line(norms, kimg, curves["grad_norm_g"], GENERATOR, "generator")
        _line(norms, kimg, curves["grad_norm_g_first"], LATER, "its first block")

        _tick(spread)
        _tick(norms)
        for panel in axes:
            panel.margins(x=0.01)
            _legend_above(panel)
        figure.align_ylabels(axes)
        _save(figure, path)


def draw_distance(path: Path, kimg: Curve, distances: Curve, name: str, floor: float | None) -> None:
    """Draw the Fréchet distance `name` of the kept generators against kimg, and that of real images as a line.

    The distances have a log axis; what is not above zero leaves a gap. Equal arguments give equal bytes.
    """
    with _chart(height_inches=3.0) as figure:
        axes = figure.subplots()
        axes.set(title="Distance over training", ylabel=f"{name} (log scale)")
        axes.set_xlabel(KIMG)
        _log_axis(axes)
        axes.plot(kimg, distances, color=GENERATOR, label="kept generators", marker="o", markersize=3.5)
        if floor is not None and floor > 0:
            _level(axes, floor, f"real images, {floor:.3g}")
        axes.set_xlim(left=0)
        _tick(axes)
        _legend_above(axes)
        _save(figure, path)


def draw_class_shares(path: Path, classes: Sequence[str], samples: Curve, real: Curve) -> None:
    """Draw each class's share of the samples as a bar and of the real images as a mark, as a PNG.

    `samples` and `real` hold one share from 0 to 1 for each of `classes`. Equal shares give equal bytes.
    """
    positions = np.arange(len(classes))
    with _chart(height_inches=1.1 + 0.3 * len(classes)) as figure:
        axes = figure.subplots()
        axes.set(title="Share of each class", xlabel="share of the images")
        bars = axes.barh(positions, samples, height=0.62, color=SAMPLES, label="samples")
        marks = axes.vlines(real, positions - 0.42, positions + 0.42, color=INK, linewidth=2.2, label="real images")
        axes.set_yticks(positions, classes)
        axes.set_ylim(len(classes) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        _legend_above(axes, [bars, marks])
        _save(figure, path)


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


@contextmanager
def _chart(height_inches: float) -> Iterator[Figure]:
    # The user's own matplotlibrc must not change the bytes.
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout=ConstrainedLayoutEngine(hspace=0.06))
        FigureCanvasAgg(figure)
        yield figure


def _line(axes: Axes, kimg: Curve, values: Curve, color: str, label: str) -> None:
    line = smooth(values)
    if np.array_equal(line, values, equal_nan=True):
        axes.plot(kimg, values, color=color, label=label, marker="o" if len(values) < 20 else None, markersize=3)
        return
    axes.plot(kimg, values, color=color, alpha=0.25, linewidth=0.7)
    axes.plot(kimg, line, color=color, label=label)


def _level(axes: Axes, value: float, label: str | None = None) -> None:
    axes.axhline(value, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), label=label)


def _log_axis(axes: Axes) -> None:
    axes.set_yscale("log", nonpositive="mask")


def _tick(axes: Axes) -> None:
    """Ticks of a log axis as plain numbers, more of them where it spans little; after all is drawn on it."""
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _legend_above(axes: Axes, handles: Sequence[Artist | Container] | None = None) -> None:
    """Put the legend on the title's line, at its right, where it hides no data."""
    axes.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=3,
        borderpad=0.1,
        borderaxespad=0.3,
        handlelength=1.2,
        columnspacing=1.2,
    )


def _save(figure: Figure, path: Path) -> None:
    # The version of matplotlib would be written into the file.
    figure.savefig(path, format="png", metadata={"Software": None}, pil_kwargs={"optimize": True})
