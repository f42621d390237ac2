"""Each other part at toy size."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import __main__ as every
from benchmarks import preparation, sampling
from benchmarks.measuring import read_experiment
from benchmarks.stages import read_imports


def cells(output: str, name: str) -> list[str]:
    (line,) = (line for line in output.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_preparation(capsys: pytest.CaptureFixture[str]) -> None:
    preparation.main(["--images=12", "--rounds=1", "--workers=1"])

    output = capsys.readouterr().out
    ours, theirs = (float(cells(output, name)[1]) for name in ("atelier", "torchvision DataLoader"))
    assert float(cells(output, "torchvision DataLoader")[2].split()[0]) == pytest.approx(ours / theirs, rel=0.1)
    assert all(float(cells(output, name)[4]) > 10 for name in ("atelier", "torchvision DataLoader"))


def test_both_ways_of_sampling_give_the_same_kind_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.arithmetic.hold_arithmetic", lambda _: None)
    changes = ["generator.base=2", "sample.batch_size=4", "hardware.device=cpu", "hardware.threads=1"]
    params = read_experiment("mnist-quick", changes)
    for contestant in sampling.CONTESTANTS.values():
        batches = list(contestant(params)(6))
        assert [(batch.shape, str(batch.dtype)) for batch in batches] == [
            ((count, 32, 32, 1), "uint8") for count in (4, 2)
        ]


def test_sampling(capsys: pytest.CaptureFixture[str]) -> None:
    sampling.main(["mnist-quick", "--images=4", "--rounds=1", "--set=generator.base=2", "--set=hardware.device=cpu"])

    assert "| mnist-quick | 32x32 | plain loop |" in capsys.readouterr().out


def test_imports_are_summed_by_package() -> None:
    report = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:       100 |        100 |   numpy.core\n"
        "import time:       400 |        500 | numpy\n"
        "a line of the program's own\n"
        "import time:      1500 |       1500 | torch\n"
    )
    imports = read_imports(report)

    assert imports.packages == pytest.approx({"numpy": 0.0005, "torch": 0.0015})
    assert imports.total == pytest.approx(0.002)
    assert imports.heaviest() == "torch 0.00, numpy 0.00"


def test_one_page_of_all_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    toy = ("--images=6", "--rounds=1", "--workers=1")
    parts: dict[str, list[tuple[str, ...]]] = {"preparation": [toy], "sampling": [("nothing",)]}
    status = every.main(["--out", str(page)], parts)

    assert status == 1
    text = page.read_text()
    assert capsys.readouterr().out == text + "\n"
    assert "## preparation\n\n`python -m benchmarks.preparation --images=6" in text
    assert "\n| torchvision DataLoader | " in text
    assert "sampling failed" in text
    assert sys.executable not in text


def test_each_part_is_a_module() -> None:
    assert all(find_spec(f"benchmarks.{name}") for name in every.PARTS)


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        every.main(["training", "speed"])
    assert "no part is named 'speed'; there are training, sampling" in capsys.readouterr().err
