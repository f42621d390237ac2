"""What `benchmarks.growth` measures: for each part, what is made for a size, and what is then timed."""

import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import chdir, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gan.data.packed import Images

ROOT = Path(__file__).parents[1]
CORES = len(os.sched_getaffinity(0))

ALL, AN_IMAGE = "all", "an image"
Seconds = dict[str, float]
"""Times by what took them."""


@dataclass(frozen=True)
class Part:
    """A cost that grows with a size."""

    title: str
    size: str
    """What the size counts."""
    sizes: tuple[int, ...]
    per: str
    """What the seconds are for."""
    make: Callable[[int, Path], None]
    """Prepares a size in an empty folder; not timed."""
    run: Callable[[int, Path, str], Seconds]
    """Does it, in a process of its own, in one of the ways."""
    ways: tuple[str, ...] = ("",)
    limit: int = 0
    """Bytes of memory that the processes have, with the system's pages of files; 0: all that there is."""


# Images through prepare


def make_zip(size: int, folder: Path) -> None:
    """A zip of so many PNG files of 32x32 in ten classes, of a hundred different ones."""
    from PIL import Image

    from gan.data.sources.source import Record, write_record

    files = []
    for pixels in np.random.default_rng(0).integers(0, 256, (100, 32, 32), np.uint8):
        file = BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        files.append(file.getvalue())
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for index in range(size):
            archive.writestr(zipfile.ZipInfo(f"{index % 10}/{index:07}.png"), files[index % len(files)])
    write_record(folder, Record("folder", {"images.zip": "0" * 32}))


def make_idx(size: int, folder: Path) -> None:
    """So many digits' worth of noise in MNIST's format."""
    from gan.data.sources.source import Record, write_record

    random = np.random.default_rng(0)
    with (folder / "train-images-idx3-ubyte").open("wb") as file:
        file.write(struct.pack(">4I", 2051, size, 28, 28))
        for start in range(0, size, 1000):
            file.write(random.bytes(min(1000, size - start) * 28 * 28))
    labels = (np.arange(size) % 10).astype(np.uint8)
    (folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, size) + labels.tobytes())
    write_record(folder, Record("idx", {}))


def run_prepare(size: int, folder: Path, _: str) -> Seconds:
    """All that the stage does."""
    from gan.data.packed import read_manifest
    from gan.data.preparation import prepare

    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        start = time.perf_counter()
        prepare(
            folder,
            Path(temporary),
            image_size=32,
            channels=1,
            crop=None,
            validation_fraction=0.05,
            test_fraction=0.1,
            max_bad_fraction=0.0,
            seed=0,
            workers=CORES,
        )
        seconds = time.perf_counter() - start
        assert sum(split.count for split in read_manifest(Path(temporary)).splits.values()) == size
    return {"prepare": seconds}


# Samples through evaluate

REAL_IMAGES = 10_000


