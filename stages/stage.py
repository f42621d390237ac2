"""Runs a stage: checked parameters in, one clear line out when the user's input is at fault.

Import nothing heavy here: a stage must refuse bad parameters in well under a second, and the math libraries read
their settings from the environment once, when they are first imported.
"""

import ctypes
import hashlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gan.errors import InputError, find_no_room, is_no_memory
from gan.params import Params, load_params
from stages.arithmetic import hold_arithmetic
from stages.slots import COMPUTING, hold_slots, read_count

PARAMS = Path("params.yaml")
PIPELINE = Path("dvc.yaml")
LOCK = Path("dvc.lock")

NAMED = 5
"""Changed inputs that are named, at most."""
LOWER = {
    "prepare": "data.image_size",
    "reference": "reference.batch_size, reference.images or data.image_size",
    "train": "train.batch_size, generator.base, discriminator.base or data.image_size",
    "sample": "sample.batch_size or data.image_size",
    "evaluate": "sample.count, reference.images or data.image_size",
}
"""The parameters that a stage's memory grows with."""


def run_stage(name: str, run: Callable[[Params], Callable[[], None] | None]) -> NoReturn:
    """Run the stage `name` of dvc.yaml as this process, and exit.

    DVC hashes params and code after the command, so a stage whose params or code changed while it ran would be
    recorded with inputs that did not make its outputs; such a run fails at its end. What `run` returns is called once
    the run has stood that check.
    """
    if sys.getfilesystemencoding() != "utf-8":
        # In an 8-bit locale, TensorBoard takes names for UTF-8 all the same, and texts would be written in its letters.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - itself
    _end_with_parent()
    threading.excepthook = _leave_shortages_to_the_main_thread
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        before = _read_inputs(name)
        params = load_params(PARAMS)
        _check_data(name)
        hold_arithmetic(params.hardware)
        if name in COMPUTING:
            hold_slots(name, params.hardware.device, read_count())
            _check_unchanged(name, before)  # the wait may have been long
        on_success = run(params)
        _check_unchanged(name, before)
        if on_success is not None:
            on_success()
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:  # libraries tell of a full disk or memory by errors of any kind
        said = _explain(name, error)
        if said is None:
            raise
        print(f"{name}: {said}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


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


def _check_unchanged(name: str, before: dict[str, str]) -> None:
    after = _read_inputs(name)
    changed = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    if changed:
        more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
        raise InputError(f"{', '.join(changed[:NAMED])}{more} changed while the stage ran; run it again")


def _read_inputs(name: str) -> dict[str, str]:
    """The stage's inputs; none where a file cannot be read, which `load_params` tells in better words.

    A file counts as changed once it was written, even if its bytes are the old ones again, as after two switches of
    branch: much of the code is imported, and many data are read, only when they are needed, and may have been others.
    """
    try:
        inputs = {key: f"{value} {_written(Path(key))}" for key, value in stage_inputs(name).items()}
        data = (file for dependency in _dependencies(name) if _is_data(dependency) for file in _files(dependency))
        return inputs | {str(file): _written(file) for file in data}
    except (YAMLError, OSError, KeyError, TypeError, UnicodeDecodeError):
        return {}


def _written(file: Path) -> str:
    """What differs after a file was written or replaced; of a parameter, nothing."""
    return f"{file.stat().st_ino} {file.stat().st_mtime_ns}" if file.is_file() else ""


def _check_data(name: str) -> None:
    """Raise InputError if the data that the stage reads are not those that dvc.lock has of the stages that made them.

    DVC trusts its cache: what is damaged there it brings back as it is, and calls the result up to date.
    """
    if not LOCK.exists():
        return
    yaml = YAML(typ="safe", pure=True)
    made = {
        out["path"]: (stage, out["md5"])
        for stage, entry in yaml.load(LOCK)["stages"].items()
        for out in entry.get("outs", [])
    }
    for dependency in _dependencies(name):
        if str(dependency) in made and dependency.exists():
            stage, md5 = made[str(dependency)]
            if data_md5(dependency) != md5:
                raise InputError(
                    f"{dependency} is not what {stage} made, by its digest in dvc.lock: it was damaged or edited; run "
                    "make doctor CLEAN=1, which removes it, and dvc repro"
                )


def data_md5(path: Path) -> str:
    """The digest of a file or a folder as dvc.lock has it."""
    if not path.is_dir():
        return _file_md5(path)
    files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    listed = [{"md5": _file_md5(file), "relpath": name} for name, file in files]
    return hashlib.md5(json.dumps(listed).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _file_md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def stage_inputs(name: str) -> dict[str, str]:
    """A digest of each parameter and each code file that dvc.yaml names for the stage."""
    yaml = YAML(typ="safe", pure=True)
    stage = yaml.load(PIPELINE)["stages"][name]
    values = yaml.load(PARAMS)
    inputs = {}
    for key in stage.get("params", []):
        value: Any = values
        for part in key.split("."):
            value = value[part]
        inputs[key] = json.dumps(value, sort_keys=True)
    code = (dependency for dependency in map(Path, stage.get("deps", [])) if not _is_data(dependency))
    for file in (file for dependency in code for file in _files(dependency)):
        inputs[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
    return inputs


def _dependencies(name: str) -> list[Path]:
    """The files and folders that dvc.yaml names for the stage."""
    return [Path(path) for path in YAML(typ="safe", pure=True).load(PIPELINE)["stages"][name].get("deps", [])]


def _is_data(dependency: Path) -> bool:
    return dependency.parts[0] in ("data", "results")


def _files(path: Path) -> list[Path]:
    """A file, or those below a folder, sorted."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sorted(file for file in files if file.is_file() and file.suffix != ".pyc")


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
