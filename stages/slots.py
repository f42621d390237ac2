"""One training a device: locks on this host's GPUs, or on its processor where it has none.

A stage that computes takes its devices before it starts, whoever started it. The kernel frees them when the process
ends, however it ends. `python -m stages.slots` shows who holds what.

The locks are files in one folder for all users and checkouts of the host, `FOLDER`; ATELIER_SLOTS names another, which
must lie on a local disk. Import nothing heavy here: schedulers ask often, and stages take their slots before they
import the math libraries.
"""

import argparse
import errno
import fcntl
import json
import logging
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from gan.errors import InputError, one_line

log = logging.getLogger(__name__)

COMPUTING = frozenset({"reference", "train", "sample", "evaluate"})
"""The stages that open a device; the others would only keep it from those."""
CPU = "cpu"
"""The slot of a host's processor: trainings side by side would take each other's cores."""
FOLDER = Path("/tmp/atelier-slots")  # noqa: S108 - /tmp is what all users share; `_open` is wary of what they put there
DRIVER = Path("/proc/driver/nvidia")
POLL_SECONDS = 0.5
REMIND_SECONDS = 600.0
NVIDIA_SMI_SECONDS = 60.0

Note = Mapping[str, Any]
"""What stands in a locked file: the `pid`, `stage` and `folder` of the process that locked it; of one that waits, also
the `devices` it may take and their `count`."""

_held: list[int] = []
"""Descriptors of this process's locks, open as long as it lives."""


def _leave_to_parent() -> None:
    """A forked child that outlives its parent, as a worker may, must not keep the device."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: all, or those that it names already.

    They go by their UUIDs, so that a GPU is the same slot however a user named it; an index there counts as nvidia-smi
    counts. A GPU that is split into MIG devices stands for these. Without nvidia-smi only what CUDA_VISIBLE_DEVICES
    names is known, as it is written there. Raises InputError if nvidia-smi hangs.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named == "":
        return []
    names = _names_of_devices()
    if named is None:
        return list(dict.fromkeys(chain.from_iterable((names or {}).values())))
    if names is None and not DRIVER.exists():
        return []
    devices: list[str] = []
    for name in named.split(","):
        found = _find(name.strip(), names)
        if not found:  # CUDA, too, stops at the first name that it does not know, as -1
            break
        devices += found
    return list(dict.fromkeys(devices))


def _names_of_devices() -> dict[str, list[str]] | None:
    """The devices behind each index and UUID that nvidia-smi lists; None without nvidia-smi."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        # Its exit status says nothing: it is not 0 where one GPU of many is broken.
        listed = subprocess.run(  # noqa: S603 - it is the user's own
            [program, "-L"], capture_output=True, text=True, timeout=NVIDIA_SMI_SECONDS, check=False
        ).stdout
    except OSError:
        return {}
    except subprocess.TimeoutExpired:
        raise InputError(
            f"nvidia-smi -L: no answer in {NVIDIA_SMI_SECONDS:g} s; restart the driver, or set hardware.device to cpu"
        ) from None
    gpus: list[tuple[str, str, list[str]]] = []
    for index, uuid in re.findall(r"^(?:GPU (\d+):|\s+MIG ).*\(UUID: (\S+)\)", listed, flags=re.MULTILINE):
        if index:
            gpus.append((index, uuid, []))
        elif gpus:
            gpus[-1][2].append(uuid)
    names: dict[str, list[str]] = {}
    for index, uuid, parts in gpus:
        names |= {index: parts or [uuid], uuid: parts or [uuid]} | {part: [part] for part in parts}
    return names


def _find(name: str, names: Mapping[str, list[str]] | None) -> list[str]:
    """The devices that CUDA_VISIBLE_DEVICES calls `name`: an index, a UUID or its beginning; none if it knows none."""
    if not re.fullmatch(r"[0-9]+|(GPU|MIG)-\S+", name):
        return []
    if names is None:
        return [name]
    if name in names or name.isdigit():
        return names.get(name, [])
    beginning = [devices for full, devices in names.items() if full.startswith(name)]
    return beginning[0] if len(beginning) == 1 else []


