"""Finds what accidents have left behind, says what it would remove, and removes it when asked to.

`make doctor`, which is `python -m flows.doctor`, only looks; `make doctor CLEAN=1` removes what it names first.
"""

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from flows.digests import LOCK, Place, file_md5, outputs, read_lock
from flows.experiment import ExperimentError
from flows.processes import CommandError, environment, run
from flows.slots import limit_name
from flows.workspace import WORKSPACES, find_home

COPIES = Path(".dvc/tmp/exps/standalone")
RECORDS = Path(".dvc/tmp/exps/run")
RUNS = Path(".atelier/runs")
TOGETHER = Path(".atelier/together")
MD5_DIGITS = 32
UNFINISHED = 1.0
"""Days after which nobody is still copying a file into DVC's cache."""
BUSY = Path(".dvc/tmp/rwlock")
"""DVC's list of what its processes read and write."""
OLD = 7.0
"""Days after which an unfinished training that nothing goes on with is left-over."""


@dataclass(frozen=True)
class Finding:
    """Something that was found, in words, and how to remove it; None where it stays."""

    words: str
    remove: Callable[[], None] | None = None


def examine(home: Path, old: float) -> Iterator[Finding]:
    """All that there is to say about the checkout `home`; trainings untouched for `old` days are left-over."""
    if not _processes(home, "dvc "):
        yield from _torn(home)
    yield from _damaged(home)
    yield from _copies(home)
    yield from _workspaces(home)
    yield from _checkpoints(home, old)
    yield from _together(home)
    yield from _slots(home)


def _torn(home: Path) -> Iterator[Finding]:
    """Files of DVC's own that it writes in place, and does not start with once it was killed in the midst."""
    lock, busy = home / LOCK, home / BUSY
    if lock.exists():
        said = subprocess.run(
            ["dvc", "stage", "list"], cwd=home, env=environment(), capture_output=True, text=True, check=False
        ).stderr
        refused = re.search(r"dvc\.lock' (is invalid|validation failed)", said)
        if refused or not lock.read_bytes().endswith(b"\n"):  # the beginning of a line is not always refused
            yield Finding(f"{lock}: half-written; remove it: dvc repro makes it again", lock.unlink)
    if busy.exists():
        try:
            entries = json.loads(busy.read_text())
        except ValueError:
            yield Finding(f"{busy}: half-written, so DVC does not start; remove it", busy.unlink)
        else:
            named = [*entries.get("write", {}).values(), *chain.from_iterable(entries.get("read", {}).values())]
            living = [entry["pid"] for entry in named if psutil.pid_exists(entry["pid"])]  # DVC forgets the others
            if living and not any(map(_is_dvc, living)):
                yield Finding(
                    f"{busy}: of a DVC that was process {living[0]}, which is another by now; remove it", busy.unlink
                )

    for folder in sorted((Path(run("dvc", "cache", "dir", folder=home)) / "runs").glob("??/*")):
        if folder.is_dir() and not any(folder.iterdir()):
            yield Finding(f"{folder}: has no run in it, at which DVC breaks off; remove it", folder.rmdir)


