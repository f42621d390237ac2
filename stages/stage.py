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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml.error import YAMLError

from gan.errors import InputError
from gan.params import Params, load_params
from stages.arithmetic import hold_arithmetic
from stages.layout import RECORDS, RECOVERY
from stages.record import PARAMS, data_dependencies, describe_machine, make_record, read_code, read_params
from stages.recovery import forget_recorded
from stages.slots import COMPUTING, hold_slots, read_count

NAMED = 5
"""Changed inputs that an error message names."""


def run_stage(name: str, run: Callable[[Params], Callable[[], None] | None]) -> NoReturn:
    """Run the stage `name` of dvc.yaml as this process, write its record, and exit.

    DVC hashes params, code and data after the command, so a stage whose inputs changed while it ran would be recorded
    with some that did not make its outputs; such a run fails at its end. What `run` returns is called once the run has
    stood that check.
    """
    _end_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        before = _read_inputs(name)
        params = load_params(PARAMS)
        hold_arithmetic(params.hardware)
        if name in COMPUTING:
            hold_slots(name, params.hardware.device, read_count())
            _check_unchanged(name, before)  # the wait may have been long
        forget_recorded(RECOVERY)
        on_success = run(params)
        machine = describe_machine(params.hardware, name in COMPUTING)
        record = make_record(name, before.params, before.code, machine)
        _check_unchanged(name, before)
        write_metrics(RECORDS / f"{name}.json", [record])
        if on_success is not None:
            on_success()
    except InputError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(f"{name}: {error.filename or 'error'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    sys.exit(0)


@dataclass(frozen=True)
class Inputs:
    """What decides a stage's outputs: its parameters, the digests of its code, and what its data look like on disk."""

    params: dict[str, Any]
    code: dict[str, str]
    data: dict[str, tuple[int, int, int]]
    """Of each file its inode, size and time of change: to read it all twice would take long."""


def _read_inputs(name: str) -> Inputs:
    """The stage's inputs; none where a file cannot be read, which `load_params` tells in better words."""
    try:
        return Inputs(read_params(name), read_code(name), _look_at_data(name))
    except (YAMLError, OSError, KeyError, TypeError, UnicodeDecodeError):
        return Inputs({}, {}, {})


def _look_at_data(name: str) -> dict[str, tuple[int, int, int]]:
    seen = {}
    for path in data_dependencies(name):
        for file in [path, *path.rglob("*")]:
            if file.is_file():
                status = file.stat()
                seen[str(file)] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return seen


def _check_unchanged(name: str, before: Inputs) -> None:
    after = _read_inputs(name)
    changed = []
    for then, now in ((before.params, after.params), (before.code, after.code), (before.data, after.data)):
        changed += sorted(key for key in {*then, *now} if key not in then or key not in now or then[key] != now[key])
    if changed:
        raise InputError(f"{_first(changed)} changed while the stage ran; run it again")


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


def _end_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends: a killed `dvc` leaves no training behind."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    # A DVC that was killed before that cannot be noticed any more; but its processes are one group, and a process that
    # adopts orphans is of another.
    if "DVC_STAGE" in os.environ and os.getpgid(os.getppid()) != os.getpgrp():
        sys.exit(128 + signal.SIGTERM)
