"""The commands that measure growth, at toy size."""

import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import growth, growth_parts, memory_group
from benchmarks.growth import DISK, Point, exponent, measure, memories, table, times
from benchmarks.growth_parts import PARTS, ROOT, Part, make_nothing, run_order
from gan.data import batches


def test_the_exponent_is_the_slope_of_logarithms() -> None:
    sizes = [10, 100, 1000]
    assert exponent(sizes, [3.0, 30.0, 300.0]) == pytest.approx(1)
    assert exponent(sizes, [size**2 / 7 for size in sizes]) == pytest.approx(2)
    assert exponent(sizes, [5.0, 5.0, 5.0]) == pytest.approx(0, abs=1e-12)
    assert math.isnan(exponent([10], [3.0]))


def test_a_table_has_a_row_a_size_and_the_exponents() -> None:
    part = Part("Title", "images", (10, 1000), "all", make_nothing, run_order)
    points = [
        Point(10, {"work": 0.5}, {"": 50.0}, {"": 120.4}, 2.0),
        Point(1000, {"work": 50.0}, {"": 50.0}, {"": 1204.0}, 200.0),
    ]
    curves = times(part, points) | memories(part, points)
    assert table("images", [10, 1000], curves).splitlines() == [
        "| images | work, s | CPU in all, s | own memory, MB | with mapped files, MB |",
        "| --- | --- | --- | --- | --- |",
        "| 10 | 0.5 | 2 | 50 | 120 |",
        "| 1,000 | 50 | 200 | 50 | 1,204 |",
        "| exponent | 1.00 | 1.00 | 0.00 | 0.50 |",
        "| of the last two | 1.00 | 1.00 | 0.00 | 0.50 |",
    ]


@pytest.mark.parametrize(
    ("name", "size", "timed"),
    [
        ("prepare", 20, {"prepare"}),
        ("prepare-idx", 20, {"prepare"}),
        ("hashing", 1, {"file_md5", "dvc add"}),
        pytest.param("show", 1, {"dvc exp show", "once more"}, marks=pytest.mark.slow),
        pytest.param("page", 1, {"the page"}, marks=pytest.mark.slow),
        pytest.param("compare", 2, {"flows.comparison"}, marks=pytest.mark.slow),
        pytest.param("evaluate", 100, {"features", "scores", "the whole stage"}, marks=pytest.mark.slow),
    ],
)
def test_a_part_is_measured_in_a_process_of_its_own(name: str, size: int, timed: set[str]) -> None:
    point = measure(name, size)
    assert set(point.seconds) == timed
    assert min(point.seconds.values()) > 0
    assert point.work > 0
    assert 10 < point.own[""] < point.all[""]


@pytest.mark.parametrize("way", PARTS["streaming"].ways)
def test_batches_are_timed_in_each_way(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth_parts, "STREAMED_BYTES", 2**22)
    monkeypatch.setattr(growth_parts, "USED_BYTES", 2**20)
    monkeypatch.setattr(batches, "RESIDENT_BYTES", batches.RESIDENT_BYTES)  # which is changed, and brought back
    growth_parts.make_large(32, tmp_path)
    (seconds,) = growth_parts.run_batches(32, tmp_path, way).values()
    assert seconds > 0


@pytest.mark.parametrize("way", PARTS["limited"].ways)
def test_a_file_is_used_once_memory_is_full_of_it(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth_parts, "LIMITED_SIDE", 32)
    monkeypatch.setattr(growth_parts, "TIMED_STEPS", 3)
    monkeypatch.setattr(batches, "RESIDENT_BYTES", 0)
    reads = []
    read = os.preadv

    def counted(file: int, buffers: list[Any], offset: int) -> int:
        reads.append(offset)
        return read(file, buffers, offset)

    monkeypatch.setattr(os, "preadv", counted)
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(dir=DISK) as temporary:
        growth_parts.make_file(8, Path(temporary))
        (seconds,) = growth_parts.run_limited(8, Path(temporary), way).values()
        assert [path.name for path in Path(temporary).iterdir()] == ["train.npy"]
    torch.set_num_threads(threads)
    assert seconds > 0
    assert bool(reads) == (way != growth_parts.MAP)


def test_a_file_in_memory_says_nothing_of_a_disk() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as temporary:
        growth_parts.make_file(1, Path(temporary))
        with pytest.raises(SystemExit, match="is not on a disk; set TMPDIR to a folder on one"):
            growth_parts.run_limited(1, Path(temporary), growth_parts.FILE)


def test_a_part_under_a_limit_shows_what_the_system_kept() -> None:
    part = Part("Title", "MB", (500,), "an image", make_nothing, run_order, ("streamed",), 10**9)
    points = [Point(500, {"streamed": 1e-5}, {"streamed": 300.0}, {"streamed": 1000.0}, 2.0)]
    assert memories(part, points) == {
        "streamed: own memory, MB": [300.0],
        "streamed: with all pages of files, MB": [1000.0],
    }


def test_without_control_groups_the_part_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory_group, "CONTROLS", {tmp_path / "none": ("a", "b", "c")})
    monkeypatch.setattr(growth, "PARTS", {"limited": PARTS["limited"]})
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["growth", "--out", str(tmp_path)])
    growth.main()
    assert "limited is left out: a memory control group cannot be made" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["growth", "limited", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        growth.main()
    assert "error: limited: a memory control group cannot be made" in capsys.readouterr().err


def test_training_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth_parts, "TRAINED_IMAGES", 16)
    monkeypatch.setattr(growth_parts, "CORES", 1)
    threads = torch.get_num_threads()
    (seconds,) = growth_parts.run_batch(16, tmp_path, "").values()
    torch.set_num_threads(threads)
    assert seconds > 0


def test_the_command_prints_a_table_and_draws_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.growth", "prepare-idx", "--largest", "1e4", "--out", str(tmp_path)]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    machine, *rows = said.splitlines()
    assert "cores" in machine
    assert [row.split("|")[1].strip() for row in rows if row.startswith("|")] == [
        "images", "---", "1,000", "10,000", "exponent", "of the last two",
    ]  # fmt: skip
    assert (tmp_path / "prepare-idx.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["oder"], "no part is named oder: prepare, "),
        (["order", "--largest", "10"], "--largest: order starts at 100000"),
    ],
)
def test_what_cannot_be_measured_is_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.growth", *words, "--out", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert result.returncode == 2
    assert f"error: {message}" in result.stderr
    assert not list(tmp_path.iterdir())
