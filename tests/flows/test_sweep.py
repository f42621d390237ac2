"""Which trials a sweep makes, what it remembers, and, with real trials, that it comes through kills and faults."""

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from pydantic import TypeAdapter, ValidationError

from flows.experiment import ExperimentError
from flows.sweep import (
    MetricError,
    Space,
    check_metric,
    check_protocol,
    count_trials,
    distributions,
    hold_to_protocol,
    last_records,
    open_study,
    rank,
    read_metric,
    read_space,
    sweep,
    trial_rows,
    trial_values,
)
from tests.flows.box import Box
from tests.flows.conftest import Server, wait_for
from tests.project import ROOT, Project

GRID: dict[str, Any] = {"train.lr_d": [1e-4, 1e-3], "train.augment": [[], ["colour"], ["translation", "cutout"]]}
RANGES: dict[str, Any] = {
    "train.lr_d": {"low": 1e-4, "high": 1e-2, "log": True},
    "train.n_dis": {"low": 1, "high": 3, "log": False},
    "train.augment": [[], ["colour"]],
    "sample.ema": [True, False],
}


def define(space: dict[str, Any], **changes: Any) -> dict[str, Any]:
    definition = {
        "experiment": "mnist-quick",
        "commit": "0123456789" * 4,
        "space": space,
        "method": "grid",
        "metric": "classifier-FD",
        "direction": "minimize",
        "seed": 0,
    }
    return definition | changes


def record(
    number: int,
    state: TrialState = TrialState.COMPLETE,
    value: float | None = None,
    said: str = "",
    protocol: dict[str, Any] | None = None,
) -> FrozenTrial:
    return create_trial(
        state=state,
        value=value,
        params={"train.lr_d": trial_values(define(GRID), number)["train.lr_d"]},
        distributions=distributions({"train.lr_d": GRID["train.lr_d"]}),
        user_attrs={"number": number, "experiment": f"s-{number:03}", "said": said, "protocol": protocol or {}},
    )


def run_sweep(box: Box, *arguments: str, ok: bool = True) -> str:
    """What the sweep prints, run as a person runs it."""
    return box.command("python", "-m", "flows.sweep", *arguments, ok=ok)


# The search


def test_a_grid_is_every_combination_once() -> None:
    definition = define(GRID)
    assert count_trials(definition, None) == 6
    values = [trial_values(definition, number) for number in range(6)]
    assert [(value["train.lr_d"], value["train.augment"]) for value in values] == [
        (1e-4, []),
        (1e-4, ["colour"]),
        (1e-4, ["translation", "cutout"]),
        (1e-3, []),
        (1e-3, ["colour"]),
        (1e-3, ["translation", "cutout"]),
    ]
    assert count_trials(definition, 4) == 4
    assert count_trials(definition, 9) == 6


def test_a_random_trial_depends_on_the_seed_and_its_number_alone() -> None:
    definition = define(RANGES, method="random")
    assert count_trials(definition, 50) == 50
    first = [trial_values(definition, number) for number in range(50)]
    assert [trial_values(definition, number) for number in reversed(range(50))] == first[::-1]
    assert trial_values(define(RANGES, method="random", seed=1), 0) != first[0]
    assert len({json.dumps(values) for values in first}) == 50


def test_random_values_lie_in_their_ranges_and_are_of_their_kind() -> None:
    drawn = [trial_values(define(RANGES, method="random"), number) for number in range(200)]
    assert all(1e-4 <= values["train.lr_d"] <= 1e-2 for values in drawn)
    assert 70 < sum(values["train.lr_d"] < 1e-3 for values in drawn) < 130  # half of them, by their logarithms
    assert {values["train.n_dis"] for values in drawn} == {1, 2, 3}
    assert all(type(values["train.n_dis"]) is int for values in drawn)
    assert {str(values["train.augment"]) for values in drawn} == {"[]", "['colour']"}
    assert {values["sample.ema"] for values in drawn} == {True, False}
    assert all(len(f"{values['train.lr_d']:g}") <= 9 for values in drawn)


