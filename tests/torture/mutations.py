"""Damaged and hostile files, by thousands, fed to everything that reads files from outside.

Archives, images, arrays, generators, weights and records are flipped, cut, spliced and given extreme numbers, at random
and by a seed; beside them stand files that were built to do harm (`tests/torture/hostile.py`). Each goes through the
functions that the stages call. Whatever it is, it is accepted or refused in one plain line, in bounded time and memory,
with nothing on stderr, nothing written outside its folder, and no process started.

    python -m tests.torture.mutations --minutes 10 [--count 10000] [--seed 0] [--only NAME]
"""

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from tests.torture.feeding import WITH_TORCH, Outcome, serve

SLOWEST = 60.0
"""Seconds of processor time that a call may take; to look at a zip of a million images takes some twenty."""
HANGS = 120.0
"""Seconds of processor time that a case may take, and seconds in which it must take some."""
MEMORY = 2 * 10**9
"""Bytes that all processes together may hold."""
LOOK = 0.05
"""Seconds between two looks at how much they hold."""
INJURIES = ["flip", "cut", "take away", "clear", "insert", "splice", "repeat", "extreme", "extreme"]
EXTREMES = [
    number.to_bytes(size, order)
    for size in (1, 2, 4, 8)
    for number in (0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 2, 2 ** (8 * size) - 1)
    for order in ("little", "big")
]


def mutate(content: bytes, others: Sequence[bytes], random: np.random.Generator) -> bytes:
    """A few random injuries."""
    for _ in range(int(random.choice([1, 1, 1, 2, 4]))):
        content = injure(bytearray(content), others, random)
    return content


def injure(content: bytearray, others: Sequence[bytes], random: np.random.Generator) -> bytes:  # noqa: C901
    """One injury; more often than not near the beginning or the end, where formats have their headers."""
    size = len(content)
    if size == 0:
        return bytes(random.integers(0, 256, 8, np.uint8))
    near = int(random.choice([size, min(size, 64), min(size, 512)]))
    at = int(random.integers(near))
    if random.random() < 0.3:
        at = size - 1 - at
    length = int(random.integers(1, 1 + min(size - at, int(random.choice([4, 64, 4096])))))
    match random.choice(INJURIES):
        case "flip":
            content[at] ^= 1 << int(random.integers(8))
        case "cut":
            del content[at:]
        case "take away":
            del content[at : at + length]
        case "clear":
            content[at : at + length] = bytes(length)
        case "insert":
            content[at:at] = random.integers(0, 256, length, np.uint8).tobytes()
        case "splice":
            other = others[int(random.integers(len(others)))]
            start = int(random.integers(len(other)))
            content[at : at + length] = other[start : start + length]
        case "repeat":
            content[at:at] = content[at : at + length]
        case "extreme":
            extreme = EXTREMES[int(random.integers(len(EXTREMES)))]
            content[at : at + len(extreme)] = extreme
    return bytes(content)


def write_case(name: str, seed: int, folder: Path) -> str:
    """Write the input of a case into the empty `folder`; its kind, as `feeding.steps` has it."""
    from tests.torture import hostile, valid

    if name in hostile.CASES:
        return hostile.CASES[name](folder)
    random = np.random.default_rng([seed, int(name)])
    seeds = valid.seeds()
    labels = sorted(seeds)
    label = labels[int(name) % len(labels)]
    chosen = seeds[label]
    content = mutate(chosen.content, [other.content for other in seeds.values()], random)
    return chosen.write(folder, content)


def label_of(name: str) -> str:
    """The row of the table in which a case is counted."""
    from tests.torture import hostile, valid

    if name in hostile.CASES:
        return f"built: {name.partition(':')[0]}"
    labels = sorted(valid.seeds())
    return labels[int(name) % len(labels)].partition(" ")[0]


