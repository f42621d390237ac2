"""Scores experiments that exist again, with another extractor or more samples, and trains nothing.

`python -m flows.evaluate NAME NAME … KEY=VALUE …`, or the deployment `evaluate/evaluate`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import AfterValidator, Field

from flows.compare import Outcome, publish_comparison, read_outcome
from flows.experiment import ExperimentError, default_name
from flows.parameters import Overrides, Remote, Word, described, name_of_several, read_words, run_flow
from flows.pipeline import follow_stages, keep, push_experiment
from flows.processes import CommandError, adapt_to_worker, run
from flows.reproduction import Reproduction, StageError
from flows.slots import slots
from flows.workspace import Workspace, find_experiment, find_home, workspace

STAGES = ("check", "reference", "sample", "evaluate", "report")
"""What comes after training."""
SECTIONS = ("sample", "evaluate", "reference")
"""The parameters that only these stages depend on."""


def _after_training(overrides: dict[str, Any]) -> dict[str, Any]:
    wrong = [name for name in overrides if name.partition(".")[0] not in SECTIONS]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: would train again; only {', '.join(SECTIONS)} can be changed here")
    return overrides


@flow(flow_run_name=name_of_several)
def evaluate(
    experiments: Annotated[list[Word], Field(min_length=1), described("experiments that `dvc exp show` lists")],
    overrides: Annotated[Overrides, AfterValidator(_after_training)],
    remote: Remote = None,
) -> State[Any]:
    """Score experiments again under other parameters of the sampling or the evaluation, and compare them.

    The scores are kept as experiments beside the first ones, named by what differs.
    """
    outcomes, failed = [], []
    refused = ""
    try:
        adapt_to_worker()
        home = find_home()
        found = {name: bring_experiment(home, name, remote) for name in dict.fromkeys(experiments)}
        for name, (commit, baseline) in found.items():
            try:
                outcomes.append(score_again(home, name, commit, baseline, overrides, remote))
            except (ExperimentError, CommandError, StageError) as error:
                get_run_logger().error("%s: %s", name, error)
                failed.append(f"{name}: {error}")
        if outcomes:
            refused = publish_comparison(home, outcomes)
    except (ExperimentError, CommandError) as error:
        get_run_logger().error("%s", error)
        return Failed(message=str(error))
    if failed or refused:
        return Failed(message="; ".join([*failed, refused] if refused else failed))
    return Completed(message=", ".join(outcome.name for outcome in outcomes))


def bring_experiment(home: Path, name: str, remote: str | None) -> tuple[str, str]:
    """The commits of the experiment `name` and of its baseline, fetched from the git remote if it is not here.

    Raises ExperimentError where it is nowhere, CommandError where the remote cannot be asked.
    """
    try:
        return find_experiment(home, name)
    except ExperimentError:
        if not remote:
            raise
        run("dvc", "--wait-for-lock", "exp", "pull", remote, name, folder=home)
        return find_experiment(home, name)


def score_again(
    home: Path, name: str, commit: str, baseline: str, overrides: dict[str, Any], remote: str | None
) -> Outcome:
    """Run the stages after training again in a workspace of the experiment `name`, and keep what they come to.

    Raises ExperimentError where its trained networks are not to be had, StageError if a stage fails, CommandError if
    the result cannot be shared.
    """
    kept_as = default_name(name, overrides)
    with workspace(home, baseline) as work:
        run("git", "restore", "--source", commit, "--", ".", folder=work.folder)
        bring_outputs(work, name)
        work.set_params(overrides)
        work.link_given()
        work.check_name(kept_as)
        with slots(home, work.params()["hardware"] | {"devices": 1}):
            follow_stages(Reproduction(work.folder, ["--single-item", *STAGES], work.environment(kept_as)), set())
        keep(work, kept_as)
    if remote and (pushed := push_experiment(home, work.reference(kept_as), remote, return_state=True)).is_failed():
        raise CommandError(pushed.message)
    return read_outcome(home, kept_as, baseline, Completed(), None)


def bring_outputs(work: Workspace, name: str) -> None:
    """Check the experiment's outputs out, from the cache or else from DVC's remote.

    Raises ExperimentError where neither has them.
    """
    try:
        run("dvc", "checkout", folder=work.folder)
    except CommandError:
        try:
            run("dvc", "pull", folder=work.folder)
        except CommandError as error:
            raise ExperimentError(
                f"{name}: its outputs are neither in the cache nor in DVC's remote ({error}); run it again first"
            ) from None


def main(arguments: Sequence[str]) -> int:
    """Run the flow as the command line says; the exit status."""
    parser = argparse.ArgumentParser("python -m flows.evaluate", description=__doc__)
    parser.add_argument(
        "words", nargs="+", metavar="NAME or KEY=VALUE", help="experiments; what to change, as sample.count=50000"
    )
    parser.add_argument("--remote", help="a git remote to bring experiments from, and to share the scores through")
    options = vars(parser.parse_intermixed_args(arguments))
    words = options.pop("words")
    return run_flow(evaluate, lambda: options | read_words(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
