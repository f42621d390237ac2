import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from gan.errors import InputError
from gan.training.checkpoints import CheckpointWriter, list_checkpoints, load_checkpoint, save_checkpoint


def write_named(folder: Path, step: int, content: bytes) -> Path:
    path = folder / f"step-{step:08}-{hashlib.sha256(content).hexdigest()}.pt"
    path.write_bytes(content)
    return path


def test_what_is_saved_is_loaded_and_the_two_newest_are_kept(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    for step in (1, 2, 10):
        save_checkpoint(tmp_path, step, {"step": step, "curves": [{"loss": 0.5}], "weights": torch.arange(step)})
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 10
    assert state["curves"] == [{"loss": 0.5}]
    assert state["weights"].tolist() == list(range(10))
    assert [path.name[:13] for path in list_checkpoints(tmp_path)] == ["step-00000010", "step-00000002"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_files_name_holds_the_digest_of_its_bytes(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"weights": torch.rand(1000)})
    (path,) = tmp_path.iterdir()
    assert path.name == f"step-00000001-{hashlib.sha256(path.read_bytes()).hexdigest()}.pt"


@pytest.mark.parametrize("damage", ["empty", "cut", "one bit"])
def test_a_damaged_checkpoint_is_told_by_its_digest_and_the_one_before_is_used(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_checkpoint(tmp_path, 1, {"step": 1, "weights": torch.arange(1000)})
    save_checkpoint(tmp_path, 2, {"step": 2, "weights": torch.arange(1000)})
    newest = list_checkpoints(tmp_path)[0]
    whole = newest.read_bytes()
    at = whole.index(torch.arange(500, 1000).numpy().tobytes()[:64])  # among the weights, where a reader sees nothing
    changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    newest.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "one bit": changed}[damage])
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 1
    assert caplog.messages == [
        f"{newest} was damaged, and is removed; going on from the one before it, or from the start"
    ]
    assert not newest.exists()


def test_where_all_are_damaged_training_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"step": step})
    for path in list_checkpoints(tmp_path):
        path.write_bytes(b"")
    assert load_checkpoint(tmp_path) is None
    assert len(caplog.messages) == 2


def test_a_write_that_breaks_off_leaves_the_checkpoints_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"step": step})
    before = sorted(tmp_path.iterdir())

    def broken(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(tmp_path, 3, {"step": 3})
    assert sorted(tmp_path.iterdir()) == before


def test_what_the_thread_could_not_write_is_raised_where_training_saves_next(tmp_path: Path) -> None:
    def save(times: int) -> None:
        with CheckpointWriter(tmp_path / "gone") as checkpoints:
            for step in range(times):
                checkpoints.save(step, {"step": step})

    for times in (2, 1):  # at the next one, or at the end of the block
        with pytest.raises(FileNotFoundError):
            save(times)


def test_the_runs_own_error_is_told_rather_than_the_checkpoints(tmp_path: Path) -> None:
    def fail() -> None:
        with CheckpointWriter(tmp_path / "gone") as checkpoints:
            checkpoints.save(1, {"step": 1})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_a_checkpoint_holds_the_moment_at_which_it_was_taken(tmp_path: Path) -> None:
    weights, curves = torch.zeros(1_000_000), [{"loss": 1.0}]
    with CheckpointWriter(tmp_path) as checkpoints:
        checkpoints.save(1, {"weights": weights, "curves": curves})
        weights.fill_(1.0)  # training goes on while the thread writes
        curves.append({"loss": 2.0})
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert not state["weights"].any()
    assert state["curves"] == [{"loss": 1.0}]


def test_a_checkpoint_that_the_disk_cannot_read_is_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"step": step})
    newest = list_checkpoints(tmp_path)[0]
    opened = Path.open

    def bad_disk(path: Path, *arguments: Any, **named: Any) -> Any:
        if path == newest:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", bad_disk)
    assert load_checkpoint(tmp_path) == {"step": 1}


def test_a_shortage_of_memory_costs_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, 1, {"step": 1})

    def short(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as broken:
        broken.setattr(torch, "load", short)
        with pytest.raises(RuntimeError, match="allocate"):
            load_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path) == {"step": 1}


def test_loading_runs_no_code(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"step": Hostile()}, tmp_path / "hostile")
    write_named(tmp_path, 1, (tmp_path / "hostile").read_bytes())
    with pytest.raises(InputError, match="holds what no checkpoint does"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "owned").exists()
