"""The comparison: one self-contained HTML page that puts several experiments side by side, and its charts."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Chart
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from gan.figures.curves import DISCRIMINATOR, GENERATOR, Curve, smooth, thin
from gan.figures.page import Figure, page_environment
from gan.figures.scores import EQUAL, first, is_frechet, is_kernel, is_number, know, number
from gan.figures.style import (
    BLUE,
    DASHED,
    FAINT,
    GREEN,
    INK,
    KIMG,
    ORANGE,
    VERMILLION,
    chart,
    level,
    log_axis,
    save_svg,
    tick_log_axis,
)

TEMPLATE = "comparison.html.j2"
COLOURS = (BLUE, VERMILLION, GREEN, "#b0578d", INK, ORANGE, "#3f9fd8")
"""Okabe and Ito's, the purple and the sky blue darkened until they stand out from white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LONGEST_LABEL = 58
"""Letters of a name that a chart's key has room for."""
LONGEST_TITLE = 28
"""Letters of a name that a panel of two side by side has room for."""
NAMED = 3
"""Experiments that the finding names at most."""
LOG_FROM = 5.0
"""How many times the smallest distance the largest is, for them to be drawn on a log axis."""
BUCKETS = 120
"""Stretches of a loss curve of which the lowest and the highest point are drawn."""
TONES = {"converged": "good", "still improving": "wait", "stopped too early": "wait", "stalled": "wait"}
"""How a verdict is coloured; any other is bad, and one without a training is plain."""
NOT_TRAINED = "not trained here"


@dataclass(frozen=True)
class Experiment:
    """What is known of one experiment; what its run did not make is None."""

    name: str
    commit: str
    command: str
    """The commands that make its results again."""
    params: Mapping[str, Any]
    """Resolved parameters by their names, as `train.epochs`."""
    scores: Mapping[str, Any]
    """As scores.json."""
    explanation: str | None
    """What its verdict means, in a sentence or two."""
    distances: tuple[Curve, Curve] | None
    """kimg and Fréchet distance of each kept generator."""
    losses: tuple[Curve, Curve, Curve] | None
    """kimg, the discriminator's loss and the generator's, NaN where there is none."""
    samples: Path | None
    """A picture of samples."""
    digests: Mapping[str, str]
    """MD5 of each of its files that the page is made from, by the file's name."""

    @property
    def verdict(self) -> str:
        """What the diagnosis says in a word or two."""
        return str(self.scores.get("verdict", "no verdict"))


@dataclass(frozen=True)
class Cell:
    """A score of one experiment as it is printed."""

    value: str
    interval: str | None
    best: bool
    """Better than that of all others, beyond the 95 % intervals."""


@dataclass(frozen=True)
class Column:
    """A score of all experiments."""

    key: str
    label: str
    better: str
    """`higher`, `lower`, or nothing where neither is better."""
    cells: Sequence[Cell | None]
    """None where an experiment has no such score."""
    floor: str | None
    """What held-out real images reach; None where experiments have different floors."""


@dataclass(frozen=True)
class Figures:
    """The charts of the page, in its order; None for what was not measured or does not compare."""

    scores: Figure | None
    distance: Figure | None
    precision_recall: Figure | None
    losses: Figure | None


def render_comparison(
    experiments: Sequence[Experiment], *, failed: Mapping[str, str], refusal: str, figures: Figures, command: str
) -> str:
    """The whole page as HTML that loads nothing from anywhere and runs no script. Equal arguments, equal text.

    failed: experiments that came to nothing, and why.
    refusal: why the scores do not compare, or nothing; where they do not, none are shown.
    command: what makes the page again.
    """
    return (
        page_environment()
        .get_template(TEMPLATE)
        .render(
            experiments=experiments,
            marks=[mark(index) for index in range(len(experiments))],
            tones=[tone(experiment.verdict) for experiment in experiments],
            failed=failed,
            refusal=refusal,
            warnings=[f"{each.name}: {said}" for each in experiments for said in each.scores.get("warnings", [])],
            figures=figures,
            command=command,
            finding="" if refusal else finding(experiments),
            differing=differing_params(experiments),
            columns=[] if refusal else score_columns(experiments),
            details=[] if refusal else score_columns(experiments, of="details"),
            protocol=protocol_table(experiments),
        )
    )


def mark(index: int) -> tuple[str, str]:
    """The colour and the marker of the experiment `index`, from 0, in all charts; 49 of them are different."""
    return COLOURS[index % len(COLOURS)], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]


