"""What the benchmarks share: processes of their own, rounds in alternation, medians, and tables.

Import nothing heavy here: the math libraries read their settings from the environment once, when they are imported.
"""

import datetime as dt
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from gan.documents import parse_document, read_document
from gan.errors import InputError
from gan.params import Params, check_params

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gan.data.packed import Images

ROOT = Path(__file__).parents[1]
POLL_SECONDS = 0.2  # to look takes milliseconds a process
ARITHMETIC = ("ATEN_", "DNNL_", "GOMP_", "KMP_", "MKL_", "NPY_", "OMP_", "ONEDNN_", "OPENBLAS_")
"""How variables begin that change kernels and threads, which no contestant shall have from the shell."""
Found = TypeVar("Found")


@dataclass(frozen=True)
class Finished:
    """A process that has ended well."""

    seconds: float
    """From its start to its end."""
    peak_mb: float
    """Largest memory of it and its workers together, pages that they share counted once; 0 if nobody looked."""
    value: Any
    """What it printed last, as JSON; None if it was not JSON."""


def run_process(
    command: Sequence[str], environment: Mapping[str, str] | None = None, folder: Path = ROOT, *, memory: bool = False
) -> Finished:
    """Run a command in `folder` to its end. Exits, showing what it said, where it fails.

    memory: whether to look at its memory, which takes time itself.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ARITHMETIC)}
    peak, ended = 0.0, threading.Event()
    start = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=folder,
        env=kept | dict(environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:

        def watch() -> None:
            nonlocal peak
            while memory and not ended.wait(POLL_SECONDS):
                peak = max(peak, _memory_mb(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        output, said = process.communicate()
        seconds = time.perf_counter() - start
        ended.set()
        watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{output}{said}")
    try:
        value = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        value = None
    return Finished(seconds, peak, value)


def _memory_mb(pid: int) -> float:
    """Of a process and its descendants."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0.0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # ended meanwhile
            continue
    return total / 1e6


def run_task(module: str, task: Any, words: Sequence[str] = (), *, memory: bool = False) -> Finished:  # noqa: ANN401 (JSON)
    """Have a benchmark's module do a part of its work in a process of its own: `python -m MODULE --task JSON`."""
    command = [sys.executable, "-W", "ignore", "-m", module, *words, "--task", json.dumps(task)]
    return run_process(command, memory=memory)


