import logging
import os
import threading
from pathlib import Path

import pytest
import torch

from gan.errors import InputError
from gan.training.recovery import CHECKPOINT, Recovery, load_checkpoint, open_recovery, save_checkpoint


def test_a_run_finds_its_own_checkpoint_again(tmp_path: Path) -> None:
    recovery = open_recovery(tmp_path, {"lr": "1"})
    folder = recovery.folder
    assert load_checkpoint(folder) is None
    save_checkpoint(folder, {"step": 3, "weights": torch.arange(4)})
    save_checkpoint(folder, {"step": 4, "weights": torch.arange(5)})
    recovery.lock.close()
    again = open_recovery(tmp_path, {"lr": "1"})
    assert again.folder == folder
    state = load_checkpoint(folder)
    assert state is not None
    assert state["step"] == 4
    assert state["weights"].tolist() == [0, 1, 2, 3, 4]
    again.close()
    assert not list(tmp_path.iterdir())


def test_a_second_run_of_the_same_training_waits_for_the_first(tmp_path: Path) -> None:
    first = open_recovery(tmp_path, {"lr": "1"})
    opened: list[Recovery] = []
    second = threading.Thread(target=lambda: opened.append(open_recovery(tmp_path, {"lr": "1"})))
    second.start()
    second.join(0.3)
    assert not opened
    save_checkpoint(first.folder, {"step": 1})
    first.close()
    second.join(10)
    (recovery,) = opened
    assert load_checkpoint(recovery.folder) is None  # the first was complete, and took its checkpoint with it
    save_checkpoint(recovery.folder, {"step": 1})
    recovery.close()


def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"step": 1, "weights": torch.arange(1000)})
    whole = (tmp_path / CHECKPOINT).read_bytes()
    for damaged in (b"", b"not a checkpoint", whole[: len(whole) // 2]):
        (tmp_path / CHECKPOINT).write_bytes(damaged)
        with pytest.raises(InputError, match=r"checkpoint.pt: damaged .*; delete it to train from the start$"):
            load_checkpoint(tmp_path)


def test_another_runs_checkpoint_is_never_taken_and_the_difference_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = open_recovery(tmp_path, {"train.lr_d": "1", "seed": "0", "gan/loop.py": "abc"})
    theirs.lock.close()
    old = theirs.folder
    save_checkpoint(old, {"step": 3})
    with caplog.at_level(logging.INFO):
        ours = open_recovery(tmp_path, {"train.lr_d": "2", "seed": "0", "torch": "3"})
    ours.lock.close()
    assert ours.folder != old
    assert load_checkpoint(ours.folder) is None
    assert caplog.messages == [
        f"starting afresh: the unfinished run in {old} differs in gan/loop.py, torch, train.lr_d"
    ]


def test_a_write_that_breaks_off_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, {"step": 1})

    def broken(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(tmp_path, {"step": 2})
    assert load_checkpoint(tmp_path) == {"step": 1}


def test_loading_runs_no_code(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"step": Hostile()}, tmp_path / CHECKPOINT)
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "owned").exists()
