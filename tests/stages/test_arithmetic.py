import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages import arithmetic

ROOT = Path(__file__).parents[2]

HELD = """
from pathlib import Path
from gan.params import load_params
from stages.arithmetic import hold_arithmetic
params = load_params(Path("params.yaml"))
params = params.model_copy(update={"hardware": params.hardware.model_copy(update={"cpu_isa": "%s"})})
hold_arithmetic(params.hardware)
"""


def run(code: str, isa: str = "avx2", prefix: tuple[str, ...] = (), **environment: str) -> str:
    """Python's output after the arithmetic was held, in a shell with these variables alone."""
    return subprocess.run(
        [*prefix, sys.executable, "-W", "error", "-c", HELD % isa + code],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    ).stdout


def test_numpy_uses_nothing_beyond_avx2_whatever_the_shell_says() -> None:
    code = """
from numpy._core._multiarray_umath import __cpu_features__ as has, __cpu_dispatch__ as dispatched
print([name for name in dispatched if has[name] and name not in ("AVX2", "FMA3", "X86_V3")])
"""
    assert run(code).strip() == "[]"
    assert run(code, NPY_ENABLE_CPU_FEATURES="X86_V3", NPY_DISABLE_CPU_FEATURES="X86_V3").strip() == "[]"


def test_the_libraries_take_one_branch_and_the_parameters_threads_whatever_the_shell_says() -> None:
    code = """
import ctypes, threadpoolctl, torch, numpy, scipy.linalg
from gan.device import open_device
open_device("cpu", params.hardware.threads, True)
mkl = ctypes.CDLL(torch.__path__[0] + "/lib/libtorch_cpu.so")
print(mkl.mkl_serv_cbwr_get(1), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())
found = threadpoolctl.threadpool_info()
print(sorted({(pool["architecture"], pool["num_threads"]) for pool in found if pool["internal_api"] == "openblas"}))
print({pool["num_threads"] for pool in found if pool["internal_api"] == "openmp"})
"""
    others = {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "AVX2,STRICT",
        "MKL_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "7",
        "OMP_THREAD_LIMIT": "1",
        "OPENBLAS_CORETYPE": "Prescott",
        "OPENBLAS_NUM_THREADS": "2",
    }
    mkl_compatible = 3
    expected = f"{mkl_compatible} AVX2 2\n[('Haswell', 1)]\n{{2}}\n"
    assert run(code) == expected
    one_core = ("taskset", "--cpu-list", str(min(os.sched_getaffinity(0))))
    assert run(code, prefix=one_core, **others) == expected


def test_of_the_users_shell_only_what_changes_arithmetic_is_put_aside() -> None:
    code = """
import os
print({name: value for name, value in os.environ.items() if name.startswith(("ONEDNN", "NVIDIA", "TORCH", "CUBLAS"))})
"""
    said = run(
        code, "native", ONEDNN_DEFAULT_FPMATH_MODE="BF16", NVIDIA_TF32_OVERRIDE="0", TORCH_HOME="/weights"
    )  # fmt: skip
    assert eval(said) == {"TORCH_HOME": "/weights", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


@pytest.mark.parametrize("lacking", ["AVX2", "FMA"])
def test_a_processor_without_avx2_or_fma_is_refused_in_one_line(lacking: str) -> None:
    said = run("", GLIBC_TUNABLES=f"glibc.cpu.hwcaps=-{lacking}")
    assert said.splitlines()[-1] == (
        "gan.errors.InputError: hardware.cpu_isa: avx2, but this processor has no AVX2 with FMA; use native"
    )
    assert run("print('runs')", "native", GLIBC_TUNABLES=f"glibc.cpu.hwcaps=-{lacking}") == "runs\n"


@pytest.mark.parametrize(("flags", "found"), [("sse2 avx2 fma", True), ("avx2 sse2", False), ("fma avx", False)])
def test_an_older_c_library_leaves_it_to_the_kernel(flags: str, found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class OldLibrary:
        def __getitem__(self, name: str) -> None:
            raise AttributeError(name)

    monkeypatch.setattr(ctypes, "CDLL", lambda _: OldLibrary())
    monkeypatch.setattr(Path, "read_text", lambda _: f"processor : 0\nflags : {flags}\n")
    assert arithmetic._has_avx2() is found


@pytest.mark.parametrize(("release", "names"), [("2.0.2", "AVX512F AVX512CD"), ("2.4.0rc1", "X86_V4 AVX512_ICL")])
def test_numpy_is_told_in_the_names_of_its_version(release: str, names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "version", lambda _: release)
    assert arithmetic._beyond_avx2().startswith(names)


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    HUGE_PAGES.exists() and "[always]" in HUGE_PAGES.read_text(), reason="pages are so large that there are few faults"
)
def test_large_pieces_of_memory_are_used_again_without_the_system_zeroing_them() -> None:
    code = """
import resource, torch
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.empty(2**24).fill_(1.0)  # 64 MB, in 16,384 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults() < 1000)
"""
    assert run(code).strip() == "True"
