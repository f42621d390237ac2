"""Which scores compare, what would make them alike, and the page of experiments that exist."""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows import comparison
from flows.comparison import (
    Result,
    command_of,
    deciding_params,
    find_result,
    foreseen,
    gathered,
    protocol_difference,
    refusal,
    remedy,
    resolve,
)
from flows.experiment import ExperimentError
from flows.processes import run
from tests.project import ROOT, Project
from tests.stages.comparison_runs import scores_of, write_run

PROTOCOL = {
    "extractor": "classifier",
    "weights_md5": "a" * 32,
    "real_split": "train",
    "real_images": 4250,
    "data_md5": "d" * 32,
    "generated_images": 100,
    "image_size": 32,
    "copy_samples": 100,
    "kernel_subset_size": 100,
    "seed": 0,
    "versions": {"torch": "2.15.0", "numpy": "2.4.6"},
}
PARAMS = {
    "seed": 0,
    "data.source": "mnist-5k",
    "train.lr_d": 0.001,
    "reference.images": 50000,
    "reference.epochs": 30,
    "sample.count": 100,
    "sample.ema": True,
    "evaluate.extractor": "classifier",
    "evaluate.weights": None,
    "evaluate.samples": None,
    "evaluate.split": "train",
    "evaluate.splits": 10,
    "hardware.device": "auto",
}


def result(name: str, protocol: Mapping[str, Any] | None = None, params: Mapping[str, Any] | None = None) -> Result:
    scores = {"verdict": "converged", "classifier-FD": 1.0, "protocol": [PROTOCOL | dict(protocol or {})]}
    return Result(name, "c" * 40, "b" * 40, scores, PARAMS | dict(params or {}))


FEWER = {"generated_images": 5, "copy_samples": 5, "kernel_subset_size": 5}
A = result("a")


# What compares


def test_protocols_match_but_for_the_seed() -> None:
    assert protocol_difference(PROTOCOL, PROTOCOL | {"seed": 7}) == {}
    for entry in PROTOCOL.keys() - {"seed"}:
        assert protocol_difference(PROTOCOL, PROTOCOL | {entry: "other"}) == {entry: (PROTOCOL[entry], "other")}
        without = {key: value for key, value in PROTOCOL.items() if key != entry}
        assert protocol_difference(without, PROTOCOL) == {entry: (None, PROTOCOL[entry])}
    assert refusal([A, result("b", {"seed": 7}, {"seed": 7}), result("c", params={"train.lr_d": 1.0})]) == ""
    assert refusal([A]) == ""


def test_scores_that_do_not_compare_are_told_in_one_line_with_what_makes_them_alike() -> None:
    c = result("c", FEWER, {"sample.count": 5})
    assert refusal([A, c]) == (
        "the scores of a and c do not compare: protocols differ in generated_images (100, 5); "
        "score them alike: python -m flows.evaluate a c sample.count=100"
    )
    old = result("d", {"versions": {"torch": "2.14.1", "numpy": "2.4.6"}})
    assert refusal([A, result("b"), c, old]) == (
        "the scores of a and c do not compare: protocols differ in generated_images (100, 5); "
        "the scores of a and d do not compare: protocols differ in versions.torch (2.15.0, 2.14.1)"
    )
    assert refusal([A, result("b", {"copy_samples": 7})]).endswith("protocols differ in copy_samples (100, 7)")


SQUEEZENET = {"extractor": "squeezenet1_1", "weights_md5": "b" * 32}


@pytest.mark.parametrize(
    ("protocol", "params", "words"),
    [
        (FEWER, {"sample.count": 5}, "sample.count=100"),
        (SQUEEZENET, {"evaluate.extractor": "squeezenet1_1"}, "evaluate.extractor=classifier"),
        ({"inception_score_splits": 2}, {"evaluate.splits": 2}, "evaluate.splits=10"),
        ({"real_images": 9, "kernel_subset_size": 9}, {"reference.images": 9}, "reference.images=50000"),
        ({"weights_md5": "b" * 32}, {"reference.epochs": 2}, "reference.epochs=30"),
        (
            {"real_split": "test", "data_md5": "e" * 32, "real_images": 9} | FEWER,
            {"evaluate.split": "test", "sample.count": 5, "train.lr_d": 7.0},
            "evaluate.split=train sample.count=100",
        ),
        # A seed or other data made another classifier, or another split, which no scoring changes.
        ({"weights_md5": "b" * 32}, {"seed": 1}, None),
        ({"weights_md5": "b" * 32}, {"seed": 1, "reference.epochs": 2}, None),
        ({"real_split": "test", "data_md5": "e" * 32}, {"evaluate.split": "test", "seed": 1}, None),
        ({"data_md5": "e" * 32}, {"data.source": "mnist"}, None),
        ({"image_size": 64} | SQUEEZENET, {"data.image_size": 64, "evaluate.extractor": "squeezenet1_1"}, None),
        ({"versions": {}}, {}, None),
        ({"resamples": 5}, {}, None),
        # Images that were given are as many as they are.
        (FEWER, {"sample.count": 5, "evaluate.samples": "faces.zip"}, None),
    ],
)
def test_a_command_is_given_only_where_it_makes_the_scores_alike(
    protocol: dict[str, Any], params: dict[str, Any], words: str | None
) -> None:
    expected = f"python -m flows.evaluate a c {words}" if words else ""
    assert remedy([A, result("c", protocol, params)]) == expected


