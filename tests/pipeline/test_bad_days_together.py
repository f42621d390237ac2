"""Two runs in one checkout, and branches, stashes and edits during a run: refused, isolated, or without effect."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.pipeline.accidents import half_written
from tests.project import Project

WAITS = "    print('started', flush=True)\n    input()\n"


@contextmanager
def sampling(project: Project) -> Iterator[subprocess.Popen[str]]:
    """A stage that runs, has imported little, and goes on when it is told to; committed, and so is what it made."""
    source = project.path / "stages/sample.py"
    text = source.read_text()
    mark = "    from gan.data.batches import to_packed\n"
    assert mark in text
    if WAITS not in text:
        source.write_text(text.replace(mark, WAITS + mark, 1))
        project.run("git", "commit", "--quiet", "--all", "--message=slower")
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
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str]) -> str:
    """Its last line; nothing where it ended well."""
    _, errors = process.communicate("go on\n")
    assert "Traceback" not in errors
    return errors.splitlines()[-1] if process.returncode else ""


def test_a_switch_to_a_branch_of_other_code_and_back_fails_the_stage(project: Project) -> None:
    project.run("git", "checkout", "--quiet", "-b", "other")
    with (project.path / "gan/sampling.py").open("a") as file:
        file.write("# other\n")
    project.run("git", "commit", "--quiet", "--all", "--message=other")
    project.run("git", "checkout", "--quiet", "main")
    before = project.contents("data", "results")
    with sampling(project) as process:
        project.run("git", "checkout", "--quiet", "other")
        project.run("git", "checkout", "--quiet", "main")
        # What it imported meanwhile may have been the other's.
        assert end(process) == ("sample: gan/sampling.py, stages/sample.py changed while the stage ran; run it again")
    assert not half_written(project)
    assert project.contents("data", "results") == before  # it is the same here, and DVC notes nothing of it


@pytest.mark.slow
def test_data_that_are_replaced_while_a_stage_reads_them_fail_it(project: Project) -> None:
    # DVC refuses a second `dvc repro`, but no `dvc checkout`.
    with sampling(project) as process:
        (project.path / "data/train/kept/00000014/generator.safetensors").unlink()
        project.run("dvc", "checkout", "data/train")
        assert end(process) == (
            "sample: data/train/kept/00000014/generator.safetensors changed while the stage ran; run it again"
        )


@pytest.mark.slow
def test_a_branch_of_other_parameters_fails_the_stage_and_its_own_are_no_concern_of_it(project: Project) -> None:
    for branch, values in (("ours", {"sample.count": 90}), ("theirs", {"evaluate.splits": 4})):
        project.run("git", "checkout", "--quiet", "-b", branch, "main")
        project.set(values)
        project.run("git", "commit", "--quiet", "--all", f"--message={branch}")
    project.run("git", "checkout", "--quiet", "main")
    with sampling(project) as process:
        project.set({"sample.count": 90})
        assert end(process) == "sample: sample.count changed while the stage ran; run it again"
        project.run("git", "restore", "params.yaml")
    with sampling(project) as process:
        project.set({"evaluate.splits": 4})
        assert end(process) == ""


@pytest.mark.slow
def test_a_stash_during_a_run_fails_it_and_a_restored_params_file_does_not(project: Project) -> None:
    with sampling(project) as process:
        with (project.path / "gan/seeds.py").open("a") as file:
            file.write("# mine\n")
        project.run("git", "stash", "--quiet")
        assert end(process) == "sample: gan/seeds.py changed while the stage ran; run it again"
    with sampling(project) as process:
        project.set({"sample.count": 90})
        project.run("git", "restore", "params.yaml")
        assert end(process) == ""  # it has read them once, and they are the same


@pytest.mark.slow
def test_a_second_repro_in_a_checkout_is_refused_and_the_first_ends_with_the_same_bytes(project: Project) -> None:
    project.set({"train.epochs": 40, "train.checkpoint_steps": 5})
    command = ["dvc", "repro", "train"]
    first = subprocess.Popen(
        command, cwd=project.path, env=project.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert first.stdout is not None
    for line in first.stdout:
        if "stages.train" in line:
            break
    for again in (command, ["dvc", "repro", "prepare", "--force"]):
        before = project.contents("data/prepared")
        said = project.run(*again, ok=False)
        assert "is busy, it is being blocked by" in said or "Unable to acquire lock" in said
        assert f"(PID {first.pid})" in said
        assert project.contents("data/prepared") == before
    output, _ = first.communicate()
    assert first.returncode == 0, output
    made = project.contents("data/train", "results/curves.csv")
    project.run("dvc", "repro", "--force", "--single-item", "train")
    assert project.contents("data/train", "results/curves.csv") == made
