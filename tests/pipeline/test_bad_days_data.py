"""Damaged caches, outputs, locks: noticed, named, and put right by running again what is needed."""

import shutil

import pytest

from tests.pipeline.accidents import cached, damage, doctor, half_written, needs, one_line, run_stage
from tests.project import Project, stages_run

UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
"""Root is held to the permission bits too."""


def test_a_damaged_cache_entry_brings_no_wrong_result(project: Project) -> None:
    damage(cached(project, "data/samples/images.npy"), "flip")
    shutil.rmtree(project.path / "data/samples")
    before = project.contents("results")
    # DVC brings it back as it is, and calls it up to date; so no stage may take its word.
    assert project.repro() == []
    said = one_line(run_stage(project, "evaluate"), "evaluate")
    assert said.startswith("data/samples: not what dvc.lock has")
    assert "make doctor CLEAN=1" in said
    assert project.contents("results") == before


@pytest.mark.slow
def test_the_doctor_names_what_is_damaged_and_has_it_made_again(project: Project) -> None:
    before = project.contents("data", "results")
    damage(cached(project, "data/samples/images.npy"), "flip")
    shutil.rmtree(project.path / "data/samples")
    assert project.repro() == []
    assert project.contents("data", "results") != before

    found = doctor(project).splitlines()
    assert f"! {cached(project, 'data/samples/images.npy')}: damaged; remove it, and dvc repro makes it again" in found
    assert any(line.startswith("! data/samples: not the bytes that dvc.lock has") for line in found)
    assert found[-1] == "2 to remove (!): make doctor CLEAN=1"
    doctor(project, "--clean")
    assert project.repro() == ["sample"]
    assert project.contents("data", "results") == before
    assert doctor(project) == "nothing to remove\n"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["flip", "cut"])
@pytest.mark.parametrize(
    ("output", "file"),
    [
        ("data/prepared", "data/prepared/train.npy"),
        ("data/reference", "data/reference"),  # the list of its files
        ("data/train", "data/train/generator_ema.safetensors"),
        ("results/curves.csv", "results/curves.csv"),
        ("results/scores.json", "results/scores.json"),
        ("results/report", "results/report/index.html"),
    ],
)
def test_whatever_is_damaged_in_the_cache_comes_back_right_after_the_doctor(
    how: str, output: str, file: str, project: Project
) -> None:
    before = project.contents("data", "results")
    damage(cached(project, file), how)
    there = project.path / output
    if there.is_dir():
        shutil.rmtree(there)
    else:
        there.unlink()
    project.run("dvc", "repro")  # it may bring back the damaged file, or make it again
    doctor(project, "--clean")
    project.run("dvc", "repro")
    assert project.contents("data", "results") == before
    *told, last = doctor(project).splitlines()
    assert last == "nothing to remove"
    assert all("complete; the next stage that runs removes it" in line for line in told)  # of train, if it ran alone
    assert project.run("git", "status", "--porcelain") == ""


@pytest.mark.slow
def test_every_stage_refuses_data_that_are_not_what_dvc_lock_has(project: Project) -> None:
    reads = {
        "prepare": "data/raw/source.json",
        "reference": "data/prepared/test.npy",
        "train": "data/prepared/train.npy",
        "sample": "data/train/generator_ema.safetensors",
        "evaluate": "data/reference/classifier.safetensors",
        "report": "results/scores.json",
    }
    before = project.contents("data", "results")
    for name, file in reads.items():
        damage(project.path / file, "flip")
        said = one_line(run_stage(project, name), name)
        assert said.split(": not what ")[0] in file
        (project.path / file).write_bytes(before[file])
        assert project.contents("data", "results") == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "runs"),
    [
        (".dvc/cache/files/md5/{images}", ["sample"]),
        ("data/samples", []),
        ("results", []),
        (".dvc/tmp", []),
        ("dvc.lock", ["check", "fetch"]),  # whose outputs persist, which the run-cache does not hold
        ("data", ["check", "fetch"]),
    ],
)
def test_what_is_lost_comes_back_with_the_same_bytes(lost: str, runs: list[str], project: Project) -> None:
    before = project.contents("data", "results") | {"dvc.lock": (project.path / "dvc.lock").read_bytes()}
    entry = cached(project, "data/samples/images.npy")
    path = project.path / lost.format(images=f"{entry.parent.name}/{entry.name}")
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    ran = project.repro()
    assert set(ran) <= set(runs)
    project.run("git", "checkout", "--", "results")
    after = project.contents("data", "results") | {"dvc.lock": (project.path / "dvc.lock").read_bytes()}
    assert after == before
    assert project.run("dvc", "status").strip() == "Data and pipelines are up to date."
    assert doctor(project) == "nothing to remove\n"


