"""A sample of the failing mirrors; `python -m tests.torture.downloads` tries many more."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture import downloads


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_downloads_end_well_or_in_one_line(count: int) -> None:
    rows = downloads.try_all(1, iter(range(count)), time.monotonic() + 10**6)
    assert rows.keys() == downloads.FAULTS.keys()
    assert sum(row.failed for row in rows.values()) == 0
    assert sum(row.whole for row in rows.values()) > 0
    assert sum(row.refused for row in rows.values()) > 0


def test_a_wrong_end_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert downloads.wrong_end(path, f"why, and {downloads.USE}") == []
    assert downloads.wrong_end(path, None) == ["no file, and no word of it"]
    assert len(downloads.wrong_end(path, "two\nlines")) == 1
    (tmp_path / "file.part").write_bytes(bytes(downloads.BOUND + 1))
    path.write_bytes(b"other")
    assert len(downloads.wrong_end(path, "two\nlines")) == 4
