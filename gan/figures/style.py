"""How every chart looks, and how it is written: SVG of equal bytes for equal numbers, that needs no font.

The colours are those of Okabe and Ito, "Color Universal Design" (2008), which the colour-blind tell apart.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

BLUE = "#0072b2"
VERMILLION = "#d55e00"
GREEN = "#009e73"
ORANGE = "#e69f00"
INK = "#26282b"
FAINT = "#7b8087"

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
    "grid.color": "#e3e5e8",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "atelier",
}
WIDTH_INCHES = 6.0
KIMG = "thousands of real images shown (kimg)"
DASHED = (0.0, (4.0, 3.0))
"""A line that marks a level, beside the solid ones of what was measured."""


@contextmanager
def chart(height_inches: float, width_inches: float = WIDTH_INCHES) -> Iterator[Figure]:
    """An empty figure; draw and save it inside the block, whose style the user's matplotlibrc does not change."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(width_inches, height_inches), layout=ConstrainedLayoutEngine(hspace=0.06))
        FigureCanvasSVG(figure)
        yield figure


def save_svg(figure: Figure, path: Path) -> None:
    """Write a figure as SVG, its letters as paths. Equal figures give equal bytes."""
    # The date and the version of matplotlib would be written into the file.
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def level(axes: Axes, value: float, label: str | None = None) -> None:
    """Mark a value of the vertical axis by a dashed line."""
    axes.axhline(value, color=FAINT, linewidth=1.0, linestyle=DASHED, label=label)


def log_axis(axes: Axes) -> None:
    """Give the vertical axis a log scale, on which values that are not above zero leave gaps."""
    axes.set_yscale("log", nonpositive="mask")


def tick_log_axis(axes: Axes) -> None:
    """Ticks of a log axis as plain numbers, more of them where it spans little; after all is drawn on it."""
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def legend_above(axes: Axes, handles: Sequence[Artist | Container] | None = None) -> None:
    """Put the legend on the title's line, at its right, where it hides no data."""
    axes.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=3,
        borderpad=0.1,
        borderaxespad=0.3,
        handlelength=1.2,
        columnspacing=1.0,
    )
