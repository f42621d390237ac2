"""Commands as child processes: followed line by line, and ended, with all that they started, when this process ends."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select
from threading import Thread

import psutil
from prefect.exceptions import FailedRun
from prefect.runtime import deployment

GRACE = 5.0
"""Seconds that a process has to end after SIGTERM, before SIGKILL."""


END_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM", "--")
"""Before a command: the kernel ends it when the process that started it is gone."""
_running: set[subprocess.Popen[str]] = set()
"""Commands of any thread that have not ended yet."""


class CommandError(RuntimeError):
    """A command that failed; the message names it and holds what it said last."""


def adapt_to_worker() -> None:
    """Where a Prefect worker has started this process, end it when the worker ends, and log failures plainly.

    Without the first, a flow goes on unseen until it next writes to the worker's pipe; without the second, Prefect adds
    a traceback of its own to each run that ends as failed.
    """
    if deployment.id:
        Thread(target=_end_after, args=(os.getppid(),), daemon=True).start()
        logging.getLogger("prefect.flow_runs").addFilter(_is_no_failed_run)


def _is_no_failed_run(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], FailedRun))


def _end_after(parent: int) -> None:
    with suppress(ProcessLookupError):
        select([os.pidfd_open(parent)], [], [])
    # The signal makes Prefect report the crash, and a line to the dead worker's pipe would be the end of that.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, sys.stderr.fileno())
    os.kill(os.getpid(), signal.SIGTERM)


def end_when_interrupted() -> None:
    """Where Prefect's own temporary server serves this process, end soon after SIGINT or SIGTERM, come what may.

    In a terminal the same signal ends that server too, and Prefect's client would ask for it for minutes.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    Thread(target=_end_after_signal, args=(reader,), daemon=True).start()


def _end_after_signal(reader: int) -> None:
    while (number := os.read(reader, 1)[0]) not in (signal.SIGINT, signal.SIGTERM):
        continue
    time.sleep(GRACE)  # for children to end and workspaces to go
    print("interrupted; the same command goes on from there", file=sys.stderr, flush=True)
    for child in psutil.Process().children(recursive=True):
        _signal(child.kill)
    os._exit(128 + number)


def environment(**values: str) -> dict[str, str]:
    """The environment of this process with `values`, and with this Python and the tools beside it found first."""
    tools = str(Path(sys.executable).parent)
    paths = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return {**os.environ, "PATH": os.pathsep.join([tools, *(path for path in paths if path != tools)]), **values}


def run(*command: str, folder: Path, **values: str) -> str:
    """Run a short command in `folder`, with `values` added to its environment; what it printed, less its last newline.

    Raises CommandError if it fails.
    """
    done = subprocess.run(
        [*END_WITH_PARENT, *command],
        cwd=folder,
        env=environment(**values),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise CommandError(f"`{' '.join(command)}` failed: {' '.join(' '.join(said).split()) or done.returncode}")
    return done.stdout.rstrip("\n")


@contextmanager
def started(command: Sequence[str], folder: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A running command, stdout and stderr together in `stdout`, by lines; its tree ends with the block.

    The kernel ends it too if this process is killed. It stays in this process's group, to which Prefect sends signals.
    """
    process = subprocess.Popen(
        [*END_WITH_PARENT, *command],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        bufsize=1,
    )
    _running.add(process)
    try:
        yield process
    finally:
        end_tree(process)
        _running.discard(process)
        if process.stdout:
            process.stdout.close()


def end_tree(process: subprocess.Popen[str]) -> None:
    """End a process and all its descendants, and wait until they are gone."""
    try:
        first = psutil.Process(process.pid)
        descendants = first.children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for member in (first, *descendants):
        _signal(member.terminate)
    _, alive = psutil.wait_procs(descendants, timeout=GRACE)
    for member in alive:
        _signal(member.kill)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_all() -> None:
    """End every command that any thread of this process has running."""
    for process in list(_running):
        end_tree(process)


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return
