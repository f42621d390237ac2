"""Runs a stage: checked parameters in, one clear line out when the user's input is at fault.

Import nothing heavy here: a stage must refuse bad parameters in well under a second, and the math libraries read
their settings from the environment once, when they are first imported.
"""

import ctypes
import json
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml.error import YAMLError

from gan.errors import InputError, find_no_room, is_no_memory
from gan.params import HardwareParams, Params, load_params
from stages.arithmetic import hold_arithmetic
from stages.hosts import check_training, count_here, read_hosts
from stages.layout import RECORDS, RECOVERY
from stages.record import (
    PARAMS,
    data_dependencies,
    describe_machine,
    make_record,
    read_code,
    read_data,
    read_params,
)
from stages.recovery import forget_recorded
from stages.slots import COMPUTING, hold_slots, visible_devices

NAMED = 5
"""Changed inputs that an error message names."""
LOWER = {
    "prepare": "data.image_size",
    "reference": "reference.batch_size, reference.images or data.image_size",
    "train": "train.batch_size, generator.base, discriminator.base or data.image_size",
    "sample": "sample.batch_size or data.image_size",
    "evaluate": "sample.count, reference.images or data.image_size",
}
"""The parameters that a stage's memory grows with."""
SHARED = frozenset({"train"})
"""The stages whose result depends on the number of devices, and that have several hosts."""


class MemberKilledError(InputError):
    """A process of a training was ended by a signal, with which the stage then ends too: it may go well again."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


def run_stage(name: str, run: Callable[[Params], Callable[[], None] | None]) -> NoReturn:
    """Run the stage `name` of dvc.yaml as this process, write its record, and exit.

    DVC hashes params, code and data after the command, so a stage whose inputs changed while it ran would be recorded
    with some that did not make its outputs; such a run fails at its end. What `run` returns is called once the run has
    stood that check.
    """
    if sys.getfilesystemencoding() != "utf-8":
        # In an 8-bit locale, TensorBoard takes names for UTF-8 all the same, and texts would be written in its letters.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - itself
    _end_with_dvc()
    threading.excepthook = _leave_shortages_to_the_main_thread
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with told_in_words(name):
        load_params(PARAMS)  # says in better words what is wrong with it
        before = _began[name] = _read_inputs(name)
        params = load_params(PARAMS)
        if name in SHARED:
            check_training(params)
        hold_arithmetic(params.hardware)
        data = read_data(name)
        if name in COMPUTING:
            hold_slots(name, params.hardware.device, count_taken(name, params.hardware))
            _check_unchanged(name, before)  # the wait may have been long
        forget_recorded(RECOVERY)
        on_success = run(params)
        machine = describe_machine(params.hardware, name in COMPUTING, name in SHARED)
        _check_unchanged(name, before)
        if name in SHARED and read_hosts().rank > 0:
            sys.exit(0)  # the first host writes
        write_metrics(RECORDS / f"{name}.json", [make_record(name, machine, data, before.params, before.code)])
        if on_success is not None:
            on_success()
    sys.exit(0)


def count_taken(name: str, hardware: HardwareParams) -> int:
    """The devices that the stage `name` takes on this host: `hardware.devices`, or fewer if any number will do."""
    if name in SHARED:
        return count_here(hardware)
    visible = max(1, len(visible_devices()))
    return visible if hardware.devices == "auto" else min(hardware.devices, visible)


@contextmanager
def told_in_words(name: str) -> Iterator[None]:
    """Exit if the block of stage `name` fails, with one line where a user can do something about it."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:  # libraries tell of a full disk or memory by errors of any kind
        said = _explain(name, error)
        if said is None:
            raise
        print(f"{name}: {said}", file=sys.stderr, flush=True)
        if isinstance(error, MemberKilledError):
            if error.number != signal.SIGKILL:
                signal.signal(error.number, signal.SIG_DFL)
            os.kill(os.getpid(), error.number)
        sys.exit(1)


def _explain(name: str, error: Exception) -> str | None:
    """What a user can do about the error, in one line; None where it is a fault of the program."""
    no_room = find_no_room(error)
    if no_room:
        return f"{no_room}; make room, and dvc repro goes on from there"
    if is_no_memory(error):
        lower = f"lower {LOWER[name]}, or " if name in LOWER else ""
        return f"out of memory; {lower}end what else takes memory, and dvc repro goes on from there"
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'error'}: {error.strerror or error}"
    return None


def _leave_shortages_to_the_main_thread(failed: threading.ExceptHookArgs) -> None:
    """Those who write by a thread of their own, as TensorBoard does, raise its error again where they are called."""
    error = failed.exc_value
    if error is None or not (find_no_room(error) or is_no_memory(error)):
        threading.__excepthook__(failed)


@dataclass(frozen=True)
class Inputs:
    """What decides a stage's outputs, as far as it can be told again and again."""

    params: dict[str, Any]
    code: dict[str, str]
    """The digest of each file."""
    files: dict[str, tuple[int, int, int]]
    """Of each file of code and data its inode, size and time of change.

    Of data, because to read it all twice would take long. Of code, because one that was written and has its old bytes
    again, as after two switches of branch, may have been another's when it was imported.
    """


_began: dict[str, Inputs] = {}
"""The inputs of the stage that this process runs, as it began."""


def check_unchanged(name: str) -> None:
    """Raise InputError where the inputs of the stage that `run_stage` runs are no longer those that it began with."""
    if name in _began:
        _check_unchanged(name, _began[name])


def _read_inputs(name: str) -> Inputs:
    code = read_code(name)
    return Inputs(read_params(name), code, _look_at([*map(Path, code), *data_dependencies(name)]))


def _look_at(paths: Sequence[Path]) -> dict[str, tuple[int, int, int]]:
    seen = {}
    for path in paths:
        for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
            if file.is_file():
                status = file.stat()
                seen[str(file)] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return seen


def _check_unchanged(name: str, before: Inputs) -> None:
    try:
        after = _read_inputs(name)
    except (YAMLError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{_first([str(error)])}: so an input changed while the stage ran; run it again") from None
    changed = set()
    for then, now in ((before.params, after.params), (before.code, after.code), (before.files, after.files)):
        changed |= {key for key in {*then, *now} if key not in then or key not in now or then[key] != now[key]}
    if changed:
        raise InputError(f"{_first(sorted(changed))} changed while the stage ran; run it again")


def _first(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path`, replacing what was there, only if the block ends without an error."""
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_file(path: Path, content: str) -> None:
    """Write a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(content)
    partial.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds a mapping, as the stages write them."""
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def write_metrics(path: Path, values: dict[str, Any] | list[Any]) -> None:
    """Write a metrics file as DVC reads it: JSON, in the order given. Its tables leave out what is in lists."""
    write_file(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def end_with_parent(parent: int) -> None:
    """Ask the kernel to end this process when the process `parent`, which started it, ends: no training is left behind.

    Exits where that has happened already.
    """
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(128 + signal.SIGTERM)


def _end_with_dvc() -> None:
    parent = os.getppid()
    end_with_parent(parent)
    # A DVC that was killed before that cannot be noticed any more; but its processes are one group, and a process that
    # adopts orphans is of another.
    if "DVC_STAGE" in os.environ and os.getpgid(parent) != os.getpgrp():
        sys.exit(128 + signal.SIGTERM)