def test_the_command_holds_for_all_experiments_or_is_not_given() -> None:
    c = result("c", FEWER, {"sample.count": 5})
    split = result("d", {"real_split": "test"}, {"evaluate.split": "test"})
    assert remedy([A, c, split]) == "python -m flows.evaluate a c d evaluate.split=train sample.count=100"
    assert remedy([A, c, result("e", {"image_size": 64}, {"data.image_size": 64})]) == ""
    committed = Result("HEAD", "c" * 40, "c" * 40, c.scores, c.params)
    # Only experiments are scored again: by the protocol of what is committed, if there is but one.
    assert remedy([A, committed]) == "python -m flows.evaluate a sample.count=5"
    other = Result("v1", "d" * 40, "d" * 40, A.scores, A.params)
    assert remedy([A, committed, other]) == ""


def test_other_extractors_do_not_depend_on_the_seed() -> None:
    squeezed = PARAMS | {"evaluate.extractor": "squeezenet1_1"}
    assert {"seed", "reference.epochs", "hardware.device"} <= set(deciding_params(PARAMS))
    assert not {"seed", "reference.epochs", "hardware.device"} & set(deciding_params(squeezed))
    for params in (PARAMS, squeezed):
        assert {"data.source", "sample.count", "evaluate.split", "reference.images"} <= set(deciding_params(params))
        assert not {"train.lr_d", "sample.ema", "evaluate.samples"} & set(deciding_params(params))


def test_what_will_not_compare_is_foreseen_from_the_parameters() -> None:
    resolved = {"a": PARAMS, "b": PARAMS | {"train.lr_d": 7}, "c": PARAMS | {"sample.count": 5, "data.source": "idx"}}
    assert foreseen(resolved) == [
        "the scores of a and c will not compare: they differ in data.source (mnist-5k, idx), sample.count (100, 5)"
    ]
    assert foreseen({"a": PARAMS}) == []


# The page of experiments that exist


def commit_experiment(
    home: Project, name: str, baseline: str, changes: Mapping[str, Any], *, without: Sequence[str] = (), **scores: Any
) -> str:
    """An experiment as DVC keeps it, of made-up results that git holds whole; its commit."""
    home.run("git", "checkout", "--quiet", "--detach", baseline)
    home.set(changes)
    shutil.rmtree(home.path / "results", ignore_errors=True)
    write_run(home.path / "results", scores_of(1.0, 0.1, **scores), end=1.0, seed=len(name), noise=5.0)
    for path in without:
        (home.path / "results" / path).unlink()
    home.run("git", "add", "--all", "--force", "results", "params.yaml")
    home.run("git", "commit", "--quiet", f"--message={name}")
    commit = home.run("git", "rev-parse", "HEAD").strip()
    home.run("git", "update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", commit)
    home.run("git", "checkout", "--quiet", "main")
    return commit


@pytest.fixture
def home(tmp_path: Path) -> Project:
    """A repository with a commit without results; the code that makes the page is beside it."""
    path = tmp_path / "home"
    path.mkdir()
    for name in ("params.yaml", "experiments.yaml"):
        shutil.copy(ROOT / name, path)
    (path / "dvc.yaml").write_text("stages: {}\n")
    (path / ".gitignore").write_text("flows\nstages\ngan\n.atelier\nresults/comparison\n")
    for name in ("flows", "stages", "gan"):
        (path / name).symlink_to(ROOT / name)
    project = Project(path)
    project.run("git", "init", "--quiet", "--initial-branch=main")
    project.run("git", "config", "user.name", "Test")
    project.run("git", "config", "user.email", "test@example.com")
    project.run("dvc", "init", "--quiet")
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message=base")
    return project


def protocol_of(**changes: Any) -> list[dict[str, Any]]:
    return [PROTOCOL | changes]