def alternate(contestants: Mapping[str, Callable[[], Found]], rounds: int) -> dict[str, list[Found]]:
    """What each contestant returns, round after round; every second round goes through them backwards."""
    found: dict[str, list[Found]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name in list(contestants)[:: -1 if number % 2 else 1]:
            found[name].append(contestants[name]())
    return found


def ratios(theirs: Iterable[float], ours: Iterable[float]) -> list[float]:
    """Their time over ours, round by round: above 1, ours is faster."""
    return [one / other for one, other in zip(theirs, ours, strict=True)]


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """The median, and from where to where the values go."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def describe_machine(device: str = "cpu") -> str:
    """One line on what was measured where and when."""
    parts = [_processor(), f"{len(os.sched_getaffinity(0))} cores"]
    if device == "cuda":
        import torch

        parts = [torch.cuda.get_device_name(), f"CUDA {torch.version.cuda}", *parts]
    today = dt.datetime.now(dt.UTC).date()
    return ", ".join([*parts, f"Python {platform.python_version()}", f"torch {version('torch')}", str(today)])


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return f"{name or platform.machine()} {'with' if 'avx512f' in flags else 'without'} AVX-512"


def find_device() -> str:
    """`cuda` where PyTorch finds a GPU, asked in another process, and `cpu` elsewhere."""
    code = "import json, torch; print(json.dumps('cuda' if torch.cuda.is_available() else 'cpu'))"
    return str(run_process([sys.executable, "-c", code]).value)


def read_experiment(name: str, changes: Sequence[str] = ()) -> Params:
    """The parameters of an experiment of experiments.yaml, and then `changes`, each KEY=VALUE.

    Raises InputError for an unknown experiment, and for what the schema refuses.
    """
    experiments = read_document(ROOT / "experiments.yaml")
    if name not in experiments:
        raise InputError(f"no experiment is named {name!r}; experiments.yaml has {', '.join(experiments)}")
    values = read_document(ROOT / "params.yaml")
    settings = dict(experiments[name]["set"])
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise InputError(f"{change!r} is not KEY=VALUE, as in hardware.cpu_isa=native")
        settings[key] = parse_document(value, key)
    for key, value in settings.items():
        section, _, leaf = key.rpartition(".")
        (values.setdefault(section, {}) if section else values)[leaf] = value
    return check_params(values, name)


def build_networks(params: Params) -> "tuple[nn.Module, nn.Module]":
    """Generator and discriminator with their initial weights, as the stage `train` makes them."""
    from gan.networks.build import (
        add_spectral_norm,
        build_discriminator,
        build_generator,
        initialise,
        scale_right_branches,
    )

    shape = {"image_size": params.data.image_size, "channels": params.data.channels}
    initial = {"init", "init_std", "bn_mean", "right_scale"}
    generator = build_generator(**params.generator.model_dump(exclude=initial) | shape)
    discriminator = build_discriminator(**params.discriminator.model_dump(exclude=initial) | shape)
    for seed, (network, section) in enumerate(((generator, params.generator), (discriminator, params.discriminator))):
        initialise(network, section.init, section.init_std, section.bn_mean, seed)
    scale_right_branches(generator, params.generator.right_scale)
    if params.discriminator.norm == "spectral":
        add_spectral_norm(discriminator, 2)
    return generator, discriminator


def random_images(params: Params, count: int) -> "Images":
    """`count` images of the experiment's size and channels."""
    import numpy as np

    side = params.data.image_size
    return np.random.default_rng(0).integers(0, 256, (count, side, side, params.data.channels), np.uint8)


def train_ours(
    params: Params,
    images: "Images",
    generator: "nn.Module",
    discriminator: "nn.Module",
    first_block: "nn.Module",
    folder: Path,
    on_keep: "Callable[[int, nn.Module, nn.Module | None], None]" = lambda *_: None,
) -> None:
    """The project's own training, checkpoints and TensorBoard's events in `folder`."""
    from gan.training.loop import train

    (folder / "recovery").mkdir()
    train(
        images,
        generator,
        discriminator,
        params.train,
        first_block=first_block,
        z_dim=params.generator.z_dim,
        seed=params.seed,
        device=open_device(params),
        low_precision=params.hardware.precision == "bfloat16",
        compiled=params.hardware.compile,
        recovery=folder / "recovery",
        events=folder / "events",
        on_keep=on_keep,
        on_curves=lambda _: None,
    )


def open_device(params: Params) -> "torch.device":
    """The device of the project's own stages under these parameters."""
    from gan import device

    hardware = params.hardware
    tf32 = hardware.precision == "tf32"
    return device.open_device(hardware.device, hardware.threads, hardware.deterministic, tf32=tf32)


def synchronise(device: "torch.device") -> None:
    """Wait until a GPU has done all that it was given."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def find_faces() -> Path | None:
    """CelebA's archive, or a part of it, in `../shared/data/celeba` beside the checkout; None where it is not."""
    path = ROOT.parent / "shared/data/celeba/img_align_celeba.zip"
    return path if path.is_file() else None


def write_faces(folder: Path, count: int, archive: Path | None) -> str:
    """Write `count` JPEG files of CelebA's size, 178x218, into `folder`; returns in words what they are.

    Faces of `archive`, again and again if it has fewer, or else smooth random images of about the same weight in bytes.
    """
    import io
    import zipfile

    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    if archive is not None:
        with zipfile.ZipFile(archive) as file:
            names = sorted(name for name in file.namelist() if name.endswith(".jpg"))
            for index in range(count):
                (folder / f"{index:06}.jpg").write_bytes(file.read(names[index % len(names)]))
        return f"faces of CelebA ({min(count, len(names))} different ones)"
    random = np.random.default_rng(0)
    for index in range(count):
        small = Image.fromarray(random.integers(0, 256, (27, 22, 3), np.uint8))
        encoded = io.BytesIO()
        small.resize((178, 218), Image.Resampling.BICUBIC).save(encoded, "JPEG", quality=75)
        (folder / f"{index:06}.jpg").write_bytes(encoded.getvalue())
    return "synthetic JPEGs"
