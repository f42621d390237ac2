"""The stage `fetch`, as dvc.yaml runs it."""

import gzip
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.gan.data.celeba_files import write_celeba

ROOT = Path(__file__).parents[2]
MNIST = ROOT / "../shared/data/mnist"


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder like the repository, with a pipeline of one stage."""
    for name in ("gan", "stages"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "dvc.yaml").write_text("stages: {fetch: {cmd: python -m stages.fetch, params: [data.source]}}\n")
    return tmp_path


def run(workplace: Path, **data: object) -> subprocess.CompletedProcess[str]:
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["data"].update(data)
    yaml.dump(params, workplace / "params.yaml")
    return subprocess.run(
        [sys.executable, "-m", "stages.fetch"], cwd=workplace, capture_output=True, text=True, check=False
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def write_idx(folder: Path, images: int, labels: int) -> None:
    folder.mkdir()
    (folder / "train-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, images, 2, 2) + bytes(4 * images))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(struct.pack(">2I", 0x801, labels) + bytes(labels))
    )


def test_a_fetch_fills_data_raw_and_says_nothing_wrong(workplace: Path) -> None:
    done = run(workplace)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(contents(workplace / "data")) == {"raw/mnist_5k.csv.gz", "raw/source.json"}


def test_fetching_again_replaces_what_is_there_by_the_same(workplace: Path) -> None:
    run(workplace)
    before = contents(workplace / "data")
    (workplace / "data/raw/stray").write_text("from another source")
    assert run(workplace).returncode == 0
    assert contents(workplace / "data") == before


@pytest.mark.skipif(not MNIST.is_dir(), reason="needs MNIST beside the repository")
def test_mnist_by_its_path(workplace: Path) -> None:
    assert run(workplace, source="mnist", path=str(MNIST.resolve())).returncode == 0
    assert contents(workplace / "data/raw")["t10k-labels-idx1-ubyte.gz"] == (
        (MNIST / "t10k-labels-idx1-ubyte.gz").read_bytes()
    )


def test_a_path_is_relative_to_the_main_repository(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workplace / "main").mkdir()
    write_idx(workplace / "main/mine", 3, 3)
    monkeypatch.setenv("DVC_ROOT", str(workplace / "main"))
    assert run(workplace, source="idx", path="mine").returncode == 0
    assert len(contents(workplace / "data/raw")) == 3


def bad_inputs(workplace: Path) -> dict[str, tuple[dict[str, object], str]]:
    """Parameters that are wrong, with the line that says so."""
    write_idx(workplace / "mismatch", 3, 2)
    write_idx(workplace / "magic", 3, 3)
    (workplace / "magic/train-images-idx3-ubyte").write_bytes(bytes(28))
    write_idx(workplace / "truncated", 3, 3)
    labels = workplace / "truncated/train-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:-5])
    (workplace / "empty").mkdir()
    with zipfile.ZipFile(workplace / "outside.zip", "w") as archive:
        archive.writestr("../outside.png", b"")
    write_celeba(workplace / "faces", 20)
    write_celeba(workplace / "partition", 20)
    (workplace / "partition/list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg train\n")
    return {
        "missing path": ({"source": "idx", "path": "nowhere"}, "data.path: nowhere: no such folder"),
        "checksum": (
            {"source": "folder", "path": "outside.zip", "checksum": "md5:" + "0" * 32},
            "but data.checksum is 0",
        ),
        "labels": ({"source": "idx", "path": "mismatch"}, "holds 3 images, but train-labels"),
        "magic": ({"source": "idx", "path": "magic"}, "magic number 0x00000000"),
        "truncated": ({"source": "idx", "path": "truncated"}, "the archive is cut short"),
        "no images": ({"source": "folder", "path": "empty"}, "holds no images"),
        "outside": ({"source": "folder", "path": "outside.zip"}, "leads out of the archive's folder"),
        "part": ({"source": "celeba", "path": "faces"}, "set data.checksum to null to use a part of CelebA"),
        "partition": (
            {"source": "celeba", "path": "partition", "checksum": None},
            "partition/list_eval_partition.txt, line 2: '000002.jpg train' is not an image's name and its split",
        ),
        "offline": ({"source": "celeba"}, "list_eval_partition.txt: the connection failed (ProxyError); try again"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "missing path",
        "checksum",
        "labels",
        "magic",
        "truncated",
        "no images",
        "outside",
        "part",
        "partition",
        "offline",
    ],
)
def test_bad_input_is_one_line_and_leaves_what_was_there(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    previous = workplace / "data/raw"
    previous.mkdir(parents=True)
    (previous / "precious").write_text("fetched before")
    data, message = bad_inputs(workplace)[case]

    done = run(workplace, **data)

    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("fetch: ")
    assert message in lines[-1]
    assert lines[:-1] == (["fetching list_eval_partition.txt from Google Drive"] if case == "offline" else [])
    assert contents(workplace / "data") == {"raw/precious": b"fetched before"}
    assert [file.name for file in (workplace / "data").iterdir()] == ["raw"]
    assert not (workplace.parent / "outside.png").exists()
