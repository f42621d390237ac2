"""The tiny experiment, end to end, by the real DVC."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.project import Project, make_project, stages_run


def test_two_clones_end_with_the_same_digests(finished: Project, tmp_path: Path) -> None:
    again = make_project(tmp_path / "elsewhere")
    again.repro()
    assert again.lock() == finished.lock()
    assert again.contents("results", "data") == finished.contents("results", "data")


def test_nothing_runs_on_an_unchanged_tree_and_git_is_clean(project: Project) -> None:
    output = project.run("dvc", "repro")
    assert stages_run(output) == []
    assert "up to date" in output
    assert project.run("git", "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"sample.count": 128}, ["check", "sample", "evaluate", "report"], marks=pytest.mark.slow),
        pytest.param({"evaluate.splits": 4}, ["check", "evaluate", "report"], marks=pytest.mark.slow),
        ({"train.lr_d": 3e-3}, ["check", "train", "sample", "evaluate", "report"]),
        pytest.param(
            {"data.validation_fraction": 0.2},
            ["check", "prepare", "reference", "train", "sample", "evaluate", "report"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_changed_parameter_re_runs_what_depends_on_it_and_the_run_cache_brings_the_old_back(
    change: dict[str, float], expected: list[str], project: Project
) -> None:
    before = project.contents("results")
    project.set(change)
    assert sorted(project.repro()) == sorted(expected)
    assert project.contents("results") != before
    project.run("git", "restore", "params.yaml")
    assert project.repro() == ["check"]  # and the rest from the run-cache
    assert project.contents("results") == before
    assert project.run("git", "status", "--porcelain") == ""


@pytest.mark.slow
def test_a_generator_and_images_from_elsewhere_are_scored_alone(project: Project) -> None:
    before = project.contents("results")
    (project.path / "mine").mkdir()
    shutil.copy(project.path / "data/train/generator_ema.safetensors", project.path / "mine/generator")
    for index, image in enumerate(np.load(project.path / "data/samples/images.npy")):
        Image.fromarray(image[:, :, 0]).save(project.path / f"mine/{index:03}.png")
    scored = json.loads(before["results/scores.json"])
    for given in ({"sample.generator": "mine/generator"}, {"evaluate.samples": "mine"}):
        project.set({"sample.generator": None, "evaluate.samples": None} | given)
        project.repro()
        scores = json.loads((project.path / "results/scores.json").read_text())
        assert scores["verdict"] == "not trained here"
        # The same images have the same scores, wherever they come from.
        assert scores["classifier-FD"] == pytest.approx(scored["classifier-FD"], rel=1e-5)
        assert scores["precision"] == scored["precision"]
        bounds, expected = (each["intervals"][0]["classifier-KD"] for each in (scores, scored))
        assert bounds == pytest.approx(expected, rel=0.01)  # given images come in another order
        assert "not trained here" in (project.path / "results/report/summary.txt").read_text()
        project.run("dvc", "plots", "show")
    project.run("git", "restore", "params.yaml")
    assert project.repro() == ["check"]
    assert project.contents("results") == before


def test_curves_show_offline(project: Project) -> None:
    project.run("dvc", "plots", "show")
    page = (project.path / "dvc_plots/index.html").read_text()
    pictures = re.findall(r'src="(static/[^"]+)"', page)
    assert any("curves.svg" in name for name in pictures)
    assert all((project.path / "dvc_plots" / name).exists() for name in pictures)


@pytest.mark.slow
def test_a_changed_score_trains_no_gan_and_samples_nothing_again(project: Project) -> None:
    with (project.path / "gan/metrics/inception.py").open("a") as file:
        file.write("\n# changed\n")
    before = (project.path / "results/scores.json").read_bytes()
    assert sorted(project.repro()) == ["evaluate", "reference", "report"]  # which shows what code made the scores
    assert (project.path / "results/scores.json").read_bytes() == before


def test_a_changed_schema_re_runs_the_check_alone(project: Project) -> None:
    with (project.path / "gan/params.py").open("a") as file:
        file.write("\n# changed\n")
    assert project.repro() == ["check"]


@pytest.mark.slow
def test_training_killed_and_repeated_ends_with_the_same_bytes(project: Project) -> None:
    project.set({"train.epochs": 30, "train.checkpoint_steps": 1})
    runs = project.path / ".atelier/runs"
    for _ in range(3):
        before = sorted(runs.glob("*/step-*.pt"))
        process = subprocess.Popen(
            ["dvc", "repro", "train"],
            cwd=project.path,
            env=project.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while sorted(runs.glob("*/step-*.pt")) == before:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    output = project.run("dvc", "repro", "train")
    assert "going on from step" in output
    interrupted = project.contents("data/train", "results")
    project.run("dvc", "repro", "--force", "--single-item", "train")
    assert project.contents("data/train", "results") == interrupted


def test_a_killed_dvc_leaves_no_training_behind(project: Project) -> None:
    project.set({"train.epochs": 1000})
    process = subprocess.Popen(["dvc", "repro", "train"], cwd=project.path, env=project.environment)
    stage = ["pgrep", "--full", "python -m stages.train"]

    def running() -> list[Path]:
        found = subprocess.run(stage, capture_output=True, text=True, check=False).stdout.split()
        return [Path(f"/proc/{pid}/cwd") for pid in found if os.path.realpath(f"/proc/{pid}/cwd") == str(project.path)]

    def wait(wanted: bool) -> None:
        deadline = time.monotonic() + 60
        while bool(running()) != wanted:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    wait(True)
    time.sleep(3)  # past the imports of the first milliseconds, where it asks to end with its parent
    process.kill()
    process.wait()
    wait(False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data.image_size": 33}, "data.image_size: 33 is not a power of two from 32 to 256"),
        ({"train.lr_d": "fast"}, "train.lr_d: 'fast' is not allowed"),
        ({"train.typo": 1}, "train.typo: unknown key"),
        ({"data.path": "nowhere"}, "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_costs_no_earlier_result(
    change: dict[str, object], message: str, project: Project
) -> None:
    def results() -> dict[str, bytes]:
        kept = project.contents("data", "results")
        del kept["results/records/check.json"]  # of parameters that are valid in themselves
        return kept

    before = results()
    project.set(change)
    output = project.run("dvc", "repro", ok=False)
    lines = [line for line in output.splitlines() if line.startswith(("check: ", "fetch: "))]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in output
    assert results() == before


def test_inputs_that_change_while_a_stage_runs_fail_it(project: Project) -> None:
    text = (project.path / "stages/sample.py").read_text()
    waits = "    print('started', flush=True)\n    input()\n"
    slower = text.replace("    import numpy as np\n", waits + "    import numpy as np\n", 1)
    assert slower != text
    (project.path / "stages/sample.py").write_text(slower)
    process = subprocess.Popen(
        ["python", "-m", "stages.sample"],
        cwd=project.path,
        env=project.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    project.set({"sample.count": 99})
    _, errors = process.communicate("go on\n")
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "sample: sample.count changed while the stage ran; run it again"


@pytest.mark.slow
def test_an_experiment_runs_by_name_and_leaves_the_working_tree_alone(project: Project) -> None:
    (project.path / "experiments.yaml").write_text(
        "tiny-vanilla:\n  about: for this test\n  set:\n    generator.name: vanilla\n"
        "    discriminator.norm: none\n    train.lr_d: 1e-4\n"
    )
    output = project.run("python", "-m", "flows.experiment", "tiny-vanilla", "train.n_dis=2")
    command = "dvc --wait-for-lock exp run --temp --name tiny-vanilla --set-param generator.name=vanilla "
    command += "--set-param discriminator.norm=none --set-param train.lr_d=0.0001 --set-param train.n_dis=2"
    assert output.splitlines()[0] == command
    assert project.run("git", "status", "--porcelain") == " M experiments.yaml\n"
    shown = json.loads(project.run("dvc", "exp", "show", "--json"))
    (experiment,) = next(row for row in shown if row["experiments"])["experiments"]
    assert experiment["name"] == "tiny-vanilla"
    data = experiment["revs"][0]["data"]
    assert data["params"]["params.yaml"]["data"]["generator"]["name"] == "vanilla"
    assert data["params"]["params.yaml"]["data"]["train"]["lr_d"] == 1e-4
    assert data["params"]["params.yaml"]["data"]["train"]["n_dis"] == 2
    assert data["metrics"]["results/scores.json"]["data"]["inception_score"] > 0
    # TensorBoard's events of a temporary run are where `tensorboard --logdir runs` finds them.
    assert any(folder.name.startswith("tiny-vanilla-") for folder in (project.path / "runs").iterdir())

    project.run("git", "restore", "experiments.yaml")
    project.run("dvc", "exp", "apply", "tiny-vanilla")
    assert "vanilla" in (project.path / "params.yaml").read_text()
    assert project.repro() == []
    assert "Inception Score" in (project.path / "results/report/summary.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnist"], "experiment: no experiment is named 'mnist'; experiments.yaml has mnist-quick, "),
        ([], "experiment: give one name of experiments.yaml"),
        (["mnist-quick", "--queue"], "experiment: '--queue' is not KEY=VALUE"),
        (["mnist-quick", "train.epoch=5"], "experiment: params.yaml has no train.epoch; did you mean train.epochs?"),
    ],
)
def test_a_wrong_experiment_name_is_refused(arguments: list[str], message: str, project: Project) -> None:
    assert project.run("python", "-m", "flows.experiment", *arguments, ok=False).startswith(message)


def test_experiments_are_refused_over_parameters_that_are_not_committed(project: Project) -> None:
    project.set({"seed": 7})
    output = project.run("python", "-m", "flows.experiment", "mnist-quick", ok=False)
    assert output.startswith("experiment: params.yaml differs from the commit")


def test_dvc_knows_the_plots_the_metrics_and_the_generator(project: Project) -> None:
    plots = json.loads(project.run("dvc", "plots", "show", "--json", "--out", "plots", "--split"))["data"]
    assert {"losses", "discriminator"} <= set(plots)
    assert any(name.endswith("grid.png") for name in plots)
    shown = json.loads(project.run("dvc", "metrics", "show", "--json"))
    metrics = {name for name in shown[""]["data"] if not name.startswith("results/records/")}
    assert metrics == {"results/reference.json", "results/scores.json", "results/train.json"}
    columns = project.run("dvc", "exp", "show", "--csv").splitlines()[0]
    assert "machine" not in columns, "the records are no numbers to compare"
    project.run("gto", "register", "generator", "--version", "v1.0.0")
    project.run("dvc", "artifacts", "get", ".", "generator", "--rev", "v1.0.0", "--out", "registered")
    registered = (project.path / "registered/generator_ema.safetensors").read_bytes()
    assert registered == (project.path / "data/train/generator_ema.safetensors").read_bytes()


def test_what_dvc_tracks_names_no_clock_host_or_absolute_path(project: Project) -> None:
    host, folder = re.escape(os.uname().nodename), re.escape(str(project.path.parent))
    unwanted = re.compile(rf"\b{host}\b|{folder}|\b20\d\d-\d\d-\d\d\b|\b\d\d:\d\d:\d\d\b".encode())
    for name, content in project.contents("data", "results").items():
        if name.endswith((".json", ".csv", ".html", ".txt")):
            text = re.sub(rb"base64,[\w+/=]+", b"", content)  # a short host name may stand in a picture by chance
            assert not unwanted.search(text), name


@pytest.mark.slow
def test_unlabelled_images_are_refused_with_what_to_do_and_scored_without_a_classifier(project: Project) -> None:
    import numpy as np
    from PIL import Image

    (project.path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for index in range(120):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(project.path / f"pictures/{index}.png")
    project.set({"data.source": "folder", "data.path": "pictures", "data.channels": 3})
    output = project.run("dvc", "repro", ok=False)
    assert re.search("^reference: .*evaluate.extractor", output, flags=re.MULTILINE)
    project.set({"evaluate.extractor": "none"})
    project.repro()
    scores = json.loads((project.path / "results/scores.json").read_text())
    assert "inception_score" not in scores
    assert scores["protocol"][0]["extractor"] == "none"