def hold_slots(stage: str, device: str, count: int) -> list[str]:
    """Take slots for this process and the rest of its life, after waiting until they are free; returns their names.

    `device` is `hardware.device`. On GPUs, `count` of them are taken, all at once, and made the only ones that CUDA
    shows to this process, so it must come before CUDA is first used; otherwise the processor's one slot is. `cuda`
    without a GPU takes none: PyTorch tells that better. Those who wait are served in their order, so that many who want
    one GPU never keep out one who wants several.

    Raises InputError where fewer than `count` GPUs are visible, or the folder of the locks cannot be used.
    """
    assert not _held, "a second call would wait for the first"
    devices = [] if device == "cpu" else visible_devices()
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if not devices:
        return [] if device == "cuda" else _wait_for(stage, [CPU], 1)
    if count > len(devices):
        raise InputError(f"hardware.devices: {count}, but the GPUs visible here are {len(devices)}; ask for no more")
    taken = _wait_for(stage, devices, count)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
    return taken


def list_slots() -> list[dict[str, Any]]:
    """The host's slots, each as its name, `slot`, and its `holder`: pid, stage and folder, or None where it is free.

    Raises InputError where the folder of the locks cannot be used.
    """
    devices = visible_devices() or [CPU]
    with _open_folder() as folder, _turn(folder):
        free, holders = _try_locks(folder, devices)
        for lock in free.values():
            os.close(lock)
    keys = ("pid", "stage", "folder")
    return [
        {"slot": name, "holder": {key: holders[name].get(key) for key in keys} if name in holders else None}
        for name in devices
    ]


def _wait_for(stage: str, devices: list[str], count: int) -> list[str]:
    """Lock `count` of `devices`, and none before all of them are to be had."""
    me = {"pid": os.getpid(), "stage": stage, "folder": str(Path.cwd())}
    ticket = None
    next_line = time.monotonic()
    with _open_folder() as folder, ExitStack() as when_served:
        while True:
            with _turn(folder):
                earlier = _earlier(folder, ticket)
                free, holders = _try_locks(folder, devices)
                taken = _share(list(free), earlier, count)
                for name in taken:
                    _write(free[name], me)
                    _held.append(free.pop(name))
                for lock in free.values():
                    os.close(lock)
                if taken:
                    _held.append(os.dup(folder))  # with its lock
                    return taken
                if ticket is None:
                    # One clock runs for all processes of the host, so the names sort as their owners came.
                    ticket = f"{time.monotonic_ns():020}.{os.getpid()}.ticket"
                    lock = _open(folder, ticket)
                    when_served.callback(os.close, lock)
                    when_served.callback(os.unlink, ticket, dir_fd=folder)
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    _write(lock, me | {"devices": devices, "count": count})
            if time.monotonic() >= next_line:
                _say_who(holders, earlier, count)
                next_line = time.monotonic() + REMIND_SECONDS
            time.sleep(POLL_SECONDS)


def _share(free: Sequence[str], earlier: Sequence[Note], count: int) -> list[str]:
    """`count` of the `free` devices that none of those who came earlier has a claim on, or none at all."""
    left = list(free)
    for other in earlier:
        claimed = [name for name in left if name in other["devices"]][: other["count"]]
        left = [name for name in left if name not in claimed]
    return left[:count] if len(left) >= count else []


def _say_who(holders: Mapping[str, Note], earlier: Sequence[Note], count: int) -> None:
    parts = [f"{name} is held by {_describe(holder)}" for name, holder in holders.items()]
    if earlier:
        parts.append(f"{_describe(earlier[0])}{f' and {len(earlier) - 1} more' * (len(earlier) > 1)} came earlier")
    log.info("waiting for %s: %s", "a device" if count == 1 else f"{count} devices at once", ", ".join(parts))


