"""Runs several experiments at once and puts their scores, curves and samples side by side.

`python -m flows.compare NAME NAME … [KEY=VALUE …]`, or the deployment `compare/compare`.
"""

import argparse
import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import deployment
from prefect.states import Completed, Failed
from pydantic import Field

from flows.artifacts import picture, publish_page
from flows.children import at_once, run_pipeline
from flows.comparison import Result, foreseen, gathered, read_result, refusal, resolve, write_page
from flows.differences import leaves
from flows.experiment import EXPERIMENTS, ExperimentError, default_name
from flows.parameters import (
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

IN_SHORT = re.compile(r"experiment|verdict|inception_score|FID|KID|.*-[FK]D|precision|recall")
"""The columns that a terminal has room for."""


@dataclass(frozen=True)
class Outcome:
    """What became of one experiment of a comparison."""

    name: str
    state: State[Any]
    result: Result | None = None
    """None where it failed."""


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
    remote: Remote = None,
) -> State[Any]:
    """Run several experiments, as many at once as there are slots, and compare what they came to.

    One that fails stops no other; the comparison then shows the rest. Where scores will not compare, a warning says so
    before anything runs, and all run nevertheless: what a night has trained can be scored alike within minutes, and has
    its verdict and its pictures; a night that was refused has nothing. The comparison itself then fails.
    """
    try:
        adapt_to_worker()
        home = find_home()
        commit = find_commit(home, revision, remote)
        shared = {"overrides": overrides, "revision": commit, "remote": remote}

        def run_one(experiment: str) -> Outcome:
            name = default_name(experiment, overrides)
            state = experiment_run(name, {"experiment": experiment, **shared}, return_state=True)
            try:
                return read_outcome(home, name, commit, state, remote)
            except (ExperimentError, CommandError) as error:
                return Outcome(name, Failed(message=str(error)))

        names = list(dict.fromkeys(experiments))
        warn_early(home, commit, names, overrides)
        # Deployed, the workers hold back what their hosts have no slot for.
        together = parallel or (len(names) if deployment.id else count_slots(home))
        outcomes = at_once(run_one, names, min(len(names), together))
        refused = publish_comparison(home, outcomes)
    except (ExperimentError, CommandError) as error:
        get_run_logger().error("%s", error)
        return Failed(message=str(error))
    failed = [f"{found.name}: {found.state.message}" for found in outcomes if found.result is None]
    faults = [f"{len(failed)} of {len(outcomes)} experiments failed: {'; '.join(failed)}"] if failed else []
    faults += [refused] if refused else []
    if faults:
        return Failed(message="; ".join(faults))
    return Completed(message="; ".join(f"{row['experiment']}: {row['verdict']}" for row in comparison_rows(outcomes)))


def warn_early(home: Path, commit: str, experiments: Sequence[str], overrides: Mapping[str, Any]) -> None:
    """Log whose scores will not compare, as the parameters of what is to run tell."""
    resolved = {}
    for experiment in experiments:
        try:
            resolved[default_name(experiment, overrides)] = resolve(home, commit, experiment, overrides)
        except ExperimentError:
            continue  # its own run says so
    for said in foreseen(resolved):
        get_run_logger().warning("%s; they are trained all the same", said)


def read_outcome(home: Path, name: str, baseline: str, state: State[Any], remote: str | None) -> Outcome:
    """The scores of the experiment `name`, brought from `remote` where another host has run it."""
    if not state.is_completed():
        return Outcome(name, state)
    if remote:
        command = ("dvc", "--wait-for-lock", "exp", "pull", "--force", remote, reference_of(baseline, name))
        run(*command, folder=home)
    commit, _ = find_experiment(home, name, baseline)
    return Outcome(name, state, read_result(home, name, commit, baseline))


def publish_comparison(home: Path, outcomes: Sequence[Outcome]) -> str:
    """The comparison's page and artifacts: a table, which is logged too, and the samples with a link to the page.

    Why the scores do not compare, where they do not: then none stand side by side anywhere.
    """
    results = [found.result for found in outcomes if found.result]
    refused = refusal(results) if results else ""
    rows = comparison_rows(outcomes, with_scores=not refused)
    create_table_artifact(key="comparison", description="Verdicts" if refused else "Scores side by side", table=rows)
    get_run_logger().info("\n%s", plain_table(rows))
    if not results:
        return refused
    if refused:
        get_run_logger().warning("%s", refused)
    failed = {found.name: str(found.state.message) for found in outcomes if found.result is None}
    with gathered(home, results) as folder:
        page = write_page(home, results, folder, failed)
        commits = hashlib.md5("".join(result.commit for result in results).encode(), usedforsecurity=False)
        name = f"comparison-{commits.hexdigest()[:7]}"
        parts = ["# Comparison", publish_page(home, page.parent, name, "The comparison", "comparison-page")]
        parts += [f"**{refused}**"] if refused else []
        for number, result in enumerate(results):
            parts.append(f"## {result.name}: {result.scores['verdict']}")
            parts += [f"**{said}**" for said in result.scores.get("warnings", [])]
            samples = folder / str(number) / "results/samples/grid.png"
            parts.append(picture(samples, result.name) if samples.exists() else "Its samples are not to be had.")
            if refused:
                rules = "\n".join(f"- {entry}: {value}" for entry, value in leaves(result.protocol))
                parts.append(f"Its protocol:\n\n{rules}")
    create_markdown_artifact(key="comparison-figures", markdown="\n\n".join(parts), description="Verdicts and samples")
    return refused


def comparison_rows(outcomes: Sequence[Outcome], *, with_scores: bool = True) -> list[dict[str, Any]]:
    """A row an experiment, in the order given: its verdict and its scores, or what it failed with."""
    found = [outcome.result.scores if outcome.result else {} for outcome in outcomes]
    columns = dict.fromkeys(
        name
        for scores in found
        for name, value in scores.items()
        if name != "verdict" and with_scores and isinstance(value, int | float)
    )
    return [
        {"experiment": outcome.name, "verdict": scores.get("verdict", f"failed: {outcome.state.message}")}
        | {column: scores.get(column, "") for column in columns}
        for outcome, scores in zip(outcomes, found, strict=True)
    ]


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
    parser.add_argument("--remote", help="a git remote to share the results through")
    options = vars(parser.parse_intermixed_args(arguments))
    words = options.pop("words")
    return run_flow(compare, lambda: options | read_words(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
