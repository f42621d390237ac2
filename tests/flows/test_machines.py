"""Records made by hand, of runs on machines of several kinds."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.digests import Output, Place
from flows.machines import judge, machine_differences

CPU = {"device": "cpu", "instructions": "AVX2", "versions": {"torch": "2.15.0"}}
GPU = CPU | {"device": "NVIDIA H100"}
OTHER = ["device: cpu committed, NVIDIA H100 here (train)"]


def place(folder: Path, **machines: Any) -> tuple[dict[str, Any], Place]:
    """A lock of stages with records, and where these lie."""
    stages = {}
    for stage, machine in machines.items():
        path = f"results/records/{stage}.json"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps([{"stage": stage, "machine": machine}]))
        stages[stage] = {"outs": [{"path": path, "md5": "0"}]}
    return stages, Place(folder, folder / "cache")


def test_in_what_two_machines_differ(tmp_path: Path) -> None:
    newer = GPU | {"versions": {"torch": "3.0"}}
    committed, before = place(tmp_path / "before", fetch=CPU, prepare=CPU, train=CPU, sample=CPU)
    reproduced, after = place(tmp_path / "after", prepare=CPU, train=newer, sample=GPU, report=GPU)
    assert machine_differences(committed, reproduced, before, after) == [
        "device: cpu committed, NVIDIA H100 here (train, sample)",
        "versions.torch: 2.15.0 committed, 3.0 here (train)",
    ]
    assert machine_differences(committed, committed, before, before) == []


@pytest.mark.parametrize("content", ["", "{}", "[]", "[1]", '[{"machine": 3}]', "[{}]"])
def test_a_record_that_cannot_be_read_says_nothing_of_the_machine(content: str, tmp_path: Path) -> None:
    committed, before = place(tmp_path / "before", train=CPU)
    reproduced, after = place(tmp_path / "after", train=GPU)
    (tmp_path / "before/results/records/train.json").write_text(content)
    assert machine_differences(committed, reproduced, before, after) == []


def outputs(**verdicts: str) -> list[Output]:
    paths = {"model": "data/train", "record": "results/records/train.json", "page": "results/report"}
    how = {
        "model": ["1 of 9 tensors differ"],
        "record": ["[0].machine.device: cpu → NVIDIA H100", "[0].inputs.results/records/fetch.json: 1 → 2"],
        "page": ["1 of 6 files (17%) differ", "index.html: 3 bytes"],
    }
    return [
        Output(paths[name], verdict, how[name] if verdict == "different" else [])  # type: ignore[arg-type]
        for name, verdict in verdicts.items()
    ]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("results/records/train.json", "[0].params.train.lr_d: 1 → 2"),
        ("results/report", "curves.svg: 7 bytes"),
        ("results/scores.json", "index.html: 3 bytes"),
    ],
)
def test_another_machine_excuses_nothing_but_what_names_it(path: str, line: str) -> None:
    judged, _ = judge([Output(path, "different", [line])], OTHER)
    assert judged[0].verdict == "different"


@pytest.mark.parametrize(
    ("found", "machines", "verdicts", "said"),
    [
        (
            outputs(model="identical", record="identical"), [],
            ["identical", "identical"], "identical: 2 outputs",
        ),
        (
            outputs(model="identical", record="different", page="different"), OTHER,
            ["identical", "other machine", "other machine"],
            f"identical: 1 outputs; the records and the report name another kind of machine: {OTHER[0]}",
        ),
        (
            outputs(model="different", record="different"), OTHER,
            ["different", "other machine"],
            f"1 of 2 outputs differ: data/train; that may be owed to another kind of machine: {OTHER[0]}",
        ),
        (
            outputs(model="different", record="identical"), [],
            ["different", "identical"],
            "1 of 2 outputs differ: data/train; the machine is of the same kind, so the results are other ones",
        ),
        (outputs(model="different"), [], ["different"], "1 of 1 outputs differ: data/train"),  # without records
        (
            outputs(model="missing", record="identical"), [],
            ["missing", "identical"], "1 of 2 outputs missing: data/train",
        ),
    ],
)  # fmt: skip
def test_another_kind_of_machine_is_told_from_another_result(
    found: list[Output], machines: list[str], verdicts: list[str], said: str
) -> None:
    judged, words = judge(found, machines)
    assert [output.verdict for output in judged] == verdicts
    assert words == said
