"""Runs a stage: checked parameters in, one clear line out when the user's input is at fault.

Import nothing heavy here: a stage must refuse bad parameters in well under a second, and the math libraries read
their settings from the environment once, when they are first imported.
"""

import ctypes
import hashlib
import json
import logging
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gan.documents import read_document
from gan.errors import InputError
from gan.params import Params, load_params
from stages.arithmetic import hold_arithmetic
from stages.slots import COMPUTING, hold_slots, read_count

PARAMS = Path("params.yaml")
PIPELINE = Path("dvc.yaml")


def run_stage(name: str, run: Callable[[Params], Callable[[], None] | None]) -> NoReturn:
    """Run the stage `name` of dvc.yaml as this process, and exit.

    DVC hashes params and code after the command, so a stage whose params or code changed while it ran would be
    recorded with inputs that did not make its outputs; such a run fails at its end. What `run` returns is called once
    the run has stood that check.
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
        on_success = run(params)
        _check_unchanged(name, before)
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


def _check_unchanged(name: str, before: dict[str, str]) -> None:
    after = _read_inputs(name)
    changed = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    if changed:
        raise InputError(f"{', '.join(changed)} changed while the stage ran; run it again")


def _read_inputs(name: str) -> dict[str, str]:
    """The stage's inputs; none where a file cannot be read, which `load_params` tells in better words."""
    try:
        return stage_inputs(name)
    except (YAMLError, OSError, KeyError, TypeError, ValueError):
        return {}


def stage_inputs(name: str) -> dict[str, str]:
    """A digest of each parameter and each code file that dvc.yaml names for the stage.

    Data dependencies are not read: DVC alone writes them, and holds a lock on them while the stage runs.
    """
    yaml = YAML(typ="safe", pure=True)
    stage = yaml.load(PIPELINE)["stages"][name]
    values = read_document(PARAMS)
    inputs = {}
    for key in stage.get("params", []):
        value: Any = values
        for part in key.split("."):
            value = value[part]
        inputs[key] = json.dumps(value, sort_keys=True)
    for dependency in map(Path, stage.get("deps", [])):
        if dependency.parts[0] in ("data", "results"):
            continue
        files = dependency.rglob("*") if dependency.is_dir() else [dependency]
        for file in sorted(file for file in files if file.is_file() and file.suffix != ".pyc"):
            inputs[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
    return inputs


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


def write_metrics(path: Path, values: dict[str, Any]) -> None:
    """Write a metrics file as DVC reads it: JSON, in the order given."""
    write_file(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def _end_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends: a killed `dvc` leaves no training behind."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
