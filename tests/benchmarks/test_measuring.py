import sys
from functools import partial
from pathlib import Path

import pytest

from benchmarks.measuring import (
    alternate,
    ratios,
    read_experiment,
    run_process,
    spread,
    table,
    write_faces,
)
from gan.errors import InputError


def test_rounds_alternate_and_come_back_by_name() -> None:
    order: list[str] = []

    def run(name: str) -> int:
        order.append(name)
        return len(order)

    found = alternate({name: partial(run, name) for name in ("a", "b")}, 3)

    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": [1, 4, 5], "b": [2, 3, 6]}


def test_a_ratio_is_their_time_over_ours_round_by_round() -> None:
    assert ratios([3.0, 10.0, 8.0], [2.0, 5.0, 8.0]) == [1.5, 2.0, 1.0]
    assert spread([1.5, 2.0, 1.0]) == "1.50 (1.00 to 2.00)"


def test_a_table_in_markdown() -> None:
    assert table(("loop", "ms"), [("ours", 1.5)]) == "| loop | ms |\n| --- | --- |\n| ours | 1.5 |"


def test_an_experiment_with_changes() -> None:
    params = read_experiment("mnist-dcgan", ["hardware.cpu_isa=native", "train.augment=[colour]", "seed=3"])

    assert (params.generator.base, params.train.batch_size) == (128, 100)
    assert (params.hardware.cpu_isa, params.train.augment, params.seed) == ("native", ["colour"], 3)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("mnist-dcgan", "hardware.speed=11", "hardware.speed: unknown key"),
        ("mnist-dcgan", "fast.mode=true", "fast: unknown key"),
        ("mnist-dcgan", "hardware.threads=many", "hardware.threads: 'many' is not allowed"),
        ("mnist-dcgan", "native", "'native' is not KEY=VALUE"),
        ("mnist", "seed=1", "no experiment is named 'mnist'; experiments.yaml has mnist-quick"),
    ],
)
def test_what_the_schema_refuses(name: str, change: str, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("'", ".")):
        read_experiment(name, [change])


def test_a_process_is_measured_whole() -> None:
    code = "import json; held = bytearray(200_000_000); import time; time.sleep(1); print('a'); print(json.dumps(7))"
    finished = run_process([sys.executable, "-c", code], memory=True)

    assert finished.value == 7
    assert finished.peak_mb > 200
    assert finished.seconds > 1


def test_a_process_that_fails_ends_the_benchmark_with_what_it_said() -> None:
    with pytest.raises(SystemExit, match="no such luck"):
        run_process([sys.executable, "-c", "raise SystemExit('no such luck')"])


def test_synthetic_faces_have_the_size_of_celebas(tmp_path: Path) -> None:
    from PIL import Image

    assert write_faces(tmp_path / "faces", 2, None) == "synthetic JPEGs"
    with Image.open(tmp_path / "faces/000001.jpg") as image:
        assert (image.size, image.mode, image.format) == ((178, 218), "RGB", "JPEG")
