"""The real flow on the real tiny project, with a real server."""

import json
import re
import shutil
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.digests import outputs
from flows.verify import ASIDE, put_aside
from tests.flows.conftest import Server
from tests.project import Project


def verdicts(said: str) -> dict[str, str]:
    """What the printed table says of each output."""
    verdict = "identical|other machine|different|missing|unexpected|stale"
    return dict(re.findall(rf"^([\w./-]+) +({verdict})$", said, flags=re.MULTILINE))


def newest_artifact(server: Server, key: str) -> str:
    chosen = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    with temporary_settings({PREFECT_API_URL: f"{server.url}/api"}), get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=chosen, sort=ArtifactSort.UPDATED_DESC, limit=1)
    return str(found[0].data)


@pytest.mark.slow
def test_an_untouched_commit_is_identical(project: Project, server: Server) -> None:
    everything = project.contents(".dvc/cache", "data", "results", "runs")
    (project.path / "README.md").write_text("edited, not committed")
    said = project.run("python", "-m", "flows.verify", ok=True, **server.environment)
    paths = list(outputs(project.lock()))
    assert len(paths) == 23
    assert verdicts(said) == dict.fromkeys(paths, "identical")
    assert said.splitlines()[-1] == "Completed: identical: 23 outputs"
    assert "Running stage 'train'" in said
    assert "is cached" not in said
    assert "not part of it, since it is not committed: README.md" in said
    assert project.contents(".dvc/cache", "data", "results", "runs") == everything
    assert project.run("git", "status", "--short") == " M README.md\n"
    assert list((project.path / ".atelier").glob("*/*")) == list((project.path / ".atelier").glob("slots/*"))
    rows = json.loads(newest_artifact(server, "verification"))
    assert rows[0] == {"output": "data/checked.txt", "verdict": "identical", "how much": ""}
    assert [row["output"] for row in rows] == paths
    assert "identical: 23 outputs" in newest_artifact(server, "verification-summary")


def test_a_commit_without_a_lock_is_one_clear_line(project: Project, server: Server) -> None:
    said = project.run("python", "-m", "flows.verify", "HEAD~1", ok=False, **server.environment)
    commit = project.run("git", "rev-parse", "--short=7", "HEAD~1").strip()
    assert said.splitlines()[-1] == (f"Failed: commit {commit} has no dvc.lock to verify; `dvc repro`, then commit it")
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_lock_of_another_seed_is_stale(project: Project, server: Server) -> None:
    project.set({"seed": 5})
    project.run("git", "commit", "--quiet", "--all", "--message=a seed without its results")
    said = project.run("python", "-m", "flows.verify", ok=False, **server.environment)
    found = verdicts(said)
    assert found["dvc.lock"] == "stale"
    assert found["data/raw"] == "identical"
    assert found["data/prepared"] == found["results/samples/grid.png"] == found["results/scores.json"] == "different"
    assert "    seed: 0 recorded, 5 committed (check, prepare, reference, train, sample, report)\n" in said
    assert re.search(
        r"^    images\.npy: [\d,]+ of 102,400 elements \(\S+%\) differ, by at most \d+ ", said, re.MULTILINE
    )
    assert re.search(r"^    [\d,]+ of 467,856 pixels \(\S+%\) differ, by at most \d+ of 255$", said, re.MULTILINE)
    assert re.search(r"^    13 of 15 tensors|^    generator\.safetensors: \d+ of 15 tensors", said, re.MULTILINE)
    assert re.search(r"^    loss_d: 6 of 6 rows \(100%\) differ, by at most \S+%$", said, re.MULTILINE)
    assert said.splitlines()[-1].startswith("Failed: 13 of 23 outputs differ: data/prepared, data/reference, ")
    assert "seed: 0 recorded, 5 committed" in newest_artifact(server, "verification-summary")


@pytest.mark.slow
def test_a_result_that_was_changed_by_hand_differs(project: Project, server: Server) -> None:
    path = project.path / "results/scores.json"
    scores = json.loads(path.read_text())
    true = scores["inception_score"]
    path.write_text(json.dumps(scores | {"inception_score": 2 * true}))
    project.run("git", "commit", "--quiet", "--all", "--message=too good")
    shutil.rmtree(project.path / ".dvc/cache")  # as in a clone that was never pulled
    said = project.run("python", "-m", "flows.verify", ok=False, **server.environment)
    found = verdicts(said)
    assert found.pop("results/scores.json") == "different"
    assert set(found.values()) == {"identical"}
    assert f"\n    inception_score: {2 * true!r} → {true!r} (50%)\n" in said
    assert said.splitlines()[-1] == "Failed: 1 of 23 outputs differ: results/scores.json"


@pytest.mark.slow
def test_a_stage_that_fails_leaves_the_rest_missing(project: Project, server: Server) -> None:
    project.set({"data.path": "nowhere"})
    project.run("git", "commit", "--quiet", "--all", "--message=no such data")
    said = project.run("python", "-m", "flows.verify", ok=False, **server.environment)
    last = said.splitlines()[-1]
    assert last.startswith("Failed: fetch: data.path: ")
    assert "14 of 23 outputs missing: data/raw, " in last
    assert verdicts(said)["data/checked.txt"] == "identical"
    assert "Traceback" not in said


def test_an_output_elsewhere_stays_where_it_is(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text("{}")
    (tmp_path / "clone").mkdir()
    put_aside(tmp_path / "clone", [str(elsewhere), "../elsewhere.json"])
    assert elsewhere.exists()


def test_what_was_committed_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results/scores.json").write_text("{}")
    put_aside(tmp_path, ["results/scores.json", "data/raw"])
    assert not (tmp_path / "results/scores.json").exists()
    assert (tmp_path / ASIDE / "results/scores.json").read_text() == "{}"
    assert not (tmp_path / ASIDE / "data").exists()
