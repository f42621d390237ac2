"""The record that each stage leaves beside its outputs: what they were made from, by what code, and on what machine.

Import nothing heavy here: the stage's own process writes it, whatever the stage has imported.
"""

import hashlib
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gan.documents import read_document
from gan.errors import InputError
from gan.params import HardwareParams
from stages.hosts import count_devices
from stages.layout import RECORDS

PARAMS = Path("params.yaml")
PIPELINE = Path("dvc.yaml")
LOCK = Path("dvc.lock")
DATA = ("data", "results")
"""Where dependencies lie that other stages made; the others are code."""
LIBRARIES = ("jinja2", "matplotlib", "mlxtend", "numpy", "pillow", "safetensors", "scipy", "torch", "torchvision")
"""Those whose versions may decide a byte."""

Record = dict[str, Any]


def read_params(stage: str) -> dict[str, Any]:
    """The parameters that dvc.yaml names for the stage, each by its whole name, as `train.lr_d`."""
    values = read_document(PARAMS)
    found: dict[str, Any] = {}
    for key in _describe(stage).get("params", []):
        value: Any = values
        for part in key.split("."):
            value = value[part]
        found |= _leaves(key, value)
    return found


def read_code(stage: str) -> dict[str, str]:
    """The SHA-256 of each code file that dvc.yaml names for the stage."""
    found = {}
    for dependency in _dependencies(stage):
        if dependency.parts[0] not in DATA:
            files = dependency.rglob("*") if dependency.is_dir() else [dependency]
            for file in sorted(file for file in files if file.is_file() and _is_code(file)):
                found[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def _is_code(file: Path) -> bool:
    """Not what Python and editors leave beside it."""
    return "__pycache__" not in file.parts and not file.name.startswith(".") and not file.name.endswith("~")


def data_dependencies(stage: str) -> list[Path]:
    """What the stage reads of what other stages made."""
    return [dependency for dependency in _dependencies(stage) if dependency.parts[0] in DATA]


def data_digest(path: Path) -> str:
    """The MD5 of a file, or of a folder, as dvc.lock has it."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    files = {file.relative_to(path).as_posix(): data_digest(file) for file in path.rglob("*") if file.is_file()}
    listing = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    return hashlib.md5(json.dumps(listing).encode(), usedforsecurity=False).hexdigest() + ".dir"


def read_data(stage: str) -> dict[str, str]:
    """The digest of each dependency that other stages made.

    Of a file inside an output nothing is checked: the stage that reads the whole output does. Raises InputError where
    the bytes are not those that dvc.lock has: DVC trusts its cache, brings back what is damaged there as it is, and
    calls the result up to date.
    """
    digests, recorded = {}, recorded_digests()
    for path in data_dependencies(stage):
        if path.exists():
            name = str(path)
            digests[name] = data_digest(path)
            if recorded.get(name, digests[name]) != digests[name]:
                raise InputError(
                    f"{path}: not what dvc.lock has; it was damaged or edited. Run make doctor CLEAN=1, which has it "
                    "made again, and dvc repro"
                )
    return digests


def recorded_digests() -> dict[str, str]:
    """The digest of each output, as dvc.lock has it; none without one."""
    if not LOCK.exists():
        return {}
    try:
        stages = YAML(typ="safe", pure=True).load(LOCK)["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", []) if "md5" in out}
    except (YAMLError, TypeError, KeyError, AttributeError):
        raise InputError(f"{LOCK}: not what DVC writes; git restore it, or run make doctor CLEAN=1") from None


def describe_machine(hardware: HardwareParams, computes: bool, shared: bool = False) -> dict[str, Any]:
    """On what kind of machine this process runs, as far as bytes may depend on it: no name, no date, no speed.

    computes: whether the stage opens a device. shared: whether its result depends on how many.
    """
    held = hardware.cpu_isa == "avx2" and platform.machine() == "x86_64"
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "device": describe_device(hardware) if computes else "cpu",
        "instructions": "AVX2" if held else f"all of {_processor()}",
        "c_library": " ".join(platform.libc_ver()),
        "devices": count_devices(hardware) if shared else 1,
        "threads": hardware.threads,
        "deterministic": hardware.deterministic,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "versions": {name: version(name) for name in LIBRARIES},
    }


def describe_device(hardware: HardwareParams) -> str:
    """`cpu`, or the kind of GPU with its libraries' versions; to be asked once PyTorch is imported, if it is."""
    if hardware.device == "cpu" or "torch" not in sys.modules:
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"


def make_record(
    stage: str,
    machine: Mapping[str, Any],
    inputs: Mapping[str, str],
    params: Mapping[str, Any],
    code: Mapping[str, str],
) -> Record:
    """The record of a stage that has run, of what `describe_machine` and the `read_` functions say."""
    return {
        "stage": stage,
        "command": _describe(stage)["cmd"],
        "machine": dict(machine),
        "inputs": dict(inputs),
        "params": dict(params),
        "code": dict(code),
    }


def read_record(stage: str) -> Record:
    """The record that a stage left when it last ran."""
    (record,) = json.loads((RECORDS / f"{stage}.json").read_text(encoding="utf-8"))
    return dict(record)


def _describe(stage: str) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe", pure=True).load(PIPELINE)["stages"][stage]
    return found


def _dependencies(stage: str) -> Iterator[Path]:
    return map(Path, _describe(stage).get("deps", []))


def _leaves(key: str, value: Any) -> dict[str, Any]:  # noqa: ANN401 (a value of YAML)
    if not isinstance(value, Mapping):
        return {key: value}
    return {name: leaf for part, inner in value.items() for name, leaf in _leaves(f"{key}.{part}", inner).items()}


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "this processor")
