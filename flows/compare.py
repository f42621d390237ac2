"""Runs several experiments at once and puts their scores, curves and samples side by side.

`python -m flows.compare NAME NAME … [KEY=VALUE …]`, or the deployment `compare/compare`.
"""

import argparse
import csv
import io
import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from matplotlib.figure import Figure
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import deployment
from prefect.states import Completed, Failed
from pydantic import Field

from flows.artifacts import picture
from flows.children import at_once, run_pipeline
from flows.experiment import EXPERIMENTS, ExperimentError, default_name
from flows.parameters import (
    Devices,
    ExperimentName,
    Overrides,
    Parallel,
    Remote,
    Revision,
    described,
    name_of_several,
    read_words,
    run_flow,
)
from flows.processes import CommandError, adapt_to_worker, run
from flows.slots import count_slots
from flows.workspace import find_commit, find_experiment, find_home, reference_of

NOT_SCORES = ("protocol", "class_shares")
IN_SHORT = re.compile(r"experiment|verdict|inception_score|.*-FD|feature_diversity")
"""The columns that a terminal has room for."""


@dataclass(frozen=True)
class Outcome:
    """What became of one experiment of a comparison."""

    name: str
    state: State[Any]
    commit: str | None = None
    """Of the experiment; None where it failed."""
    scores: Mapping[str, Any] | None = None


