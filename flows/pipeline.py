"""Runs one experiment in a workspace of its own, a task a stage, and keeps it as a DVC experiment.

`python -m flows.pipeline NAME [KEY=VALUE …]`, or the deployment `pipeline/pipeline`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import httpx
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.tasks import Task

from flows.artifacts import publish_run
from flows.experiment import EXPERIMENTS, ExperimentError, default_name, read_experiments, settings_of
from flows.hosts import Hosts, check_spread, joined
from flows.parameters import ExperimentName, Overrides, Remote, Revision, described, read_overrides, run_flow
from flows.processes import CommandError, adapt_to_worker, run
from flows.reproduction import PREPARED, Reproduction, StageError, StoppedEarlyError
from flows.slots import slots
from flows.workspace import Workspace, alone, find_commit, find_home, workspace

WATCHED = "train"
"""The stage that may be stopped early."""
CURVES = "results/curves.csv"
STOPPED_EARLY = "StoppedEarly"
"""The name of the state that such a run ends in."""

NewName = Annotated[
    str | None,
    described("what to call the result; by default the experiment's name, and its overrides' values"),
]
StopEarly = Annotated[
    bool, described("stop a training whose curves say that nothing will come of it, and keep no experiment")
]


def killed(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a stage ended by a signal, as when memory ran out: an error of its own would only come again."""
    return state.name == "Killed"