class Reader:
    """A process that reads, started anew whenever it has ended."""

    def __init__(self, folder: Path, *, with_torch: bool = False) -> None:
        self._with_torch = with_torch
        self._box = folder / "box"
        self._box.mkdir(parents=True)
        self._process: psutil.Process | None = None

    def try_case(self, name: str, given: Path, kind: str) -> Outcome:
        """What became of the case whose input is the folder `given`; a process that died or hangs is a fault of it."""
        subprocess.run(["rm", "-rf", *self._box.iterdir()], check=True)  # Python itself goes no 1000 deep
        given.rename(self._box / "input")
        if self._process is None:
            self._start()
        assert self._process is not None
        peak = 0
        try:
            self._pipe.send((name, kind))
            began, (_, before) = time.monotonic(), taken(self._process)
            latest = before
            while not self._pipe.poll(LOOK):
                memory, seconds = taken(self._process)
                peak = max(peak, memory)
                if seconds > latest:
                    began, latest = time.monotonic(), seconds
                if latest - before > HANGS or time.monotonic() - began > HANGS:
                    self.end()
                    return Outcome(name, accepted=False, faults=[f"hangs, after {latest - before:.0f} s of work"])
            outcome: Outcome = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._child.join()
            code = self._child.exitcode
            self._process = None
            return Outcome(name, accepted=False, faults=[f"the process died, with {code}"])
        outcome.peak = max(outcome.peak, peak)
        if outcome.peak > MEMORY:
            outcome.faults.append(f"{outcome.peak / 1e9:.2f} GB of memory")
        if outcome.seconds > SLOWEST:
            outcome.faults.append(f"{outcome.seconds:.0f} s of processor time")
        return outcome

    def end(self) -> None:
        """End the process with all that it started."""
        if self._process is not None:
            for process in [*self._process.children(recursive=True), self._process]:
                process.kill()
            self._child.join()
            self._process = None
        subprocess.run(["rm", "-rf", *self._box.iterdir()], check=True)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._child = context.Process(target=serve, args=(theirs, self._box), kwargs={"with_torch": self._with_torch})
        self._child.start()
        theirs.close()
        self._process = psutil.Process(self._child.pid)


def taken(process: psutil.Process) -> tuple[int, float]:
    """Memory of a process and all that it started, in bytes, what two share counted twice; their processor time."""
    memory, seconds = 0, 0.0
    for one in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            memory += one.memory_info().rss
            seconds += sum(one.cpu_times()[:2])
    return memory, seconds


# The command


@dataclass
class Row:
    """What became of the cases of one kind."""

    tried: int = 0
    accepted: int = 0
    failed: int = 0
    peak: int = 0
    seconds: float = 0.0
    longest: int = 0
    failures: list[Outcome] = field(default_factory=list)


def try_all(names: Iterable[str], seed: int, end: float) -> dict[str, Row]:
    """Try the cases, until `end` on the monotonic clock; what became of them, by the row of the table."""
    rows: dict[str, Row] = defaultdict(Row)
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        # With torch in memory there would be less room to notice what the others take.
        light, heavy = Reader(Path(folder) / "light"), Reader(Path(folder) / "heavy", with_torch=True)
        try:
            for number, name in enumerate(names):
                if time.monotonic() > end:
                    print(f"time is up after {number} cases", flush=True)
                    break
                given = Path(folder) / "given"
                given.mkdir()
                kind = write_case(name, seed, given)
                outcome = (heavy if kind in WITH_TORCH else light).try_case(name, given, kind)
                row = rows[label_of(name)]
                row.tried += 1
                row.accepted += outcome.accepted and not outcome.faults
                row.failed += bool(outcome.faults)
                row.peak = max(row.peak, outcome.peak)
                row.seconds = max(row.seconds, outcome.seconds)
                row.longest = max(row.longest, len(outcome.message))
                if outcome.faults:
                    row.failures.append(outcome)
                    print(f"FAILED, case {name} of seed {seed}: {'; '.join(outcome.faults)}", flush=True)
                    print(f"  repeat: python -m tests.torture.mutations --seed {seed} --only {name!r}", flush=True)
                if (number + 1) % (100 if name.isdigit() else 25) == 0:
                    print(f"{number + 1} cases", flush=True)
        finally:
            light.end()
            heavy.end()
    return rows


def table(rows: dict[str, Row]) -> str:
    """A Markdown table of what was tried and what held."""
    lines = [
        "| files | tried | accepted | refused | failures | most memory, GB | slowest call, s | longest message |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for label in sorted(rows):
        row = rows[label]
        lines.append(
            f"| {label} | {row.tried} | {row.accepted} | {row.tried - row.accepted - row.failed} | {row.failed} | "
            f"{row.peak / 1e9:.2f} | {row.seconds:.1f} | {row.longest} |"
        )
    every = [*rows.values()]
    lines.append(
        f"| all | {sum(row.tried for row in every)} | {sum(row.accepted for row in every)} | "
        f"{sum(row.tried - row.accepted - row.failed for row in every)} | {sum(row.failed for row in every)} | "
        f"{max((row.peak for row in every), default=0) / 1e9:.2f} | "
        f"{max((row.seconds for row in every), default=0.0):.1f} | {max((row.longest for row in every), default=0)} |"
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="a single case, by the name that a failure was printed with")
    given = parser.parse_args(arguments)
    from tests.torture import hostile  # the processes that are started here import this module, and should stay small

    names = given.only or [
        *map(str, range(given.count // 2)),
        *hostile.CASES,
        *map(str, range(given.count // 2, given.count)),
    ]
    rows = try_all(names, given.seed, time.monotonic() + given.minutes * 60)
    print(table(rows))
    if given.only:
        print(json.dumps([vars(failure) for row in rows.values() for failure in row.failures], indent=2))
    return 1 if any(row.failed for row in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
