"""Reproduces what is committed in an empty place, and compares every output with dvc.lock and the committed results.

`python -m flows.verify [REVISION]`, or the deployment `verify/weekly`.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.digests import LOCK, Output, Place, Stages, compare_outputs, first, outputs, read_lock, stale, table
from flows.experiment import ExperimentError
from flows.machines import judge, machine_differences
from flows.parameters import Revision, run_flow
from flows.pipeline import run_stages, say_what_runs
from flows.processes import CommandError, adapt_to_worker, run
from flows.reproduction import StageError
from flows.workspace import Workspace, find_commit, find_home, workspace

ASIDE = Path(".atelier/committed")
"""Where in the clone the committed results wait, so that none of them can pass for a reproduced one."""


@flow(flow_run_name="verify {revision}")
def verify(revision: Revision = "HEAD") -> State[Any]:
    """Reproduce a commit in an empty clone, from the data on, and hold each output against what was committed.

    Completes if every byte is the same, but for those that name another kind of machine; else fails and says what
    differs, how, and by how much, and whether the machine may be why.
    """
    try:
        adapt_to_worker()
        home = find_home()
        commit = find_commit(home, revision)
        committed = read_committed_lock(home, commit)
        say_what_runs(home, commit)
        with workspace(home, commit, shared=False) as work:
            work.link_given()
            put_aside(work.folder, [LOCK, *outputs(committed)])
            before = Place(work.folder / ASIDE, Path(run("dvc", "cache", "dir", folder=home)))
            failure = reproduce(work)
            found, said = compare_with(work, committed, before)
    except (ExperimentError, CommandError) as error:
        get_run_logger().error("%s", error)
        return Failed(message=str(error))
    said = f"{failure}; {said}" if failure else said
    log = get_run_logger()
    identical = [output.path for output in found if output.verdict == "identical"]
    log.info("identical: %s", ", ".join(identical) or "nothing")
    for output in found:
        if output.verdict != "identical":
            log.warning("%s: %s: %s", output.verdict, output.path, first(output.how, 3))
    print(table(found))  # the command line's answer; a worker shows it on its terminal
    publish(found, commit, said)
    proven = not failure and all(output.verdict in ("identical", "other machine") for output in found)
    return Completed(message=said) if proven else Failed(message=said)


def read_committed_lock(home: Path, commit: str) -> Stages:
    """The stages of the commit's dvc.lock. Raises ExperimentError where it has none."""
    try:
        text = run("git", "show", f"{commit}:{LOCK}", folder=home)
    except CommandError:
        raise ExperimentError(f"commit {commit[:7]} has no {LOCK} to verify; `dvc repro`, then commit it") from None
    return read_lock(text)


def put_aside(folder: Path, paths: Iterable[str]) -> None:
    """Move committed files to where they are compared from; without dvc.lock every stage runs, whatever git holds."""
    for path in paths:
        inside = (folder / path).resolve().is_relative_to(folder.resolve())
        if inside and (folder / path).exists():  # what an output elsewhere holds is the user's own
            (folder / ASIDE / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).rename(folder / ASIDE / path)


def reproduce(work: Workspace) -> str | None:
    """Run the whole pipeline; if a stage failed, what it said: what was made before it is compared all the same."""
    try:
        run_stages(work, "verify", stop_early=False)
    except StageError as error:
        get_run_logger().error("%s", error)
        return str(error)
    return None


def compare_with(work: Workspace, committed: Stages, before: Place) -> tuple[list[Output], str]:
    """The verdicts on the workspace's outputs, and on dvc.lock where it is stale; and what they come to."""
    lock = work.folder / LOCK
    reproduced = read_lock(lock.read_text()) if lock.exists() else {}
    after = Place(work.folder, work.folder / ".dvc/cache")
    found = compare_outputs(committed, reproduced, before, after)
    if reasons := stale(committed, reproduced):
        found = [Output(LOCK, "stale", reasons), *found]
    return judge(found, machine_differences(committed, reproduced, before, after))


def publish(found: Sequence[Output], commit: str, said: str) -> None:
    """The table of verdicts and what differs, on the run's page."""
    create_table_artifact(
        key="verification",
        description=said,
        table=[
            {"output": output.path, "verdict": output.verdict, "how much": first(output.how, 3)} for output in found
        ],
    )
    differing = [output for output in found if output.verdict != "identical"]
    text = f"# Verification of `{commit[:7]}`\n\n{said}\n"
    for output in differing:
        text += f"\n## {output.path}: {output.verdict}\n\n" + "".join(f"- {line}\n" for line in output.how)
    if differing:
        text += (
            "\nOutputs are in the order in which they were made: later ones may differ because of earlier ones. "
            "The last bits also depend on the kind of machine; the README says on what the bytes depend.\n"
        )
    create_markdown_artifact(key="verification-summary", description=said, markdown=text)


def main(arguments: Sequence[str]) -> int:
    """Run the flow as the command line says; 0 if every output is identical, but for what names the machine; else 1."""
    parser = argparse.ArgumentParser("python -m flows.verify", description=__doc__)
    parser.add_argument("revision", nargs="?", default="HEAD", help="the commit to reproduce (default: HEAD)")
    options = parser.parse_args(arguments)
    return run_flow(verify, lambda: vars(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
