import os
import subprocess
import sys
from pathlib import Path

import pytest

from gan.params import load_params
from stages.arithmetic import AVX2_ONLY
from stages.stage import count_taken, new_folder, write_file, write_metrics

ROOT = Path(__file__).parents[2]


def test_a_new_folder_appears_whole_and_replaces_the_old(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for content in ("one", "two"):
        with new_folder(out) as folder:
            (folder / content).write_text(content)
            assert not (out / content).exists()
        assert [file.name for file in out.iterdir()] == [content]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_the_old_folder_and_nothing_half_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with new_folder(out) as folder:
        (folder / "old").write_text("old")
    with pytest.raises(ZeroDivisionError), new_folder(out) as folder:
        (folder / "new").write_text(f"{1 / 0}")
    assert [file.name for file in out.iterdir()] == ["old"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("gpus", "asked", "train", "sample"), [(4, 2, 2, 2), (1, 4, 4, 1), (4, "auto", 4, 4), (0, 2, 2, 1)]
)
def test_only_training_needs_all_the_devices_that_it_asks_for(
    gpus: int, asked: int | str, train: int, sample: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "".join(f"GPU {index}: H100 (UUID: GPU-{index})\n" for index in range(gpus))
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{lines}END\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    hardware = load_params(ROOT / "params.yaml").hardware.model_copy(update={"devices": asked})
    assert count_taken("train", hardware) == train
    monkeypatch.setenv("ATELIER_HOSTS", "2")  # of which only training has several
    assert count_taken("sample", hardware) == sample


def test_files_are_written_whole_and_numbers_that_json_lacks_are_refused(tmp_path: Path) -> None:
    write_file(tmp_path / "deep/file", "text")
    assert (tmp_path / "deep/file").read_text() == "text"
    write_metrics(tmp_path / "m.json", {"b": 1, "a": 2.5})
    assert (tmp_path / "m.json").read_text() == '{\n  "b": 1,\n  "a": 2.5\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        write_metrics(tmp_path / "m.json", {"a": float("nan")})
    assert (tmp_path / "m.json").read_text() == '{\n  "b": 1,\n  "a": 2.5\n}\n'


def run_in(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in (*AVX2_ONLY, "OMP_NUM_THREADS")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_arithmetic_is_held_before_torch_is_imported() -> None:
    code = """
from pathlib import Path
from gan.params import load_params
from stages.arithmetic import hold_arithmetic
params = load_params(Path("params.yaml"))
hold_arithmetic(params.hardware)
import torch
print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())
"""
    result = run_in(ROOT, code)
    assert result.stdout == "AVX2 2\n", result.stderr


def test_a_stage_refuses_bad_parameters_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    code = """
import sys
from stages.stage import run_stage
try:
    run_stage("train", lambda params: None)
finally:
    print("torch" in sys.modules)
"""
    result = run_in(tmp_path, code)
    assert result.returncode == 1
    assert result.stderr.startswith("train: params.yaml: data: missing")
    assert result.stdout == "False\n"
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("stage", ["check", "fetch", "prepare", "reference", "train", "sample", "evaluate", "report"])
def test_a_stages_module_imports_no_math_library(stage: str) -> None:
    result = run_in(ROOT, f"import sys; import stages.{stage}; print({{'numpy', 'torch'}} & set(sys.modules))")
    assert result.stdout == "set()\n", result.stderr
