"""MNIST from a local folder and from a mirror."""

import gzip
import http.server
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gan.data.fetching import fetch_source
from gan.data.sources import idx, mnist
from gan.data.sources.source import Request, read_record
from gan.errors import InputError
from tests.serving import Handler, serving

MNIST = Path(__file__).parents[3] / "../shared/data/mnist"
needs_mnist = pytest.mark.skipif(not MNIST.is_dir(), reason="needs MNIST beside the repository")


def fetch(path: Path | None, out: Path, checksum: str | None = "published") -> None:
    out.mkdir()
    fetch_source("mnist", Request(path, checksum, out.parent / "downloads"), out)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    class OfFiles(Handler, http.server.SimpleHTTPRequestHandler):
        pass

    with serving(partial(OfFiles, directory=str(MNIST))) as port:
        address = f"http://127.0.0.1:{port}/"
        monkeypatch.setattr(mnist, "MIRRORS", [address])
        yield address


def small_copy(folder: Path) -> Path:
    """A folder in MNIST's form that is not MNIST."""
    folder.mkdir()
    for pair, count in (("train", 20), ("t10k", 10)):
        images = b"\x00\x00\x08\x03" + bytes([0, 0, 0, count, 0, 0, 0, 2, 0, 0, 0, 2]) + bytes(count * 4)
        labels = b"\x00\x00\x08\x01" + bytes([0, 0, 0, count]) + bytes(i % 10 for i in range(count))
        (folder / f"{pair}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{pair}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return folder


@needs_mnist
def test_all_of_mnist_by_its_path(tmp_path: Path) -> None:
    fetch(MNIST, tmp_path / "raw")
    assert read_record(tmp_path / "raw").files == mnist.ARCHIVES
    collection = idx.open_images(tmp_path / "raw")
    official = {split: (indices[0], indices[-1]) for split, indices in collection.official_splits.items()}
    assert official == {"train": (0, 59_999), "test": (60_000, 69_999)}
    assert len(collection.names) == 70_000
    assert collection.classes == list("0123456789")
    assert collection.labels is not None
    assert collection.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert np.bincount(collection.labels[60_000:]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@needs_mnist
def test_unpacked_files_have_published_digests_too(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in mnist.ARCHIVES:
        (tmp_path / "mine" / name.removesuffix(".gz")).write_bytes(gzip.decompress((MNIST / name).read_bytes()))
    fetch(tmp_path / "mine", tmp_path / "raw")
    assert read_record(tmp_path / "raw").files == mnist.UNPACKED


@needs_mnist
def test_a_download_is_verified_and_kept(tmp_path: Path, mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mirror
    fetch(None, tmp_path / "raw")
    assert read_record(tmp_path / "raw").files == mnist.ARCHIVES
    monkeypatch.setattr(mnist, "MIRRORS", ["http://127.0.0.1:1/"])
    fetch(None, tmp_path / "again")
    assert read_record(tmp_path / "again").files == mnist.ARCHIVES


@needs_mnist
def test_one_altered_archive_is_refused(tmp_path: Path) -> None:
    shutil.copytree(MNIST, tmp_path / "mine", copy_function=shutil.copyfile)
    (tmp_path / "mine").chmod(0o755)
    content = gzip.decompress((MNIST / "t10k-labels-idx1-ubyte.gz").read_bytes())
    altered = tmp_path / "mine/t10k-labels-idx1-ubyte.gz"
    altered.write_bytes(gzip.compress(content[:-1] + b"\x03"))
    with pytest.raises(InputError, match=r"t10k-labels.*: MD5 [0-9a-f]{32}, but ec29112dd5afa0611ce80d1b7f02629c is"):
        fetch(tmp_path / "mine", tmp_path / "raw")


def test_a_modified_mnist_is_accepted_unchecked(tmp_path: Path) -> None:
    folder = small_copy(tmp_path / "mine")
    with pytest.raises(InputError, match=r"is published; .* set data.checksum to null"):
        fetch(folder, tmp_path / "checked")
    fetch(folder, tmp_path / "raw", checksum=None)
    assert len(idx.open_images(tmp_path / "raw").names) == 30


def test_unchecked_files_must_still_be_whole(tmp_path: Path) -> None:
    folder = small_copy(tmp_path / "mine")
    archive = folder / "train-images-idx3-ubyte.gz"
    archive.write_bytes(archive.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.gz: the archive is cut short"):
        fetch(folder, tmp_path / "raw", checksum=None)


def test_mnist_has_its_test_pair(tmp_path: Path) -> None:
    folder = small_copy(tmp_path / "mine")
    (folder / "t10k-images-idx3-ubyte.gz").unlink()
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match=r"holds no t10k pair; data\.source idx reads it without one"):
        fetch(folder, tmp_path / "raw", checksum=None)
