import json
import logging
import threading
from pathlib import Path

import pytest

from stages.record import data_digest
from stages.recovery import Recovery, forget_recorded, open_recovery


def test_a_run_finds_its_own_folder_again(tmp_path: Path) -> None:
    recovery = open_recovery(tmp_path, {"lr": "1"})
    (recovery.folder / "step").write_text("3")
    recovery.lock.close()
    again = open_recovery(tmp_path, {"lr": "1"})
    assert (again.folder / "step").read_text() == "3"
    other = open_recovery(tmp_path, {"lr": "2"})
    assert other.folder != again.folder
    for each in (again, other):
        each.lock.close()


def test_a_complete_run_keeps_its_folder_until_dvc_has_recorded_what_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "runs"
    for name in ("here", "elsewhere"):
        (tmp_path / name / "data/train").mkdir(parents=True)
        (tmp_path / name / "data/train/generator").write_text(f"weights made {name}")
        monkeypatch.chdir(tmp_path / name)
        recovery = open_recovery(root, {"checkout": name})
        (recovery.folder / "step").write_text("3")
        recovery.finish(Path("data/train"))
    monkeypatch.chdir(tmp_path / "here")
    unfinished = open_recovery(root, {"checkout": "unfinished"})
    unfinished.lock.close()

    forget_recorded(root)
    again = open_recovery(root, {"checkout": "here"})  # ended before DVC wrote dvc.lock, and started once more
    assert (again.folder / "step").read_text() == "3"
    lock = {"stages": {"train": {"outs": [{"path": "data/train", "md5": data_digest(Path("data/train"))}]}}}
    Path("dvc.lock").write_text(json.dumps(lock))
    forget_recorded(root)
    assert again.folder.exists(), "in use"
    again.finish(Path("data/train"))
    forget_recorded(root)
    assert not again.folder.exists()
    assert len([path for path in root.iterdir() if path.is_dir()]) == 2  # another checkout's, and the unfinished one


def test_a_second_run_of_the_same_training_waits_for_the_first(tmp_path: Path) -> None:
    first = open_recovery(tmp_path, {"lr": "1"})
    opened: list[Recovery] = []
    second = threading.Thread(target=lambda: opened.append(open_recovery(tmp_path, {"lr": "1"})))
    second.start()
    second.join(0.3)
    assert not opened
    (first.folder / "step").write_text("last")
    first.finish(tmp_path)
    second.join(10)
    (recovery,) = opened
    assert (recovery.folder / "step").read_text() == "last"
    recovery.finish(tmp_path)
    assert not list(tmp_path.glob("*.lock"))


def test_another_runs_checkpoint_is_never_taken_and_the_difference_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = open_recovery(tmp_path, {"train.lr_d": "1", "seed": "0", "gan/loop.py": "abc"})
    theirs.lock.close()
    running = open_recovery(tmp_path, {"seed": "7"})
    open_recovery(tmp_path, {"seed": "8"}).finish(tmp_path)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        ours = open_recovery(tmp_path, {"train.lr_d": "2", "seed": "0", "torch": "3"})
    assert not (ours.folder / "step").exists()
    # Neither the one that runs nor the complete one was broken off.
    assert caplog.messages == [
        f"starting afresh: the unfinished run in {theirs.folder} differs in gan/loop.py, torch, train.lr_d"
    ]
    for each in (running, ours):
        each.lock.close()


class KilledError(Exception):
    pass


def killed(*_: object) -> None:
    raise KilledError


def test_a_run_killed_as_it_is_marked_complete_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recovery = open_recovery(tmp_path, {"lr": "1"})
    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", killed)
        with pytest.raises(KilledError):
            recovery.finish(tmp_path)
    recovery.lock.close()
    forget_recorded(tmp_path)  # reads no half-written marker
    assert recovery.folder.exists()


def test_a_removal_that_is_killed_leaves_no_checkpoint_and_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("made").write_text("weights")
    Path("dvc.lock").write_text(
        json.dumps({"stages": {"train": {"outs": [{"path": "made", "md5": data_digest(Path("made"))}]}}})
    )
    recovery = open_recovery(tmp_path / "runs", {"lr": "1"})
    (recovery.folder / "kept").mkdir()
    (recovery.folder / "step-00000001-ab.pt").write_text("state")
    recovery.finish(Path("made"))
    with monkeypatch.context() as broken:
        broken.setattr("shutil.rmtree", killed)
        with pytest.raises(KilledError):
            forget_recorded(tmp_path / "runs")
    assert not list(recovery.folder.glob("*.pt")), "it would be gone on from without what was kept"
    forget_recorded(tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir())


def test_what_was_made_in_a_temporary_copy_is_removed_once_another_has_it_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that was killed after its training is never gone on with; the next one takes its output from the cache."""
    for name in ("killed", "next"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "made").write_text("weights")
    monkeypatch.chdir(tmp_path / "killed")
    open_recovery(tmp_path / "runs", {"lr": "1"}).finish(Path("made"))
    monkeypatch.chdir(tmp_path / "next")
    forget_recorded(tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir())
    lock = {"stages": {"train": {"outs": [{"path": "made", "md5": data_digest(Path("made"))}]}}}
    Path("dvc.lock").write_text(json.dumps(lock))
    forget_recorded(tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir())
