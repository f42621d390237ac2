"""Memory that runs out, as each library and the system say it: one line with what to lower, and nothing lost."""

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gan.data.decoding import convert_image
from gan.errors import InputError, find_no_room, is_no_memory
from stages.stage import LOWER, _explain
from tests.pipeline.accidents import half_written, needs, one_line, run_stage
from tests.project import Project


def of_a_gpu() -> Exception:
    import torch

    return torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has …")


def of_torch() -> Exception:
    import torch

    try:
        torch.empty(2**48, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError


def of_numpy() -> Exception:
    try:
        np.zeros((2**24, 2**24))
    except MemoryError as error:
        return error
    raise AssertionError


def taken_for_damage() -> Exception:
    """As where a reader takes all that a file makes it raise for the file's fault."""
    try:
        try:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        except RuntimeError:
            raise InputError("generator.safetensors is damaged") from None
    except InputError as error:
        return error


SHORT: list[Callable[[], Exception]] = [
    MemoryError,
    of_a_gpu,
    of_torch,
    of_numpy,
    taken_for_damage,
    lambda: OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    lambda: RuntimeError("std::bad_alloc"),
    lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    lambda: RuntimeError("could not create a primitive"),
    lambda: RuntimeError("can't start new thread"),
    lambda: ImportError("libtorch_cpu.so: failed to map segment from shared object"),
]


@pytest.mark.parametrize("make", SHORT)
def test_each_way_to_say_that_memory_ran_out_is_one_line_with_what_to_lower(make: Callable[[], Exception]) -> None:
    assert _explain("train", make()) == (
        "out of memory; lower train.batch_size, generator.base, discriminator.base or data.image_size, or end what "
        "else takes memory, and dvc repro goes on from there"
    )
    assert _explain("report", make()) == "out of memory; end what else takes memory, and dvc repro goes on from there"


def test_what_is_said_to_be_lowered_is_a_parameter(project: Project) -> None:
    for words in LOWER.values():
        for key in words.replace(" or ", ", ").split(", "):
            project.set({key: 64})
    before = (project.path / "params.yaml").read_text().count(":")
    project.run("git", "restore", "params.yaml")
    assert (project.path / "params.yaml").read_text().count(":") == before  # none of them was new


def test_other_errors_are_what_they_were() -> None:
    for error in (RuntimeError("shapes differ"), KeyError("x"), ZeroDivisionError()):
        assert _explain("train", error) is None
        assert not is_no_memory(error)
        assert find_no_room(error) is None
    assert _explain("fetch", InputError("data.path: none")) == "data.path: none"
    assert _explain("fetch", OSError(errno.EACCES, "Permission denied", "data/raw")) == "data/raw: Permission denied"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_from_other_errors_and_names_what_was_written(number: int) -> None:
    said = os.strerror(number)
    assert find_no_room(OSError(number, said)) == said
    assert find_no_room(OSError(number, said, "digits/a.gz", None, "data/raw/a.gz")) == f"{said}: data/raw/a.gz"
    assert find_no_room(RuntimeError(f"I/O error: {said} (os error {number})")) == said
    assert find_no_room(OSError(errno.EACCES, "Permission denied")) is None


def test_an_image_is_not_left_out_for_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", no_memory)
    with pytest.raises(MemoryError):
        convert_image(b"an image", image_size=32, channels=1, crop=None)


def test_a_stage_out_of_memory_ends_in_one_line_without_a_traceback(project: Project) -> None:
    source = project.path / "stages/report.py"
    text = source.read_text()
    changed = text.replace("    from gan.data.packed import read_manifest\n", "    bytearray(2**62)\n", 1)
    assert changed != text
    source.write_text(changed)
    before = project.contents("data", "results")
    assert one_line(run_stage(project, "report"), "report").startswith("out of memory; ")
    assert project.contents("data", "results") == before
    assert not half_written(project)


GREEDY = {
    "train": {"train.batch_size": 250, "generator.base": 128, "discriminator.base": 128},
    "sample": {"sample.count": 65536, "sample.batch_size": 65536},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "sample"])
def test_a_limit_of_memory_is_one_line_and_saner_parameters_end_well(name: str, project: Project) -> None:
    limit = address_space(project) + 700 * 2**20
    limited = ("prlimit", f"--as={limit}")
    needs(*limited, "true")
    before = project.contents("data", "results")
    project.set(GREEDY[name])
    said = one_line(run_stage(project, name, *limited), name)
    assert said.startswith(f"out of memory; lower {LOWER[name].split(',')[0].split(' or ')[0]}")
    assert project.contents("data", "results") == before
    assert not half_written(project)
    project.run("git", "restore", "params.yaml")
    assert run_stage(project, name).returncode == 0
    assert project.contents("data", "results") == before


def address_space(project: Project) -> int:
    """Bytes of addresses that a stage takes before it has done anything."""
    program = "import torch, torchvision, scipy.linalg, torch.utils.tensorboard\n"
    program += "print(next(l for l in open('/proc/self/status') if l.startswith('VmPeak')).split()[1])"
    return int(project.run("python", "-c", program).split()[-1]) * 1024


@pytest.mark.slow
def test_a_training_that_the_system_kills_is_named_and_goes_on_with_the_next_repro(project: Project) -> None:
    project.set({"train.epochs": 30, "train.checkpoint_steps": 1})
    process = subprocess.Popen(
        ["dvc", "repro", "train"],
        cwd=project.path,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.kill(child(project.path, "stages.train", lambda: any((project.path / ".atelier/runs").glob("*/*.pt"))), 9)
    output, _ = process.communicate()
    assert "failed to reproduce 'train': failed to run: exec python -m stages.train, exited with -9" in output
    assert "Traceback" not in output
    assert "going on from step" in project.run("dvc", "repro", "train")


@pytest.mark.slow
def test_a_killed_worker_of_prepare_is_one_line(project: Project) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors")
    folder = project.path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(1500):
        Image.fromarray(rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    project.set({"data.source": "folder", "data.path": "pictures"})
    project.run("dvc", "repro", "fetch")
    process = subprocess.Popen(
        ["python", "-m", "stages.prepare"],
        cwd=project.path,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.kill(child(project.path, "spawn_main"), signal.SIGKILL)
    said = one_line(subprocess.CompletedProcess([], process.wait(), *process.communicate()), "prepare")
    assert said.startswith("a process that decodes images was ended from outside, as when memory is full, or by a file")
    assert not half_written(project)
    project.run("dvc", "repro", "prepare")


def child(folder: Path, words: str, ready: Callable[[], bool] = lambda: True) -> int:
    """A process that works in the folder, with these words in its command line, once it is there and `ready`."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        for place in Path("/proc").glob("[0-9]*"):
            try:
                found = words.encode() in (place / "cmdline").read_bytes() and (place / "cwd").readlink() == folder
            except OSError:
                continue
            if found and ready():
                return int(place.name)
        time.sleep(0.05)
    raise AssertionError(f"no {words}")
