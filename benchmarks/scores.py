"""Time and memory of a FID beside pytorch-fid, clean-fid and torch-fidelity: `python -m benchmarks.scores`.

All read the same two folders of PNG files and the same weights of the FID network (random ones, which cost the same
time), each in a process of its own from its start to its end, round after round. What is compared is the whole command
that a user types, with the tool's own defaults but for the device. Then the share of the features: everything that the
extractor does to a batch, against the bare network on images that are ready for it.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64
PUBLISHED_NAME = "pt_inception-2015-12-05-6726825d.pth"
"""The name under which pytorch-fid and clean-fid look for the weights in torch's own folder of downloads."""


def atelier(folder: Path, everything: bool = False) -> float:
    """The project's FID of two folders; with `everything`, all scores, their intervals, and the look for copies."""
    import torch

    from gan import metrics
    from gan.data.given import open_samples
    from gan.metrics.extractors import describe
    from gan.metrics.inception_v3 import InceptionV3, read_inception_weights
    from gan.metrics.scores import describe_real

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    extractor = InceptionV3(*read_inception_weights(folder / PUBLISHED_NAME), device)

    def described(name: str) -> tuple[np.ndarray, np.ndarray | None]:
        with open_samples(folder / name, SIDE, 3, seed=0) as (count, images):
            packed = torch.from_numpy(np.stack(list(images))).to(device).permute(0, 3, 1, 2)
        return describe({device: extractor}, packed.split(extractor.batch), count, lambda _: None)

    (real, _), (generated, probabilities) = described("real"), described("generated")
    if not everything:
        return metrics.frechet_distance(*metrics.feature_statistics(generated), *metrics.feature_statistics(real))
    metrics.near_copies(generated[:1000], real)
    scores = metrics.score(generated, probabilities, describe_real(real), label="fid", splits=10, seed=0)
    return scores.values["FID"]


def atelier_all_scores(folder: Path) -> float:
    """Every score instead of one."""
    return atelier(folder, everything=True)


def pytorch_fid(folder: Path) -> float:
    """pytorch-fid's own function behind its command."""
    import torch
    from pytorch_fid.fid_score import calculate_fid_given_paths

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    workers = min(len(os.sched_getaffinity(0)), 8)
    return float(
        calculate_fid_given_paths([str(folder / "real"), str(folder / "generated")], 50, device, 2048, workers)
    )


def clean_fid(folder: Path) -> float:
    """clean-fid in the mode that reads pytorch-fid's weights."""
    import torch
    from cleanfid import fid

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    workers = min(len(os.sched_getaffinity(0)), 12)
    return float(
        fid.compute_fid(
            str(folder / "real"),
            str(folder / "generated"),
            mode="legacy_pytorch",
            num_workers=workers,
            device=device,
            use_dataparallel=False,
        )
    )


def torch_fidelity(folder: Path) -> float:
    """torch-fidelity's FID."""
    import torch
    from torch_fidelity import calculate_metrics

    found = calculate_metrics(
        input1=str(folder / "generated"),
        input2=str(folder / "real"),
        cuda=torch.cuda.is_available(),
        fid=True,
        feature_extractor_weights_path=str(folder / PUBLISHED_NAME),
        cache=False,
        verbose=False,
    )
    return float(found["frechet_inception_distance"])


CONTESTANTS: dict[str, Callable[[Path], float]] = {
    "atelier": atelier,
    "atelier, all scores": atelier_all_scores,
    "pytorch-fid": pytorch_fid,
    "clean-fid": clean_fid,
    "torch-fidelity": torch_fidelity,
}


def write_inputs(folder: Path, count: int) -> None:
    """Two folders of `count` smooth random images, and random weights in the format of the published ones."""
    from tests.gan.metrics.inception_weights import write_random_inception

    write_random_inception(folder / PUBLISHED_NAME, "fid")
    checkpoints = folder / "torch/hub/checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / PUBLISHED_NAME).symlink_to(folder / PUBLISHED_NAME)
    random = np.random.default_rng(0)
    for name in ("real", "generated"):
        (folder / name).mkdir()
        for index in range(count):
            small = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
            small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / name / f"{index:05}.png")


def measure(name: str, folder: Path) -> tuple[float, float, float]:
    """Seconds, peak memory in MB (of the largest process), and the FID, of one contestant in a process of its own."""
    environment = os.environ | {"TORCH_HOME": str(folder / "torch"), "TQDM_DISABLE": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.scores", "--contestant", name, "--folder", str(folder)]
    start = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{name} failed")
    return seconds, usage.ru_maxrss / 1024, float(json.loads(output.splitlines()[-1]))


def share_of_features(batches: int) -> list[float]:
    """Time of describing a batch over that of the bare network on the same one, pair by pair."""
    import torch

    from gan.metrics.inception_v3 import InceptionV3, read_inception_weights, resize_like_tensorflow
    from gan.metrics.published import exact_convolutions

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as temporary:
        write_inputs(Path(temporary), 0)
        extractor = InceptionV3(*read_inception_weights(Path(temporary) / PUBLISHED_NAME), device)
    images = torch.randint(0, 256, (extractor.batch, 3, SIDE, SIDE), dtype=torch.uint8, device=device)
    ready = resize_like_tensorflow(images, 299).sub_(128).div_(128).contiguous(memory_format=torch.channels_last)

    def seconds(run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    @torch.inference_mode()
    def bare() -> object:
        with exact_convolutions():
            return extractor._network(ready)

    def whole() -> object:
        return extractor.describe(images)[0].cpu()

    pairs = [(seconds(whole), seconds(bare)) for _ in range(batches + 3)]
    return [ours / theirs for ours, theirs in pairs[3:]]  # the first ones warm up


def main() -> None:
    """Run the contestants, or, as one of their processes, one of them."""
    parser = argparse.ArgumentParser("python -m benchmarks.scores", description=__doc__)
    parser.add_argument("--images", type=int, default=1000, help="in each of the two folders (default: 1000)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each contestant runs (default: 3)")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        with contextlib.redirect_stdout(io.StringIO()):
            value = CONTESTANTS[options.contestant](options.folder)
        print(json.dumps(value))
        return

    cores = len(os.sched_getaffinity(0))
    print(f"{platform.processor() or platform.machine()}, {cores} cores; 2 x {options.images} images of {SIDE}x{SIDE};")
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "pytorch-fid", "clean-fid", "torch-fidelity")))
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in CONTESTANTS}
    folder = Path(tempfile.mkdtemp())
    try:
        write_inputs(folder, options.images)
        for _ in range(options.rounds):
            for name, runs in found.items():
                runs.append(measure(name, folder))
    finally:
        shutil.rmtree(folder)
    print("\n| | seconds | times atelier's (spread) | peak MB | times atelier's | FID |\n|---|---|---|---|---|---|")
    ours = found["atelier"]
    for name, runs in found.items():
        ratios = [run[0] / mine[0] for run, mine in zip(runs, ours, strict=True)]
        seconds, peak = (statistics.median(run[column] for run in runs) for column in (0, 1))
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        more = peak / statistics.median(run[1] for run in ours)
        print(f"| {name} | {seconds:.1f} | {spread} | {peak:.0f} | {more:.2f} | {runs[0][2]:.4f} |")
    shares = share_of_features(20)
    print(
        f"\nfeatures over the bare network: {statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f}), "
        f"{len(shares)} pairs of batches"
    )


if __name__ == "__main__":
    main()
