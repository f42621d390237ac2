"""Scores of as many images as papers take, in bounded memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

COUNT, WIDTH, CLASSES = 50_000, 2048, 1008
LIMIT_KB = 4e9 / 1024

SCRIPT = """
import resource, sys
from pathlib import Path
import numpy as np
from gan import metrics
from gan.metrics.scores import describe_real, read_real, write_real

folder = Path(sys.argv[1])
features = np.load(folder / "features.npy")  # in memory, as the stage has those of the samples
probabilities = np.random.default_rng(0).dirichlet(np.ones(int(sys.argv[2])), len(features))
write_real(folder, "train", describe_real(np.load(folder / "real.npy", mmap_mode="r")))
real = read_real(folder, "train")
scores = metrics.score(features, probabilities, real, label="fid", splits=10, seed=0)
metrics.near_copies(features[:1000], real.features)
assert {"FID", "KID", "inception_score", "precision"} <= set(scores.intervals)
assert 0 < scores.values["FID"] < 100
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_scores_of_50000_samples_in_2048_features_take_less_than_4_gb(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name, shift in (("real", 0.0), ("features", 0.05)):
        array = np.lib.format.open_memmap(tmp_path / f"{name}.npy", mode="w+", dtype=np.float32, shape=(COUNT, WIDTH))
        for start in range(0, COUNT, 1000):
            array[start : start + 1000] = random.standard_normal((1000, WIDTH), np.float32) + shift
        array.flush()
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(CLASSES)]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert peak < LIMIT_KB, f"{peak / 1024:.0f} MB"
