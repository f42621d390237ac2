"""A workspace is a clone of a commit, apart from the checkout, sharing its cache."""

import json
import os
from pathlib import Path

import pytest

from flows.experiment import ExperimentError
from flows.processes import CommandError, run
from flows.workspace import Workspace, find_commit, find_experiment, workspace
from tests.project import Project


@pytest.fixture(autouse=True)
def _only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("DVC_", "GIT_"))]:
        monkeypatch.delenv(name)


def test_it_holds_the_commit_and_not_what_was_edited_since_and_goes_at_the_end(project: Project) -> None:
    commit = find_commit(project.path, "HEAD")
    (project.path / "README.md").write_text("edited\n")
    project.run("git", "commit", "--quiet", "--all", "--message=later")
    project.run("dvc", "config", "--local", "core.autostage", "true")
    with workspace(project.path, commit) as work:
        assert (work.folder / "README.md").read_text() != "edited\n"
        assert "autostage = true" in (work.folder / ".dvc/config.local").read_text()
        project.run("dvc", "config", "--local", "core.autostage")
        before = {path for path in (project.path / ".dvc/cache").rglob("*") if path.is_file()}
        copy = Project(work.folder)
        assert copy.repro() in (["check"], ["check", "fetch"], ["fetch", "check"])  # the rest from the shared cache
        assert before <= {path for path in (project.path / ".dvc/cache").rglob("*") if path.is_file()}
        assert copy.run("git", "status", "--porcelain") == ""
    assert list((project.path / ".atelier/workspaces").iterdir()) == []


def test_it_goes_when_the_block_fails(project: Project) -> None:
    with pytest.raises(CommandError), workspace(project.path, "HEAD~99"):
        pass
    assert list((project.path / ".atelier/workspaces").iterdir()) == []


def test_parameters_are_set_by_name_and_the_file_keeps_its_comments(project: Project) -> None:
    with workspace(project.path, find_commit(project.path, "HEAD")) as work:
        before = (work.folder / "params.yaml").read_text()
        work.set_params({"train.lr_d": 0.25, "seed": 7})
        after = (work.folder / "params.yaml").read_text()
        changed = [pair for pair in zip(before.splitlines(), after.splitlines(), strict=True) if pair[0] != pair[1]]
        assert len(changed) == 2
        assert work.params()["train"]["lr_d"] == 0.25
        with pytest.raises(ExperimentError, match=r"params.yaml has no train.lr_e; did you mean train.lr_"):
            work.set_params({"train.lr_e": 1})


@pytest.mark.parametrize("name", ["", "a b", "-x", "a..b", "a/b", "x.lock", "x.", "$(id)", "a\nb", "~x"])
def test_a_name_that_git_would_refuse_is_refused(name: str, project: Project) -> None:
    with pytest.raises(ExperimentError, match="cannot name an experiment"):
        Workspace(project.path, project.path, "0" * 40, project.path).check_name(name)


def test_experiments_are_found_by_name_under_head_first(project: Project) -> None:
    def keep(name: str, seed: int) -> str:
        with workspace(project.path, find_commit(project.path, "HEAD")) as work:
            run("dvc", "checkout", folder=work.folder)
            work.set_params({"seed": seed})
            work.save(name)
        return project.run("git", "rev-parse", "HEAD").strip()

    first = keep("twice", 1)
    assert find_experiment(project.path, "twice")[1] == first
    (project.path / "README.md").write_text("another commit\n")
    project.run("git", "commit", "--quiet", "--all", "--message=second")
    assert find_experiment(project.path, "twice")[1] == first
    second = keep("twice", 2)
    assert find_experiment(project.path, "twice")[1] == second
    assert find_experiment(project.path, "twice", first)[1] == first
    (project.path / "README.md").write_text("a third\n")
    project.run("git", "commit", "--quiet", "--all", "--message=third")
    with pytest.raises(ExperimentError, match="experiments named twice hang under several commits"):
        find_experiment(project.path, "twice")
    with pytest.raises(ExperimentError, match="no experiment is named thrice"):
        find_experiment(project.path, "thrice")


def test_a_wrong_revision_is_one_line(project: Project) -> None:
    with pytest.raises(ExperimentError, match="revision 'nowhere': git knows no such commit"):
        find_commit(project.path, "nowhere")
    with pytest.raises(ExperimentError, match="revision '--all': git knows no such commit"):
        find_commit(project.path, "--all")


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    """A checkout and a clone of it, as far as the user's own files matter."""
    home, folder = tmp_path / "home", tmp_path / "home/.atelier/workspaces/clone"
    folder.mkdir(parents=True)
    (home / "faces").mkdir()
    return Workspace(home, folder, "0" * 40, folder)


def give(work: Workspace, path: str | None) -> None:
    (work.folder / "params.yaml").write_text(json.dumps({"data": {"path": path}, "evaluate": {"weights": None}}))
    work.link_given()


def test_data_beside_the_checkout_is_linked(work: Workspace) -> None:
    give(work, "faces")
    assert (work.folder / "faces").resolve() == (work.home / "faces").resolve()


def test_committed_data_is_not_linked(work: Workspace) -> None:
    (work.folder / "faces").mkdir()
    give(work, "faces")
    assert not (work.folder / "faces").is_symlink()


@pytest.mark.parametrize("path", [None, "nowhere", "/tmp", "~/faces"])
def test_nothing_to_link(work: Workspace, path: str | None) -> None:
    give(work, path)
    assert [file.name for file in work.folder.iterdir()] == ["params.yaml"]


def test_data_outside_the_repository_must_be_named_absolutely(work: Workspace) -> None:
    with pytest.raises(ExperimentError, match=r"^data\.path: \.\./faces lies outside the repository.*absolute path$"):
        give(work, "../faces")
