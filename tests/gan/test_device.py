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
    tried = []

    def refuse(item: int) -> int:
        tried.append(item)
        time.sleep(0.1)
        if item == 1:
            raise ValueError("one")
        return item

    before = threading.active_count()
    results = deal([refuse, refuse], range(100))
    assert next(results) == 0
    with pytest.raises(ValueError, match="one"):
        next(results)
    assert threading.active_count() == before
    assert len(tried) < 6  # of those that waited, none was begun


def test_a_processor_has_no_others() -> None:
    assert with_others(torch.device("cpu"), 4) == [torch.device("cpu")]


def test_only_gpus_of_one_kind_share_work(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ["A100", "V100", "A100", "A100"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(kinds))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: kinds[device.index])
    first, second, third, fourth = (torch.device("cuda", index) for index in range(4))
    assert with_others(first, 8) == [first, third, fourth]
    assert with_others(first, 2) == [first, third]
    assert with_others(first, 1) == [first]
    assert with_others(second, 4) == [second]
