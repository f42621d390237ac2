"""The same experiments on other machines, emulated: `python -m tests.torture.machines --minutes 20`.

Three tiny experiments that between them use every computing stage (digits by DCGAN and by the original GAN, scored by a
classifier; colour pictures by CSPup, compared pixel by pixel) are run once as a baseline and once on each machine, and
every file that they leave is compared. A machine is made of the switches that libraries, the C library and the kernel
have, or is a whole other processor under QEMU's user emulation (`apt-get install qemu-user`, 10 or newer; without it
those rows are skipped), which has Intel's or AMD's name, other caches and no AVX-512, and computes all in software.

A switch that a stage sets itself is set otherwise in the environment, as a user's shell might have it. Rows that end
in "control" are not expected to be equal: they show that a difference would be seen.
"""

import argparse
import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from flows.differences import leaves, measure, relative
from tests.project import Project, make_project

STAGES = ("check", "fetch", "prepare", "reference", "train", "sample", "evaluate", "report")
OUTPUTS = ("data", "results")
QEMU_THAT_RUNS_TORCH = 10
"""7.2 ends `grid_sample` with a segmentation fault."""

EXPERIMENTS: dict[str, dict[str, object]] = {
    "dcgan": {"generator.base": 4, "discriminator.base": 4},
    "vanilla": {
        "generator.name": "vanilla", "generator.hidden": [64, 128], "discriminator.name": "vanilla",
        "discriminator.norm": "none", "discriminator.hidden": [128, 64], "train.augment": ["translation", "cutout"],
    },
    "cspup": {
        "data.source": "folder", "data.path": "pictures", "data.image_size": 64, "data.channels": 3,
        "generator.name": "cspup", "generator.base": 4, "generator.block": "after", "discriminator.name": "plain",
        "discriminator.norm": "spectral", "discriminator.base": 4, "train.batch_size": 10, "sample.count": 64,
        "train.augment": ["colour"], "evaluate.extractor": "none",
    },
}  # fmt: skip
SHARED: dict[str, object] = {"train.epochs": 1, "hardware.threads": 2}

IN_ONE_PROCESS = f"""
import importlib
import json
from pathlib import Path
from gan.errors import InputError
from gan.params import load_params
from stages.arithmetic import hold_arithmetic
from stages.layout import RECORDS
from stages.record import describe_machine, make_record, read_code, read_data, read_params
from stages.slots import COMPUTING
params = load_params(Path("params.yaml"))
try:
    hold_arithmetic(params.hardware)
except InputError as error:
    raise SystemExit(f"refused: {{error}}")
RECORDS.mkdir(parents=True)
for stage in {STAGES}:
    done = getattr(importlib.import_module("stages." + stage), stage)(params)
    machine = describe_machine(params.hardware, stage in COMPUTING)
    record = make_record(stage, machine, read_data(stage), read_params(stage), read_code(stage))
    (RECORDS / f"{{stage}}.json").write_text(json.dumps([record], indent=2) + "\\n")
    if done is not None:
        done()
"""
"""Each stage as `python -m stages.NAME` runs it, but for the imports, which take minutes under an emulator."""


@dataclass(frozen=True)
class Machine:
    """One row of the table."""

    name: str
    how: str
    prefix: tuple[str, ...] = ()
    """What stands before the command."""
    environment: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, object] = field(default_factory=dict)
    expected: str = "equal"
    """`equal`, `refused` (with one line), or `any`, of a control."""
    one_process: bool = True


def by_environment(name: str, expected: str = "equal", **environment: str) -> Machine:
    """The machine at hand under other variables."""
    return Machine(
        name, " ".join(f"{key}={value}" for key, value in environment.items()), (), environment, {}, expected
    )


def by_tunables(name: str, tunables: str, expected: str = "equal") -> Machine:
    """The machine at hand as the C library is told to see it."""
    return by_environment(name, expected, GLIBC_TUNABLES=tunables)