@task(task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
def experiment_run(name: str, parameters: Mapping[str, Any]) -> State[Any]:
    """Run one experiment as a child; its own run's page has the stages and their logs."""
    state = run_pipeline({**parameters, "name": name})
    return state if state.is_completed() else Failed(name=state.name, message=state.message)


@flow(flow_run_name=name_of_several)
def compare(
    experiments: Annotated[list[ExperimentName], Field(min_length=1), described("what to run and compare")],
    overrides: Overrides = {},  # noqa: B006 (Prefect shows it in its form, and nothing changes it)
    revision: Revision = "HEAD",
    parallel: Parallel = None,
    devices: Devices = 1,
    remote: Remote = None,
) -> State[Any]:
    """Run several experiments, as many at once as there are slots, and compare what they came to.

    One that fails stops no other; the comparison then shows the rest.
    """
    try:
        adapt_to_worker()
        home = find_home()
        commit = find_commit(home, revision, remote)
        shared = {"overrides": overrides, "revision": commit, "devices": devices, "remote": remote}

        def run_one(experiment: str) -> Outcome:
            name = default_name(experiment, overrides)
            state = experiment_run(name, {"experiment": experiment, **shared}, return_state=True)
            try:
                return read_outcome(home, name, commit, state, remote)
            except (ExperimentError, CommandError) as error:
                return Outcome(name, Failed(message=str(error)))

        names = list(dict.fromkeys(experiments))
        # Deployed, the workers hold back what their hosts have no slot for.
        together = parallel or (len(names) if deployment.id else count_slots(home))
        outcomes = at_once(run_one, names, min(len(names), together))
        publish_comparison(home, outcomes)
    except (ExperimentError, CommandError) as error:
        get_run_logger().error("%s", error)
        return Failed(message=str(error))
    failed = [outcome for outcome in outcomes if outcome.scores is None]
    if failed:
        said = "; ".join(f"{outcome.name}: {outcome.state.message}" for outcome in failed)
        return Failed(message=f"{len(failed)} of {len(outcomes)} experiments failed: {said}")
    return Completed(message="; ".join(f"{found.name}: {(found.scores or {})['verdict']}" for found in outcomes))


def read_outcome(home: Path, name: str, baseline: str, state: State[Any], remote: str | None) -> Outcome:
    """The scores of the experiment `name`, brought from `remote` where another host has run it."""
    if not state.is_completed():
        return Outcome(name, state)
    if remote:
        command = ("dvc", "--wait-for-lock", "exp", "pull", "--force", remote, reference_of(baseline, name))
        run(*command, folder=home)
    commit, _ = find_experiment(home, name, baseline)
    return Outcome(name, state, commit, json.loads(run("git", "show", f"{commit}:results/scores.json", folder=home)))


def publish_comparison(home: Path, outcomes: Sequence[Outcome]) -> None:
    """The comparison's artifacts: a table, and a page with curves and samples; the table is logged too."""
    rows = comparison_rows(outcomes)
    create_table_artifact(key="comparison", description="Scores side by side", table=rows)
    get_run_logger().info("\n%s", plain_table(rows))
    done = [outcome for outcome in outcomes if outcome.scores is not None]
    if not done:
        return
    differences = protocol_differences(done)
    for said in differences:
        get_run_logger().warning("%s", said)
    parts = ["# Comparison", *(f"**{said}**" for said in differences)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        curves = {found.name: read_trajectory(home, found, folder) for found in done}
        if any(curves.values()):
            draw_trajectories(curves, folder / "trajectories.png")
            parts.append(picture(folder / "trajectories.png", "course of the Fréchet distance"))
        for found in done:
            parts.append(f"## {found.name}: {(found.scores or {})['verdict']}")
            try:
                parts.append(picture(get_file(home, found, "results/samples/grid.png", folder), found.name))
            except CommandError as error:
                parts.append(f"no samples to show: {error}")
    create_markdown_artifact(key="comparison-figures", markdown="\n\n".join(parts), description="Curves and samples")


def comparison_rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """A row an experiment, in the order given: its verdict and scores, or what it failed with."""
    columns = dict.fromkeys(name for found in outcomes for name in found.scores or {} if name not in NOT_SCORES)
    rows = []
    for found in outcomes:
        scores = found.scores or {"verdict": f"failed: {found.state.message}"}
        rows.append({"experiment": found.name} | {column: scores.get(column, "") for column in columns or ["verdict"]})
    return rows


def protocol_differences(outcomes: Sequence[Outcome]) -> list[str]:
    """Which experiments' scores do not compare with the first's, and in what their protocols differ."""
    protocols = [(found.name, (found.scores or {})["protocol"][0]) for found in outcomes]
    (first, ours), *others = protocols
    said = []
    for name, theirs in others:
        differing = [
            f"{part} ({ours.get(part)}, {theirs.get(part)})"
            for part in dict.fromkeys([*ours, *theirs])
            if ours.get(part) != theirs.get(part)
        ]
        if differing:
            said.append(f"the scores of {first} and {name} do not compare: protocols differ in {', '.join(differing)}")
    return said


def get_file(home: Path, outcome: Outcome, path: str, folder: Path) -> Path:
    """An output of an experiment, from DVC's cache, in `folder`."""
    copy = folder / f"{outcome.name}-{Path(path).name}"
    run("dvc", "get", str(home), path, "--rev", str(outcome.commit), "--out", str(copy), folder=folder)
    return copy


def read_trajectory(home: Path, outcome: Outcome, folder: Path) -> list[tuple[float, float]]:
    """The kimg and Fréchet distance of each kept generator; empty where it was not measured."""
    if "best_distance" not in (outcome.scores or {}):
        return []
    try:
        text = get_file(home, outcome, "results/evaluation/trajectory.csv", folder).read_text()
    except CommandError as error:
        get_run_logger().warning("%s: its course is left out: %s", outcome.name, error)
        return []
    return [(float(row["kimg"]), float(row["distance"])) for row in csv.DictReader(io.StringIO(text))]


def draw_trajectories(curves: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """Draw Fréchet distance over thousands of images, a line an experiment, as a PNG."""
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    axes.set(xlabel="thousands of images", ylabel="Fréchet distance of the kept generators", yscale="log")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path)


def plain_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows, in their main columns, as aligned text."""
    return aligned([{name: value for name, value in row.items() if IN_SHORT.fullmatch(name)} for row in rows])


def aligned(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text, column under column."""
    cells = [list(rows[0])] + [
        [f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def main(arguments: Sequence[str]) -> int:
    """Run the flow as the command line says; the exit status."""
    parser = argparse.ArgumentParser("python -m flows.compare", description=__doc__)
    parser.add_argument(
        "words",
        nargs="+",
        metavar="NAME or KEY=VALUE",
        help=f"experiments of {EXPERIMENTS}; parameters to change in all",
    )
    parser.add_argument("--revision", default="HEAD", help="the commit to run (default: HEAD)")
    parser.add_argument("--parallel", type=int, help="how many at once (default: this host's slots)")
    parser.add_argument("--devices", type=int, default=1, help="GPUs that each stage sees")
    parser.add_argument("--remote", help="a git remote to share the results through")
    options = vars(parser.parse_intermixed_args(arguments))
    words = options.pop("words")
    return run_flow(compare, lambda: options | read_words(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
