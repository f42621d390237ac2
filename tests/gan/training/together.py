"""Functions called in several processes of one group, over gloo on this host."""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

SECONDS = 300


def together(count: int, function: Callable[..., None], *arguments: Any) -> list[int | None]:
    """Call `function`, of a module's top level, in `count` processes of a group; how each exited, in their order."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        members = [
            context.Process(target=_join, args=(store, rank, count, function, arguments)) for rank in range(count)
        ]
        for process in members:
            process.start()
        for process in members:
            process.join(SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
    return [process.exitcode for process in members]


def _join(store: str, rank: int, count: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    limit = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count, timeout=limit)
    try:
        function(*arguments)
    except SystemExit:
        raise
    except BaseException:  # noqa: BLE001 - whatever it was
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(1)  # at once: those who wait for this process learn of it now
    dist.destroy_process_group()