def by_emulator(qemu: str, cpu: str, expected: str = "equal") -> Machine:
    """A whole other processor."""
    return Machine(f"{cpu}, emulated", f"qemu-x86_64 -cpu {cpu}", (qemu, "-cpu", cpu), {}, {}, expected)


def machines(qemu: str | None) -> list[Machine]:
    """All rows, those that tell most first."""
    core = str(min(os.sched_getaffinity(0)))
    avx512 = ",".join(f"-AVX512{part}" for part in ("F", "VL", "BW", "DQ", "CD"))
    emulated = ("Haswell", "EPYC", "Skylake-Client", "EPYC-Rome", "Broadwell") if qemu else ()
    return [
        Machine("the same again", "a second run"),
        Machine("a process for each stage", "python -m stages.NAME", one_process=False),
        Machine("one core", f"taskset --cpu-list {core}", ("taskset", "--cpu-list", core)),
        *(by_emulator(qemu or "", cpu) for cpu in emulated[:2]),
        *((by_emulator(qemu or "", "Nehalem", "refused"),) if qemu else ()),
        by_environment("numpy told of other kernels", NPY_ENABLE_CPU_FEATURES="X86_V3"),
        by_environment(
            "libraries told of other kernels", ATEN_CPU_CAPABILITY="default", ONEDNN_MAX_CPU_ISA="SSE41",
            DNNL_MAX_CPU_ISA="SSE41", ONEDNN_DEFAULT_FPMATH_MODE="BF16", MKL_CBWR="AUTO",
            MKL_ENABLE_INSTRUCTIONS="SSE4_2", OPENBLAS_CORETYPE="Zen", OPENBLAS_L2_SIZE="512",
        ),
        by_environment(
            "a shell that shares out cores", OMP_NUM_THREADS="64", OMP_THREAD_LIMIT="1", OMP_DYNAMIC="true",
            OMP_PROC_BIND="close", MKL_NUM_THREADS="1", MKL_DYNAMIC="true", MKL_DOMAIN_NUM_THREADS="MKL_BLAS=1",
            OPENBLAS_NUM_THREADS="7", GOMP_SPINCOUNT="0",
        ),
        by_tunables("a C library without AVX-512", f"glibc.cpu.hwcaps={avx512}"),
        by_tunables("a C library without FMA", "glibc.cpu.hwcaps=-FMA", "refused"),
        by_tunables(
            "other caches, for the C library",
            "glibc.cpu.x86_data_cache_size=16384:glibc.cpu.x86_shared_cache_size=262144:"
            "glibc.cpu.x86_non_temporal_threshold=65536",
        ),
        by_environment(
            "other memory", MALLOC_ARENA_MAX="1", MALLOC_PERTURB_="165", MALLOC_MMAP_THRESHOLD_="4096",
            GLIBC_TUNABLES="glibc.malloc.hugetlb=1",
        ),
        Machine("addresses not random", "setarch --addr-no-randomize", ("setarch", "--addr-no-randomize")),
        by_environment("another shell", PYTHONHASHSEED="1", LC_ALL="C", TZ="Asia/Tokyo", COLUMNS="40"),
        *(by_emulator(qemu or "", cpu) for cpu in emulated[2:]),
        Machine("native kernels: control", "hardware.cpu_isa=native", (), {}, {"hardware.cpu_isa": "native"}, "any"),
        Machine("one thread: control", "hardware.threads=1", (), {}, {"hardware.threads": 1}, "any"),
    ]  # fmt: skip


def find_qemu() -> str | None:
    """The emulator, if it is there and new enough; else a line that says what is missing."""
    qemu = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if qemu is None:
        print("no qemu-x86_64 here: whole processors are not emulated", flush=True)
        return None
    said = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)\.", said)
    if found is None or int(found[1]) < QEMU_THAT_RUNS_TORCH:
        print(f"{qemu}: {said.splitlines()[0]}; {QEMU_THAT_RUNS_TORCH} or newer runs PyTorch: left out", flush=True)
        return None
    return qemu