def test_a_page_compares_experiments_and_commits_without_running_anything(home: Project) -> None:
    base = home.run("git", "rev-parse", "HEAD").strip()
    one = commit_experiment(home, "one", base, {"train.lr_d": 0.005, "train.loss": "hinge"})
    commit_experiment(home, "two", base, {"seed": 3, "train.augment": ["colour"]})
    said = home.run("python", "-m", "flows.comparison", "one", "two", one[:12])
    assert said == "comparison: results/comparison/index.html\n"
    page = (home.path / "results/comparison/index.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert f"git switch --detach {base} &amp;&amp; dvc --wait-for-lock exp run --temp --name one" in page
    assert "--set-param train.loss=hinge --set-param train.lr_d=0.005" in page
    assert f"git switch --detach {one} &amp;&amp; dvc repro" in page, "for the commit that was named"
    assert home.run("git", "status", "--porcelain") == ""

    commit_experiment(home, "few", base, {"sample.count": 5}, protocol=protocol_of(**FEWER))
    commit_experiment(home, "many", base, {"sample.count": 100}, protocol=protocol_of())
    refused = (
        "the scores of many and few do not compare: protocols differ in generated_images (100, 5); "
        "score them alike: python -m flows.evaluate many few sample.count=100"
    )
    said = home.run("python", "-m", "flows.comparison", "many", "few", ok=False)
    assert said.splitlines() == [
        "comparison: results/comparison/index.html",
        f"comparison: {refused}",
    ]
    assert "classifier-FD" not in (home.path / "results/comparison/index.html").read_text()


def test_what_neither_cache_nor_remote_has_is_left_out_and_said(home: Project) -> None:
    base = home.run("git", "rev-parse", "HEAD").strip()
    commit_experiment(home, "one", base, {"seed": 3})
    commit_experiment(home, "lost", base, {"seed": 7}, without=("curves.csv", "samples/grid.png"))
    said = home.run("python", "-m", "flows.comparison", "one", "lost")
    assert "lost: results/curves.csv is left out: `dvc get " in said
    assert "lost: results/samples/grid.png is left out: `dvc get " in said
    assert said.endswith("comparison: results/comparison/index.html\n")
    page = (home.path / "results/comparison/index.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "Its samples are not to be had here." in page
    assert "classifier-FD" in page


def test_the_results_of_all_are_brought_by_one_process(
    home: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = home.run("git", "rev-parse", "HEAD").strip()
    commits = [commit_experiment(home, "one", base, {"seed": 3})]
    home.run("dvc", "remote", "add", "--quiet", "--local", "--default", "store", str(tmp_path / "store"))
    write_run(home.path / "results", scores_of(1.0, 0.1), end=1.0, seed=1, noise=5.0)
    home.run("dvc", "add", "--quiet", "results/curves.csv")
    home.run("git", "add", "--all")
    home.run("git", "commit", "--quiet", "--message=held by DVC")
    home.run("dvc", "push", "--quiet")
    commits.append(home.run("git", "rev-parse", "HEAD").strip())
    curves = (home.path / "results/curves.csv").read_bytes()
    home.run("git", "checkout", "--quiet", "--detach", base)
    shutil.rmtree(home.path / ".dvc/cache")
    (home.path / "results/curves.csv").unlink()

    commands = []

    def listed(*command: str, folder: Path) -> str:
        commands.append(command[0])
        return run(*command, folder=folder)

    monkeypatch.setattr(comparison, "run", listed)
    with gathered(home.path, [Result(commit, commit, base, {}, {}) for commit in commits]) as folder:
        found = [{str(path.relative_to(place)) for path in place.rglob("*.*")} for place in sorted(folder.iterdir())]
        assert (folder / "1/results/curves.csv").read_bytes() == curves, "from DVC's remote"
    shown = {
        f"results/{name}" for name in ("curves.csv", "evaluation/trajectory.csv", "samples/grid.png", "scores.json")
    }
    assert [shown - names for names in found] == [set(), set()]
    assert sorted(commands) == ["git", "git", "python"], "and none that asks for one experiment's files"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "give two or more names; `dvc exp list --all-commits` lists the experiments"),
        (["main"], "give two or more names"),
        (["main", "main"], "give two or more names"),
        (["other", "main"], "no experiment is named other; `dvc exp list --all-commits` lists them"),
        (["main", "other"], r"main: its commit [0-9a-f]{7} has no results/scores.json; run it first"),
    ],
)
def test_names_without_results_are_one_line(home: Project, names: list[str], message: str) -> None:
    said = home.run("python", "-m", "flows.comparison", *names, ok=False)
    assert re.match(f"comparison: {message}", said)
    assert said.count("\n") == 1
    assert not (home.path / "results/comparison").exists()


def test_an_experiment_of_other_code_is_made_again_from_its_own_commit(home: Project) -> None:
    base = home.run("git", "rev-parse", "HEAD").strip()
    (home.path / "new.py").write_text("print('new')\n")
    home.run("git", "add", "new.py")
    commit = commit_experiment(home, "coded", base, {"seed": 3})
    found = find_result(home.path, "coded")
    assert (found.commit, found.baseline, found.params["seed"]) == (commit, base, 3)
    other = "new.py" in home.run("git", "show", "--stat", commit)
    assert other
    assert command_of(home.path, found) == f"git switch --detach {commit} && dvc repro"


def test_parameters_are_resolved_as_the_experiment_will_run(home: Project) -> None:
    commit = home.run("git", "rev-parse", "HEAD").strip()
    params = resolve(home.path, commit, "mnist-vanilla-quick", {"train.epochs": 3})
    assert (params["generator.name"], params["train.epochs"], params["seed"]) == ("vanilla", 3, 0)
    assert params["data.source"] == YAML(typ="safe").load(home.path / "params.yaml")["data"]["source"]
    with pytest.raises(ExperimentError, match="no experiment is named 'other'"):
        resolve(home.path, commit, "other", {})
