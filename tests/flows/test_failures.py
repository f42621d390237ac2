"""What befalls a machine at night: real processes, a real server, worker and database; what must follow."""

import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from flows.setup import SILENCE
from flows.slots import LEASE
from tests.flows.box import LONG, Box, undisturbed
from tests.flows.conftest import Server, free_port, running_server, wait_for
from tests.project import Project

pytestmark = pytest.mark.slow


@pytest.fixture
def box(project: Project, server: Server) -> Box:
    box = Box(project, server)
    box.deploy()
    return box


def test_a_killed_training_is_tried_again_and_ends_with_the_same_bytes(box: Box) -> None:
    with box.worker():
        run = box.train("killed")
        box.wait_for_training().kill()
        assert box.wait_for_end(run).is_completed()
        said = box.log(run)
        assert "ended by signal 9" in said
        assert "going on from step" in said
        assert box.outputs("killed") == undisturbed(box, "undisturbed")


def test_a_killed_worker_leaves_a_crashed_run_no_orphan_and_a_free_slot_and_the_next_run_resumes(box: Box) -> None:
    with box.worker() as worker:
        run = box.train("resumed")
        box.wait_for_training()
        worker.kill()
        wait_for(lambda: not box.processes(), 20)
        assert box.wait_for_end(run, 60).is_crashed()
        wait_for(lambda: box.slots_taken() == 0, LEASE + 60)
        assert box.workspaces() == []
    with box.worker():
        again = box.train("resumed")
        assert box.wait_for_end(again).is_completed()
        assert "going on from step" in box.log(again)


def test_a_run_whose_processes_are_all_killed_is_marked_crashed_and_its_slot_is_freed(box: Box) -> None:
    with box.worker() as worker:
        run = box.train("wiped-out")
        training = box.wait_for_training()
        # The worker would say so; it goes first, as when the whole machine does.
        group = os.getpgid(training.pid)
        worker.kill()
        os.killpg(group, signal.SIGKILL)
        wait_for(lambda: not box.processes(), 10)
        assert not box.run(run).state.is_final()  # type: ignore[union-attr]
        state = box.wait_for_end(run, SILENCE + 30)
        assert state.is_crashed()
        assert state.message == "its heartbeats ended: it was killed"
        wait_for(lambda: box.slots_taken() == 0, LEASE + 60)
    with box.worker():
        again = box.train("wiped-out")
        assert box.wait_for_end(again).is_completed()
        assert "going on from step" in box.log(again)


def test_a_flow_that_is_killed_alone_takes_its_training_with_it(box: Box) -> None:
    with box.worker():
        run = box.train("flow-killed")
        box.wait_for_training()
        (flow,) = box.processes("prefect.engine") or box.processes("prefect flow-run execute")
        flow.kill()
        wait_for(lambda: not box.processes(), 10)
        assert box.wait_for_end(run, 60).is_crashed()


@pytest.mark.parametrize("how", ["command", "page"])
def test_a_cancelled_run_is_gone_within_ten_seconds(how: str, box: Box) -> None:
    with box.worker():
        run = box.train("cancelled", LONG | {"train.epochs": 1000})
        box.wait_for_training()
        if how == "command":
            box.command("prefect", "flow-run", "cancel", str(run))
        else:
            _cancel_as_the_page_does(box, run)
        wait_for(lambda: not box.processes(), 10)
        assert box.wait_for_end(run, 20).is_cancelled()
        wait_for(lambda: box.slots_taken() == 0, 10)
        assert box.workspaces() == []
        assert box.experiments() == {}
        assert box.project.run("git", "status", "--porcelain") == ""


def test_a_cancelled_comparison_takes_its_runs_with_it(box: Box) -> None:
    with box.worker():
        overrides = LONG | {"train.epochs": 1000}
        run = box.trigger("compare/compare", experiments=["mnist-quick", "mnist-vanilla-quick"], overrides=overrides)
        box.wait_for_training()
        box.command("prefect", "flow-run", "cancel", str(run))
        wait_for(lambda: not box.processes(), 15)
        assert box.wait_for_end(run, 30).is_cancelled()
        with box.client() as client:
            children = [found for found in client.read_flow_runs() if found.parent_task_run_id]
        assert len(children) == 2
        for child in children:
            assert box.wait_for_end(child.id, 60).is_cancelled()
        assert box.workspaces() == []


