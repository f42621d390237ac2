"""Checkpoints: everything that decides the next step of a run that may be killed at any moment.

Each is one file, `step-STEP-DIGEST.pt`, that carries the SHA-256 of its own bytes in its name, so one that a disk has
damaged is told from a whole one before it is opened. The two newest are kept.
"""

import errno
import hashlib
import logging
import os
import re
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from pickle import UnpicklingError
from types import TracebackType
from typing import IO, Any, BinaryIO, Self, cast

import torch
from torch import Tensor

from gan.durable import sync
from gan.errors import InputError

log = logging.getLogger(__name__)

NAME = re.compile(r"step-(\d{8,})-([0-9a-f]{64})\.pt")
PARTIAL = "checkpoint.partial"
KEPT = 2

State = dict[str, Any]
"""Tensors, numbers, text, and lists and dictionaries of them."""


class CheckpointWriter:
    """Writes checkpoints into `folder` while training goes on.

    The state is copied at once, in memory; a thread brings the copy to the disk. The end of the block waits for it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if error is None:
            self.wait()

    def save(self, step: int, state: State) -> None:
        """Begin to write the state after `step`. Raises OSError where the checkpoint before could not be written."""
        self.wait()
        self._pending = self._thread.submit(save_checkpoint, self._folder, step, _copy(state))

    def wait(self) -> None:
        """Return when the last checkpoint is safely on the disk; raises OSError where it is not."""
        if self._pending is not None:
            self._pending.result()


def save_checkpoint(folder: Path, step: int, state: State) -> None:
    """Write `state` into `folder`, under its name only once it is safely on the disk; then remove all but the newest.

    Raises OSError where it cannot be written; the checkpoints before it are still there then.
    """
    partial = folder / PARTIAL
    try:
        with partial.open("wb") as file:
            hashing = _Hashing(file)
            torch.save(state, cast(IO[bytes], hashing))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(folder / f"step-{step:08}-{hashing.digest()}.pt")
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(folder)
    for path in list_checkpoints(folder)[KEPT:]:
        path.unlink()


def load_checkpoint(folder: Path) -> State | None:
    """The newest whole state that was saved into `folder`, on the CPU; None where there is none. Runs no code.

    A damaged file is removed with a warning, and the one before it taken: the run then ends with the same bits, later.
    Raises InputError for a file of that name which is whole and no checkpoint.
    """
    for path in list_checkpoints(folder):
        if _is_whole(path):
            try:
                state: State = torch.load(path, map_location="cpu", weights_only=True)
            except UnpicklingError:
                raise InputError(f"{path}: holds what no checkpoint does, and is not read; remove it") from None
            return state
        path.unlink()
        log.warning("%s was damaged, and is removed; going on from the one before it, or from the start", path)
    return None


def _is_whole(path: Path) -> bool:
    name = NAME.fullmatch(path.name)
    assert name
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == name[2]
    except OSError as error:
        if error.errno != errno.EIO:  # with which a disk says that it has lost some of the file
            raise
        return False


def list_checkpoints(folder: Path) -> list[Path]:
    """The files of the checkpoints in `folder`, the newest first."""
    found = [(int(name[1]), path) for path in folder.glob("step-*.pt") if (name := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def _copy(value: Any) -> Any:  # noqa: ANN401 (any of `State`)
    """A copy in the main memory, whichever device the tensors are on."""
    if isinstance(value, Tensor):
        return value.detach().cpu() if value.is_cuda else value.detach().clone()
    if isinstance(value, dict):
        return {key: _copy(each) for key, each in value.items()}
    return [_copy(each) for each in value] if isinstance(value, list) else value


class _Hashing:
    """A file that is written from its beginning to its end, and the digest of what went through."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._sha256.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def digest(self) -> str:
        return self._sha256.hexdigest()
