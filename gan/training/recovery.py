"""Recovery checkpoints: everything that decides the next step of a run that may be killed at any moment."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
INPUTS = "inputs.json"


def open_recovery(root: Path, inputs: Mapping[str, str]) -> Path:
    """The folder below `root` where the run with these `inputs` keeps what outlives a kill.

    Its name is a digest of the inputs, so a run never resumes another's checkpoint. Where there is none but others'
    are there, the log says how the newest of them differs.
    """
    text = json.dumps(dict(inputs), indent=2, sort_keys=True)
    folder = root / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not folder.exists():
        others = sorted(root.glob(f"*/{CHECKPOINT}"), key=lambda path: path.stat().st_mtime)
        if others:
            theirs = json.loads((others[-1].parent / INPUTS).read_text())
            differing = sorted(key for key in {*inputs, *theirs} if inputs.get(key) != theirs.get(key))
            log.info("starting afresh: the unfinished run in %s differs in %s", others[-1].parent, ", ".join(differing))
        folder.mkdir(parents=True)
    (folder / INPUTS).write_text(text)
    return folder


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` into `folder`, replacing the checkpoint there only once the new one is safely on the disk."""
    partial = folder / f"{CHECKPOINT}.partial"
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / CHECKPOINT)


def load_checkpoint(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The state that `save_checkpoint` wrote, or None where there is none. Loading runs no code."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state


def close_recovery(folder: Path) -> None:
    """Remove the folder of a run that is complete."""
    shutil.rmtree(folder)
