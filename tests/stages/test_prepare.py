"""The stage `prepare`, as dvc.yaml runs it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from ruamel.yaml import YAML

from gan.data.fetching import fetch_source
from gan.data.packed import read_images, read_manifest
from gan.data.sources.source import Request
from tests.gan.data.celeba_files import write_celeba

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder like the repository, with a pipeline of one stage."""
    for name in ("gan", "stages"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "dvc.yaml").write_text(
        "stages: {prepare: {cmd: python -m stages.prepare, params: [seed, data.crop]}}\n"
    )
    return tmp_path


def fetch(workplace: Path, source: str, path: Path | None = None) -> None:
    (workplace / "data/raw").mkdir(parents=True)
    fetch_source(source, Request(path, None, workplace / "downloads"), workplace / "data/raw")


COMMAND = [sys.executable, "-m", "stages.prepare"]


def write_params(workplace: Path, **data: object) -> None:
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["data"].update(data)
    params["hardware"]["threads"] = 2
    yaml.dump(params, workplace / "params.yaml")


def run(workplace: Path, **data: object) -> subprocess.CompletedProcess[str]:
    write_params(workplace, **data)
    return subprocess.run(COMMAND, cwd=workplace, capture_output=True, text=True, check=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def write_colours(folder: Path) -> Path:
    folder.mkdir()
    for number in range(20):
        Image.new("RGB", (50, 60), (number, 100, 200)).save(folder / f"{number}.png")
    return folder


def test_the_default_parameters_make_the_default_set(workplace: Path) -> None:
    fetch(workplace, "mnist-5k")
    done = run(workplace)
    assert done.returncode == 0, done.stderr
    prepared = workplace / "data/prepared"
    manifest = read_manifest(prepared)
    assert {name: split.count for name, split in manifest.splits.items()} == {
        "train": 4250,
        "validation": 250,
        "test": 500,
    }
    assert manifest.splits["train"].class_counts == [425] * 10
    assert read_images(prepared, "train").shape == (4250, 32, 32, 1)
    first = contents(prepared)
    assert run(workplace).returncode == 0
    assert contents(prepared) == first


def test_each_parameter_arrives(workplace: Path) -> None:
    mine = write_colours(workplace / "mine")
    (mine / "bad.png").write_bytes(b"text")
    fetch(workplace, "folder", mine)
    done = run(
        workplace,
        source="folder",
        path="mine",
        crop=40,
        image_size=64,
        channels=3,
        validation_fraction=0.1,
        test_fraction=0.25,
        max_bad_fraction=0.05,
    )
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(workplace / "data/prepared")
    assert (manifest.crop, manifest.image_size, manifest.channels) == (40, 64, 3)
    assert [item.name for item in manifest.skipped] == ["bad.png"]
    assert sum(split.count for split in manifest.splits.values()) == 20
    colour = read_images(workplace / "data/prepared", "test")[0, 0, 0]
    assert colour[1:].tolist() == [100, 200]


def test_the_attribute_arrives(workplace: Path) -> None:
    fetch(workplace, "celeba", write_celeba(workplace / "mine", 60))
    settings: dict[str, object] = {"source": "celeba", "path": "mine", "checksum": None, "crop": 16}
    done = run(workplace, attribute="Smiling", **settings)
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(workplace / "data/prepared")
    assert manifest.classes == ["not Smiling", "Smiling"]
    assert manifest.splits["test"].class_counts == [8, 4]
    done = run(workplace, attribute="Smile", **settings)
    assert (done.returncode, done.stderr) == (
        1,
        "prepare: data.attribute: 'Smile' is not one of Bald, Smiling, Young\n",
    )


def test_killed_it_leaves_what_was_there_and_ends_the_same_the_next_time(workplace: Path) -> None:
    fetch(workplace, "celeba", write_celeba(workplace / "mine", 4000))
    write_params(workplace, source="celeba", path="mine", checksum=None, crop=16)
    prepared, growing = workplace / "data/prepared", workplace / "data/.prepared.partial/train.npy"
    prepared.mkdir()
    (prepared / "precious").write_text("prepared before")

    with subprocess.Popen(COMMAND, cwd=workplace, stderr=subprocess.DEVNULL) as process:
        while not growing.exists() or growing.stat().st_size < 100_000:
            assert process.poll() is None
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    assert growing.stat().st_size < 2400 * 32 * 32
    assert [file.name for file in prepared.iterdir()] == ["precious"]

    assert subprocess.run(COMMAND, cwd=workplace, capture_output=True, check=False).returncode == 0
    resumed = contents(prepared)
    assert subprocess.run(COMMAND, cwd=workplace, capture_output=True, check=False).returncode == 0
    assert contents(prepared) == resumed
    assert len(read_images(prepared, "train")) == 2400
    assert sorted(file.name for file in (workplace / "data").iterdir()) == ["prepared", "raw"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"max_bad_fraction": 0.01}, "1 of 21 images are unreadable, more than data.max_bad_fraction 0.01"),
        ({"max_bad_fraction": 0.5, "test_fraction": 0.01}, "too few images: the test split is empty"),
        ({"max_bad_fraction": 0.5, "crop": 51}, "50x60 pixels, smaller than data.crop 51"),
    ],
)
def test_bad_input_is_one_line_and_leaves_what_was_there(
    workplace: Path, data: dict[str, object], message: str
) -> None:
    mine = write_colours(workplace / "mine")
    (mine / "bad.png").write_bytes(b"text")
    fetch(workplace, "folder", mine)
    prepared = workplace / "data/prepared"
    prepared.mkdir()
    (prepared / "precious").write_text("prepared before")

    done = run(workplace, source="folder", path="mine", **data)

    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("prepare: ")
    assert message in lines[-1]
    assert all(line.startswith("preparing images: ") for line in lines[:-1])
    assert [file.name for file in prepared.iterdir()] == ["precious"]
    assert sorted(file.name for file in (workplace / "data").iterdir()) == ["prepared", "raw"]