def _cancel_as_the_page_does(box: Box, run: UUID) -> None:
    from prefect.client.schemas.objects import State, StateType

    with box.client() as client:
        client.set_flow_run_state(run, State(type=StateType.CANCELLING), force=False)


@contextmanager
def postgres(folder: Path, port: int) -> Iterator[list[str]]:
    """A PostgreSQL server on loopback; the command that restarts it."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not programs:
        pytest.skip("PostgreSQL is not installed")
    # It refuses to run as root.
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    folder.mkdir()
    for parent in (folder, *folder.parents):
        if os.geteuid() == 0 and parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    control = [*as_user, str(programs[-1]), "--pgdata", str(folder / "data"), "--wait"]
    subprocess.run(
        [*control, "init", "-o", "--auth=trust --username=prefect"], check=True, cwd="/", capture_output=True
    )
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    subprocess.run([*control, "-o", options, "-l", str(folder / "log"), "start"], check=True, cwd="/")
    try:
        yield [*control, "-m", "fast", "-o", options, "-l", str(folder / "log")]
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, cwd="/")


@pytest.mark.parametrize("stage", ["train", "report"])
def test_a_run_outlives_a_restart_of_the_server(stage: str, project: Project, tmp_path: Path) -> None:
    port = free_port()
    server = Server(f"http://127.0.0.1:{port}", tmp_path / "prefect")
    box = Box(project, server)
    with running_server(server.home, port) as first:
        box.deploy()
        with box.worker():
            run = box.train("outlives")
            wait_for(lambda: box.processes(f"stages.{stage}"), 120)
            first.kill()
            first.wait()
            time.sleep(20)
            with running_server(server.home, port):
                # Until its heartbeats come again, it may be taken for dead.
                wait_for(lambda: (state := box.run(run).state) is not None and state.is_completed(), 300, every=0.5)
                assert "outlives" in box.experiments()
                wait_for(lambda: box.slots_taken() == 0, LEASE + 60)


def test_a_run_outlives_a_restart_of_its_database(project: Project, tmp_path: Path) -> None:
    port, database = free_port(), free_port()
    server = Server(f"http://127.0.0.1:{port}", tmp_path / "prefect")
    box = Box(project, server)
    url = f"postgresql+asyncpg://prefect@127.0.0.1:{database}/postgres"
    with (
        postgres(tmp_path / "postgres", database) as control,
        running_server(server.home, port, PREFECT_SERVER_DATABASE_CONNECTION_URL=url),
    ):
        box.deploy()
        with box.worker():
            run = box.train("outlives")
            box.wait_for_training()
            subprocess.run([*control, "stop"], check=True, cwd="/")
            time.sleep(10)
            subprocess.run([*control, "start"], check=True, cwd="/")
            assert box.wait_for_end(run, 300).is_completed()
            assert "outlives" in box.experiments()
            wait_for(lambda: box.slots_taken() == 0, LEASE + 60)


def test_two_schedules_at_once_and_a_repro_by_hand_all_complete(box: Box) -> None:
    with box.worker():
        runs = [box.train("first", {"train.lr_d": 0.002}), box.train("second", {"train.lr_d": 0.003})]
        same = box.train("first", {"train.lr_d": 0.002})
        box.project.set({"train.lr_d": 0.004})
        assert "train" in box.project.repro()
        for run in [*runs, same]:
            assert box.wait_for_end(run, 240).is_completed(), box.log(run)
            assert "acquire lock" not in box.log(run)
    assert {"first", "second"} <= set(box.experiments())


def test_what_is_edited_during_a_run_changes_nothing_of_it(box: Box) -> None:
    with box.worker():
        run = box.train("as-committed")
        box.wait_for_training()
        commit = box.project.run("git", "rev-parse", "HEAD").strip()
        box.project.set({"train.lr_d": 0.5, "sample.count": 7})
        source = box.project.path / "stages/sample.py"
        source.write_text("raise SystemExit('edited')\n")
        assert box.wait_for_end(run).is_completed(), box.log(run)
        found = box.experiments()["as-committed"]["data"]["params"]["params.yaml"]["data"]
        assert found["train"]["lr_d"] == 0.001
        assert found["sample"]["count"] == 100
        assert f"runs {commit[:7]}" in box.log(run)
        assert source.read_text() == "raise SystemExit('edited')\n"


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own, of `size`, at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Leave no room on the disk that `folder` is on."""
    try:
        with (folder / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(b"0" * 4096)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def test_a_full_disk_at_a_checkpoint_fails_clearly_keeps_the_last_one_and_resumes(box: Box) -> None:
    folder = box.project.path / ".atelier/runs"
    with small_disk(folder, "8m"), box.worker():
        run = box.train("full")
        box.wait_for_training()
        fill(folder)
        state = box.wait_for_end(run)
        assert state.is_failed()
        assert "No space left on device" in (state.message or "")
        assert "Traceback" not in box.log(run)
        assert box.checkpoints()
        assert box.experiments() == {}
        (folder / "filler").unlink()
        again = box.train("full")
        assert box.wait_for_end(again).is_completed(), box.log(again)
        assert "going on from step" in box.log(again)


def test_a_full_disk_at_an_output_fails_clearly_and_completes_when_there_is_room(box: Box) -> None:
    with small_disk(box.project.path / ".atelier/workspaces", "64m"), box.worker():
        run = box.train("full")
        box.wait_for_training()
        folder = box.project.path / ".atelier/workspaces"
        fill(folder)
        state = box.wait_for_end(run)
        assert state.is_failed()
        assert "No space left on device" in (state.message or "")
        assert box.experiments() == {}
        (folder / "filler").unlink()
        again = box.train("full")
        assert box.wait_for_end(again).is_completed(), box.log(again)


def test_a_remote_out_of_reach_keeps_the_result_and_says_what_to_run_by_hand(box: Box, tmp_path: Path) -> None:
    box.project.run("git", "remote", "add", "team", str(tmp_path / "not-there.git"))
    sooner = """
import sys
from flows import pipeline
pipeline.push_experiment = pipeline.push_experiment.with_options(retry_delay_seconds=0.1)
sys.exit(pipeline.main(["mnist-quick", "--name", "kept", "--remote", "team"]))
"""
    output = box.command("python", "-c", sooner, ok=False)
    assert output.count(" will start 0.1 second(s) from now") == 5
    assert output.splitlines()[-1].startswith("Failed: ")
    assert "`dvc exp push team kept`" in output.splitlines()[-1]
    assert "kept" in box.experiments()


def test_a_result_of_one_host_is_scored_by_another(box: Box, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", shared / "git"], check=True)
    box.project.run("git", "remote", "add", "origin", str(shared / "git"))
    box.project.run("dvc", "remote", "add", "--default", "team", str(shared / "dvc"))
    box.project.run("git", "commit", "--quiet", "--all", "--message=remote")
    box.project.run("git", "push", "--quiet", "origin", "main")
    subprocess.run(["git", "clone", "--quiet", shared / "git", tmp_path / "other/atelier"], check=True)
    other = Box(Project(tmp_path / "other/atelier"), box.server)
    for key, value in (("user.name", "Test"), ("user.email", "test@example.com")):
        other.project.run("git", "config", key, value)
    with box.worker():
        run = box.trigger(experiment="mnist-quick", overrides={"train.lr_d": 0.002}, name="shared", remote="origin")
        assert box.wait_for_end(run).is_completed(), box.log(run)
    shutil.rmtree(box.project.path / ".dvc/cache")
    with other.worker():
        run = other.trigger(
            "evaluate/evaluate", experiments=["shared"], overrides={"sample.count": 128}, remote="origin"
        )
        assert other.wait_for_end(run).is_completed(), other.log(run)
    assert "Running stage 'train'" not in other.log(run)
    (ref,) = other.project.run("git", "for-each-ref", "--format=%(refname)", "refs/exps/**/shared-count-128").split()
    scores = json.loads(other.project.run("git", "show", f"{ref}:results/scores.json"))
    assert scores["protocol"][0]["generated_images"] == 128
    box.project.run("dvc", "exp", "pull", "origin", "shared-count-128", "--no-cache")
    assert "shared-count-128" in box.experiments()
