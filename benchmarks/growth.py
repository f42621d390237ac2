"""Cost against size: `python -m benchmarks.growth`, with the names of parts and `--largest` for less of it.

Each size of each part is made in a temporary folder and then measured in a process of its own, whose memory and that of
all its children is looked at on the way. Printed are tables with the exponents of growth, the slopes of the curves in
log-log: 1 is linear, 0 flat. The curves are drawn as SVG into the folder `--out`.
"""

import argparse
import json
import logging
import math
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
from matplotlib.ticker import NullLocator

from benchmarks.growth_parts import AN_IMAGE, CORES, PARTS, ROOT, Part
from benchmarks.memory_group import memory_group
from gan.errors import InputError
from gan.figures.style import BLUE, GREEN, INK, ORANGE, VERMILLION, chart, level, save_svg, tick_log_axis

LOOK_SECONDS = 0.05
"""Between two looks at the memory."""
DISK = "/var/tmp"  # noqa: S108 - it is made in a folder of its own
"""Where files are made, as /tmp may lie in memory."""
COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, INK)


@dataclass(frozen=True)
class Point:
    """What a size cost."""

    size: int
    seconds: Mapping[str, float]
    own: Mapping[str, float]
    """Largest memory of the processes' own at any look, MB, by way."""
    all: Mapping[str, float]
    """The same, with the pages of files that they have mapped, programs among them; under a limit, the most that was
    held at any time, with all pages of files that the system keeps for them."""
    work: float
    """CPU seconds of the processes from their start to their end, which other work on the machine changes little."""


