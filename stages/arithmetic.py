"""Which kernels and how many threads the math libraries use; they read it from the environment, once."""

import os
import platform
import sys
from pathlib import Path

from gan.errors import InputError
from gan.params import HardwareParams

AVX2_ONLY = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2,STRICT",
    "OPENBLAS_CORETYPE": "Haswell",
}
"""PyTorch's own kernels, oneDNN, MKL and OpenBLAS (in numpy and scipy) pick kernels by the processor that they find;
each has its own switch."""


def hold_arithmetic(hardware: HardwareParams) -> None:
    """Fix the kernels and threads of this process; must come before numpy and torch are imported.

    Raises InputError where `hardware.cpu_isa` asks for instructions that the processor lacks.
    """
    assert not {"numpy", "torch"} & set(sys.modules), "the math libraries read these settings only once"
    if hardware.cpu_isa == "avx2":
        if platform.machine() == "x86_64" and " avx2 " not in Path("/proc/cpuinfo").read_text().replace("\n", " "):
            raise InputError("hardware.cpu_isa: avx2, but this processor has no AVX2; use native")
        os.environ.update(AVX2_ONLY)
    for library in ("OMP", "MKL", "OPENBLAS"):
        os.environ[f"{library}_NUM_THREADS"] = str(hardware.threads)
    # Threads that wait spin briefly, then sleep: spinning on would take the cores from whatever else runs, and sleeping
    # at once would cost a fifth of the speed.
    os.environ["GOMP_SPINCOUNT"] = "10000"
    if hardware.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
