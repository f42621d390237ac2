"""Child processes end with what started them, with all that they started themselves."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows.children import at_once
from flows.processes import CommandError, end_tree, environment, run, started
from tests.flows.conftest import wait_for

FAMILY = "sleep 1000 & echo $!; sleep 1000 & echo $!; wait"
"""A shell that says its children's numbers."""


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_the_whole_tree_ends_with_the_block(tmp_path: Path) -> None:
    with started(["sh", "-c", FAMILY], tmp_path, environment()) as process:
        assert process.stdout
        children = [int(process.stdout.readline()) for _ in range(2)]
        assert not any(map(gone, children))
    assert process.returncode == -signal.SIGTERM
    assert all(map(gone, children))


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.processes.GRACE", 0.2)
    with started(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], tmp_path, environment()
    ) as shell:
        assert shell.stdout
        shell.stdout.readline()
        end_tree(shell)
        assert shell.returncode == -signal.SIGKILL


def test_the_child_of_a_killed_process_ends() -> None:
    parent = (
        "import sys\nfrom pathlib import Path\nfrom flows.processes import environment, started\n"
        "with started(['sh', '-c', 'echo $$; sleep 1000'], Path('/'), environment()) as process:\n"
        "    print(process.stdout.readline(), end='', flush=True)\n    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert process.stdout
    child = int(process.stdout.readline())
    process.kill()
    process.communicate()
    wait_for(lambda: gone(child), 10)


def test_a_failed_command_is_named_with_what_it_said_last(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"^`git rev-parse` failed: fatal: not a git repository"):
        run("git", "rev-parse", folder=tmp_path, GIT_CEILING_DIRECTORIES=str(tmp_path.parent))


def test_the_tools_beside_this_python_come_first() -> None:
    assert environment()["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_at_once_keeps_the_order_runs_no_more_than_told_and_lets_none_stop_another() -> None:
    from threading import Barrier, BrokenBarrierError, Lock

    together, most, lock = 0, 0, Lock()
    pairs = Barrier(2)
    finished = []

    def work(number: int) -> int:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        try:
            pairs.wait(5)  # two at once, or it breaks
            if number == 1:
                raise ValueError("one of them")
            return number * number
        finally:
            with lock:
                together -= 1
                finished.append(number)

    with pytest.raises(ValueError, match="one of them"):
        at_once(work, [0, 1, 2, 3], 2)
    assert sorted(finished) == [0, 1, 2, 3]
    assert most == 2
    assert at_once(work, [2, 3, 4, 5], 2) == [4, 9, 16, 25]
    with pytest.raises(BrokenBarrierError):
        at_once(lambda number: pairs.wait(0.1) or number, [0], 1)
