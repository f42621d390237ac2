import logging
import os
from pathlib import Path

import pytest
import torch

from gan.training.recovery import CHECKPOINT, close_recovery, load_checkpoint, open_recovery, save_checkpoint

CPU = torch.device("cpu")


def test_a_run_finds_its_own_checkpoint_again(tmp_path: Path) -> None:
    folder = open_recovery(tmp_path, {"lr": "1"})
    assert load_checkpoint(folder, CPU) is None
    save_checkpoint(folder, {"step": 3, "weights": torch.arange(4)})
    save_checkpoint(folder, {"step": 4, "weights": torch.arange(5)})
    assert open_recovery(tmp_path, {"lr": "1"}) == folder
    state = load_checkpoint(folder, CPU)
    assert state is not None
    assert state["step"] == 4
    assert state["weights"].tolist() == [0, 1, 2, 3, 4]
    close_recovery(folder)
    assert not folder.exists()


def test_another_runs_checkpoint_is_never_taken_and_the_difference_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = open_recovery(tmp_path, {"train.lr_d": "1", "seed": "0", "gan/loop.py": "abc"})
    save_checkpoint(old, {"step": 3})
    with caplog.at_level(logging.INFO):
        new = open_recovery(tmp_path, {"train.lr_d": "2", "seed": "0", "torch": "3"})
    assert new != old
    assert load_checkpoint(new, CPU) is None
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
    assert load_checkpoint(tmp_path, CPU) == {"step": 1}


def test_loading_runs_no_code(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"step": Hostile()}, tmp_path / CHECKPOINT)
    with pytest.raises(Exception, match=r"(?i)weights.only"):
        load_checkpoint(tmp_path, CPU)
    assert not (tmp_path / "owned").exists()
