"""How the hosts of a training meet, and why it has ended, as the stage says it."""

import logging
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from threading import Event, Thread, Timer

import pytest

from gan.errors import InputError
from stages import processes
from stages.hosts import Hosts
from stages.processes import _explain, meet
from stages.stage import MemberKilledError

ONE, TWO = Hosts(1, 0, ""), Hosts(2, 0, "box:1")
GOES_ON = "; dvc repro goes on from the last checkpoint"


@pytest.mark.parametrize("exits", [{0: 1}, {0: 75, 1: 1}, {0: -15, 1: 1}, {0: -6, 1: 2}])
def test_what_a_process_has_said_is_not_said_again(exits: dict[int, int]) -> None:
    assert _explain(exits, [], ONE) is None
    assert _explain(exits, [], TWO) is None


@pytest.mark.parametrize(
    ("exits", "rank", "number"),
    [
        ({1: -9}, 1, signal.SIGKILL),
        ({0: 75, 1: -9, 2: -15}, 1, signal.SIGKILL),
        ({0: -15, 3: -11}, 3, signal.SIGSEGV),
        ({0: -6, 1: -15}, 0, signal.SIGABRT),
        ({1: -15}, 1, signal.SIGTERM),
    ],
)
def test_the_process_that_was_killed_is_named(exits: dict[int, int], rank: int, number: int) -> None:
    error = _explain(exits, [], ONE)
    assert isinstance(error, MemberKilledError)
    assert error.number == number
    name = signal.Signals(number).name
    assert str(error) == f"process {rank} of the training was ended by {name}, and the others with it{GOES_ON}"


@pytest.mark.parametrize("exits", [{0: 75}, {0: 75, 1: 75}, {0: 75, 1: -15}])
def test_processes_that_lose_each_other_say_how(exits: dict[int, int]) -> None:
    error = _explain(exits, ["lost each other:\n  a reason"], ONE)
    assert not isinstance(error, MemberKilledError)
    assert str(error) == f"lost each other: a reason{GOES_ON}"


@pytest.mark.parametrize("exits", [{0: 75}, {0: -15, 1: 75}, {0: -6, 1: -15}, {0: -15}])
def test_another_host_says_why_it_has_ended(exits: dict[int, int]) -> None:
    error = _explain(exits, ["gone"] * (75 in exits.values()), TWO)
    assert str(error) == f"a process on another host has ended, which says why there{GOES_ON}"


def test_on_several_hosts_too_a_process_that_was_killed_here_is_named() -> None:
    assert "process 1 of the training was ended by SIGKILL" in str(_explain({0: 75, 1: -9}, ["gone"], TWO))


@pytest.fixture
def rendezvous() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_hosts_wait_for_each_other_and_say_for_whom(rendezvous: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    met, over = [], Event()

    def attend(rank: int) -> None:
        store = meet(Hosts(3, rank, rendezvous))
        met.append(rank)
        over.wait()  # host 0 keeps its store
        del store

    def wait_for_line(words: str) -> None:
        line = f"waiting for the other hosts at {rendezvous}; not there yet: {words}"
        wait_until(lambda: line in caplog.messages)

    threads = [Thread(target=attend, args=(rank,)) for rank in range(3)]
    try:
        threads[2].start()
        wait_for_line("0 ([Errno 111] Connection refused)")
        threads[0].start()
        wait_for_line("1, 2")
        wait_for_line("1")
        assert not met
        threads[1].start()
        wait_until(lambda: len(met) == 3)
    finally:
        over.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_host_that_waits_heeds_ctrl_c(rank: int, rendezvous: str, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs have none
    timer = Timer(1, signal.raise_signal, [signal.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            meet(Hosts(2, rank, rendezvous))
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
    assert capfd.readouterr().err == ""


def test_a_host_that_waited_and_was_ended_is_not_there(rendezvous: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "BEAT_SECONDS", 2.0)
    code = (
        "import sys; from stages.hosts import Hosts; from stages.processes import meet; meet(Hosts(3, 1, sys.argv[1]))"
    )
    other = subprocess.Popen([sys.executable, "-c", code, rendezvous])
    absent: list[str] = []
    over = Event()

    def follow() -> None:
        hosts = Hosts(3, 0, rendezvous)
        for _, late in processes._count_present(processes._open_store("localhost", hosts), hosts):
            absent.append(late)
            if over.wait(0.1):
                return

    thread = Thread(target=follow)
    thread.start()
    try:
        wait_until(lambda: absent[-1:] == ["2"])
        other.kill()
        wait_until(lambda: absent[-1:] == ["1, 2"])
    finally:
        other.kill()
        other.wait()
        over.set()
        thread.join()


@pytest.mark.parametrize(("address", "why"), [("nowhere.invalid", r"\[Errno -"), ("gpu..1", ".*label")])
@pytest.mark.parametrize("rank", [0, 1])
def test_an_address_that_leads_nowhere_is_one_line(rank: int, address: str, why: str) -> None:
    with pytest.raises(
        InputError, match=rf"^ATELIER_RENDEZVOUS: the hosts do not meet at {re.escape(address)}:1: {why}"
    ):
        meet(Hosts(2, rank, f"{address}:1"))


def test_the_first_host_must_be_at_its_own_address(rendezvous: str) -> None:
    port = rendezvous.partition(":")[2]
    with pytest.raises(InputError, match=r"must be an address of host 0, with a port that is free there"):
        meet(Hosts(2, 0, f"127.255.255.255:{port}"))
