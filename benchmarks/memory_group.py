"""A control group of Linux that limits memory: what its processes hold, and what the system keeps of files for them."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gan.errors import InputError

CONTROLS = {
    Path("/sys/fs/cgroup/memory"): ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.swappiness"),
    Path("/sys/fs/cgroup"): ("memory.max", "memory.peak", "memory.swap.max"),
}
"""Where groups are made, of the kernel's first and second interface, and their files: the limit, the most that was
held, and what keeps their processes from being swapped out when it is 0."""
PATIENCE = 10.0
"""Seconds that killed processes have to leave a group."""


@dataclass(frozen=True)
class MemoryGroup:
    """A group that is there."""

    folder: Path
    peak: Path

    def within(self, command: Sequence[str]) -> list[str]:
        """The command that runs another one, with all that it starts, in the group."""
        return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self.folder), *command]

    def peak_mb(self) -> float:
        """The most that was held at any time."""
        return int(self.peak.read_text()) / 1e6


@contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup]:
    """A group that holds at most `limit` bytes; with the block it goes, and what runs in it is killed.

    What files had in memory before stays there, and is free for the group: have the system give it up first.
    Raises InputError where no group can be made.
    """
    for place, (most, peak, swapping) in CONTROLS.items():
        folder = place / f"benchmark-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if not (folder / most).exists() or not (folder / peak).exists():
                continue
            (folder / most).write_text(str(limit))
            if (folder / swapping).exists():
                (folder / swapping).write_text("0")
            yield MemoryGroup(folder, folder / peak)
            return
        finally:
            _remove(folder)
    raise InputError(
        f"a memory control group cannot be made in {' or '.join(map(str, CONTROLS))}: this takes root, or a group "
        "delegated there that has memory limits"
    )


def _remove(folder: Path) -> None:
    processes = folder / "cgroup.procs"
    for process in processes.read_text().split() if processes.exists() else ():
        with suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