@pytest.mark.slow
def test_a_hand_edited_output_is_made_again(project: Project) -> None:
    before = project.contents("data", "results")
    with (project.path / "results/curves.csv").open("a") as file:
        file.write("999,9,0\n")
    (project.path / "data/samples/extra.txt").write_text("mine\n")
    project.repro()
    assert project.contents("data", "results") == before


@pytest.mark.slow
def test_a_damaged_dvc_lock_is_refused_by_dvc_and_removed_by_the_doctor(project: Project) -> None:
    before, lock = project.contents("data", "results"), project.lock()
    for content in (b"\x83\x00", b"schema: '2.0'\nstages:\n  check: 1\n", b"<<<<<<< HEAD\n"):
        (project.path / "dvc.lock").write_bytes(content)
        assert "dvc.lock" in project.run("dvc", "repro", ok=False)
        assert f"! {project.path}/dvc.lock: half-written; remove it" in doctor(project)
        assert project.contents("data", "results") == before
        doctor(project, "--clean")
        assert set(project.repro()) <= {"check", "fetch"}
        assert project.lock() == lock
        assert project.contents("data", "results") == before


@pytest.mark.slow
def test_notes_of_dvc_that_a_kill_cut_short_are_removed_by_the_doctor(project: Project) -> None:
    notes = project.path / ".dvc/tmp/rwlock"
    notes.write_text('{"write": {"')
    (project.path / "stages/report.py").write_text((project.path / "stages/report.py").read_text() + "# changed\n")
    assert "Unable to read RWLock-file" in project.run("dvc", "repro", ok=False)
    assert f"! {notes}: half-written, so DVC does not start; remove it" in doctor(project)
    doctor(project, "--clean")
    assert project.repro() == ["report"]


@pytest.mark.slow
def test_a_lock_of_a_process_that_is_gone_holds_nobody_up(project: Project) -> None:
    gone = '{"pid": 4194304, "cmd": "dvc repro"}'  # above any process's
    notes = project.path / ".dvc/tmp/rwlock"
    notes.write_text(f'{{"write": {{"{project.path}/results/report": {gone}}}, "read": {{}}}}')
    (project.path / "stages/report.py").write_text((project.path / "stages/report.py").read_text() + "# changed\n")
    output = project.run("dvc", "repro")
    assert stages_run(output) == ["report"]
    assert "had been killed. Auto removed it from the lock file" in output


@pytest.mark.slow
@pytest.mark.parametrize("name", ["check", "fetch", "prepare", "reference", "train", "sample", "evaluate", "report"])
def test_a_folder_without_the_right_to_write_is_named_and_nothing_changes(name: str, project: Project) -> None:
    needs(*UNPRIVILEGED, "true")
    before = project.contents("data", "results")
    folders = [project.path / "data", project.path / "results"]
    for folder in folders:
        folder.chmod(0o555)
    said = one_line(run_stage(project, name, *UNPRIVILEGED), name)
    assert said.endswith(": Permission denied")
    assert said.startswith(("data/", "results/"))
    for folder in folders:
        folder.chmod(0o755)
    assert project.contents("data", "results") == before
    assert not half_written(project)
    assert run_stage(project, name).returncode == 0
    assert project.contents("data", "results") == before


@pytest.mark.slow
def test_a_repro_without_the_right_to_write_completes_once_it_has_it(project: Project) -> None:
    needs(*UNPRIVILEGED, "true")
    before = project.contents("data", "results")
    for folder in ("data", ".dvc/cache/files/md5"):
        (project.path / folder).chmod(0o555)
        output = project.run(*UNPRIVILEGED, "dvc", "repro", "--force", "--single-item", "sample", ok=folder != "data")
        assert "Traceback" not in output
        (project.path / folder).chmod(0o755)
        project.run("dvc", "repro")
        assert project.contents("data", "results") == before