def _describe(holder: Note) -> str:
    if holder.get("pid") is None:
        return "a process that left no name"
    said = f"process {holder.get('pid')} ({holder.get('stage')} in {holder.get('folder')})"
    return one_line(said)  # anybody may write there


@contextmanager
def _open_folder() -> Iterator[int]:
    """The folder of the locks, made where it is missing, open to all users."""
    chosen = os.environ.get("ATELIER_SLOTS")
    path = Path(chosen).resolve() if chosen else FOLDER
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), _every_mode():
            path.mkdir(0o1777)
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(folder, fcntl.LOCK_SH)  # systemd cleans old files out of folders of /tmp that nobody has locked
            yield folder
        finally:
            os.close(folder)
    except OSError as error:
        where = path / str(error.filename or "")
        raise InputError(
            f"{where}: {error.strerror}; the locks on this host's devices need it, or a folder named by ATELIER_SLOTS"
        ) from None


@contextmanager
def _turn(folder: int) -> Iterator[None]:
    """Keep everyone else from the locks: to look at one is to take it for a moment, and such looks would collide."""
    turn = _open(folder, "turn")
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield
    finally:
        os.close(turn)


def _try_locks(folder: int, devices: Sequence[str]) -> tuple[dict[str, int], dict[str, Note]]:
    """The locks of the devices that were free, and the holders of the others."""
    free: dict[str, int] = {}
    holders: dict[str, Note] = {}
    for name in devices:
        lock = _open(folder, re.sub(r"[^\w.-]", "_", name) + ".lock")
        if _try_lock(lock):
            free[name] = lock
        else:
            holders[name] = _read(lock)
            os.close(lock)
    return free, holders


def _earlier(folder: int, ticket: str | None) -> list[Note]:
    """Those who have waited longer than the owner of `ticket`, or all who wait; removes the tickets of the dead."""
    notes = []
    for name in sorted(name for name in os.listdir(folder) if name.endswith(".ticket")):
        if name == ticket:
            break
        with suppress(FileNotFoundError):
            lock = _open(folder, name, create=False)
            if _try_lock(lock):
                with suppress(PermissionError):  # another user's
                    os.unlink(name, dir_fd=folder)
            else:
                notes.append(_read(lock))
            os.close(lock)
    return [note for note in notes if isinstance(note.get("devices"), list) and isinstance(note.get("count"), int)]


def _open(folder: int, name: str, *, create: bool = True) -> int:
    """Open a file of the folder, which all users may write; links are not followed.

    Linux refuses O_CREAT on another user's file in a folder like this one, so it comes second.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW
    while True:
        try:
            return _plain_file(os.open(name, flags, dir_fd=folder), name)
        except FileNotFoundError:
            if not create:
                raise
        with suppress(FileExistsError), _every_mode():
            return os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)


def _plain_file(descriptor: int, name: str) -> int:
    """The descriptor, if it is not of a second name for a file elsewhere, which a note would overwrite."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise OSError(errno.EPERM, "not a plain file, or one with a second name elsewhere", name)
    return descriptor


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(lock: int, note: Note) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps(note).encode(), 0)


def _read(lock: int) -> Note:
    """What stands in the file; nothing where another program has spoilt it."""
    try:
        note = json.loads(os.pread(lock, 1 << 16, 0))
    except (ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


@contextmanager
def _every_mode() -> Iterator[None]:
    """Make files with just the mode that is asked for."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def main(arguments: Sequence[str]) -> int:
    """Print this host's slots, one a line or as JSON; the exit status."""
    parser = argparse.ArgumentParser("python -m stages.slots", description="This host's slots, and who holds them.")
    parser.add_argument("--json", action="store_true", help='as [{"slot": …, "holder": null or {pid, stage, folder}}]')
    as_json = parser.parse_args(arguments).json
    try:
        slots = list_slots()
    except InputError as error:
        print(f"slots: {error}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(slots))
    else:
        for slot in slots:
            print(slot["slot"], f"held by {_describe(slot['holder'])}" if slot["holder"] else "free", sep="  ")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
