"""Which device computes, with how many threads, and how exactly; and work that several share."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle
from typing import TypeVar

import torch

from gan.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def open_device(name: str, threads: int, deterministic: bool, *, tf32: bool = False, number: int = 0) -> torch.device:
    """Set this process's threads and algorithms, and return the device: of several GPUs that with `number`.

    `name` is `auto` (a GPU where there is one), `cpu` or `cuda`; `tf32` lets its products have factors of 10 bits.
    Raises InputError for `cuda` or `tf32` without a GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("hardware.device: cuda, but PyTorch finds no GPU here; use auto or cpu")
    if tf32 and (name == "cpu" or not torch.cuda.is_available()):
        raise InputError("hardware.precision: tf32, which is of GPUs, and this runs on a CPU; use float32 or bfloat16")
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.use_deterministic_algorithms(deterministic)
    # Nothing reads memory before it is written, and to fill it all the same takes a tenth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if number >= torch.cuda.device_count():
        raise InputError(
            f"hardware.devices: PyTorch finds {torch.cuda.device_count()} GPUs here (of one that is split, a process "
            "has one part at most); ask for no more"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def with_others(device: torch.device, count: int) -> list[torch.device]:
    """`device`, and if it is a GPU others of its kind that this process sees, up to `count` in all."""
    if device.type != "cuda":
        return [device]
    kind = torch.cuda.get_device_name(device)
    others = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    alike = [other for other in others if other != device and torch.cuda.get_device_name(other) == kind]
    return [device, *alike][:count]


def deal(workers: Sequence[Callable[[Item], Result]], items: Iterable[Item]) -> Iterator[Result]:
    """What `workers`, one a device, make of `items`, in the order of these; dealt out in turn, a thread for each.

    An item's result is the same whoever made it, so that the number of workers decides nothing but the speed. Each has
    two items waiting at most.
    """
    if len(workers) == 1:
        yield from map(workers[0], items)
        return
    pending: deque[Future[Result]] = deque()
    with ExitStack() as threads:
        turns = cycle([(threads.enter_context(ThreadPoolExecutor(1)), worker) for worker in workers])
        threads.callback(lambda: [future.cancel() for future in pending])  # before the threads are waited for
        for item, (thread, worker) in zip(items, turns):  # noqa: B905 (the turns never end)
            pending.append(thread.submit(worker, item))
            if len(pending) > 2 * len(workers):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
