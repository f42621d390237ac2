"""What stands around the work: `python -m benchmarks.stages`.

How long each stage takes to start, imports included; what a `dvc repro` costs when nothing is to be done; and the share
of DVC and of the report in a run. In a temporary repository with the tests' tiny experiment, so that hardly anything
but that is left of each stage.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import measuring
from benchmarks.measuring import spread, table
from gan.documents import read_document
from tests.project import Project, make_project

STAGES = ("check", "fetch", "prepare", "reference", "train", "sample", "evaluate", "report")
HEAVIEST = 3
"""Packages that are named for each command."""
BARE = "stages:\n  one:\n    cmd: echo 1 > one.txt\n    outs: [one.txt]\n"
"""A pipeline to hold ours against: what DVC takes in any case."""


@dataclass(frozen=True)
class Imports:
    """What a process spends on imports, in seconds."""

    total: float
    packages: Mapping[str, float]
    """By top-level package."""

    def heaviest(self) -> str:
        """The packages that take longest, in words."""
        longest = sorted(self.packages.items(), key=lambda item: -item[1])[:HEAVIEST]
        return ", ".join(f"{name} {seconds:.2f}" for name, seconds in longest)


def read_imports(report: str) -> Imports:
    """The sums of what `python -X importtime` writes to stderr."""
    packages: dict[str, float] = defaultdict(float)
    for microseconds, name in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", report, re.MULTILINE):
        packages[name.partition(".")[0]] += int(microseconds) / 1e6
    return Imports(sum(packages.values()), packages)


def seconds_of(project: Project, command: Sequence[str]) -> float:
    """From the start of a command in the project to its end."""
    start = time.perf_counter()
    project.run(*command)
    return time.perf_counter() - start


def imports_of(project: Project, module: str, *arguments: str) -> Imports:
    """What `python -m MODULE` imports on its way."""
    command = [sys.executable, "-X", "importtime", "-m", module, *arguments]
    # Not what stages that train start beside them: those would write into the same lines.
    result = subprocess.run(
        command, cwd=project.path, env=project.environment, capture_output=True, text=True, check=True
    )
    return read_imports(result.stderr)


def bare_repository(path: Path, environment_of: Project) -> Project:
    """A repository whose pipeline is one finished stage that does nothing."""
    path.mkdir()
    project = Project(path)
    for command in (("git", "init", "--quiet"), ("dvc", "init", "--quiet")):
        project.run(*command)
    (path / "dvc.yaml").write_text(BARE)
    (path / ".dvc/config").write_text((environment_of.path / ".dvc/config").read_text())
    project.run("dvc", "repro")
    return project


def main(arguments: Sequence[str]) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser("python -m benchmarks.stages", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stages", nargs="*", default=STAGES, choices=STAGES, help="default: all")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        project = make_project(Path(temporary) / "atelier")
        assert sorted(read_document(project.path / "dvc.yaml")["stages"]) == sorted(STAGES)
        project.repro()
        bare = bare_repository(Path(temporary) / "bare", project)
        print(measuring.describe_machine(), end="\n\n")
        _print_stages(project, options.stages, options.rounds)
        _print_nothing_to_do(project, bare, options.rounds)


def _print_stages(project: Project, stages: Sequence[str], rounds: int) -> None:
    commands = {name: [sys.executable, "-m", f"stages.{name}"] for name in stages}
    runs = {name: partial(seconds_of, project, command) for name, command in commands.items()}
    whole = "dvc repro --force"
    found = measuring.alternate(runs | {whole: partial(seconds_of, project, whole.split())}, rounds)
    rows = []
    for name in stages:
        imports = imports_of(project, f"stages.{name}")
        torch = "yes" if "torch" in imports.packages else "no"
        rows.append((name, spread(found[name]), f"{imports.total:.2f}", torch, imports.heaviest()))
    columns = ("stage", "seconds, of the tiny run (spread)", "of them imports", "with torch", "the heaviest packages")
    print(table(columns, rows), end="\n\n")
    if set(stages) == set(STAGES):
        total = statistics.median(found[whole])
        inside = sum(statistics.median(found[name]) for name in stages)
        report = statistics.median(found["report"])
        print(
            f"a whole run: {spread(found[whole])} s, of which the stages take {inside:.2f} s, DVC "
            f"{total - inside:.2f} s, and the report {report:.2f} s: what each longer run pays too\n"
        )


def _print_nothing_to_do(project: Project, bare: Project, rounds: int) -> None:
    commands = {
        "dvc repro, all up to date": (project, ("repro",)),
        "dvc status, all up to date": (project, ("status",)),
        "dvc repro of a pipeline with one stage": (bare, ("repro",)),
        "dvc --version": (bare, ("--version",)),
    }
    found = measuring.alternate(
        {name: partial(seconds_of, place, ("dvc", *words)) for name, (place, words) in commands.items()}, rounds
    )
    rows = []
    for name, (place, words) in commands.items():
        imports = imports_of(place, "dvc", *words)
        rows.append((name, spread(found[name]), f"{imports.total:.2f}", imports.heaviest()))
    print(table(("command", "seconds (spread)", "of them imports", "the heaviest packages"), rows))


if __name__ == "__main__":
    main(sys.argv[1:])