def _is_dvc(pid: int) -> bool:
    try:
        return any(Path(word).name == "dvc" for word in psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def _damaged(home: Path) -> Iterator[Finding]:
    """Files whose bytes are not those that DVC takes them to have; it reads neither its cache nor what it knows again.

    Reads the whole cache, two seconds or so a gigabyte.
    """
    cache = Path(run("dvc", "cache", "dir", folder=home))
    for file in sorted((cache / "files/md5").glob("**/.*.tmp")):
        if time.time() - file.stat().st_mtime > UNFINISHED * 86400:
            yield Finding(f"{file}: a copy that was cut short; remove it", partial(_remove, file))
    for file in sorted(path for path in (cache / "files/md5").glob("??/*") if path.is_file()):
        name = file.parent.name + file.name.removesuffix(".dir")
        if len(name) == MD5_DIGITS and file_md5(file) != name:
            yield Finding(f"{file}: damaged; remove it, and dvc repro makes it again", partial(_remove, file))
    if not (home / LOCK).exists():
        return
    if _processes(home, "dvc "):
        # What differs may be on its way into the lock.
        yield Finding(f"dvc runs here: its outputs were not compared with {LOCK}")
        return
    try:
        stages = read_lock((home / LOCK).read_text(errors="replace"))
    except ExperimentError:
        return  # half-written, which `_torn` tells
    made = [outputs({name: stage}) for name, stage in stages.items()]
    # DVC removes a stage's outputs before it runs, so where one is missing, the others are of a run that has not ended.
    recorded = [out for outs in made if all((home / path).exists() for path in outs) for out in outs.items()]
    for path, md5 in recorded:
        digests = Place(home, cache).digests(path, md5)
        if digests is not None and _digest(digests) != md5:
            words = f"{path}: not the bytes that {LOCK} has; have DVC look again, and dvc repro makes it again"
            yield Finding(words, partial(_touch, home / path))


def _digest(files: Mapping[str, str]) -> str:
    """The digest of an output as dvc.lock has it, of those of its files."""
    if "" in files:
        return files[""]
    listed = [{"md5": md5, "relpath": name} for name, md5 in sorted(files.items())]
    return hashlib.md5(json.dumps(listed).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _touch(path: Path) -> None:
    """Give each file a new time of change, by which DVC knows that it must read it again."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        os.utime(file)


def _copies(home: Path) -> Iterator[Finding]:
    """Copies of killed `dvc exp run --temp`, which `dvc exp show` goes on listing as running."""
    # While DVC makes a copy, and while it collects the results, it works in the checkout.
    starting = _processes(home, "exp run")
    notes = list((home / RECORDS).glob("*/*.run"))
    for copy in sorted(path for path in (home / COPIES).glob("*") if path.name != RECORDS.name):
        users = _processes(copy) or starting
        if users:
            yield Finding(f"experiment in {copy}: runs, as process {users[0]}")
        else:
            records = [record.parent for record in notes if _read(record, "root_dir") == str(copy)]
            name = next((_read(found, "name") for record in records for found in record.glob("*.run")), "")
            yield Finding(
                f"experiment {name or 'without a name'}: shown as running, and does not; remove {copy} and its row",
                partial(_remove, copy, *records),
            )


def _workspaces(home: Path) -> Iterator[Finding]:
    """Workspaces of flows that ended without a chance to tidy up."""
    for lock in sorted((home / WORKSPACES).glob("*.lock")):
        folder = lock.with_suffix("")
        if _held(lock):
            yield Finding(f"workspace {folder}: in use")
        else:
            yield Finding(f"workspace {folder}: its flow is gone; remove it", partial(_remove_unused, lock, folder))
    for folder in sorted(path for path in (home / WORKSPACES).glob("*") if path.is_dir()):
        if not folder.with_suffix(".lock").exists():
            yield Finding(f"workspace {folder}: its flow is gone; remove it", partial(_remove, folder))


def _checkpoints(home: Path, old: float) -> Iterator[Finding]:
    """Checkpoints of trainings that have not ended."""
    for folder in sorted(path for path in (home / RUNS).glob("*") if path.is_dir()):
        lock = folder.with_suffix(".lock")
        files = [file for file in folder.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files) / 1e6
        days = (time.time() - max((file.stat().st_mtime for file in files), default=folder.stat().st_mtime)) / 86400
        words = f"training in {folder} ({size:.1f} MB)"
        if _held(lock):
            yield Finding(f"{words}: runs")
        elif (folder / "complete").exists() and days < old:
            yield Finding(f"{words}: complete; the next stage that runs removes it, if DVC has its result")
        elif days < old:
            yield Finding(f"{words}: stopped {_age(days)} ago; the same experiment goes on from there, so it stays")
        else:
            yield Finding(f"{words}: untouched for {_age(days)}; remove it", partial(_remove_unused, lock, folder))
    for lock in sorted((home / RUNS).glob("*.lock")):
        if not lock.with_suffix("").exists() and not _held(lock):
            yield Finding(f"{lock}: of no training; remove it", partial(_remove_unused, lock))


def _together(home: Path) -> Iterator[Finding]:
    """What processes shared on a host that only took part in a training, and was killed."""
    if not _processes(home, "stages.train"):
        for folder in sorted((home / TOGETHER).glob("*")):
            yield Finding(f"{folder}: of a training that was killed; remove it", partial(_remove, folder))


def _slots(home: Path) -> Iterator[Finding]:
    """Who holds this host's devices, and places on the server that nobody holds."""
    slots = json.loads(run("python", "-m", "stages.slots", "--json", folder=home))
    for slot in slots:
        holder = slot["holder"]
        if holder:
            who = f"process {holder['pid']}, {holder['stage']} in {holder['folder']}"
            yield Finding(f"slot {slot['slot']}: held by {who}")
    server = get_current_settings().api.url
    if not server:
        return
    try:
        yield from _server_slots(slots)
    except httpx.HTTPError as error:
        yield Finding(f"the server at {server} does not answer ({error}); its slots were not looked at")


def _server_slots(slots: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """What the server says of this host's slots."""
    running = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])))
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(limit_name())
        except ObjectNotFound:
            return
        if limit.limit != len(slots):
            yield Finding(
                f"{limit.name}: {limit.limit} on the server, and this host has {len(slots)}; set it on its page"
            )
        taken, runs = limit.active_slots, client.read_flow_runs(flow_run_filter=running)
    if taken and not runs and not any(slot["holder"] for slot in slots):
        yield Finding(f"{taken} slots of {limit.name} taken on the server, and nothing runs: free them", _free_slots)
    elif taken:
        yield Finding(f"{taken} of {limit.limit} slots of {limit.name} taken on the server, by runs that are going on")


