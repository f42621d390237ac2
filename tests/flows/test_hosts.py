"""A training on two hosts, each with a worker: here, two checkouts of one machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.experiment import ExperimentError
from flows.hosts import check_spread, queue_of
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


@pytest.mark.parametrize(
    ("hosts", "url", "said"),
    [
        (["other"], None, "they take part through a server that all reach, and PREFECT_API_URL names none"),
        (["other", "other"], "http://127.0.0.1:1/api", "other, other: name each of the others once, and not this one"),
        ([gethostname()], "http://127.0.0.1:1/api", f"{gethostname()}: name each of the others once, and not this one"),
    ],
)
def test_hosts_without_sense_are_refused_before_anything_starts(
    hosts: list[str], url: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with temporary_settings({PREFECT_API_URL: url}):
        assert run_flow(pipeline, lambda: {"experiment": "mnist-quick", "hosts": hosts}) == 1
    assert capsys.readouterr().err == f"pipeline: hosts: {said}\n"


def test_devices_are_spread_evenly_over_the_hosts() -> None:
    for devices in (2, 4, "auto", "no number"):  # which `check` refuses
        check_spread(["other"], {"hardware": {"devices": devices}})
    wrong: list[dict[str, Any]] = [{"hardware": {"devices": 3}}, {"hardware": {}}, {"hardware": None}]
    for params in wrong:
        with pytest.raises(ExperimentError, match=r"^hardware\.devices: [31] cannot be spread evenly over 2 hosts$"):
            check_spread(["other"], params)
    check_spread([], {"hardware": None})


def test_a_host_needs_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_flow(pipeline, lambda: {"experiment": "mnist-quick", "hosts": ["-x"]}) == 1
    assert capsys.readouterr().err == "pipeline: hosts: '-x' is no host's name: give what `hostname` says there\n"
