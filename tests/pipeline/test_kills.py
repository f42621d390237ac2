"""Runs that are killed, with all their processes or without some."""

import time
from pathlib import Path

import pytest

from tests.project import Project
from tests.torture.kills import Run, torture


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
    run = Run(project, project.path.parent / "log.txt", "dvc", "repro", "train")
    try:
        while not (run.stage == "train" and run.worker()):
            assert run.goes_on(), run.output
        run.process.kill()
        run.process.wait()
        deadline = time.monotonic() + 60
        while run.members():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        run.end()
