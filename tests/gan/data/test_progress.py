"""Progress: a bar in a terminal, plain lines elsewhere."""

import io
import logging
import sys

import pytest

from gan.data.progress import progress


def test_elsewhere_there_is_a_line_a_tenth(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), progress("fetch", 2000, "B", done=1000) as advance:
        for _ in range(1000):
            advance(1)
    assert caplog.messages == [f"fetch: {done:,} of 2,000 B" for done in (1200, 1400, 1600, 1800, 2000)]


def test_an_unknown_total_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), progress("fetch", 0, "B") as advance:
        advance(10)
    assert caplog.messages == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("total", [2000, 0])
def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, total: int) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with caplog.at_level(logging.INFO), progress("fetch", total, "B") as advance:
        advance(1500)
        advance(500)
    assert terminal.getvalue().rpartition("\r")[2].startswith("fetch: 100%" if total else "fetch: 2.00kB")
    assert caplog.messages == []
