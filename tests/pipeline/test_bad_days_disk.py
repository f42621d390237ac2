"""A disk that fills up, at each stage and in DVC's cache: one clear line, nothing lost, and it goes on with room."""

import pytest

from flows.reproduction import Reproduction, StageError
from tests.pipeline.accidents import half_written, needs, one_line, room, run_stage, small_disk
from tests.project import Project, stages_run

FULL = "No space left on device"
NEEDS = {"fetch": 40, "prepare": 200, "reference": 400, "train": 40, "sample": 40, "evaluate": 8, "report": 200}
"""Kilobytes with which each stage of the tiny experiment begins to write, and cannot end."""


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDS)
def test_a_full_disk_is_one_line_and_the_stage_completes_when_there_is_room(name: str, project: Project) -> None:
    before = project.contents("data", "results")
    with small_disk(project.path, "48m"):
        for kilobytes in (0, 8, NEEDS[name]):
            with room(project.path, kilobytes):
                said = one_line(run_stage(project, name, ATELIER_SLOTS=f"{project.path}-slots"), name)
            assert said.startswith(FULL)
            assert said.endswith("; make room, and dvc repro goes on from there")
            assert project.contents("data", "results") == before
            assert not half_written(project)
        result = run_stage(project, name)
        assert result.returncode == 0, result.stderr
        assert project.contents("data", "results") == before


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDS)
def test_a_file_larger_than_the_shell_allows_is_one_line(name: str, project: Project) -> None:
    limited = ("prlimit", "--fsize=4096")
    needs(*limited, "true")
    before = project.contents("data", "results")
    said = one_line(run_stage(project, name, *limited), name)
    assert said.startswith("File too large")
    assert project.contents("data", "results") == before
    assert not half_written(project)


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["runs", ".atelier/runs"])
def test_a_full_disk_of_events_or_checkpoints_stops_the_training_which_then_ends_with_the_same_bytes(
    folder: str, project: Project
) -> None:
    project.set({"train.epochs": 6, "train.checkpoint_steps": 7, "train.log_every": 1})
    with small_disk(project.path / folder, "8m"):
        for kilobytes in (0, 8):
            with room(project.path / folder, kilobytes):
                output = project.run("dvc", "repro", "train", ok=False)
            assert f"train: {FULL}" in output
            assert "Traceback" not in output
        project.run("dvc", "repro", "train")
        resumed = project.contents("data/train", "results/curves.csv")
    project.run("dvc", "repro", "--force", "--single-item", "train")
    assert project.contents("data/train", "results/curves.csv") == resumed


@pytest.mark.slow
def test_a_full_cache_costs_no_result_and_a_flow_fails_on_it(project: Project) -> None:
    project.set({"sample.count": 120})
    project.run("dvc", "repro", "check")
    cache = project.path / ".dvc/cache"
    with small_disk(cache, "16m"):
        with room(cache, 60):
            # DVC itself ends well, with the result in place and noted, and not kept.
            assert FULL in project.run("dvc", "repro", "sample")
            assert "not in cache" in project.run("dvc", "status", "sample")
            made = project.contents("data/samples")
            with pytest.raises(StageError, match=f"^sample: made, but not kept in DVC's cache: .*{FULL}"):
                follow_as_a_flow(project, "sample")
        assert stages_run(project.run("dvc", "repro", "sample")) == ["sample"]
        assert project.contents("data/samples") == made
        assert "up to date" in project.run("dvc", "status", "sample")


def test_the_samples_on_a_disk_with_a_little_room_are_refused_in_words(project: Project) -> None:
    # Through a memory map, writing to a full disk would end the process by a signal.
    needs("prlimit", "--fsize=4096", "true")
    before = project.contents("data", "results")
    said = one_line(run_stage(project, "sample", "prlimit", "--fsize=60000"), "sample")
    assert said.startswith("File too large")
    assert project.contents("data", "results") == before
    assert not half_written(project)


def follow_as_a_flow(project: Project, target: str) -> None:
    with Reproduction(project.path, [target], project.environment) as reproduction:
        for name in reproduction:
            reproduction.follow(name, print)
