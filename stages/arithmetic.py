"""What a process that computes is set to before it does: kernels and threads, which libraries read once, and memory."""

import ctypes
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from gan.errors import InputError
from gan.params import HardwareParams

AVX2_ONLY = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Haswell",
}
"""PyTorch's own kernels, oneDNN, MKL and OpenBLAS (in numpy and scipy) pick kernels by the processor that they find;
each has its own switch. MKL's AVX2 branch is for Intel's processors alone, and on others the switch is passed over;
COMPATIBLE is the one branch that is the same on both."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h

ANOTHER_ARITHMETIC = (
    "ATEN_", "DNNL_", "GOMP_", "GOTO_", "KMP_", "MKL_", "NPY_", "OMP_", "ONEDNN_", "OPENBLAS_",
    "NCCL_ALGO", "NCCL_PROTO", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)  # fmt: skip
"""How variables begin that change kernels, threads or precision; what the user's shell has of them is put aside."""


def hold_arithmetic(hardware: HardwareParams) -> None:
    """Fix the kernels and threads of this process, and keep its memory; before numpy and torch are imported.

    Raises InputError where `hardware.cpu_isa` asks for instructions that the processor lacks.
    """
    assert not {"numpy", "torch"} & set(sys.modules), "the math libraries read these settings only once"
    for name in [name for name in os.environ if name.startswith(ANOTHER_ARITHMETIC)]:
        del os.environ[name]
    if hardware.cpu_isa == "avx2":
        if platform.machine() == "x86_64" and not _has_avx2():
            raise InputError("hardware.cpu_isa: avx2, but this processor has no AVX2 with FMA; use native")
        os.environ.update(AVX2_ONLY, NPY_DISABLE_CPU_FEATURES=_beyond_avx2())
    for library in ("OMP", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = str(hardware.threads)
    # OpenBLAS takes no more threads than there are cores, so that any other number would make bits depend on them.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    # Threads that wait spin briefly, then sleep: spinning on would take the cores from whatever else runs, and sleeping
    # at once would cost a fifth of the speed.
    os.environ["GOMP_SPINCOUNT"] = "10000"
    if hardware.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have freed memory used again, which glibc would give back in large pieces, to get them zeroed again next step."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # never


def _has_avx2() -> bool:
    """Whether AVX2 and FMA can be used: what glibc found, which its own logarithms rest on; before 2.33, the kernel."""

    class Leaf(ctypes.Structure):
        _fields_ = [("present", ctypes.c_uint32 * 4), ("usable", ctypes.c_uint32 * 4)]  # EAX, EBX, ECX, EDX

    try:
        leaf = ctypes.CDLL(None)["__x86_get_cpuid_feature_leaf"]
    except AttributeError:
        return {"avx2", "fma"} <= set(Path("/proc/cpuinfo").read_text().split())
    leaf.restype = ctypes.POINTER(Leaf)
    fma, avx2 = leaf(0).contents.usable[2] >> 12, leaf(1).contents.usable[1] >> 5  # leaves 1 and 7 of CPUID
    return bool(fma & avx2 & 1)


def _beyond_avx2() -> str:
    """The features that numpy must not use, by its own names; it warns of names that its version does not have."""
    release = tuple(map(int, version("numpy").split(".")[:2]))
    if release >= (2, 4):
        return "X86_V4 AVX512_ICL AVX512_SPR"
    return "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"
