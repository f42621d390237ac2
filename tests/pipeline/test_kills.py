"""Runs that are killed, with all their processes or without some."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.project import Project
from tests.torture.kills import torture


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(tmp_path: Path) -> None:
    tally = torture("dcgan-non-saturating", tmp_path, kills=6, seed=3, seconds=900)
    assert tally.faults == []
    assert tally.rounds >= 1
    assert tally.killed() == 6


def test_a_dvc_killed_as_its_stage_starts_leaves_no_training_behind(project: Project) -> None:
    """Before the stage could ask the kernel to end it with its parent."""
    project.set({"train.epochs": 1000})
    process = subprocess.Popen(
        ["dvc", "repro", "train"],
        cwd=project.path,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    training = None
    while training is None:
        assert process.poll() is None
        for child in psutil.Process(process.pid).children():
            if "stages.train" in child.cmdline():
                training = child
    process.kill()
    process.wait()
    try:
        deadline = time.monotonic() + 60
        while training.is_running():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
