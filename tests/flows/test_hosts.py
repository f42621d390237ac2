"""A training on two hosts, each with a worker: here, two checkouts of one machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

from flows.hosts import queue_of
from flows.parameters import run_flow
from flows.pipeline import pipeline
from flows.slots import ensure_limit, limit_name
from tests.flows.box import Box
from tests.flows.conftest import Server, wait_for
from tests.project import Project

SHARED = {"train.epochs": 40, "train.checkpoint_steps": 1, "hardware.devices": 2}


@contextmanager
def two_hosts(box: Box, folder: Path) -> Iterator[Box]:
    """The second one; both have a worker each, of their own queues."""
    box.deploy()
    with box.client() as client:
        ensure_limit(box.project.path)  # one name for both, as they are one machine
        client.update_global_concurrency_limit(limit_name(), GlobalConcurrencyLimitUpdate(limit=2))
    box.project.run("git", "clone", "--quiet", ".", str(folder / "other"))
    other = Box(Project(folder / "other"), box.server)
    box.project.run("cp", "-r", "digits", str(other.project.path))
    with box.worker("default"), other.worker(queue_of("other")):
        yield other


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hosts_train_together_and_one_that_fails_ends_it(project: Project, server: Server, tmp_path: Path) -> None:
    box = Box(project, server)
    with two_hosts(box, tmp_path) as other:
        run = box.trigger(experiment="mnist-quick", overrides=SHARED, name="together", hosts=["other"])
        assert box.wait_for_end(run, 400).is_completed(), box.log(run)
        assert not other.workspaces()
        assert not other.checkpoints()

        box.forget_runs()
        run = box.trigger(experiment="mnist-quick", overrides=SHARED, name="one-host")
        assert box.wait_for_end(run, 300).is_completed(), box.log(run)
        assert box.outputs("together")["train"] == box.outputs("one-host")["train"]

        box.forget_runs()
        longer = SHARED | {"train.epochs": 4000}
        run = box.trigger(experiment="mnist-quick", overrides=longer, name="broken", hosts=["other"])
        before = len(box.checkpoints())
        wait_for(lambda: len(box.checkpoints()) > before, 300)
        for process in other.processes("stages.train"):
            process.kill()
        assert box.wait_for_end(run, 300).is_failed(), box.log(run)
        wait_for(lambda: not box.processes("stages.train"), 60)


def test_a_host_needs_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_flow(pipeline, lambda: {"experiment": "mnist-quick", "hosts": ["-x"]}) == 1
    assert capsys.readouterr().err == "pipeline: hosts: '-x' is no host's name: give what `hostname` says there\n"
