"""Experiments side by side: what is shown, what does not compare, and that one failing stops no other."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prefect.states import Completed, Failed

from flows.compare import Outcome, comparison_rows, draw_trajectories, plain_table, protocol_differences
from tests.flows.box import Box
from tests.flows.conftest import Server
from tests.project import Project


def outcome(name: str, distance: float, **protocol: Any) -> Outcome:
    scores = {"verdict": "converged", "classifier-FD": distance, "class_shares": [0.5, 0.5], "protocol": [protocol]}
    return Outcome(name, Completed(), "0" * 40, scores)


def test_a_row_an_experiment_with_its_scores_or_what_it_failed_with() -> None:
    rows = comparison_rows([outcome("a", 1.25), Outcome("b", Failed(message="train: out of memory"))])
    assert rows == [
        {"experiment": "a", "verdict": "converged", "classifier-FD": 1.25},
        {"experiment": "b", "verdict": "failed: train: out of memory", "classifier-FD": ""},
    ]
    assert plain_table(rows).splitlines() == [
        "experiment  verdict                       classifier-FD",
        "a           converged                     1.25",
        "b           failed: train: out of memory",
    ]


def test_scores_of_different_protocols_are_said_not_to_compare_and_in_what() -> None:
    same = [outcome("a", 1, seed=0, generated_images=100), outcome("b", 2, seed=0, generated_images=100)]
    assert protocol_differences(same) == []
    (said,) = protocol_differences([*same, outcome("c", 3, seed=0, generated_images=5)])
    assert said == "the scores of a and c do not compare: protocols differ in generated_images (100, 5)"


def test_the_courses_are_drawn(tmp_path: Path) -> None:
    from PIL import Image

    draw_trajectories({"a": [(1.0, 9.0), (2.0, 3.0)], "unmeasured": []}, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (960, 540)


@pytest.mark.slow
def test_one_that_fails_stops_no_other_and_the_rest_is_compared(project: Project, server: Server) -> None:
    # The first one's data are another source's, whose files are not where data.path is.
    arguments = ["mnist-dcgan", "mnist-quick", "mnist-vanilla-quick"]
    output = project.run("python", "-m", "flows.compare", *arguments, ok=False, **server.environment)
    last = output.splitlines()[-1]
    assert last.startswith("Failed: 1 of 3 experiments failed: mnist-dcgan: fetch: ")
    table = output[output.index("\nexperiment ") :].splitlines()[1:5]
    assert [row.split()[0] for row in table] == ["experiment", "mnist-dcgan", "mnist-quick", "mnist-vanilla-quick"]
    assert "Traceback" not in output
    assert project.run("git", "status", "--porcelain") == ""


@pytest.mark.slow
def test_a_deployed_comparison_leaves_its_experiments_to_the_workers(project: Project, server: Server) -> None:
    box = Box(project, server)
    box.deploy()
    with box.worker():
        run = box.trigger("compare/compare", experiments=["mnist-quick", "mnist-vanilla-quick"], overrides={"seed": 1})
        assert box.wait_for_end(run, 300).is_completed(), box.log(run)
    assert set(box.experiments()) == {"mnist-quick-seed-1", "mnist-vanilla-quick-seed-1"}
    with box.client() as client:
        tasks = [task for task in client.read_task_runs() if task.flow_run_id == run]
        children = [child for child in client.read_flow_runs() if child.parent_task_run_id]
        figures = [found for found in client.read_artifacts() if found.flow_run_id == run and found.type == "markdown"]
    assert {"mnist-quick-seed-1", "mnist-vanilla-quick-seed-1"} <= {task.name for task in tasks}
    assert {"mnist-quick-seed-1", "mnist-vanilla-quick-seed-1"} <= {child.name for child in children}
    assert len(re.findall(r"data:image/png;base64,", json.dumps(figures[0].data))) == 3
