"""A training in several processes, on one host and on two, as `dvc repro` runs it."""

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.project import Project, make_project, stages_run
from tests.torture.kills import Run

TOGETHER = {"hardware.devices": 2, "train.epochs": 10, "train.checkpoint_steps": 10}


def members_of(project: Project) -> list[psutil.Process]:
    """The processes that train, started by the stage, in the order of their ranks."""
    found = {}
    for process in psutil.process_iter():
        try:
            if (
                Path(process.cwd()) == project.path
                and len(process.cmdline()) > 4
                and "stages.train" in process.cmdline()
            ):
                found[process.environ()["RANK"]] = process
        except (psutil.Error, KeyError, OSError):
            continue
    return [found[rank] for rank in sorted(found)]


def start(project: Project, log: str = "log.txt", **environment: str) -> Run:
    return Run(project, project.path.parent / log, "dvc", "repro", "train", **environment)


def wait_for_checkpoint(run: Run) -> None:
    while not run.files(".atelier/runs/*/step-*.pt"):
        assert run.goes_on(), run.output
        time.sleep(0.02)


def wait_until_gone(project: Project) -> None:
    deadline = time.monotonic() + 30
    while members_of(project):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_two_processes_train_as_one_does(project: Project) -> None:
    project.repro()
    alone = json.loads((project.path / "results/train.json").read_text())
    project.set({"hardware.devices": 2})
    assert stages_run(project.run("dvc", "repro", "train")) == ["check", "train"]
    assert json.loads((project.path / "results/train.json").read_text()) == pytest.approx(alone, rel=0.05, abs=0.01)
    assert read_machine(project)["devices"] == 2
    assert not list(project.path.glob(".atelier/runs/*/together-*"))


def read_machine(project: Project) -> dict[str, Any]:
    (record,) = json.loads((project.path / "results/records/train.json").read_text())
    return dict(record["machine"])


@pytest.mark.slow
def test_one_that_is_killed_ends_the_others_and_all_go_on_to_the_same_bytes(project: Project, tmp_path: Path) -> None:
    project.set(TOGETHER)
    undisturbed = Project(tmp_path / "undisturbed")
    project.run("git", "clone", "--quiet", ".", str(undisturbed.path))
    for name in ("params.yaml", "digits"):
        project.run("cp", "-r", name, str(undisturbed.path))
    undisturbed.run("dvc", "repro", "train")

    run = start(project)
    wait_for_checkpoint(run)
    _first, second = members_of(project)
    second.kill()
    assert run.process.wait(60) != 0
    told = "train: process 1 of the training was ended by SIGKILL, and the others with it; dvc repro goes on from"
    assert told in run.output
    assert "Traceback" not in run.output
    wait_until_gone(project)
    assert "going on from step " in project.run("dvc", "repro", "train")
    assert project.lock()["train"]["outs"] == undisturbed.lock()["train"]["outs"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_from_above_it_leaves_no_process_behind(kind: signal.Signals, project: Project) -> None:
    project.set(TOGETHER | {"train.epochs": 1000})
    run = start(project)
    wait_for_checkpoint(run)
    os.killpg(run.process.pid, kind)
    run.process.wait(60)
    wait_until_gone(project)
    assert "Traceback" not in run.output


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_one_line(project: Project) -> None:
    project.set({"hardware.devices": 3})
    said = project.run("dvc", "repro", "train", ok=False)
    assert said.count("\ncheck: train.batch_size: 20 cannot be cut into 3 equal parts of two images or more") == 1
    assert "Traceback" not in said


def test_a_host_without_images_is_told_what_to_do(project: Project) -> None:
    project.set({"hardware.devices": 2})
    project.run("rm", "-r", "data/prepared")
    place = {"ATELIER_HOSTS": "2", "ATELIER_HOST": "1", "ATELIER_RENDEZVOUS": "127.0.0.1:1"}
    said = project.run("python", "-m", "stages.train", ok=False, **place)
    assert said == "train: data/prepared: no such folder; run `dvc repro prepare` on this host first\n"


def two_hosts(project: Project, folder: Path) -> tuple[Project, dict[str, Any]]:
    """A second checkout that plays another host, and what both are told of where they meet."""
    other = make_project(folder / "other")
    other.set(TOGETHER)
    other.run("dvc", "repro", "prepare")
    project.set(TOGETHER)
    project.run("dvc", "repro", "prepare")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return other, {
        "ATELIER_HOSTS": "2",
        "ATELIER_RENDEZVOUS": f"127.0.0.1:{port}",
        "GLOO_SOCKET_IFNAME": "lo",
    }


@pytest.mark.slow
def test_two_hosts_train_as_two_processes_of_one_do(project: Project, tmp_path: Path) -> None:
    other, place = two_hosts(project, tmp_path)
    helper = Run(other, tmp_path / "other.txt", "python", "-m", "stages.train", **place, ATELIER_HOST="1")
    project.run("dvc", "repro", "train", **place, ATELIER_HOST="0")
    assert helper.process.wait(60) == 0, helper.output
    assert not (other.path / "data/train").exists()
    assert not (other.path / "results/records/train.json").exists()
    assert not (other.path / ".atelier/runs").exists()

    alone = make_project(tmp_path / "alone")
    alone.set(TOGETHER)
    alone.run("dvc", "repro", "train")
    assert project.lock()["train"]["outs"] == alone.lock()["train"]["outs"]


@pytest.mark.slow
def test_hosts_that_wait_say_so_and_end_by_ctrl_c(project: Project, tmp_path: Path) -> None:
    other, place = two_hosts(project, tmp_path)
    waiting = f"waiting for the other hosts at {place['ATELIER_RENDEZVOUS']}; not there yet: "
    for rank, missing in (("0", "1"), ("1", "0")):
        if rank == "0":
            run = start(project, **place, ATELIER_HOST=rank)
        else:
            run = Run(other, tmp_path / "other.txt", "python", "-m", "stages.train", **place, ATELIER_HOST=rank)
        while waiting not in run.output:
            assert run.goes_on(), run.output
            time.sleep(0.1)
        assert f"{waiting}{missing}" in run.output
        os.killpg(run.process.pid, signal.SIGINT)
        run.process.wait(60)
        assert run.output.splitlines().count("train: interrupted") == 1
        assert "Traceback" not in run.output
        assert "socket.cpp" not in run.output
        assert not list(run.project.path.glob(".atelier/**/together-*"))


@pytest.mark.slow
def test_a_host_with_other_inputs_is_refused_and_one_that_is_lost_ends_all(project: Project, tmp_path: Path) -> None:
    other, place = two_hosts(project, tmp_path)
    other.set({"train.lr_g": 0.5})
    helper = Run(other, tmp_path / "other.txt", "python", "-m", "stages.train", **place, ATELIER_HOST="1")
    said = project.run("dvc", "repro", "train", ok=False, **place, ATELIER_HOST="0")
    assert "train: a process on another host has ended, which says why there" in said
    assert helper.process.wait(60) == 1
    assert "train: this process cannot take part: it differs from the first in train.lr_g" in helper.output

    other.set(TOGETHER | {"train.lr_g": 0.002})
    helper = Run(other, tmp_path / "other.txt", "python", "-m", "stages.train", **place, ATELIER_HOST="1")
    run = start(project, **place, ATELIER_HOST="0")
    wait_for_checkpoint(run)
    helper.end()
    assert run.process.wait(60) != 0
    assert "train: a process on another host has ended, which says why there" in run.output
    wait_until_gone(project)
    wait_until_gone(other)