def tone(verdict: str) -> str:
    """How the verdict is coloured: good, wait, bad or plain."""
    return "plain" if verdict == NOT_TRAINED else TONES.get(verdict, "bad")


def score_columns(experiments: Sequence[Experiment], of: str | None = None) -> list[Column]:
    """Each number of the experiments' scores, or of the mapping `of` in them, in words; spreads go with their scores.

    The best cell is marked where its 95 % interval overlaps no other one's, and nowhere without intervals.
    """
    found = [experiment.scores if of is None else first(experiment.scores, of) for experiment in experiments]
    keys = dict.fromkeys(key for scores in found for key, value in scores.items() if is_number(value))
    columns = []
    for key in keys:
        if key.endswith("_std"):
            continue
        known, best = know(key), best_of(experiments, key)
        cells: list[Cell | None] = []
        for index, (experiment, scores) in enumerate(zip(experiments, found, strict=True)):
            if not is_number(scores.get(key)):
                cells.append(None)
                continue
            ends = interval(experiment, key)
            text = f"{number(ends[0], known.spec)} to {number(ends[1], known.spec)}" if ends else None
            cells.append(Cell(number(scores[key], known.spec), text, index == best))
        measured = [floor_of(experiment, key) for experiment in experiments]
        floors = {number(floor, known.spec) for floor in measured if floor is not None}
        columns.append(Column(key, known.label, known.better, cells, floors.pop() if len(floors) == 1 else None))
    return columns


def interval(experiment: Experiment, key: str) -> tuple[float, float] | None:
    """The 95 % interval of the experiment's score `key`, low and high; None where there is none."""
    ends = first(experiment.scores, "intervals").get(key)
    return (float(ends[0]), float(ends[1])) if ends else None


def floor_of(experiment: Experiment, key: str) -> float | None:
    """The score `key` of held-out real images in the samples' place."""
    value: float | None = first(experiment.scores, "floor").get(key)
    return value if is_number(value) else None


def best_of(experiments: Sequence[Experiment], key: str) -> int | None:
    """The index of the experiment whose score `key` is better than all others', visibly and beyond the intervals."""
    better = know(key).better
    having = [index for index, each in enumerate(experiments) if is_number(each.scores.get(key))]
    if not better or len(having) < 2:
        return None
    best, *others = sorted(having, key=lambda index: _signed(experiments[index], key))
    return None if any(_level(experiments[best], experiments[other], key) for other in others) else best


def _signed(experiment: Experiment, key: str) -> float:
    """The score, so that less is better; infinite where there is none."""
    if not is_number(experiment.scores.get(key)):
        return math.inf
    value: float = experiment.scores[key]
    return value if know(key).better == "lower" else -value


def finding(experiments: Sequence[Experiment]) -> str:
    """What the scores say of the best experiment, in a sentence; nothing where fewer than two have a score."""
    having = [experiment for experiment in experiments if main_score([experiment])]
    key = main_score(having)
    if key is None or len(having) < 2:
        return ""
    known = know(key)
    ranked = sorted(having, key=lambda experiment: _signed(experiment, key))
    best, second = ranked[:2]
    level_with = [each for each in ranked if each is best or _level(best, each, key)]
    leads = f"{best.name} has the {'smallest' if known.better == 'lower' else 'highest'} {known.label}"
    if len(level_with) == 1:
        said = f"{leads}, {_said(best, key)}; {second.name} comes next with {_said(second, key)}."
    elif _printed(best, key) != _printed(second, key) and not (interval(best, key) and interval(second, key)):
        said = (
            f"{leads}, {_said(best, key)}; {second.name} has {_said(second, key)}. Without intervals, it may be chance."
        )
    else:
        names = [f"{each.name} ({_said(each, key)})" for each in level_with]
        if len(names) > NAMED:
            names[NAMED - 1 :] = [f"{len(names) - NAMED + 1} more"]
        said = f"By the {known.label}, {', '.join(names[:-1])} and {names[-1]} cannot be told apart."
    floor = floor_of(best, key)
    if floor is None:
        return said
    said += f" Held-out real images reach {number(floor, known.spec)}"
    fair = first(best.scores, "details").get(f"{key}{EQUAL}")
    return f"{said}." if fair is None else f"{said}, as many samples of {best.name} {number(fair, known.spec)}."


def _said(experiment: Experiment, key: str) -> str:
    """The score and its interval, as `1.02, 95 % interval 0.97 to 1.07`."""
    ends, spec = interval(experiment, key), know(key).spec
    text = _printed(experiment, key)
    between = f", 95\N{NO-BREAK SPACE}% interval {number(ends[0], spec)} to {number(ends[1], spec)}" if ends else ""
    return text + between


