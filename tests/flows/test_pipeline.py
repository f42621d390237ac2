"""One experiment, run by the flow with a real DVC and a real Prefect."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.artifacts import key
from flows.experiment import ExperimentError, default_name
from flows.parameters import read_overrides
from flows.pipeline import pipeline
from flows.workspace import find_home
from tests.flows.conftest import Server
from tests.project import Project

STAGES = ["check", "fetch", "prepare", "reference", "train", "sample", "evaluate", "report"]


def artifacts(server: Server, run: str) -> dict[str, Artifact]:
    with temporary_settings({PREFECT_API_URL: f"{server.url}/api"}), get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(run)]))
        )
    return {str(artifact.key): artifact for artifact in found}


def test_an_experiment_runs_apart_from_the_checkout_and_is_kept_with_its_results_on_its_page(
    project: Project, server: Server
) -> None:
    def with_server(*arguments: str, ok: bool = True) -> str:
        return project.run("python", "-m", "flows.pipeline", *arguments, ok=ok, **server.environment)

    (project.path / "README.md").write_text("edited, and not committed\n")
    output = with_server("mnist-quick", "train.lr_d=0.002")
    assert re.findall(r"Task run '(\w+)' - Finished", output) == STAGES
    assert re.findall(r"Task run '(\w+)' - Finished in state Cached", output) == ["prepare", "reference"]
    assert re.search(r"Task run 'train' - step \d+/28  loss_d", output)
    assert "not part of it, since it is not committed: README.md" in output
    assert "git add" not in output
    assert re.fullmatch(r"Completed: mnist-quick-lr_d-0.002: [a-z ]+", output.splitlines()[-1])
    assert list((project.path / ".atelier/workspaces").iterdir()) == []

    assert project.run("git", "status", "--porcelain") == " M README.md\n"
    project.run("git", "restore", "README.md")
    shown = json.loads(project.run("dvc", "exp", "show", "--json"))
    (experiment,) = next(row for row in shown if row["experiments"])["experiments"]
    assert experiment["name"] == "mnist-quick-lr_d-0.002"
    assert experiment["executor"] is None
    assert experiment["revs"][0]["data"]["params"]["params.yaml"]["data"]["train"]["lr_d"] == 0.002
    assert any(folder.name.startswith("mnist-quick-lr_d-0.002-") for folder in (project.path / "runs").iterdir())

    run = re.search(r"runs/flow-run/([0-9a-f-]+)", output)
    assert run
    left = artifacts(server, run[1])
    verdict = str(left["mnist-quick-lr-d-0-002-verdict"].data)
    assert "![samples](data:image/png;base64,iVBORw0KGgo" in verdict
    assert "**Next:**" in verdict
    commit = project.run("git", "rev-parse", "HEAD")[:7]
    assert str(project.path / f".atelier/reports/mnist-quick-lr_d-0.002-{commit}/index.html") in verdict
    rows: Any = left["mnist-quick-lr-d-0-002-scores"].data
    rows = {row["score"]: row for row in (json.loads(rows) if isinstance(rows, str) else rows)}
    scores = experiment["revs"][0]["data"]["metrics"]["results/scores.json"]["data"]
    assert rows["classifier-FD"]["value"] == scores["classifier-FD"]
    assert 0 < rows["precision"]["real images"] <= 1

    # The same parameters under the same name are the same result; others are refused before anything runs.
    before = project.run("git", "for-each-ref", "refs/exps")
    again = with_server("mnist-quick", "train.lr_d=0.002")
    assert "Running stage 'train'" not in again
    assert project.run("git", "for-each-ref", "refs/exps") == before
    taken = ["mnist-quick", "train.lr_d=0.003", "--name", "mnist-quick-lr_d-0.002"]
    refused = with_server(*taken, ok=False)
    assert "an experiment mnist-quick-lr_d-0.002 with other parameters hangs under" in refused.splitlines()[-1]
    assert "Task run" not in refused

    project.run("dvc", "exp", "apply", "mnist-quick-lr_d-0.002")
    assert project.repro() == []


@pytest.mark.slow
def test_a_stage_that_refuses_its_parameters_ends_the_flow_in_its_own_words_without_a_server(project: Project) -> None:
    home = project.path.parent / "prefect"
    output = project.run(
        "python", "-m", "flows.pipeline", "mnist-quick", "data.image_size=33", ok=False, PREFECT_HOME=str(home)
    )
    message = "check: params.yaml: data.image_size: 33 is not a power of two from 32 to 256"
    assert f"\nFailed: {message}" in output
    assert "Traceback" not in output
    assert "Retry" not in output
    assert list((project.path / ".atelier/workspaces").iterdir()) == []
    assert project.run("git", "for-each-ref", "refs/exps") == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnist"], "pipeline: experiment: no experiment is named 'mnist'; experiments.yaml has mnist-quick, "),
        (["mnist-quick", "train.epoch=5"], "pipeline: params.yaml has no train.epoch; did you mean train.epochs?"),
        (["mnist-quick", "train.epochs"], "pipeline: 'train.epochs' is not KEY=VALUE"),
        (["mnist-quick", "train.epochs=[1"], "pipeline: 'train.epochs=[1': not valid YAML"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line_before_anything_starts(
    arguments: list[str], message: str, project: Project
) -> None:
    output = project.run("python", "-m", "flows.pipeline", *arguments, ok=False)
    assert output.startswith(message)
    assert len(output.splitlines()) == 1


def test_the_form_offers_the_experiments_and_refuses_keys_that_are_no_parameters() -> None:
    properties = pipeline.parameters.properties
    assert "mnist-quick" in properties["experiment"]["enum"]
    assert "train.epochs" in properties["overrides"]["propertyNames"]["enum"]
    assert all(values.get("description") for values in properties.values())


def test_overrides_are_read_as_yaml() -> None:
    words = ["train.lr_d=1e-4", "train.augment=[colour]", "data.crop=null", "sample.ema=false", "train.loss=hinge"]
    assert read_overrides(words) == {
        "train.lr_d": 1e-4,
        "train.augment": ["colour"],
        "data.crop": None,
        "sample.ema": False,
        "train.loss": "hinge",
    }
    with pytest.raises(ExperimentError, match="did you mean seed"):
        read_overrides(["sed=1"])


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ({}, "mnist-quick"),
        ({"train.lr_d": 1e-4, "train.augment": ["colour", "cutout"]}, "mnist-quick-augment-colour-cutout-lr_d-0.0001"),
        ({"data.path": "/x/../y z"}, "mnist-quick-path-x-y-z"),
        ({"data.crop": None}, "mnist-quick-crop-None"),
    ],
)
def test_an_experiment_is_named_by_what_differs(overrides: dict[str, Any], name: str) -> None:
    assert default_name("mnist-quick", overrides) == name
    checked = subprocess.run(["git", "check-ref-format", f"refs/exps/aa/bb/{name}"], check=False)
    assert checked.returncode == 0


def test_artifact_keys_are_as_prefect_asks() -> None:
    assert key("mnist_quick-lr_d-0.002", "scores") == "mnist-quick-lr-d-0-002-scores"


def test_flows_need_the_projects_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExperimentError, match=r"no dvc\.yaml in a git repository here"):
        find_home()
