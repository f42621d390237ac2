import threading
import time
from collections.abc import Iterator

import pytest
import torch

from gan.device import deal, with_others


def test_items_are_dealt_in_turn_and_come_back_in_their_order() -> None:
    def slow(item: int) -> tuple[str, int]:
        time.sleep(0.02)
        return "slow", item

    def fast(item: int) -> tuple[str, int]:
        return "fast", item

    assert list(deal([slow, fast], range(5))) == [("slow", 0), ("fast", 1), ("slow", 2), ("fast", 3), ("slow", 4)]
    assert list(deal([fast], range(2))) == [("fast", 0), ("fast", 1)]
    assert list(deal([slow, fast], [])) == []


def test_workers_work_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=30)
    assert len(list(deal([lambda _: both.wait(), lambda _: both.wait()], range(6)))) == 6


def test_items_are_taken_as_they_are_needed() -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = deal([lambda item: item, lambda item: -item], items())
    assert next(results) == 0
    assert len(taken) == 5
    assert next(results) == -1
    assert len(taken) == 6


def test_a_failure_ends_all() -> None:
    def refuse(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    results = deal([refuse, refuse], range(100))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    before = threading.active_count()
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert threading.active_count() < before


def test_a_processor_has_no_others() -> None:
    assert with_others(torch.device("cpu")) == [torch.device("cpu")]
