"""Why a training of several processes has ended, as the stage says it."""

import signal

import pytest

from stages.hosts import Hosts
from stages.processes import _explain
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