@pytest.mark.parametrize(
    ("space", "method", "message"),
    [
        ({"train.lr_d": []}, "grid", "space: train.lr_d has no value"),
        ({"train.lr_d": [1e-3, 0.001]}, "grid", "space: train.lr_d has a value twice: [0.001, 0.001]"),
        (RANGES, "grid", "space: train.lr_d is a range, and a grid needs values: list them, or search at random"),
        ({"train.n_dis": {"low": 3, "high": 3, "log": False}}, "random", "space: train.n_dis: 3 is not below 3"),
        ({"train.lr_d": {"low": 0, "high": 1.0, "log": True}}, "random", "space: train.lr_d: 0 has no logarithm"),
        (RANGES, "random", "trials: say how many a random search makes"),
    ],
)
def test_a_space_that_contradicts_itself_is_refused(space: dict[str, Any], method: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=re.escape(message)):
        count_trials(define(space, method=method), None)


def test_a_space_is_read_from_the_command_line() -> None:
    words = ["train.lr_d=1e-4..1e-2:log", "train.n_dis=1..5", "train.augment=[],[colour,cutout]", "train.loss=hinge"]
    assert read_space([*words, "train.lr_g=1e-4,2e-3", "data.crop=null"]) == {
        "train.lr_d": {"low": 1e-4, "high": 1e-2, "log": True},
        "train.n_dis": {"low": 1, "high": 5, "log": False},
        "train.augment": [[], ["colour", "cutout"]],
        "train.loss": ["hinge"],
        "train.lr_g": [1e-4, 2e-3],
        "data.crop": [None],
    }


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.lrd=1,2", "params.yaml has no train.lrd; did you mean train.lr_d?"),
        ("train.lr_d", "'train.lr_d' is not KEY=VALUE"),
        ("train.augment=[colour", "'train.augment=[colour': not valid YAML"),
    ],
)
def test_words_that_are_no_space_are_refused(word: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=re.escape(message)):
        read_space([word])


def test_the_form_takes_lists_and_ranges_and_keeps_whole_numbers_whole() -> None:
    read = TypeAdapter(Space).validate_python
    taken = read(
        {"train.n_dis": {"low": 1, "high": 5}, "train.lr_d": {"low": 1e-4, "high": 1, "log": True}, "seed": [1, 2]}
    )
    assert taken["train.n_dis"].model_dump() == {"low": 1, "high": 5, "log": False}  # type: ignore[union-attr]
    assert type(taken["train.n_dis"].low) is int  # type: ignore[union-attr]
    assert taken["train.lr_d"].model_dump() == {"low": 1e-4, "high": 1, "log": True}  # type: ignore[union-attr]
    assert taken["seed"] == [1, 2]
    for wrong in (
        {},
        {"train.lrd": [1]},
        {"seed": {"low": 1}},
        {"seed": {"low": 1, "high": 2, "step": 1}},
        {"seed": 1},
    ):
        with pytest.raises((ValidationError, ExperimentError)):
            read(wrong)
    shown = sweep.parameters.properties
    assert all(shown[name]["description"] for name in ("space", "metric", "method", "trials", "name", "seed"))


# The record


