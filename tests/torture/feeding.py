"""Feeds files from outside to the real functions that read such files, in a process of its own.

That process may write nothing to stderr and nothing outside its box.
"""

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

MESSAGE = 2000
"""Characters of a refusal, at most."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
WITH_TORCH = ("generator", "weights", "any weights")
"""Kinds whose readers take torch."""
ACTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect")
"""What auditing calls changes of the file system, and what no reader of data has to do."""
LENIENT: dict[str, Any] = {
    "image_size": 32,
    "channels": 3,
    "crop": None,
    "validation_fraction": 0.0,
    "test_fraction": 0.0,
    "max_bad_fraction": 0.9,
    "seed": 0,
    "workers": 1,
}


@dataclass
class Outcome:
    """What became of one case."""

    name: str
    accepted: bool = True
    faults: list[str] = field(default_factory=list)
    message: str = ""
    """The refusal."""
    seconds: float = 0.0
    """Processor time of the slowest of its calls."""
    peak: int = 0
    """Most memory that this process held meanwhile, in bytes."""


def serve(pipe: Connection, box: Path, *, with_torch: bool) -> None:
    """Feed the cases that come through the pipe, by name and kind, and answer with their outcomes, until it closes."""
    if with_torch:
        warm_up()
    said = box.with_suffix(".stderr")
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.chdir(box)
    os.environ["TMPDIR"] = str(box)
    logging.basicConfig(level=logging.WARNING)
    forbid_all_else(box)
    with suppress(EOFError):
        while True:
            length = said.stat().st_size
            name, kind = pipe.recv()
            outcome = feed(name, kind, box)
            if said.stat().st_size > length:
                outcome.faults.append(f"on stderr: {said.read_bytes()[length:][:500]!r}")
            pipe.send(outcome)


def warm_up() -> None:
    """Let torch do what it does when it is first used, such as asking where the system's libraries are."""
    import torch

    from gan.metrics import inception_v3, squeezenet
    from gan.networks.build import build_generator

    torch.set_num_threads(1)
    build_generator("dcgan", 1, 1, [], "plain", 32, 1).load_state_dict(
        build_generator("dcgan", 1, 1, [], "plain", 32, 1).state_dict()
    )
    with torch.device("meta"):
        build_generator("dcgan", 1, 1, [], "plain", 32, 1)
    squeezenet._empty_network()
    inception_v3._empty_network("fid")