def _printed(experiment: Experiment, key: str) -> str:
    return number(experiment.scores[key], know(key).spec)


def _level(one: Experiment, other: Experiment, key: str) -> bool:
    """Whether two experiments' score is printed alike, or their intervals overlap; one that is missing overlaps all."""
    everything = (-math.inf, math.inf)
    (low, high), (start, end) = (interval(each, key) or everything for each in (one, other))
    return _printed(one, key) == _printed(other, key) or (low <= end and start <= high)


def main_score(experiments: Sequence[Experiment]) -> str | None:
    """The score to rank the experiments by, among those that all have.

    A Fréchet distance, a kernel distance or the Inception Score; the first of which all have an interval, else the
    first.
    """
    keys = experiments[0].scores if experiments else {}
    common = [key for key in keys if all(is_number(each.scores.get(key)) for each in experiments)]
    ranking = [*filter(is_frechet, common), *filter(is_kernel, common)]
    ranking += ["inception_score"] if "inception_score" in common else []
    sure = [key for key in ranking if all(interval(each, key) for each in experiments)]
    return next(iter([*sure, *ranking]), None)


def distance_score(experiments: Sequence[Experiment]) -> str | None:
    """The Fréchet distance whose course over training was measured; None where there is none."""
    courses = [experiment for experiment in experiments if experiment.distances]
    return next((key for experiment in courses for key in experiment.scores if is_frechet(key)), None)


def differing_params(experiments: Sequence[Experiment]) -> dict[str, list[Any]]:
    """The parameters in which the experiments differ, with the value of each; those of a run without it are None."""
    names = dict.fromkeys(name for experiment in experiments for name in experiment.params)
    found = {name: [experiment.params.get(name) for experiment in experiments] for name in names}
    return {name: values for name, values in found.items() if any(value != values[0] for value in values)}


def protocol_table(experiments: Sequence[Experiment]) -> dict[str, list[Any]]:
    """Each entry of the protocols: the one value that all have, or the value of each."""
    protocols = [first(experiment.scores, "protocol") for experiment in experiments]
    entries = dict.fromkeys(entry for protocol in protocols for entry in protocol)
    found = {entry: [protocol.get(entry) for protocol in protocols] for entry in entries}
    return {
        entry: values[:1] if all(value == values[0] for value in values) else values for entry, values in found.items()
    }


def draw_scores(path: Path, experiments: Sequence[Experiment]) -> None:
    """Draw each score that has an interval or a floor as SVG: a panel a score, and in it a point an experiment.

    Bars are 95 % intervals, dashed lines what held-out real images reach. Equal arguments give equal bytes.
    """
    keys = charted_scores(experiments)
    rows = math.ceil(len(keys) / 2)
    with chart(height_inches=rows * (0.8 + 0.2 * len(experiments)) + _key_height(experiments)) as figure:
        _space(figure)
        panels = list(figure.subplots(rows, 2, squeeze=False).flat)
        for axes, key in zip(panels, keys, strict=False):
            known = know(key)
            axes.set_title(f"{known.label} {'↓' if known.better == 'lower' else '↑'}", fontsize=10)
            for index, experiment in enumerate(experiments):
                if is_number(experiment.scores.get(key)):
                    _point(axes, experiment, index, key)
            floor = floor_of(experiments[0], key)
            if floor is not None:
                axes.axvline(floor, color=INK, linewidth=1.0, linestyle=DASHED, zorder=1.5)
            axes.set_ylim(len(experiments) - 0.4, -0.6)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.margins(x=0.12)
            _scale(axes, experiments, key)
        for axes in panels[len(keys) :]:
            axes.set_axis_off()
        floors = any(floor_of(experiments[0], key) is not None for key in keys)
        _key_below(figure, experiments, "held-out real images" if floors else None, lines=False)
        save_svg(figure, path)


def _space(figure: Chart) -> None:
    """Keep panels and the key apart."""
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(w_pad=0.12, h_pad=0.09)


def _scale(axes: Axes, experiments: Sequence[Experiment], key: str) -> None:
    """Give a distance a log axis where one experiment is so far off that the others would fall together."""
    values = [end for each in experiments for end in interval(each, key) or () if is_number(each.scores.get(key))]
    values += [value for each in experiments if (value := floor_of(each, key)) is not None]
    values += [each.scores[key] for each in experiments if is_number(each.scores.get(key))]
    if (is_frechet(key) or is_kernel(key)) and min(values) > 0 and max(values) > LOG_FROM * min(values):
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _point(axes: Axes, experiment: Experiment, index: int, key: str) -> None:
    colour, marker = mark(index)
    ends = interval(experiment, key)
    if ends:
        axes.plot(ends, (index, index), color=colour, linewidth=1.6, marker="|", markersize=8, markeredgewidth=1.6)
    axes.plot(experiment.scores[key], index, marker=marker, color=colour, markersize=6, linestyle="none")


