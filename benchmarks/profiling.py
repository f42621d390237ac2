"""Where the time of the project's own training goes: by operation, by part of a step, and how long a GPU waits."""

import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import open_device, synchronise, table
from gan.params import Params

if TYPE_CHECKING:
    import torch

Train = Callable[[Params, Path, Callable[..., None]], None]
"""A training in a folder, which calls the last argument with the steps that are done, after each quarter of them."""

SAMPLE_SECONDS = 0.001
LINES = 15
PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("checkpoints", ("gan/training/checkpoints.py", "current_state")),
    ("grids", ("_render", "make_grid", "grid", "add_image")),
    ("curves", ("gan/training/watch.py", "_window", "_summarise", "_refuse_infinite")),
    ("data", ("gan/data/",)),
    (
        "networks",
        (
            "torch/nn/modules/", "torch/nn/parallel/", "torch/autograd/", "torch/optim/", "torch/_dynamo/",
            "torch/_inductor/", "gan/networks/", "gan/training/losses.py", "gan/training/regularisers.py",
            "gan/training/augment.py", "gan/training/average.py",
        ),
    ),
)  # fmt: skip
"""Parts of a step, each by its files and functions; a stack belongs to the first that any of its frames belongs to."""
REST = "measurements, and the rest of the loop"


def part_of(frame: FrameType | None) -> str:
    """The part of a step that a stack belongs to."""
    stack = []
    while frame is not None:
        stack.append((frame.f_code.co_filename, frame.f_code.co_name))
        frame = frame.f_back
    for part, marks in PARTS:
        for mark in marks:
            if any(mark in file if "/" in mark else mark == name for file, name in stack):
                return part
    return REST


@contextmanager
def sampled(found: dict[str, float]) -> Iterator[None]:
    """Add to `found` the seconds that this thread spends in each part, by a look at its stack each millisecond."""
    watched, ended, interval = threading.get_ident(), threading.Event(), sys.getswitchinterval()

    def look() -> None:
        last = time.perf_counter()
        while not ended.wait(SAMPLE_SECONDS):
            part = part_of(sys._current_frames()[watched])
            now = time.perf_counter()
            found[part] += now - last
            last = now

    sys.setswitchinterval(SAMPLE_SECONDS / 10)
    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        sys.setswitchinterval(interval)


def profile(params: Params, train: Train, steps: int) -> dict[str, Any]:
    """The profile of the last three quarters of `steps`, as Markdown in `text`."""
    from torch._C._autograd import DeviceType
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    device = open_device(params)
    on_gpu = device.type == "cuda"
    counted: dict[str, float] = defaultdict(float)
    _observe(params, train, steps, device, sampled(counted))
    with_operations = profiler(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])])
    _observe(params, train, steps, device, with_operations)
    lines = [_parts(params, counted, steps, on_gpu)]
    if on_gpu:
        only_kernels = profiler(activities=[ProfilerActivity.CUDA])
        seconds = _observe(params, train, steps, device, only_kernels)
        spans = [
            (event.time_range.start, event.time_range.end, event.name)
            for event in only_kernels.events() or ()
            if event.device_type == DeviceType.CUDA and not event.is_user_annotation
        ]
        copies = covered((start, end) for start, end, name in spans if "Memcpy" in name)
        busy = covered((start, end) for start, end, _ in spans)
        lines.append(
            f"the GPU is busy {busy / 1e6 / seconds:.1%} of the time, {copies / 1e6 / seconds:.2%} with copies"
        )

    def own_time(entry: Any) -> float:  # noqa: ANN401 (torch's profiler has no types)
        return float(entry.self_device_time_total if on_gpu else entry.self_cpu_time_total)

    # Kernels have rows of their own beside those of the operations that started them.
    of_operations = [entry for entry in with_operations.key_averages() if entry.device_type == DeviceType.CPU]
    entries = sorted(of_operations, key=own_time, reverse=True)
    total = sum(map(own_time, entries)) or 1.0
    rows = [
        (f"`{entry.key[:60]}`", entry.count, f"{own_time(entry) / 1000:.1f}", f"{own_time(entry) / total:.1%}")
        for entry in entries[:LINES]
    ]
    lines.append(table(("operation", "calls", f"ms on the {device.type}", "share"), rows))
    return {"text": "\n\n".join(lines)}


def _observe(
    params: Params, train: Train, steps: int, device: "torch.device", observer: AbstractContextManager[Any]
) -> float:
    """Seconds of all steps but the first quarter, with the observer at work."""
    begun = elapsed = 0.0

    def on_keep(step: int, *_: object) -> None:
        nonlocal begun, elapsed
        synchronise(device)
        if step == steps // 4:
            stack.enter_context(observer)
            begun = time.perf_counter()
        if step == steps:
            elapsed = time.perf_counter() - begun
            stack.close()

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        train(params, Path(folder), on_keep)
    return elapsed


def _parts(params: Params, counted: dict[str, float], steps: int, on_gpu: bool) -> str:
    """The table of the parts. What does not come in each step is spread over the steps between, as in a whole run."""
    shown = steps - steps // 4
    per_step = {}
    for part in ("networks", REST, "data", "curves", "grids"):
        every = {"curves": params.train.log_every, "grids": params.train.grid_every}.get(part)
        if every is None:
            per_step[part] = counted[part] / shown
        else:
            calls = sum(step % every == 0 or step == steps for step in range(steps // 4 + 1, steps + 1))
            per_step[part] = counted[part] / calls / every
    total = sum(per_step.values())
    rows = [(part, f"{1000 * value:.2f}", f"{value / total:.1%}") for part, value in per_step.items()]
    rows.append(("all but the networks", f"{1000 * (total - per_step['networks']):.2f}",
                 f"{1 - per_step['networks'] / total:.1%}"))  # fmt: skip
    where = "of the CPU, which waits for the GPU where it reads from it" if on_gpu else "of the CPU"
    return table((f"part of a step, {where}", "ms", "share"), rows)


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of what the spans cover together."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