def test_trials_are_remembered_and_the_last_word_counts(tmp_path: Path) -> None:
    definition = define(GRID)
    with open_study(tmp_path, "s", definition) as study:
        study.add_trial(record(0, value=3.0, said="converged"))
        study.add_trial(record(2, TrialState.FAIL, said="train: out of memory"))
        study.add_trial(record(1, TrialState.PRUNED, said="stopped early at 64 kimg: diverged: loss 1e6"))
    with open_study(tmp_path, "s", definition) as study:
        assert {number: found.state for number, found in last_records(study).items()} == {
            0: TrialState.COMPLETE,
            1: TrialState.PRUNED,
            2: TrialState.FAIL,
        }
        study.add_trial(record(2, value=2.0, said="converged"))
    with open_study(tmp_path, "s", definition) as study:
        found = last_records(study)
        assert found[2].value == 2.0
        assert found[0].params == {"train.lr_d": 1e-4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": {"seed": [1]}}, "another space ({"),
        ({"metric": "inception_score"}, "another metric (classifier-FD there, inception_score now)"),
        ({"experiment": "mnist-dcgan"}, "another experiment (mnist-quick there, mnist-dcgan now)"),
        ({"commit": "f" * 40}, "another commit (0123456 there, fffffff now)"),
        ({"seed": 1, "method": "random"}, "another method (grid there, random now), seed (0 there, 1 now)"),
    ],
)
def test_another_sweep_under_the_same_name_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    definition = define(GRID)
    with open_study(tmp_path, "s", define({"seed": [0]}, metric="FD")):
        pass  # without trials, nothing is lost
    with open_study(tmp_path, "s", definition) as study:
        study.add_trial(record(0, value=3.0))
    with (
        pytest.raises(ExperimentError, match=re.escape(message)) as refused,
        open_study(tmp_path, "s", definition | change),
    ):
        pass
    assert str(refused.value).endswith("or delete .atelier/sweeps/s.journal to begin anew")
    assert "\n" not in str(refused.value)
    with open_study(tmp_path, "s", definition) as study:
        assert len(last_records(study)) == 1


def test_a_sweep_runs_once_at_a_time_and_its_name_is_one_for_experiments(tmp_path: Path) -> None:
    with open_study(tmp_path, "s", define(GRID)):
        with pytest.raises(ExperimentError, match="the sweep s runs already"), open_study(tmp_path, "s", define(GRID)):
            pass
        with open_study(tmp_path, "other", define(GRID)):
            pass
    with pytest.raises(ExperimentError, match="cannot name a sweep"), open_study(tmp_path, "a/b", define(GRID)):
        pass


def test_a_record_cut_short_by_a_full_disk_loses_that_trial_alone(tmp_path: Path) -> None:
    for number in range(2):
        with open_study(tmp_path, "s", define(GRID)) as study:
            study.add_trial(record(number, value=3.0))
    path = tmp_path / ".atelier/sweeps/s.journal"
    lines = path.read_bytes().splitlines(keepends=True)
    last = max(index for index, line in enumerate(lines) if b'"number":1' in line)
    path.write_bytes(b"".join(lines[:last]) + lines[last][:40])
    with open_study(tmp_path, "s", define(GRID)) as study:
        assert list(last_records(study)) == [0]
        study.add_trial(record(1, value=4.0))
    with open_study(tmp_path, "s", define(GRID)) as study:
        assert last_records(study)[1].value == 4.0


# The end


def test_the_best_come_first_whichever_way_is_better() -> None:
    found = {
        3: record(3, TrialState.FAIL, said="train: out of memory"),
        0: record(0, value=3.0, said="converged"),
        1: record(1, value=5.0, said="stalled"),
        2: record(2, TrialState.PRUNED, said="stopped early at 64 kimg: diverged: gradient norm 1e6"),
    }
    for direction, order in (("minimize", [0, 1, 2, 3]), ("maximize", [1, 0, 2, 3])):
        assert [trial.user_attrs["number"] for trial in rank(found, direction)] == order
    one_value = define(GRID | {"train.epochs": [2]})
    assert trial_rows(rank(found, "minimize"), one_value) == [
        {"trial": "s-000", "train.lr_d": "0.0001", "train.augment": "[]", "classifier-FD": 3.0}
        | {"verdict": "converged", "state": "complete"},
        {"trial": "s-001", "train.lr_d": "0.0001", "train.augment": '["colour"]', "classifier-FD": 5.0}
        | {"verdict": "stalled", "state": "complete"},
        {"trial": "s-002", "train.lr_d": "0.0001", "train.augment": '["translation", "cutout"]', "classifier-FD": ""}
        | {"verdict": "stopped early at 64 kimg: diverged", "state": "stopped early"},
        {"trial": "s-003", "train.lr_d": "0.001", "train.augment": "[]", "classifier-FD": ""}
        | {"verdict": "train: out of memory", "state": "failed"},
    ]


def test_a_score_that_is_not_there_is_told_with_those_that_are() -> None:
    scores = {
        "verdict": "converged",
        "classifier-FD": 3,
        "class_shares": [1.0],
        "details": [{"coverage": 0.5, "best_generator": "a.safetensors"}],
        "floor": [{"recall": 0.9}],
    }
    assert read_metric(scores, "classifier-FD") == 3.0
    assert read_metric(scores, "coverage") == 0.5
    for metric in ("squeezenet-FD", "verdict", "class_shares", "details", "best_generator", "recall"):
        message = f"the scores have no number '{metric}'; they have classifier-FD, coverage$"
        with pytest.raises(MetricError, match=message):
            read_metric(scores, metric)


def test_a_trial_of_another_protocol_than_the_first_is_failed() -> None:
    first = record(1, value=3.0, protocol={"generated_images": 100, "seed": 0})
    early, pruned = record(0, TrialState.FAIL, protocol={}), record(3, TrialState.PRUNED, protocol={})
    alike = record(2, value=2.0, protocol={"generated_images": 100, "seed": 1})
    other = record(2, value=2.0, protocol={"generated_images": 5, "seed": 0})
    assert hold_to_protocol(other, [early, pruned]) is other, "no other trial is complete"
    assert hold_to_protocol(alike, [early, first]) is alike
    assert hold_to_protocol(pruned, [first]) is pruned
    failed = hold_to_protocol(other, [early, first])
    assert (failed.state, failed.value) == (TrialState.FAIL, None)
    assert failed.user_attrs["said"] == (
        "its score does not compare with that of s-001: protocols differ in generated_images (100, 5)"
    )
    assert (failed.user_attrs["number"], failed.params) == (2, other.params)


@pytest.mark.parametrize(
    ("space", "wrong"),
    [
        ({"train.lr_d": [1, 2], "sample.count": [100]}, None),
        ({"sample.ema": [True, False]}, None),
        ({"train.lr_d": [1, 2], "sample.count": [100, 200]}, "sample.count"),
        ({"sample.count": {"low": 100, "high": 200, "log": False}}, "sample.count"),
        ({"data.image_size": [32, 64]}, "data.image_size"),
        ({"evaluate.split": ["train", "test"]}, "evaluate.split"),
        ({"seed": [1, 2]}, "seed"),
        ({"seed": [1, 2], "evaluate.extractor": ["squeezenet1_1"]}, None),
    ],
)
def test_a_space_whose_trials_would_not_compare_is_refused(space: dict[str, Any], wrong: str | None) -> None:
    definition = define(space, commit="HEAD")
    if wrong is None:
        check_protocol(ROOT, definition)
        return
    with pytest.raises(
        ExperimentError, match=f"^space: {wrong} decides how scores are measured, .*; give it one value$"
    ):
        check_protocol(ROOT, definition)


def test_a_misspelt_score_is_refused_before_anything_runs(project: Project, server: Server) -> None:
    commit = project.run("git", "rev-parse", "HEAD").strip()
    with pytest.raises(MetricError, match=re.escape("the scores have no 'clasifier-FD'; did you mean classifier-FD?")):
        check_metric(project.path, define(GRID, commit=commit, metric="clasifier-FD"))
    with pytest.raises(MetricError, match=r"^metric: the scores have no 'FID'; they have inception_score, "):
        check_metric(project.path, define(GRID, commit=commit, metric="FID"))
    check_metric(project.path, define(GRID, commit=commit))
    arguments = ["mnist-quick", "--metric", "clasifier-FD", "train.lr_d=1e-3,2e-3"]
    output = run_sweep(Box(project, server), *arguments, ok=False)
    assert output.splitlines()[-1] == "Failed: metric: the scores have no 'clasifier-FD'; did you mean classifier-FD?"
    assert "Task run" not in output


# Real trials


def journal(project: Project, name: str) -> dict[int, list[tuple[str, float | None]]]:
    """The states and scores that were recorded of each trial, in order."""
    states = {1: "complete", 2: "stopped early", 3: "failed"}
    found: dict[int, list[tuple[str, float | None]]] = {}
    for line in (project.path / f".atelier/sweeps/{name}.journal").read_text().splitlines():
        entry = json.loads(line)
        if "state" in entry:
            found.setdefault(entry["user_attrs"]["number"], []).append((states[entry["state"]], entry["value"]))
    return found


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_and_runs_each_trial_once(project: Project, server: Server) -> None:
    box = Box(project, server)
    arguments = ["mnist-quick", "--metric", "classifier-FD", "--name", "s", "train.lr_d=0.002,0.003,0.004"]
    log = project.path.parent / "killed.log"
    with log.open("w") as file:
        killed = subprocess.Popen(
            ["python", "-m", "flows.sweep", *arguments],
            cwd=project.path,
            env=box.environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    wait_for(lambda: re.search(r"\[s-001\] .*Running stage 'train'", log.read_text()), 240)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    wait_for(lambda: not box.processes("stages."), 60)
    wait_for(lambda: not box.workspaces(), 60)
    assert list(journal(project, "s")) == [0]

    output = run_sweep(box, *arguments)
    assert "3 trials, 2 of them to run" in output
    assert "[s-000]" not in output
    recorded = journal(project, "s")
    assert sorted(recorded) == [0, 1, 2]
    assert all(len(found) == 1 and found[0][0] == "complete" for found in recorded.values())
    experiments = box.experiments()
    assert {
        name: found["data"]["params"]["params.yaml"]["data"]["train"]["lr_d"] for name, found in experiments.items()
    } == {
        "s-000": 0.002,
        "s-001": 0.003,
        "s-002": 0.004,
    }
    scores = {
        name: found["data"]["metrics"]["results/scores.json"]["data"]["classifier-FD"]
        for name, found in experiments.items()
    }
    assert {f"s-{number:03}": found[0][1] for number, found in recorded.items()} == scores
    best = min(scores, key=lambda name: scores[name])
    assert re.fullmatch(
        rf"Completed: best {best}: classifier-FD [\d.e+]+; 3 trials: 3 complete", output.splitlines()[-1]
    )
    table = output[output.index("\ntrial ") :].splitlines()[1:5]
    assert table[1].split()[0] == best
    assert project.run("git", "status", "--porcelain") == ""

    again = run_sweep(box, *arguments)
    assert "3 trials, 0 of them to run" in again
    assert again.splitlines()[-1] == output.splitlines()[-1]
    refused = run_sweep(box, *arguments[:-1], "train.lr_d=0.002,0.005", ok=False)
    assert refused.splitlines()[-1].startswith('Failed: the sweep s has trials of another space ({"train.lr_d": [0.002')


@pytest.mark.slow
def test_a_trial_that_fails_stops_no_other_and_is_tried_again(project: Project, server: Server) -> None:
    box = Box(project, server)
    arguments = ["mnist-quick", "--metric", "classifier-FD", "--name", "s", "train.batch_size=0,20"]
    output = run_sweep(box, *arguments, ok=False)
    fault = "check: .*train.batch_size: .*"
    assert re.search(
        rf"Failed: best s-001: .*2 trials: 1 complete, 1 failed; s-000 failed: {fault}", output.splitlines()[-1]
    )
    assert [[state for state, _ in journal(project, "s")[number]] for number in (0, 1)] == [["failed"], ["complete"]]
    again = run_sweep(box, *arguments, ok=False)
    assert "2 trials, 1 of them to run" in again
    assert [[state for state, _ in journal(project, "s")[number]] for number in (0, 1)] == [
        ["failed"] * 2,
        ["complete"],
    ]


@pytest.mark.slow
def test_a_hopeless_trial_is_stopped_early_and_leaves_no_experiment(project: Project, server: Server) -> None:
    box = Box(project, server)
    # Nothing of z passes the generator, and it learns next to nothing; the first trial's few steps are too few to tell.
    space = ["generator.init_std=1e-6", "train.lr_g=1e-7", "train.checkpoint_seconds=1", "train.epochs=2,200"]
    output = run_sweep(box, "mnist-quick", "--metric", "classifier-FD", *space)
    reason = r"stopped early at [\d.]+ kimg: generator collapsed"
    name = "mnist-quick-sweep-001"
    assert re.search(rf"Flow run '{name}' - Finished in state StoppedEarly\('{reason}: output spread across z", output)
    assert [found[0][0] for _, found in sorted(journal(project, "mnist-quick-sweep").items())] == [
        "complete",
        "stopped early",
    ]
    assert re.search(rf"\n{name} +200 +{reason} +stopped early\n", output)
    assert output.splitlines()[-1].endswith("2 trials: 1 complete, 1 stopped early")
    assert "Retry" not in output
    assert list(box.experiments()) == ["mnist-quick-sweep-000"]
    assert not box.processes()
    assert not box.workspaces()
    assert box.checkpoints(), "whoever thinks that it was not hopeless can go on from there"


@pytest.mark.slow
def test_a_deployed_sweep_leaves_its_trials_to_the_workers(project: Project, server: Server) -> None:
    box = Box(project, server)
    box.deploy()
    with box.worker():
        run = box.trigger(
            "sweep/sweep",
            experiment="mnist-quick",
            space={"train.lr_d": {"low": 0.001, "high": 0.01, "log": True}},
            method="random",
            trials=2,
            metric="inception_score",
            direction="maximize",
            name="s",
            parallel=2,
        )
        state = box.wait_for_end(run, 400)
    assert state.is_completed(), box.log(run)
    assert re.fullmatch(r"best s-00[01]: inception_score [\d.]+; 2 trials: 2 complete", str(state.message))
    assert sorted(box.experiments()) == ["s-000", "s-001"]
    with box.client() as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run])))
    left = {str(artifact.key): str(artifact.data) for artifact in found}
    best = str(state.message).split()[1].strip(":")
    assert f"dvc exp apply {best}\n" in left["s-best"]
    assert [row["state"] for row in json.loads(left["s-trials"])] == ["complete", "complete"]
