import os
from collections.abc import Iterator

import pytest

# The same kernels as in the stages, and one thread: the networks of the tests are too small to share out.
os.environ.update(ATEN_CPU_CAPABILITY="avx2", ONEDNN_MAX_CPU_ISA="AVX2", MKL_CBWR="AVX2,STRICT", OMP_NUM_THREADS="1")

from tests.project import finished, project  # noqa: F401 (fixtures of all folders; it imports numpy)


@pytest.fixture(autouse=True)
def _restore_determinism() -> Iterator[None]:
    """Stages that are called in this process set torch's algorithms for all of it."""
    yield
    import sys

    if "torch" in sys.modules:
        import torch

        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(1)