def make_samples(size: int, folder: Path) -> None:
    """The stage's inputs: squares on noise as real images and samples, and a classifier of them after one epoch."""
    from stages.reference import reference
    from tests.stages.small_run import marked_squares, write_prepared, write_trained
    from tests.stages.test_evaluate import write_samples

    with chdir(folder):
        write_prepared(train=REAL_IMAGES, test=REAL_IMAGES // 5)
        reference(_evaluated())
        write_trained()
        write_samples(marked_squares(size, 9)[0])


def run_evaluate(size: int, folder: Path, _: str) -> Seconds:
    """Its two large shares by themselves, and then the whole stage."""
    import torch

    from gan import metrics
    from gan.data.batches import packed_batches
    from gan.data.packed import read_images
    from gan.metrics.extractors import describe, load_extractors
    from gan.metrics.scores import read_real
    from stages.evaluate import evaluate
    from stages.layout import REFERENCE, SAMPLES

    torch.set_num_threads(CORES)
    cpu = torch.device("cpu")
    with chdir(folder):
        start = time.perf_counter()
        extractors = load_extractors("classifier", REFERENCE, [cpu])
        batches = packed_batches(read_images(SAMPLES, "images"), extractors[cpu].batch, cpu)
        features, probabilities = describe(extractors, batches, size, lambda _: None)
        described = time.perf_counter()
        real = read_real(REFERENCE, "train")
        metrics.score(features, probabilities, real, label="classifier", splits=10, seed=0)
        scored = time.perf_counter()
        evaluate(_evaluated())
        end = time.perf_counter()
    return {"features": described - start, "scores": scored - described, "the whole stage": end - scored}


def _evaluated() -> Any:  # noqa: ANN401 - Params, whose module is imported only where it is used
    from tests.stages.small_run import small_params

    params = small_params(trajectory=0)
    reference = params.reference.model_copy(update={"images": REAL_IMAGES, "epochs": 1, "batch_size": 100})
    hardware = params.hardware.model_copy(update={"threads": CORES})
    return params.model_copy(update={"reference": reference, "hardware": hardware})


# Training

TRAINED_IMAGES = 1024


def make_nothing(_: int, __: Path) -> None:
    """All is made where it is measured."""


def run_side(side: int, folder: Path, _: str) -> Seconds:
    """Training on images of this side, 16 at a time."""
    return {
        "training": _seconds_an_image(
            folder, side=side, batch_size=16, images=max(64, TRAINED_IMAGES * 32 // side**2 * 32)
        )
    }


def run_batch(batch_size: int, folder: Path, _: str) -> Seconds:
    """Training on images of 32x32, so many at a time."""
    return {"training": _seconds_an_image(folder, side=32, batch_size=batch_size, images=4 * TRAINED_IMAGES)}


def _seconds_an_image(folder: Path, *, side: int, batch_size: int, images: int) -> float:
    from benchmarks.measuring import build_networks, random_images, read_experiment, train_ours
    from gan.networks.build import first_block

    narrow = ("generator.base=16", "discriminator.base=16", "data.channels=3", f"data.image_size={side}")
    rare = ("train.keep=0", "train.checkpoint_seconds=0", "train.grid_every=1000000000", "train.epochs=1")
    params = read_experiment("mnist-quick", (*narrow, *rare, f"train.batch_size={batch_size}"))
    pixels = random_images(params, images)

    def seconds(count: int) -> float:
        generator, discriminator = build_networks(params)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            start = time.perf_counter()
            train_ours(params, pixels[:count], generator, discriminator, first_block(generator), Path(temporary))
            return time.perf_counter() - start

    seconds(batch_size)  # warms up, and costs what each run does once: the last checkpoint, the last grid
    once = seconds(batch_size)
    return (seconds(images) - once) / (images - batch_size)


# Experiments


def make_experiments(size: int, folder: Path) -> None:
    """A clone of this repository's commit, with so many experiments that differ in a rate and their scores."""
    _git(folder, "clone", "--quiet", "--shared", str(ROOT), ".")
    head = _git(folder, "rev-parse", "HEAD").strip()
    params = (folder / "params.yaml").read_text()
    scores = json.loads((folder / "results/scores.json").read_text())
    stream = []
    for number in range(size):
        scores["inception_score"] = 5 + number / 100
        files = {
            "params.yaml": params.replace("lr_d: 0.001", f"lr_d: {0.001 + number / 1e6:.6f}"),
            "results/scores.json": json.dumps(scores),
        }
        name = f"refs/exps/{head[:2]}/{head[2:]}/experiment-{number}"
        stream += [f"commit {name}", "committer A <a@example.com> 0 +0000", "data 0", f"from {head}"]
        for path, text in files.items():
            stream += [f"M 100644 inline {path}", f"data {len(text.encode())}", text]
    _git(folder, "fast-import", "--quiet", given="\n".join([*stream, ""]))


def run_show(_: int, folder: Path, __: str) -> Seconds:
    """`dvc exp show`, and the same again."""
    seconds = {}
    for name in ("dvc exp show", "once more"):
        start = time.perf_counter()
        shown = _run(folder, "dvc", "exp", "show", "--csv")
        seconds[name] = time.perf_counter() - start
        assert shown.count("\n") > 1
    return seconds


def make_results(size: int, folder: Path) -> None:
    """What the comparison page is drawn from."""
    from tests.stages.comparison_runs import entry, scores_of, write_comparison

    entries = [
        entry(f"experiment-{number}", scores_of(1 + number / 100, 0.05), train__lr_d=0.001 + number / 1e6)
        for number in range(size)
    ]
    write_comparison(folder / "given", entries)


def run_page(_: int, folder: Path, __: str) -> Seconds:
    """`python -m stages.comparison`: the page, once all results are at hand."""
    start = time.perf_counter()
    _run(folder, sys.executable, "-m", "stages.comparison", "given")
    return {"the page": time.perf_counter() - start}


def make_compared(size: int, folder: Path) -> None:
    """A repository with so many experiments whose results git holds, beside the project's code."""
    from tests.stages.comparison_runs import scores_of, write_run

    for name in ("params.yaml", "experiments.yaml"):
        (folder / name).write_text((ROOT / name).read_text())
    (folder / "dvc.yaml").write_text("stages: {}\n")
    (folder / ".gitignore").write_text("flows\nstages\ngan\n.atelier\nresults/comparison\n")
    for name in ("flows", "stages", "gan"):
        (folder / name).symlink_to(ROOT / name)
    _git(folder, "init", "--quiet")
    _git(folder, "config", "user.name", "A")
    _git(folder, "config", "user.email", "a@example.com")
    _run(folder, "dvc", "init", "--quiet")
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message=base")
    head = _git(folder, "rev-parse", "HEAD").strip()
    for number in range(size):
        _git(folder, "checkout", "--quiet", "--detach", head)
        write_run(folder / "results", scores_of(1 + number / 100, 0.05), end=1.0, seed=number, noise=5.0)
        _git(folder, "add", "--all", "--force", "results")
        _git(folder, "commit", "--quiet", f"--message={number}")
        _git(folder, "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/experiment-{number}", "HEAD")
    _git(folder, "checkout", "--quiet", "--detach", head)


def run_compare(size: int, folder: Path, _: str) -> Seconds:
    """`python -m flows.comparison`: results brought out of the commits, and the page."""
    start = time.perf_counter()
    names = [f"experiment-{number}" for number in range(size)]
    _run(folder, sys.executable, "-m", "flows.comparison", *names)
    return {"flows.comparison": time.perf_counter() - start}


def _git(folder: Path, *words: str, given: str = "") -> str:
    return _run(folder, "git", *words, given=given)


def _run(folder: Path, *command: str, given: str = "") -> str:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ATELIER_", "DVC_", "GIT_"))}
    environment = kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        command, cwd=folder, env=environment, input=given, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise SystemExit(f"{' '.join(command)[:200]}: {result.stdout}{result.stderr}")
    return result.stdout


# Batches out of a file

STREAMED_BYTES = 2**30
"""Of the file whose images are read in a random order."""
USED_BYTES = 2**26
"""What of it is read, in batches."""
STREAMED_BATCH = 64
IN_MEMORY, FILE, MAP = "held in memory", "streamed", "by the memory map"
CACHED = ", cached by the system"


def make_large(side: int, folder: Path) -> None:
    """A file of noise."""
    _write_noise(folder, STREAMED_BYTES, side)


def _write_noise(folder: Path, size: int, side: int) -> None:
    """The training split: images of this side, of so many bytes."""
    shape = (size // (3 * side**2), side, side, 3)
    images = np.lib.format.open_memmap(folder / "train.npy", mode="w+", dtype=np.uint8, shape=shape)
    random, step = np.random.default_rng(0), 2**24 // (3 * side**2)
    for start in range(0, len(images), step):
        part = images[start : start + step]
        part[:] = np.frombuffer(random.bytes(part.size), np.uint8).reshape(part.shape)
    images.flush()


def run_batches(side: int, folder: Path, way: str) -> Seconds:
    """Seconds an image, of a file that the system has cached or none of which is in memory."""
    from gan.data.batches import epoch_order
    from gan.data.packed import read_images

    if not way.endswith(CACHED):
        _forget(folder / "train.npy")
    images = read_images(folder, "train")
    used = USED_BYTES // (3 * side**2)
    if way == IN_MEMORY:
        images = np.array(images[: 2 * used])
    if way.endswith(CACHED):
        np.array(images[np.sort(epoch_order(len(images), 0, 0)[:used])]).sum()
    return {way: _seconds_a_read_image(images, used // STREAMED_BATCH, way)}


def _seconds_a_read_image(images: "Images", steps: int, way: str) -> float:
    """Over so many batches in a random order, of which every byte is looked at, as a step would."""
    import torch

    from gan.data import batches

    order = batches.epoch_order(len(images), 0, 0)
    if way.startswith(MAP):
        start = time.perf_counter()
        for step in range(steps):
            images[order[step * STREAMED_BATCH : (step + 1) * STREAMED_BATCH]].max()
        return (time.perf_counter() - start) / (steps * STREAMED_BATCH)
    batches.RESIDENT_BYTES = images.nbytes if way == IN_MEMORY else 0
    with batches.training_batches(images, lambda _: order, 0, STREAMED_BATCH, torch.device("cpu")) as stream:
        start = time.perf_counter()
        for _ in range(steps):
            next(stream).numpy().max()
        return (time.perf_counter() - start) / (steps * STREAMED_BATCH)


def _forget(path: Path) -> None:
    """Have the system give up what it holds of a file in memory."""
    with path.open("rb") as file:
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# Data sets larger than memory

LIMIT = 10**9
LIMITED_SIDE = 128
TIMED_STEPS = 100
TRAINING = "training"


def make_file(size: int, folder: Path) -> None:
    """A file of so many megabytes."""
    _write_noise(folder, size * 10**6, LIMITED_SIDE)


def run_limited(_: int, folder: Path, way: str) -> Seconds:
    """Seconds an image where the whole file was read once: as in a second epoch, memory is full of what it can hold."""
    from gan.data.packed import read_images

    _read_from_disk(folder / "train.npy")
    images = read_images(folder, "train")
    if way == TRAINING:
        return {way: _seconds_a_trained_image(images, folder)}
    return {way: _seconds_a_read_image(images, TIMED_STEPS, way)}


def _read_from_disk(path: Path) -> None:
    """Read a file once from end to end, none of which is in memory before."""

    def read_bytes() -> int:
        lines = Path("/proc/self/io").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])

    _forget(path)
    before = read_bytes()
    with path.open("rb", buffering=0) as file:
        piece = bytearray(2**22)
        while file.readinto(piece):
            continue
    if read_bytes() - before < path.stat().st_size / 2:
        raise SystemExit(f"growth: {path.parent} is not on a disk; set TMPDIR to a folder on one")


class _EnoughError(Exception):
    """Ends a training that has taken all its timed steps."""


def _seconds_a_trained_image(images: "Images", folder: Path) -> float:
    """Of the second hundred steps of a training of small networks."""
    from benchmarks.measuring import build_networks, read_experiment, train_ours
    from gan.networks.build import first_block

    epochs = 2
    total = epochs * (len(images) // STREAMED_BATCH)
    sizes = ("generator.base=4", "discriminator.base=4", "data.channels=3", f"data.image_size={LIMITED_SIDE}")
    course = (f"train.batch_size={STREAMED_BATCH}", f"train.epochs={epochs}", f"train.keep={total // TIMED_STEPS}")
    rare = ("train.checkpoint_seconds=0", "train.grid_every=1000000000", "hardware.device=cpu")
    params = read_experiment("mnist-quick", (*sizes, *course, *rare))
    marks: list[tuple[int, float]] = []

    def mark(step: int, *_: object) -> None:
        marks.append((step, time.perf_counter()))
        if len(marks) == 2:
            raise _EnoughError

    generator, discriminator = build_networks(params)
    with tempfile.TemporaryDirectory(dir=folder) as temporary, suppress(_EnoughError):
        train_ours(params, images, generator, discriminator, first_block(generator), Path(temporary), mark)
    (first, start), (last, end) = marks
    return (end - start) / ((last - first) * STREAMED_BATCH)


# What 10⁸ images would need


def run_order(size: int, _: Path, __: str) -> Seconds:
    """The order of an epoch."""
    from gan.data.batches import epoch_order

    start = time.perf_counter()
    epoch_order(size, 0, 0)
    return {"epoch_order": time.perf_counter() - start}


def make_bytes(size: int, folder: Path) -> None:
    """A file of so many megabytes, in a repository of DVC's own."""
    random = np.random.default_rng(0)
    with (folder / "array.npy").open("wb") as file:
        for _ in range(size):
            file.write(random.bytes(10**6))
    _run(folder, "dvc", "init", "--quiet", "--no-scm")


def run_hashing(_: int, folder: Path, __: str) -> Seconds:
    """The digest of a split, and what DVC takes to track it."""
    from gan.data.packed import file_md5

    start = time.perf_counter()
    file_md5(folder / "array.npy")
    hashed = time.perf_counter()
    _run(folder, "dvc", "add", "--quiet", "array.npy")
    return {"file_md5": hashed - start, "dvc add": time.perf_counter() - hashed}


THOUSAND_TO_MILLION = (10**3, 10**4, 10**5, 10**6)
EXPERIMENTS = (2, 10, 50, 200)
SIDES = (32, 64, 128, 256)
FILE_SIZES = (500, 1000, 2000, 4000, 8000)
WAYS = (IN_MEMORY, FILE + CACHED, MAP + CACHED, FILE, MAP)

PARTS = {
    "prepare": Part("Images of a zip through prepare", "images", THOUSAND_TO_MILLION, ALL, make_zip, run_prepare),
    "prepare-idx": Part("MNIST's format through prepare", "images", THOUSAND_TO_MILLION, ALL, make_idx, run_prepare),
    "evaluate": Part("Samples through evaluate", "samples", (10**3, 10**4, 10**5), ALL, make_samples, run_evaluate),
    "side": Part("Image size in training", "pixels a side", SIDES, AN_IMAGE, make_nothing, run_side),
    "batch": Part("Batch size in training", "images a batch", (16, 64, 256, 1024), AN_IMAGE, make_nothing, run_batch),
    "show": Part("dvc exp show", "experiments", (1, *EXPERIMENTS), ALL, make_experiments, run_show),
    "page": Part("The comparison page", "experiments", (1, *EXPERIMENTS), ALL, make_results, run_page),
    "compare": Part("Comparing experiments", "experiments", EXPERIMENTS, ALL, make_compared, run_compare),
    "streaming": Part("Batches out of a file", "pixels a side", SIDES, AN_IMAGE, make_large, run_batches, WAYS),
    "limited": Part(
        "Data sets larger than memory", "MB", FILE_SIZES, AN_IMAGE, make_file, run_limited, (FILE, MAP, TRAINING), LIMIT
    ),
    "order": Part("The order of an epoch", "images", (10**5, 10**6, 10**7, 10**8), ALL, make_nothing, run_order),
    "hashing": Part("Digest of an array", "MB", (1, 10, 100, 1000), ALL, make_bytes, run_hashing),
}
