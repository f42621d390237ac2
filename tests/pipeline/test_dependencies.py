"""dvc.yaml names exactly the code that each stage uses."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grimp
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
GRAPH = grimp.build_graph("gan", "stages", cache_dir=None)

# The kernels and threads that it fixes matter to the stages that compute, which are those that open a device.
ARITHMETIC = "stages.arithmetic"
RUN_STAGES = {f"stages.{name}" for name in ("hosts", "layout", "record", "recovery", "slots", "stage")}
DECIDE_NO_BYTES = {"gan.documents", "gan.durable", "gan.errors", "gan.params", "gan.data.progress", *RUN_STAGES}


def code_files(stage: str) -> set[Path]:
    """Every Python file that dvc.yaml names for the stage."""
    named = [ROOT / name for name in STAGES[stage]["deps"] if not name.startswith(("data", "results"))]
    return {file for path in named for file in (path.rglob("*.py") if path.is_dir() else [path])}


def imported_files(stage: str) -> Iterator[Path]:
    """Every project file that the stage imports, itself included; packages' own files only where they hold code."""
    modules = {f"stages.{stage}"} | GRAPH.find_upstream_modules(f"stages.{stage}")
    for module in modules:
        if module in DECIDE_NO_BYTES or (module == ARITHMETIC and "gan.device" not in modules):
            continue
        path = ROOT / module.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if file.name != "__init__.py" or "import" in file.read_text():
            yield file


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_that_a_stage_imports_is_among_its_deps(stage: str) -> None:
    assert not set(imported_files(stage)) - code_files(stage)


@pytest.mark.parametrize("stage", STAGES)
def test_every_code_dep_is_imported(stage: str) -> None:
    imported = set(imported_files(stage)) | {ROOT / "gan/params.py"}
    for name in STAGES[stage]["deps"]:
        if name.endswith(".py"):
            assert ROOT / name in imported
        elif (ROOT / name).suffix in (".j2", ".css"):
            beside = [
                file for file in (ROOT / name).parent.iterdir() if str(file.relative_to(ROOT)) in STAGES[stage]["deps"]
            ]
            assert any(f'"{Path(name).name}"' in file.read_text() for file in beside), f"nothing uses {name}"
        elif not name.startswith(("data/", "results/")):
            assert any((ROOT / name) in file.parents for file in imported)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_the_parameters_that_dvc_yaml_names_and_no_others(stage: str) -> None:
    text = (ROOT / f"stages/{stage}.py").read_text()  # where parameters appear as params.SECTION.KEY
    if "model_dump()" in text or stage == "check":
        assert set(STAGES[stage]["params"]) == set(YAML(typ="safe").load(ROOT / "params.yaml"))
        return
    text = text.replace(f'count_taken("{stage}", params.hardware)', "")  # how many devices decides no byte there
    uses = re.findall(r"\bparams\.(\w+)(?:\.(\w+))?", text)
    used = {f"{section}.{key}" if key and not key.startswith("model_") else section for section, key in uses}
    used -= {"yaml"}
    if any(name.startswith("hardware.") for name in used):
        used.add("hardware.cpu_isa")  # by which run_stage holds the arithmetic
    named = set(STAGES[stage]["params"])
    assert all(any(name == key or name.startswith(f"{key}.") for key in named) for name in used), used - named
    assert all(any(name == key or name.startswith(f"{key}.") for name in used) for key in named), named - used


def test_every_stage_is_called_as_its_module() -> None:
    for name, stage in STAGES.items():
        commands: Any = stage["cmd"]
        assert commands == f"exec python -m stages.{name}"