def feed(name: str, kind: str, box: Path) -> Outcome:
    """Hand `box/input`, which is of the `kind`, to all that reads it."""
    outcome = Outcome(name)
    violations.clear()
    Path("/proc/self/clear_refs").write_text("5")  # from here on the peak is this case's
    for step in steps(kind, box / "input", box):
        began = time.process_time()
        try:
            step()
        except BaseException as error:  # noqa: BLE001 - whatever is raised, the next case comes
            outcome.accepted = False
            outcome.message = str(error)
            outcome.faults += wrong_with(error)
        outcome.seconds = max(outcome.seconds, time.process_time() - began)
    [peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    outcome.peak = int(peak.split()[1]) * 1024
    outcome.faults += sorted(violations)
    return outcome


def wrong_with(error: BaseException) -> list[str]:
    """What is not as it should be in a refusal."""
    from gan.errors import InputError

    message = str(error)
    faults = []
    if not isinstance(error, InputError):
        faults.append(
            f"{type(error).__name__} instead of InputError: {''.join(traceback.format_exception(error))[-2000:]}"
        )
    if not message.isprintable():
        faults.append(f"not one plain line: {message[:200]!r}")
    if len(message) > MESSAGE:
        faults.append(f"{len(message)} characters")
    return faults


def steps(kind: str, given: Path, box: Path) -> Iterator[Callable[[], object]]:  # noqa: C901, PLR0912
    """What reads a kind of input, each ready to be called; one may need what the one before it has written."""
    fetched = box / "raw/source.json"
    match kind:
        case "images" | "zip":
            path = given / "given.zip" if kind == "zip" else given
            yield lambda: fetch("folder", path, box)
            if fetched.exists():
                yield lambda: prepare(box, LENIENT)
                yield lambda: prepare(box, LENIENT | {"channels": 1, "max_bad_fraction": 0.0})
            yield lambda: samples(path, 1)
            yield lambda: samples(path, 3)
        case "images side by side":
            yield lambda: fetch("folder", given, box)
            yield lambda: prepare(box, LENIENT | {"workers": 2})
        case "celeba":
            yield lambda: fetch("celeba", given, box)
            if fetched.exists():
                yield lambda: prepare(box, LENIENT | {"attribute": "Smiling"})
        case "idx":
            yield lambda: fetch("idx", given, box)
            if fetched.exists():
                yield lambda: prepare(box, LENIENT)
        case "csv":
            yield lambda: fetch_digits(given / "mnist_5k.csv.gz", box)
            if fetched.exists():
                yield lambda: prepare(box, LENIENT)
        case "generator":
            yield lambda: load_generator(given / "g.safetensors")
        case "weights" | "any weights":
            yield lambda: load_weights(given / "w.pth", every=kind == "any weights")
        case "records":
            yield from records(given)
        case _:
            raise ValueError(kind)


def fetch(source: str, given: Path, box: Path) -> None:
    from gan.data.fetching import fetch_source
    from gan.data.sources.source import Request

    with new_folder(box / "raw") as raw:
        fetch_source(source, Request(given, None, box / "downloads"), raw)


def prepare(box: Path, settings: dict[str, Any]) -> None:
    from gan.data.preparation import prepare as real

    with new_folder(box / "prepared") as out:
        real(box / "raw", out, **settings)


def samples(path: Path, channels: int) -> None:
    from gan.data.given import open_samples

    with open_samples(path, 32, channels, seed=0) as (_, images):
        for _ in images:
            pass


def fetch_digits(file: Path, box: Path) -> None:
    from unittest import mock

    from gan.data.sources import mnist_5k

    with mock.patch.object(mnist_5k, "_find", return_value=file):
        fetch("mnist-5k", box, box)


def load_generator(file: Path) -> None:
    import torch

    from gan.networks.build import load_generator as real

    real(file, torch.device("cpu"))


def load_weights(file: Path, *, every: bool) -> None:
    from gan.metrics.inception_v3 import read_inception_weights
    from gan.metrics.squeezenet import read_weights

    if every:
        read_inception_weights(file)
    read_weights(file)


def records(given: Path) -> Iterator[Callable[[], object]]:
    from gan.data.packed import read_images, read_labels, read_manifest
    from gan.data.sources.source import read_record

    yield lambda: read_record(given)
    yield lambda: read_manifest(given)
    yield lambda: read_images(given, "train")
    yield lambda: read_labels(given, "train")


def new_folder(path: Path) -> AbstractContextManager[Path]:
    from stages.stage import new_folder as real

    return real(path)


violations: set[str] = set()
"""What this process did that it should not have."""


def forbid_all_else(box: Path) -> None:
    """From now on note each change of the file system outside `box`, and each act that reading data does not need."""
    inside = f"{box.resolve()}{os.sep}"

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(path, int) and flags & WRITING:
                note(event, path)
        elif event in CHANGES:
            for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
                note(event, path)
        elif event in ACTS:
            violations.add(f"{event} {arguments!r}"[:300])

    def note(event: str, path: Any) -> None:
        if isinstance(path, int) or os.fsdecode(path) in ("/proc/self/clear_refs", os.devnull):
            return
        # The folder as it really is, but the entry itself, which may be a link.
        if not f"{os.path.realpath(Path.cwd() / Path(os.fsdecode(path)).parent)}{os.sep}".startswith(inside):
            violations.add(f"{event} outside: {path!r}"[:300])

    sys.addaudithook(audit)
