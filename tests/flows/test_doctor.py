"""What accidents leave is found, named, and removed only when asked for; what is in use stays."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.flows.conftest import wait_for
from tests.project import Project


def doctor(project: Project, *words: str) -> str:
    """What the doctor says, without a server."""
    return project.run("python", "-m", "flows.doctor", *words, PREFECT_API_URL="", PREFECT_HOME=str(project.path / "p"))


def put_training(project: Project, name: str, days: float) -> Path:
    folder = project.path / ".atelier/runs" / name
    folder.mkdir(parents=True)
    checkpoint = folder / "step-00000100.pt"
    checkpoint.write_bytes(b"0" * 2_000_000)
    then = time.time() - days * 86400
    os.utime(checkpoint, (then, then))
    folder.with_suffix(".lock").touch()
    return folder


def test_a_tidy_checkout_has_nothing_to_remove(project: Project) -> None:
    assert doctor(project).splitlines() == ["nothing to remove"]


def test_only_what_nobody_uses_is_removed_and_only_when_asked(project: Project) -> None:
    workspaces = project.path / ".atelier/workspaces"
    for name in ("stale", "used", "unlocked"):
        (workspaces / name).mkdir(parents=True)
    (workspaces / "stale.lock").touch()
    together = project.path / ".atelier/together/together-x"
    together.mkdir(parents=True)
    recent, old, going_on = (put_training(project, *each) for each in (("recent", 1), ("old", 30), ("going-on", 30)))
    with (workspaces / "used.lock").open("w") as used, going_on.with_suffix(".lock").open() as running:
        for lock in (used, running):
            fcntl.flock(lock, fcntl.LOCK_EX)
        said = doctor(project)
        assert f"! workspace {workspaces}/stale: its flow is gone; remove it" in said
        assert f"! workspace {workspaces}/unlocked: its flow is gone; remove it" in said
        assert f"  workspace {workspaces}/used: in use" in said
        assert f"  training in {recent} (2.0 MB): stopped 24 hours ago" in said
        assert f"! training in {old} (2.0 MB): untouched for 30 days; remove it" in said
        assert f"  training in {going_on} (2.0 MB): runs" in said
        assert f"! {together}: of a training that was killed; remove it" in said
        assert said.splitlines()[-1] == "4 to remove (!): make doctor CLEAN=1"
        assert (workspaces / "stale").exists()
        assert old.exists()

        assert doctor(project, "--clean").splitlines()[-1] == "4 removed"
        assert not together.exists()
        assert {path.name for path in workspaces.iterdir()} == {"used", "used.lock"}
        assert {path.name for path in old.parent.iterdir()} == {
            "recent",
            "recent.lock",
            "going-on",
            "going-on.lock",
        }
        assert doctor(project).splitlines()[-1] == "nothing to remove"


def test_what_a_stage_has_begun_to_write_is_not_damaged(project: Project) -> None:
    (project.path / "results/curves.csv").write_text("step\n")
    assert "! results/curves.csv: not the bytes that dvc.lock has" in doctor(project)
    running = subprocess.Popen(["python", "-c", "input()", "dvc repro"], cwd=project.path, stdin=subprocess.PIPE)
    told = "  dvc runs here: its outputs were not compared with dvc.lock"
    assert doctor(project).splitlines() == [told, "nothing to remove"]
    running.kill()
    running.communicate()
    shutil.rmtree(project.path / "data/train")  # as DVC does before it runs the stage, which was interrupted then
    assert doctor(project).splitlines() == ["nothing to remove"]


def test_a_held_device_is_shown_with_its_holder(project: Project) -> None:
    waits = "from stages.slots import hold_slots; hold_slots('train', 'cpu', 1); print('held', flush=True); input()"
    holder = subprocess.Popen(
        ["python", "-c", waits],
        cwd=project.path,
        env=project.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert f"  slot cpu: held by process {holder.pid}, train in {project.path}" in doctor(project)
    holder.kill()
    holder.communicate()
    assert "slot" not in doctor(project)


@pytest.mark.slow
def test_a_killed_temporary_run_is_no_longer_shown_as_running(project: Project) -> None:
    command = ["dvc", "exp", "run", "--temp", "--name", "killed", "--set-param", "train.epochs=1000"]
    process = subprocess.Popen(
        command,
        cwd=project.path,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: list(project.path.glob(".atelier/runs/*")), 120)
    assert "experiment in " in doctor(project)
    assert "runs, as process" in doctor(project)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert "Running" in project.run("dvc", "exp", "show")
    assert "! experiment killed: shown as running, and does not" in doctor(project)
    doctor(project, "--clean")
    assert "Running" not in project.run("dvc", "exp", "show")
    assert project.run("git", "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dvc.lock", ""),
        pytest.param("dvc.lock", None, marks=pytest.mark.slow),  # cut short
        pytest.param(".dvc/tmp/rwlock", "", marks=pytest.mark.slow),
        pytest.param(
            ".dvc/tmp/rwlock",
            '{"write": {"DATA/raw": {"pid": 1, "cmd": "dvc repro"}}, "read": {}}',
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_dvc_stumbles_over_after_a_kill_is_removed(name: str, content: str | None, project: Project) -> None:
    file = project.path / name
    before = project.lock()
    whole = file.read_text() if name == "dvc.lock" else ""
    file.write_text(
        whole[: whole.rindex("md5:") + 2] if content is None else content.replace("DATA", str(project.path / "data"))
    )
    project.run("dvc", "repro", ok=False)
    assert f"! {file}: " in doctor(project)
    assert doctor(project, "--clean").splitlines()[-1] == "1 removed"
    assert set(project.repro()) <= {"check", "fetch"}
    assert project.lock() == before
    assert doctor(project).splitlines() == ["nothing to remove"]


@pytest.mark.slow
def test_an_empty_place_in_dvcs_run_cache_is_removed(project: Project) -> None:
    """Where DVC was killed between making the folder of a run and writing what ran."""
    before = project.lock()
    shutil.rmtree(project.path / "results/report")
    for entry in project.path.glob(".dvc/cache/runs/??/*/*"):
        if "stages.report" in entry.read_text():
            entry.unlink()
    lock = project.path / "dvc.lock"
    lock.write_text(re.sub(r"  report:\n(?:    .*\n)+", "", lock.read_text()))
    assert "join() argument must be str" in project.run("dvc", "repro", ok=False)
    assert "has no run in it, at which DVC breaks off" in doctor(project)
    assert doctor(project, "--clean").splitlines()[-1] == "1 removed"
    assert project.repro() == ["report"]
    assert project.lock() == before