def write_pictures(folder: Path, count: int = 60) -> None:
    """Smooth colour pictures, as JPEG, in two classes."""
    random = np.random.default_rng(0)
    for index in range(count):
        small = Image.fromarray(random.integers(0, 256, (6, 5, 3), np.uint8))
        path = folder / f"class-{index % 2}" / f"{index:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small.resize((89, 109), Image.Resampling.BICUBIC).save(path, quality=90)


def run(template: Path, folder: Path, machine: Machine, seed: int, seconds: float) -> str:
    """Run all experiments on the machine, each in a folder of its own below `folder`; what went wrong, if anything."""
    one = [[sys.executable, "-c", IN_ONE_PROCESS]]
    each = [[sys.executable, "-m", f"stages.{stage}"] for stage in STAGES]
    end = time.monotonic() + seconds
    for name, values in EXPERIMENTS.items():
        project = Project(folder / name)
        shutil.copytree(template, project.path)
        project.set(SHARED | values | {"seed": seed} | dict(machine.params))
        kept = {key: value for key, value in project.environment.items() if not key.startswith("OPENBLAS_")}
        for command in one if machine.one_process else each:
            try:
                result = subprocess.run(
                    [*machine.prefix, *command], cwd=project.path, env=kept | dict(machine.environment), check=False,
                    capture_output=True, text=True, timeout=max(1.0, end - time.monotonic()),
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return f"{name}: not done in time"
            if result.returncode:
                lines = [line for line in result.stderr.splitlines() if "TCG doesn't support" not in line]
                return f"{name}: exit {result.returncode}: {lines[-1] if lines else 'no word'}"
    return ""


def contents(folder: Path) -> dict[str, Path]:
    """Each file that the experiments' stages have left, by name."""
    return {
        str(file.relative_to(folder)): file
        for experiment in EXPERIMENTS
        for outputs in OUTPUTS
        for file in sorted((folder / experiment / outputs).rglob("*"))
        if file.is_file()
    }


def distance(one: Path, other: Path) -> float:
    """The largest difference of two files' numbers, as a share of an array's, or a number's, magnitude."""
    if one.suffix not in READERS:
        return 0.0
    mine, theirs = READERS[one.suffix](one), READERS[one.suffix](other)
    if mine.keys() != theirs.keys():
        return math.inf
    return max((apart(mine[name], theirs[name]) for name in mine), default=0.0)


def apart(one: object, other: object) -> float:
    """Of arrays: by the largest magnitude. Of numbers: by the larger one. Of words: none."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return measure(one, other).relative if one.shape == other.shape else math.inf
    if isinstance(one, int | float) and isinstance(other, int | float):
        return relative(one, other)
    return 0.0


def read_npz(path: Path) -> dict[str, object]:
    """Its arrays."""
    with np.load(path) as file:
        return dict(file)


def read_csv(path: Path) -> dict[str, object]:
    """Its numbers, by their place."""
    with path.open(newline="") as file:
        cells = {
            f"{row},{column}": cell for row, line in enumerate(csv.reader(file)) for column, cell in enumerate(line)
        }
    return {
        place: float(cell) if re.fullmatch(r"[-+.\de]*\d[-+.\de]*", cell) else cell for place, cell in cells.items()
    }


def read_json(path: Path) -> dict[str, object]:
    """Its numbers and words, by their place."""
    return dict(leaves(json.loads(path.read_text())))


READERS: dict[str, Callable[[Path], Mapping[str, object]]] = {
    ".csv": read_csv,
    ".json": read_json,
    ".npy": lambda path: {"": np.load(path)},
    ".npz": read_npz,
    ".png": lambda path: {"": np.asarray(Image.open(path))},
    ".safetensors": load_file,
}


def stage_of(name: str) -> str:
    """The stage that writes the file, an experiment's name before it."""
    experiment, _, file = name.partition("/")
    places = {
        "data/checked": "check", "data/raw": "fetch", "data/prepared": "prepare", "data/reference": "reference",
        "results/reference": "reference", "data/train": "train", "results/train": "train", "results/curves": "train",
        "data/samples": "sample", "results/samples": "sample", "results/report": "report",
    }  # fmt: skip
    found = [stage for place, stage in places.items() if file.startswith(place)]
    return f"{experiment} {found[0] if found else 'evaluate'}"


@dataclass(frozen=True)
class Row:
    """What came of a machine."""

    machine: Machine
    found: str
    largest: str
    held: bool


def compare(machine: Machine, before: Mapping[str, Path], after: Mapping[str, Path]) -> Row:
    """Every file of one run against that of another."""
    differing = [
        name
        for name in sorted({*before, *after})
        if name not in before or name not in after or before[name].read_bytes() != after[name].read_bytes()
    ]
    if not differing:
        return Row(machine, f"all {len(before)} files equal", "0", True)
    stages = dict.fromkeys(map(stage_of, differing))
    found = f"{len(before) - len(differing)} of {len(before)} files equal; others: {', '.join(stages)}"
    largest = max(
        distance(before[name], after[name]) if name in before and name in after else math.inf for name in differing
    )
    return Row(machine, found, f"{largest:.2g}", machine.expected == "any")


def judge(machine: Machine, wrong: str, before: Mapping[str, Path], after: Mapping[str, Path]) -> Row:
    """What is said of a machine, and whether it is what was expected."""
    if machine.expected == "refused":
        return Row(machine, wrong or "not refused", "", "refused: hardware.cpu_isa" in wrong)
    return Row(machine, wrong, "", False) if wrong else compare(machine, before, after)


def table(rows: list[Row], skipped: list[Machine]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| machine | how | outcome | largest relative difference | as expected |"
    yield "|---|---|---|---|---|"
    for row in rows:
        held = "yes" if row.held else "NO"
        yield f"| {row.machine.name} | `{row.machine.how}` | {row.found} | {row.largest} | {held} |"
    for machine in skipped:
        yield f"| {machine.name} | `{machine.how}` | not reached in the time | | |"


def main() -> int:
    """Print progress, then the table; the exit status."""
    parser = argparse.ArgumentParser("python -m tests.torture.machines", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0, help="of the experiments")
    parser.add_argument("--only", default="", help="machines whose names hold this")
    given = parser.parse_args()
    end = time.monotonic() + 60 * given.minutes
    chosen = [machine for machine in machines(find_qemu()) if given.only in machine.name]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="machines-") as temporary:
        template, base = Path(temporary) / "atelier", Path(temporary) / "baseline"
        make_project(template)
        write_pictures(template / "pictures")
        wrong = run(template, base, Machine("baseline", ""), given.seed, 60 * given.minutes)
        if wrong:
            print(f"baseline: {wrong}")
            return 1
        before = contents(base)
        print(f"baseline: {len(before)} files", flush=True)
        for machine in chosen:
            if time.monotonic() > end:
                break
            started, folder = time.monotonic(), Path(temporary) / "machine"
            wrong = run(template, folder, machine, given.seed, end + 30 - started)
            rows.append(judge(machine, wrong, before, contents(folder)))
            print(f"{machine.name}: {rows[-1].found} ({time.monotonic() - started:.0f} s)", flush=True)
            shutil.rmtree(folder)
    print("", *table(rows, chosen[len(rows) :]), "", sep="\n")
    failed = [row for row in rows if not row.held]
    for row in failed:
        again = f"--seed {given.seed} --only '{row.machine.name}'"
        print(f"{row.machine.name}: again with python -m tests.torture.machines {again}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
