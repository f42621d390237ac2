"""Where a training keeps what outlives a kill: a folder a run, named by a digest of all that decides the result."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from gan.durable import sync
from stages.record import data_digest, recorded_digests

log = logging.getLogger(__name__)

INPUTS = "inputs.json"
COMPLETE = "complete"


@dataclass(frozen=True)
class Recovery:
    """The folder of one run, and the lock that keeps a second run with the same inputs out of it."""

    folder: Path
    lock: TextIO

    def finish(self, output: Path) -> None:
        """Mark the run as complete, with `output`; until DVC has recorded that, a kill must not lose it."""
        marker = {"output": str(output), "md5": data_digest(output)}
        _write(self.folder / COMPLETE, json.dumps(marker))
        Path(self.lock.name).unlink()
        self.lock.close()


def open_recovery(root: Path, inputs: Mapping[str, str]) -> Recovery:
    """The folder below `root` where the run with these `inputs` keeps what outlives a kill; waits for its lock.

    A run never finds another's checkpoint there. Where it has none but others have, the log says how the newest of
    those that nobody goes on with differs.
    """
    text = json.dumps(dict(inputs), indent=2, sort_keys=True)
    folder = root / hashlib.sha256(text.encode()).hexdigest()[:16]
    root.mkdir(parents=True, exist_ok=True)
    lock = _lock(_lock_of(folder))
    if not (folder / INPUTS).exists():
        with suppress(FileNotFoundError, ValueError):  # removed meanwhile, which is complete, or cut short
            _tell_unfinished(root, inputs)
        folder.mkdir(exist_ok=True)
        _write(folder / INPUTS, text)
    return Recovery(folder, lock)


def _tell_unfinished(root: Path, inputs: Mapping[str, str]) -> None:
    runs = [path.parent for path in sorted(root.glob(f"*/{INPUTS}"), key=lambda path: path.stat().st_mtime)]
    unfinished = [other for other in runs if not (other / COMPLETE).exists() and not _is_locked(other)]
    if unfinished:
        theirs = json.loads((unfinished[-1] / INPUTS).read_text())
        differing = sorted(key for key in {*inputs, *theirs} if inputs.get(key) != theirs.get(key))
        log.info("starting afresh: the unfinished run in %s differs in %s", unfinished[-1], ", ".join(differing))


def forget_recorded(root: Path) -> None:
    """Remove what complete runs have left below `root`, if this checkout's dvc.lock has what they made.

    Made again at the user's wish, it is then made from the start. In which checkout it was made does not matter: they
    share DVC's cache, and the temporary copy of an experiment that was killed is never gone on with.
    """
    markers = list(root.glob(f"*/{COMPLETE}"))
    recorded = recorded_digests() if markers else {}
    for file in markers:
        with suppress(FileNotFoundError, ValueError):  # removed by another process meanwhile, or cut short
            marker = json.loads(file.read_text())
            if recorded.get(marker["output"]) == marker["md5"]:
                _remove_unused(file.parent)


def _remove_unused(folder: Path) -> None:
    with _lock_of(folder).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _remove(folder)
        Path(lock.name).unlink()


def _remove(folder: Path) -> None:
    """Remove a complete run's folder: its checkpoints first, and last what marks it as complete.

    A kill on the way then leaves no checkpoint without what belongs to it, and the next stage goes on with the removal.
    """
    for path in sorted(folder.iterdir(), key=lambda path: (path.name == COMPLETE, path.suffix != ".pt")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    folder.rmdir()


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    sync(partial)
    partial.replace(path)


def _lock_of(folder: Path) -> Path:
    return folder.with_suffix(".lock")


def _is_locked(folder: Path) -> bool:
    try:
        with _lock_of(folder).open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


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
