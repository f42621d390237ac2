"""Experiments side by side: what is shown, what does not compare, and that one failing stops no other."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prefect.states import Completed, Failed

from flows.compare import Outcome, comparison_rows, plain_table
from flows.comparison import Result
from tests.flows.box import Box
from tests.flows.conftest import Server
from tests.project import Project


def outcome(name: str, distance: float, **scores: Any) -> Outcome:
    found = {"verdict": "converged", "classifier-FD": distance, "class_shares": [0.5, 0.5]} | scores
    found |= {"details": [{"density": 1.0}], "warnings": ["a"], "protocol": [{"seed": 0}]}
    return Outcome(name, Completed(), Result(name, "0" * 40, "1" * 40, found, {}))


def test_a_row_an_experiment_with_its_scores_or_what_it_failed_with() -> None:
    outcomes = [outcome("a", 1.25), Outcome("b", Failed(message="train: out of memory"))]
    rows = comparison_rows(outcomes)
    assert rows == [
        {"experiment": "a", "verdict": "converged", "classifier-FD": 1.25},
        {"experiment": "b", "verdict": "failed: train: out of memory", "classifier-FD": ""},
    ]
    assert plain_table(rows).splitlines() == [
        "experiment  verdict                       classifier-FD",
        "a           converged                     1.25",
        "b           failed: train: out of memory",
    ]
    assert comparison_rows(outcomes, with_scores=False) == [
        {"experiment": "a", "verdict": "converged"},
        {"experiment": "b", "verdict": "failed: train: out of memory"},
    ]


def test_a_terminal_has_room_for_the_main_scores() -> None:
    scores = {"inception_score": 8.1, "classifier-KD": 0.1, "FID": 2, "KID": 3, "precision": 1, "recall": 1}
    (row,) = comparison_rows([outcome("a", 1.25, **scores, near_copies=0.0)])
    assert row["near_copies"] == 0.0
    assert plain_table([row]).splitlines()[0].split() == [
        "experiment", "verdict", "classifier-FD", *scores,
    ]  # fmt: skip


@pytest.mark.slow
def test_scores_of_different_protocols_are_refused_and_every_result_is_kept(project: Project, server: Server) -> None:
    with (project.path / "experiments.yaml").open("a") as file:
        file.write("mnist-few: {about: fewer samples, set: {sample.count: 70}}\n")
    project.run("git", "commit", "--quiet", "--all", "--message=few")
    output = project.run("python", "-m", "flows.compare", "mnist-quick", "mnist-few", ok=False, **server.environment)
    assert re.search(
        r"will not compare: they differ in sample.count \(100, 70\); they are trained all the same", output
    )
    assert output.index("will not compare") < output.index("Running stage")
    assert output.splitlines()[-1] == (
        "Failed: the scores of mnist-quick and mnist-few do not compare: protocols differ in generated_images "
        "(100, 70); score them alike: python -m flows.evaluate mnist-quick mnist-few sample.count=100"
    )
    table = output[output.index("\nexperiment ") :].splitlines()[1:4]
    assert table[0].split() == ["experiment", "verdict"]
    page = (project.path / "results/comparison/index.html").read_text()
    assert 'id="scores"' not in page
    assert page.count("data:image/png;base64,") == 2
    assert set(Box(project, server).experiments()) == {"mnist-quick", "mnist-few"}

    again = ["mnist-quick", "mnist-few", "sample.count=100"]
    output = project.run("python", "-m", "flows.evaluate", *again, ok=True, **server.environment)
    assert output.splitlines()[-1] == "Completed: mnist-quick-count-100, mnist-few-count-100"
    assert 'id="scores"' in (project.path / "results/comparison/index.html").read_text()


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
    shown = json.dumps(figures[0].data)
    assert len(re.findall(r"data:image/png;base64,", shown)) == 2
    kept = re.search(r"The comparison: `(\S+)`", shown)
    assert kept
    page = Path(kept[1]).read_text()
    assert page == (project.path / "results/comparison/index.html").read_text()
    assert page.count("data:image/png;base64,") == 2