def charted_scores(experiments: Sequence[Experiment]) -> list[str]:
    """The scores, of which more or less is better, that an interval or a floor tells how to read."""
    return [
        column.key
        for column in score_columns(experiments)
        if column.better
        and any(interval(each, column.key) or floor_of(each, column.key) is not None for each in experiments)
    ]


def draw_distances(path: Path, experiments: Sequence[Experiment], name: str, floor: float | None) -> None:
    """Draw the Fréchet distance `name` of all kept generators against kimg as SVG, a line an experiment.

    `floor` is that of real images. The distances have a log axis; what is not above zero leaves a gap. Equal arguments
    give equal bytes.
    """
    with chart(height_inches=3.4 + _key_height(experiments)) as figure:
        _space(figure)
        axes = figure.subplots()
        axes.set(title="Distance over training", ylabel=f"{name} (log scale)", xlabel=KIMG)
        for index, experiment in enumerate(experiments):
            if experiment.distances:
                colour, marker = mark(index)
                axes.plot(*experiment.distances, color=colour, marker=marker, markersize=4)
        drawn = floor is not None and floor > 0
        if floor is not None and drawn:
            level(axes, floor)
        positive = any((each.distances[1] > 0).any() for each in experiments if each.distances)
        if positive or drawn:
            log_axis(axes)
            tick_log_axis(axes)
        axes.set_xlim(left=0)
        shown = f"held-out real images, {floor:.3g}" if drawn else None
        _key_below(figure, experiments, shown, of=[bool(experiment.distances) for experiment in experiments])
        save_svg(figure, path)


def draw_precision_recall(path: Path, experiments: Sequence[Experiment]) -> None:
    """Draw precision against recall, both from 0 to 1, as SVG: a point an experiment, bars for the 95 % intervals.

    A diamond is held-out real images in the samples' place. Equal arguments give equal bytes.
    """
    with chart(height_inches=4.3 + _key_height(experiments), width_inches=4.8) as figure:
        _space(figure)
        axes = figure.subplots()
        axes.set(title="Precision and recall", aspect="equal", xlim=(0, 1), ylim=(0, 1))
        axes.set_xlabel("recall: share of the real images' kinds drawn")
        axes.set_ylabel("precision: share of the samples like real ones")
        has = [has_precision_recall(experiment) for experiment in experiments]
        for index, experiment in enumerate(experiments):
            if not has[index]:
                continue
            colour, marker = mark(index)
            precision, recall = (experiment.scores[key] for key in ("precision", "recall"))
            ends = interval(experiment, "recall")
            if ends:
                axes.plot(ends, (precision, precision), color=colour, linewidth=1.6, clip_on=False)
            ends = interval(experiment, "precision")
            if ends:
                axes.plot((recall, recall), ends, color=colour, linewidth=1.6, clip_on=False)
            axes.plot(
                recall, precision, marker=marker, color=colour, markersize=8, linestyle="none", clip_on=False, **_RIM
            )
        recall, precision = (floor_of(experiments[has.index(True)], key) for key in ("recall", "precision"))
        real = recall is not None and precision is not None
        if recall is not None and precision is not None:
            axes.plot(recall, precision, **_REAL, clip_on=False)
        _key_below(figure, experiments, None, of=has, lines=False, more=[Line2D([], [], **_REAL)] if real else [])
        save_svg(figure, path)


_RIM: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.8}
"""Of marks that may lie upon each other."""
_REAL: dict[str, Any] = {
    "marker": "D",
    "markersize": 8,
    "markerfacecolor": "none",
    "markeredgecolor": INK,
    "markeredgewidth": 1.6,
    "linestyle": "none",
    "label": "held-out real images",
}


def has_precision_recall(experiment: Experiment) -> bool:
    """Whether both were measured."""
    return all(is_number(experiment.scores.get(key)) for key in ("precision", "recall"))