@task(
    task_run_name="{name}",
    retries=3,
    retry_delay_seconds=[5, 30, 120],
    retry_condition_fn=killed,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def stage(name: str, reproduction: Reproduction, hopeless: Callable[[], str] | None) -> State[Any]:
    """Follow one stage of the pipeline; what it says is this task's log. `hopeless` may say why to stop it early."""
    log = get_run_logger()
    try:
        ran = reproduction.follow(name, log.info, hopeless)
    except StoppedEarlyError as error:
        return Failed(message=str(error), name=STOPPED_EARLY)
    except StageError as error:
        return Failed(message=str(error), name="Killed" if error.killed else None)
    return Completed(name=None if ran else "Cached")


@task(task_run_name="push to {remote}", retries=5, retry_delay_seconds=[10, 30, 60, 120, 240], cache_policy=NO_CACHE)
def push_experiment(home: Path, reference: str, remote: str) -> State[Any]:
    """Share the experiment, by its git reference, through the git remote `remote` and DVC's own."""
    command = ("dvc", "--wait-for-lock", "exp", "push", remote, reference)
    try:
        said = run(*command, folder=home)
    except CommandError as error:
        return Failed(message=f"{error}; the result is kept here, and `{' '.join(command)}` shares it")
    return Completed(message=said)


def _run_name() -> str:
    parameters = flow_run.parameters
    return str(parameters.get("name") or default_name(parameters["experiment"], parameters["overrides"]))


@flow(flow_run_name=_run_name)
def pipeline(
    experiment: ExperimentName,
    overrides: Overrides = {},  # noqa: B006 (Prefect shows it in its form, and nothing changes it)
    name: NewName = None,
    revision: Revision = "HEAD",
    remote: Remote = None,
    stop_early: StopEarly = False,
    hosts: Hosts = [],  # noqa: B006 (likewise)
) -> State[Any]:
    """Run one experiment of experiments.yaml from the data to the report, as the commit says, and keep it by name.

    The checkout is not touched: `dvc exp show` lists the result there, and `dvc exp apply` brings it in.
    """
    kept_as = name or default_name(experiment, overrides)
    try:
        adapt_to_worker()
        home = find_home()
        commit = find_commit(home, revision, remote)
        say_what_runs(home, commit)
        with workspace(home, commit) as work:
            work.set_params(settings_of(experiment, read_experiments(work.folder / EXPERIMENTS)) | overrides)
            check_spread(hosts, work.params())
            work.link_given()
            work.check_name(kept_as)
            run_stages(work, kept_as, stop_early, hosts, remote)
            verdict = keep(work, kept_as)
    except StoppedEarlyError as error:
        get_run_logger().warning("%s", error)
        return Failed(message=str(error), name=STOPPED_EARLY)
    except (ExperimentError, CommandError, StageError) as error:
        get_run_logger().error("%s", error)
        return Failed(message=str(error))
    if remote and (pushed := push_experiment(home, work.reference(kept_as), remote, return_state=True)).is_failed():
        return Failed(message=pushed.message)
    return Completed(message=f"{kept_as}: {verdict}")


def say_what_runs(home: Path, commit: str) -> None:
    """Log the commit that runs, and what differs from it in the checkout, which does not."""
    log = get_run_logger()
    log.info("runs %s", run("git", "log", "--max-count=1", "--format=%h %s", commit, folder=home))
    changed = [
        line[3:] for line in run("git", "status", "--porcelain", "--untracked-files=no", folder=home).splitlines()
    ]
    if changed:
        log.warning("not part of it, since it is not committed: %s", ", ".join(changed))


def run_stages(
    work: Workspace, name: str, stop_early: bool, hosts: Sequence[str] = (), remote: str | None = None
) -> None:
    """The whole pipeline, a task a stage, holding as many of this host's slots as its parameters ask for where needed.

    Raises StageError if a stage fails, and StoppedEarlyError if training is stopped early.
    """
    environment = work.environment(name)
    done: set[str] = set()
    follow_stages(Reproduction(work.folder, [PREPARED], environment), done)
    with slots(work.home, work.params()["hardware"], 1 + len(hosts)), joined(work, hosts, remote) as together:
        judged = judge_curves(work.folder) if stop_early else (lambda: "")
        watched = stop_early or hosts
        hopeless = (lambda: together.lost() or judged()) if watched else None
        reproduction = Reproduction(work.folder, [], environment | together.environment)
        try:
            follow_stages(reproduction, done, hopeless, together.ask)
        except StoppedEarlyError:
            if lost := together.lost():
                raise StageError(lost, killed=False) from None
            raise


def follow_stages(
    reproduction: Reproduction,
    done: set[str],
    hopeless: Callable[[], str] | None = None,
    before_training: Callable[[], None] = lambda: None,
) -> None:
    """A task for each stage that DVC comes to, but for those `done`, to which they are added.

    `before_training` is called as the training begins. Raises StageError if a stage fails, after the retries of one
    that was killed, and StoppedEarlyError where `hopeless` says of the training why.
    """
    with reproduction:
        for name in reproduction:
            if name in done:
                reproduction.follow(name, get_run_logger().debug)
                continue
            if name == WATCHED:
                before_training()
            state = stage(name, reproduction, hopeless if name == WATCHED else None, return_state=True)
            if state.name == STOPPED_EARLY:
                raise StoppedEarlyError(state.message or name)
            if state.is_failed():
                raise StageError(state.message or name, killed=state.name == "Killed")
            done.add(name)


def judge_curves(folder: Path) -> Callable[[], str]:
    """What to ask for a reason to stop the training in `folder`; it gives none until the curves have grown."""
    log = get_run_logger()
    seen = 0

    def hopeless() -> str:
        nonlocal seen
        try:
            changed = (folder / CURVES).stat().st_mtime_ns
            if changed == seen:
                return ""
            seen = changed
            found = json.loads(run("python", "-m", "stages.diagnose", folder=folder))
        except FileNotFoundError:
            return ""  # no checkpoint yet
        except CommandError as error:
            log.warning("not to be stopped early: %s", error)
            return ""
        if not found["hopeless"]:
            return ""
        return f"stopped early at {found['kimg']:g} kimg: {found['verdict']}: {'; '.join(found['evidence'])}"

    return hopeless


def keep(work: Workspace, name: str) -> str:
    """Save the workspace's results as the experiment `name` and publish them; the verdict."""
    with alone(work.home):
        work.save(name)
        try:
            publish_run(work.home, work.folder, name, work.commit)
        except httpx.HTTPError as error:
            get_run_logger().warning("the result is kept, but not all of it is on this page: %s", error)
    scores = json.loads((work.folder / "results/scores.json").read_text())
    return str(scores["verdict"])


def main(arguments: Sequence[str]) -> int:
    """Run the flow as the command line says; the exit status."""
    parser = argparse.ArgumentParser("python -m flows.pipeline", description=__doc__)
    parser.add_argument("experiment", help=f"a name of {EXPERIMENTS}")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="parameters to change, as train.epochs=20")
    parser.add_argument("--name", help="what to call the result")
    parser.add_argument("--revision", default="HEAD", help="the commit to run (default: HEAD)")
    parser.add_argument("--remote", help="a git remote to share the result through")
    parser.add_argument("--hosts", nargs="+", default=[], metavar="HOST", help="other hosts that take part in training")
    parser.add_argument("--stop-early", action="store_true", help="stop a training whose curves leave no hope")
    options = parser.parse_args(arguments)
    return run_flow(pipeline, lambda: vars(options) | {"overrides": read_overrides(options.overrides)})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
