"""Recovery checkpoints: everything that decides the next step of a run that may be killed at any moment."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TextIO

import torch

from gan.errors import InputError

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
INPUTS = "inputs.json"


@dataclass(frozen=True)
class Recovery:
    """The folder of one run, and the lock that keeps a second run with the same inputs out of it."""

    folder: Path
    lock: TextIO

    def close(self) -> None:
        """Remove the folder of a run that is complete."""
        shutil.rmtree(self.folder)
        Path(self.lock.name).unlink()
        self.lock.close()


def open_recovery(root: Path, inputs: Mapping[str, str]) -> Recovery:
    """The folder below `root` where the run with these `inputs` keeps what outlives a kill; waits for its lock.

    Its name is a digest of the inputs, so a run never resumes another's checkpoint. Where there is none but others'
    are there, the log says how the newest of them differs.
    """
    text = json.dumps(dict(inputs), indent=2, sort_keys=True)
    folder = root / hashlib.sha256(text.encode()).hexdigest()[:16]
    root.mkdir(parents=True, exist_ok=True)
    lock = _lock(folder.with_suffix(".lock"))
    if not (folder / INPUTS).exists():
        others = sorted(root.glob(f"*/{CHECKPOINT}"), key=lambda path: path.stat().st_mtime)
        if others:
            theirs = json.loads((others[-1].parent / INPUTS).read_text())
            differing = sorted(key for key in {*inputs, *theirs} if inputs.get(key) != theirs.get(key))
            log.info("starting afresh: the unfinished run in %s differs in %s", others[-1].parent, ", ".join(differing))
        folder.mkdir(exist_ok=True)
        partial = folder / f"{INPUTS}.partial"
        partial.write_text(text)
        partial.replace(folder / INPUTS)
    return Recovery(folder, lock)


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` into `folder`, replacing the checkpoint there only once the new one is safely on the disk."""
    partial = folder / f"{CHECKPOINT}.partial"
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / CHECKPOINT)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The state that `save_checkpoint` wrote, on the CPU, or None where there is none. Loading runs no code.

    Raises InputError for a file that is damaged.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, UnpicklingError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"{path}: damaged ({reason}); delete it to train from the start") from None
    return state


def _lock(path: Path) -> TextIO:
    """An open file that this process alone has locked; the system unlocks it when the process ends."""
    while True:
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another run of the same training, which holds %s", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        # The run that held it before may have removed the file; then this lock keeps nobody out.
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            return file
        file.close()
