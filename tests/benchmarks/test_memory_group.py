"""Memory that is limited by the kernel: skipped where no group can be made."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from benchmarks import memory_group as module
from benchmarks.growth import DISK
from benchmarks.memory_group import memory_group
from gan.errors import InputError

LIMIT = 60_000_000
READ = """
import os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
os.fdatasync(file)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
while os.read(file, 2**20):
    pass
"""


def why_not() -> str:
    try:
        with memory_group(LIMIT):
            return ""
    except InputError as error:
        return str(error)


needs_groups = pytest.mark.skipif(bool(why_not()), reason=why_not())


@needs_groups
def test_files_count_and_give_way() -> None:
    with tempfile.NamedTemporaryFile(dir=DISK) as file:
        for _ in range(100):
            file.write(os.urandom(2**20))
        file.flush()
        with memory_group(LIMIT) as group:
            subprocess.run(group.within([sys.executable, "-S", "-c", READ, file.name]), check=True)
            assert 50 < group.peak_mb() <= 60  # of the 105 that the system would keep otherwise
    assert not group.folder.exists()


@needs_groups
def test_a_process_that_needs_more_is_killed() -> None:
    with memory_group(LIMIT) as group:
        command = group.within([sys.executable, "-S", "-c", "held = b'a' * 100_000_000"])
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not group.folder.exists()


@needs_groups
def test_a_group_takes_with_it_what_still_runs() -> None:
    with memory_group(LIMIT) as group:
        process = subprocess.Popen(group.within(["sleep", "1000"]))
        while str(process.pid) not in (group.folder / "cgroup.procs").read_text().split():
            assert process.poll() is None
    assert process.wait() == -signal.SIGKILL
    assert not group.folder.exists()


def test_where_none_can_be_made_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("memory.max", "memory.peak", "memory.swap.max")
    monkeypatch.setattr(module, "CONTROLS", {tmp_path / "none": names, tmp_path: names})
    with pytest.raises(InputError, match=r"a memory control group cannot be made in .*none or "), memory_group(LIMIT):
        pass
    assert not list(tmp_path.iterdir())
