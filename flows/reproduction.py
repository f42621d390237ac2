"""One `dvc repro`, followed stage by stage."""

import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen
from threading import Event, Thread
from types import TracebackType
from typing import Self

from flows.processes import end_tree, started

STAGE = re.compile(r"(?:Running stage '([\w-]+)':|Stage '([\w-]+)' (?:is cached|didn't change))")
"""What DVC says where a stage begins: it runs, or it comes from the cache, or it is up to date."""
HINT = re.compile(
    r"To track the changes with git|To enable auto staging|\s*(?:git add|dvc config core\.autostage)|Use `dvc push`"
)
"""Advice of DVC's for a working tree, of no use in a workspace that is saved as an experiment."""
UNCACHED = re.compile(r"^ERROR: failed to transfer '\w+' - (.*)")
"""What DVC says of a file that it could not copy into its cache; it goes on then, and ends with status 0."""
EXITED = re.compile(r"failed to run: .*, exited with (-?\d+)")
PREPARED = "prepare"
"""The last stage that needs no device: fetching and preparing images keeps nobody waiting."""
LOOK = 5.0
"""Seconds between two looks at a stage that may be stopped early."""


class StageError(RuntimeError):
    """A stage that failed; the message is its own words."""

    def __init__(self, message: str, killed: bool) -> None:
        super().__init__(message)
        self.killed = killed
        """Whether a signal ended it, rather than an error of its own: then it may go well the next time."""


class StoppedEarlyError(StageError):
    """A stage that was ended because nothing would have come of it; the message says why."""

    def __init__(self, message: str) -> None:
        super().__init__(message, killed=False)


class Reproduction:
    """`dvc repro` with `arguments` in `folder`; what runs of it ends with the block.

    `for stage in reproduction: reproduction.follow(stage, log)`. After a StageError, `follow` of the same stage starts
    DVC again, which goes on where it broke off.
    """

    def __init__(self, folder: Path, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        self._command = ["dvc", "repro", *arguments]
        self._folder = folder
        self._env = env
        self._block = ExitStack()
        self._process: Popen[str] | None = None
        self._next: str | None = None
        """The line with which the next stage begins, read already."""
        self._said: list[str] = []
        """What DVC said after the last stage began, or before the first one."""

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._block.close()

    def __iter__(self) -> Iterator[str]:
        """The stages' names, as DVC comes to them.

        Raises StageError where DVC fails before the first one.
        """
        if self._next is None:
            self._skip()
        while self._next is not None:
            yield _stage(self._next)
        self._check("dvc")

    def follow(self, stage: str, log: Callable[[str], None], hopeless: Callable[[], str] | None = None) -> bool:
        """Pass what `stage` says to `log`, line by line, until it has ended; whether it ran at all.

        False where its outputs were up to date or came from the cache. Raises StageError if it fails, and
        StoppedEarlyError where `hopeless`, asked now and then meanwhile, says why it should not go on.
        """
        if self._process is None:
            self._start()
        while self._next is None or _stage(self._next) != stage:
            if not self._skip():
                self._check(stage)
                raise StageError(f"{stage}: DVC did not come to it again", killed=False)
        first, self._next, self._said = self._next, None, []
        log(first)
        with self._looking(hopeless) as reasons:
            while (line := self._read()) is not None:
                log(line)
        if reasons:
            self._process = None
            raise StoppedEarlyError(reasons[0])
        lost = [found[1] for line in self._said if (found := UNCACHED.match(line))]
        if lost:
            assert self._process is not None
            end_tree(self._process)
            self._process = None
            raise StageError(f"{stage}: made, but not kept in DVC's cache: {lost[0]}", killed=False)
        if self._next is None:
            self._check(stage)
        return first.startswith("Running")

    @contextmanager
    def _looking(self, hopeless: Callable[[], str] | None) -> Iterator[list[str]]:
        """End DVC's processes where `hopeless` gives a reason; it is then in the list."""
        reasons: list[str] = []
        if hopeless is None:
            yield reasons
            return
        over = Event()
        thread = Thread(target=self._look, args=(hopeless, reasons, over))
        thread.start()
        try:
            yield reasons
        finally:
            over.set()
            thread.join()

    def _look(self, hopeless: Callable[[], str], reasons: list[str], over: Event) -> None:
        while not over.wait(LOOK):
            reason = hopeless()
            if reason and not over.is_set():
                reasons.append(reason)
                assert self._process is not None
                end_tree(self._process)
                return

    def _start(self) -> None:
        self._process = self._block.enter_context(started(self._command, self._folder, self._env))

    def _skip(self) -> bool:
        """Read on to where a next stage begins; whether there is one."""
        self._next = None
        for _ in iter(self._read, None):
            pass
        return bool(self._next)

    def _read(self) -> str | None:
        """The next line of this stage; None where it ends, with `_next` set if another begins."""
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text = line.rstrip()
            if STAGE.match(text):
                self._next = text
                return None
            if text and not HINT.match(text):
                self._said.append(text)
                return text
        return None

    def _check(self, stage: str) -> None:
        assert self._process is not None
        status = self._process.wait()
        if not status:
            return
        self._process = None
        exits = [int(found[1]) for line in self._said if (found := EXITED.search(line))]
        killed = status < 0 or (bool(exits) and exits[-1] < 0)
        own = [line for line in self._said if line.startswith(f"{stage}: ")]
        if killed:
            number = -min(status, *exits, 0)
            why = ", as when the machine has no memory left" if number == signal.SIGKILL else ""
            message = f"{stage}: ended by signal {number}{why}"
        else:
            message = (own or self._said or [f"{stage}: DVC ended with status {status}"])[-1]
        raise StageError(message, killed)


def _stage(line: str) -> str:
    found = STAGE.match(line)
    assert found
    return found[1] or found[2]