def _free_slots() -> None:
    with get_client(sync_client=True) as client:
        client.update_global_concurrency_limit(limit_name(), GlobalConcurrencyLimitUpdate(active_slots=0))


def _processes(folder: Path, words: str = "") -> list[int]:
    """The processes that work in `folder`, with `words` in their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder) and words in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def _held(lock: Path) -> bool:
    """Whether a process has locked the file."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _read(record: Path, name: str) -> str:
    """An entry of DVC's note of a run; empty where the note is damaged."""
    try:
        return str(json.loads(record.read_text()).get(name) or "")
    except (ValueError, AttributeError):
        return ""


def _age(days: float) -> str:
    return f"{days:.0f} days" if days >= 2 else f"{days * 24:.0f} hours" if days * 24 >= 1 else "less than an hour"


def _remove_unused(lock: Path, *paths: Path) -> None:
    """Remove the lock and what it stands for, unless somebody has taken it meanwhile."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _remove(*paths, lock)


def _remove(*paths: Path) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()


def main(arguments: Sequence[str]) -> int:
    """Say what was found, and with `--clean` remove it; the exit status."""
    parser = argparse.ArgumentParser("python -m flows.doctor", description=__doc__)
    parser.add_argument("--clean", action="store_true", help="remove what is said to be removed")
    parser.add_argument("--old", type=float, default=OLD, metavar="DAYS", help="of unfinished trainings")
    options = parser.parse_args(arguments)
    try:
        findings = list(examine(find_home(), options.old))
        for finding in findings:
            print(("! " if finding.remove else "  ") + finding.words)
        left = [finding for finding in findings if finding.remove]
        if not left:
            print("nothing to remove")
        elif options.clean:
            for finding in left:
                assert finding.remove
                finding.remove()
            print(f"{len(left)} removed")
        else:
            print(f"{len(left)} to remove (!): make doctor CLEAN=1")
    except (ExperimentError, CommandError, OSError, httpx.HTTPError) as error:
        print(f"doctor: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