def measure(name: str, size: int) -> Point:
    """One size of a part, in each of its ways."""
    part = PARTS[name]
    seconds: dict[str, float] = {}
    own, everything, work = {}, {}, 0.0
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", DISK)) as temporary:
        part.make(size, Path(temporary))
        for way in part.ways:
            command = [sys.executable, "-m", "benchmarks.growth", name, "--point", str(size), way, temporary]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            with ExitStack() as stack:
                group = stack.enter_context(memory_group(part.limit)) if part.limit else None
                if group:
                    command = group.within(command)
                process = stack.enter_context(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
                peaks = [0.0, 0.0]
                looker = threading.Thread(target=_look, args=(process, peaks))
                looker.start()
                try:
                    said, _ = process.communicate()
                except BaseException:
                    process.kill()
                    raise
                looker.join()
                if group:
                    peaks[1] = group.peak_mb()
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            work += after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
            if process.returncode:
                raise SystemExit(f"growth: {name} at {size} failed")
            seconds |= json.loads(said.splitlines()[-1])
            own[way], everything[way] = peaks
    said = ", ".join(f"{what} {took:.3g} s" for what, took in seconds.items())
    print(f"{name} at {size}: {said}", file=sys.stderr, flush=True)
    return Point(size, seconds, own, everything, work)


def check_limit(part: Part) -> None:
    """Raise InputError where memory cannot be limited as the part needs it."""
    if part.limit:
        with memory_group(part.limit):
            return


def _look(process: subprocess.Popen[str], peaks: list[float]) -> None:
    """Keep the largest memory of a process and its children, in MB: their own, and with mapped files.

    What processes share is counted once, divided among them.
    """
    finished = threading.Event()
    while process.poll() is None:
        totals = [0.0, 0.0]
        for each in _family(process.pid):
            try:
                lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
            sizes = {key: float(rest.split()[0]) / 1000 for key, _, rest in (line.partition(":") for line in lines[1:])}
            totals[0] += sizes.get("Pss_Anon", 0.0)
            totals[1] += sizes.get("Pss", 0.0)
        peaks[:] = map(max, peaks, totals)
        finished.wait(LOOK_SECONDS)


def _family(pid: int) -> list[int]:
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of log value against log size, by least squares; NaN for fewer than two sizes."""
    if len(sizes) < 2:
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-9)), 1)[0])


def times(part: Part, points: Sequence[Point]) -> dict[str, list[float]]:
    """The curves of time, by what stands above their column."""
    unit, scale = ("µs", 1e6) if part.per == AN_IMAGE else ("s", 1.0)
    found = {f"{name}, {unit}": [scale * point.seconds[name] for point in points] for name in points[0].seconds}
    return found | {"CPU in all, s": [point.work for point in points]}


def memories(part: Part, points: Sequence[Point]) -> dict[str, list[float]]:
    """The curves of memory, by what stands above their column."""
    found = {}
    for way in part.ways:
        said = f"{way}: " if way else ""
        found[f"{said}own memory, MB"] = [point.own[way] for point in points]
        found[f"{said}with {'all pages of' if part.limit else 'mapped'} files, MB"] = [
            point.all[way] for point in points
        ]
    return found


def table(size: str, sizes: Sequence[int], curves: Mapping[str, Sequence[float]]) -> str:
    """A Markdown table: a row a size, and the exponents of all sizes and of the last two."""
    rows = [[size, *curves], ["---"] * (1 + len(curves))]
    rows += [[f"{size:,}", *(_number(curve[row]) for curve in curves.values())] for row, size in enumerate(sizes)]
    for said, start in (("exponent", 0), ("of the last two", -2)):
        slopes = (exponent(sizes[start:], curve[start:]) for curve in curves.values())
        rows.append([said, *(f"{round(slope, 2) + 0.0:.2f}" for slope in slopes)])  # no -0.00
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def draw(part: Part, points: Sequence[Point], path: Path) -> None:
    """The curves of time and of memory, side by side."""
    sizes = [point.size for point in points]
    seconds = {name: [point.seconds[name] for point in points] for name in points[0].seconds}
    memory = {way: [point.own[way] for point in points] for way in part.ways}
    with chart(3.4, 9.0) as figure:
        left, right = figure.subplots(1, 2)
        own = "own memory, MB; dashed: the limit" if part.limit else "own memory, MB"
        for axes, curves, unit in ((left, seconds, f"seconds for {part.per}"), (right, memory, own)):
            for (name, values), colour in zip(curves.items(), COLOURS, strict=False):
                axes.plot(sizes, values, marker="o", color=colour, label=name)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlabel(part.size)
            axes.set_ylabel(unit)
        if part.limit:
            level(right, part.limit / 1e6)
        right.set_ylim(bottom=10.0)
        for axes in (left, right):
            tick_log_axis(axes)
        left.set_title(part.title)
        right.set_title("Memory")
        if len(seconds) > 1:
            figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        save_svg(figure, path)


def machine() -> str:
    """Processor, cores, memory and date."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    load = os.getloadavg()[0]
    return (
        f"{names[0] if names else platform.machine()}, {CORES} cores, "
        f"{psutil.virtual_memory().total / 1e9:.0f} GB of memory, {datetime.now(UTC):%Y-%m-%d}; "
        f"load {load:.1f} at the start"
    )


def main() -> None:
    """Measure the parts, and print and draw each."""
    parser = argparse.ArgumentParser("python -m benchmarks.growth", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--largest", type=float, default=math.inf, help="size of a part that is measured")
    parser.add_argument("--out", type=Path, default=Path("docs/growth"), help="folder of the figures (%(default)s)")
    parser.add_argument("--point", nargs=3, help=argparse.SUPPRESS)  # what a process of its own is to measure
    options = parser.parse_args()
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"no part is named {unknown[0]}: {', '.join(PARTS)}")
    if options.point:
        logging.disable()
        size, way, folder = options.point
        print(json.dumps(PARTS[options.parts[0]].run(int(size), Path(folder), way)))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("growth: ended"))  # and leave no file and no group behind
    print(machine())
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.parts or PARTS:
        part = PARTS[name]
        try:
            check_limit(part)
        except InputError as error:
            if options.parts:
                parser.error(f"{name}: {error}")
            print(f"growth: {name} is left out: {error}", file=sys.stderr, flush=True)
            continue
        sizes = [size for size in part.sizes if size <= options.largest]
        if not sizes:
            parser.error(f"--largest: {name} starts at {part.sizes[0]}")
        points = [measure(name, size) for size in sizes]
        print(f"\n## {part.title}\n\n`python -m benchmarks.growth {name}`; seconds for {part.per}.\n")
        both = [times(part, points), memories(part, points)]
        for curves in both if len(part.ways) > 1 else [both[0] | both[1]]:
            print(table(part.size, sizes, curves), flush=True)
            print()
        draw(part, points, options.out / f"{name}.svg")


if __name__ == "__main__":
    main()
