"""The stage `prepare` beside a torchvision DataLoader: `python -m benchmarks.preparation`.

Both read the same JPEG files of CelebA's size, crop and resize them, with as many workers, each in a process of its
own, round after round. The DataLoader hands out float batches, which nobody keeps; `prepare` also writes the packed
image set, its digests and its manifest. Seconds are of the work, workers' start included and the program's own imports
not; memory is of all its processes together.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import Finished, ratios, run_task, spread

MODULE = "benchmarks.preparation"
SIDE, CROP, BATCH = 128, 178, 64


def atelier(folder: Path, workers: int) -> None:
    """The project's own preparation."""
    from gan.data.preparation import prepare

    with tempfile.TemporaryDirectory(dir=folder) as out:
        prepare(
            folder / "raw",
            Path(out),
            image_size=SIDE,
            channels=3,
            crop=CROP,
            validation_fraction=0.0,
            test_fraction=0.1,
            max_bad_fraction=0.0,
            seed=0,
            workers=workers,
        )


def torchvision_loader(folder: Path, workers: int) -> None:
    """One pass of a DataLoader over the files."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    steps = [transforms.CenterCrop(CROP), transforms.Resize(SIDE), transforms.ToTensor()]
    dataset = datasets.ImageFolder(str(folder / "faces"), transform=transforms.Compose(steps))
    for _ in DataLoader(dataset, BATCH, num_workers=workers):
        pass


CONTESTANTS = {"atelier": atelier, "torchvision DataLoader": torchvision_loader}


def measure(name: str, folder: Path, workers: int) -> dict[str, float]:
    """Seconds of one contestant's work, on the clock and of all its processes."""
    if name == "atelier":
        pass
    else:
        import torchvision  # noqa: F401 - not in the time
    start, before = time.perf_counter(), os.times()
    CONTESTANTS[name](folder, workers)
    seconds, after = time.perf_counter() - start, os.times()
    return {"seconds": seconds, "cpu": sum(after[:4]) - sum(before[:4])}


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(f"python -m {MODULE}", description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="default: one a core")
    parser.add_argument("--faces", type=Path, default=measuring.find_faces(), help="CelebA's archive of faces")
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.task is not None:
        name, folder, workers = options.task
        print(json.dumps(measure(name, Path(folder), workers)))
        return

    from gan.data.fetching import fetch_source
    from gan.data.sources.source import Request

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        what = measuring.write_faces(folder / "faces/all", options.images, options.faces)
        (folder / "raw").mkdir()
        fetch_source("folder", Request(folder / "faces/all", None, folder), folder / "raw")
        tasks: dict[str, Any] = {name: [name, str(folder), options.workers] for name in CONTESTANTS}
        found = measuring.alternate(
            {name: partial(run_task, MODULE, task, memory=True) for name, task in tasks.items()}, options.rounds
        )
    print(measuring.describe_machine())
    print(
        f"{options.images} {what}, 178x218, to {SIDE}x{SIDE}; {options.workers} workers, {options.rounds} rounds, "
        f"torchvision {version('torchvision')}\n"
    )
    columns = ("", "images/s", "times atelier's time (spread)", "ms of CPU an image", "peak MB")
    print(
        measuring.table(columns, [_row(name, runs, found["atelier"], options.images) for name, runs in found.items()])
    )


def _row(name: str, runs: Sequence[Finished], ours: Sequence[Finished], images: int) -> tuple[str, ...]:
    seconds = [run.value["seconds"] for run in runs]
    times = spread(ratios(seconds, [run.value["seconds"] for run in ours]))
    cpu = statistics.median(run.value["cpu"] for run in runs)
    peak = max(run.peak_mb for run in runs)
    return name, f"{images / statistics.median(seconds):,.0f}", times, f"{1000 * cpu / images:.2f}", f"{peak:.0f}"


if __name__ == "__main__":
    main(sys.argv[1:])