def draw_losses(path: Path, experiments: Sequence[Experiment]) -> None:
    """Draw both losses against kimg as SVG, a panel an experiment, all on the same axes.

    The axes hold the middle 98 % of all values: one run that diverges does not flatten the others. Equal arguments give
    equal bytes.
    """
    trained = [(index, experiment) for index, experiment in enumerate(experiments) if experiment.losses]
    rows = math.ceil(len(trained) / 2)
    lines = [smooth(loss) for _, each in trained if each.losses for loss in each.losses[1:]]
    values = np.concatenate(lines)
    values = values[np.isfinite(values)]
    with chart(height_inches=0.6 + 2.1 * rows) as figure:
        _space(figure)
        panels = figure.subplots(rows, 2, squeeze=False, sharex=True, sharey=True)
        for axes, (index, experiment) in zip(panels.flat, trained, strict=False):
            assert experiment.losses
            colour, marker = mark(index)
            axes.set_title(_shorten(experiment.name, LONGEST_TITLE), fontsize=9.5, x=0.055)
            axes.plot(0.02, 1.085, marker, color=colour, markersize=6, transform=axes.transAxes, clip_on=False)
            kimg, *losses = experiment.losses
            networks = ((DISCRIMINATOR, "discriminator"), (GENERATOR, "generator"))
            for loss, (colour, label) in zip(losses, networks, strict=True):
                axes.plot(*thin(kimg, loss, BUCKETS), color=colour, alpha=0.28, linewidth=0.7)
                axes.plot(*thin(kimg, smooth(loss), BUCKETS), color=colour, label=label)
            axes.margins(x=0.01)
        for axes in list(panels.flat)[len(trained) :]:
            axes.set_axis_off()
        for axes in list(panels.flat)[: len(trained)][-2:]:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("kimg")
        for axes in panels[:, 0]:
            axes.set_ylabel("loss")
        if len(values):
            low, high = np.percentile(values, (1, 99))
            room = 0.12 * (high - low) or 1.0
            panels[0, 0].set_ylim(low - room, high + room)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2, borderpad=0.1)
        save_svg(figure, path)


def _key_height(experiments: Sequence[Experiment]) -> float:
    return 0.2 * (len(experiments) + 1)


def _key_below(
    figure: Chart,
    experiments: Sequence[Experiment],
    floor: str | None,
    *,
    of: Sequence[bool] | None = None,
    lines: bool = True,
    more: Sequence[Line2D] = (),
) -> None:
    """Name the marks below the chart, a line each: names are long."""
    handles = []
    for index, experiment in enumerate(experiments):
        if of is None or of[index]:
            colour, marker = mark(index)
            label = _shorten(experiment.name, LONGEST_LABEL)
            line = Line2D([], [], color=colour, marker=marker, markersize=5, label=label)
            line.set_linestyle("-" if lines else "none")
            handles.append(line)
    handles += more
    if floor is not None:
        handles.append(Line2D([], [], color=FAINT if lines else INK, linewidth=1.0, linestyle=DASHED, label=floor))
    figure.legend(handles=handles, loc="outside lower left", ncols=1, borderpad=0.1, labelspacing=0.35)


def _shorten(name: str, letters: int) -> str:
    """A name with its middle left out where it is long; its ends are what tells it from others."""
    shown = name if len(name) <= letters else f"{name[: letters // 2]}…{name[-(letters - letters // 2 - 1) :]}"
    return f" {shown}" if shown.startswith("_") else shown  # matplotlib hides labels with an underscore


def score_table(experiments: Sequence[Experiment], keys: Collection[str] | None = None) -> Iterator[tuple[object, ...]]:
    """All numbers of the scores, or those of `keys`, as rows of a CSV file, the header first."""
    yield "experiment", "score", "value", "low", "high", "floor"
    for experiment in experiments:
        for key, value in {**experiment.scores, **first(experiment.scores, "details")}.items():
            if is_number(value) and (keys is None or key in keys):
                low, high = interval(experiment, key) or ("", "")
                floor = floor_of(experiment, key)
                yield experiment.name, key, value, low, high, "" if floor is None else floor


def distance_table(experiments: Sequence[Experiment]) -> Iterator[tuple[object, ...]]:
    """The courses of the distance as rows of a CSV file, the header first."""
    yield "experiment", "kimg", "distance"
    for experiment in experiments:
        for point in zip(*(experiment.distances or ((), ())), strict=True):
            yield experiment.name, *map(float, point)


def loss_table(experiments: Sequence[Experiment]) -> Iterator[tuple[object, ...]]:
    """The losses as rows of a CSV file, the header first; empty where a step has none."""
    yield "experiment", "kimg", "loss_d", "loss_g"
    for experiment in experiments:
        for point in zip(*(experiment.losses or ((), (), ())), strict=True):
            yield experiment.name, *("" if math.isnan(value) else float(value) for value in point)
