"""IDX files, gzipped and plain, good and bad."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gan.data.fetching import fetch_source
from gan.data.sources import idx
from gan.data.sources.source import Request, read_record
from gan.errors import InputError


def idx_bytes(values: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def write_pair(folder: Path, pair: str, images: NDArray[np.uint8], labels: list[int], *, packed: bool = True) -> None:
    folder.mkdir(exist_ok=True)
    for kind, values in (("images-idx3", images), ("labels-idx1", np.array(labels, np.uint8))):
        content = idx_bytes(values)
        if packed:
            (folder / f"{pair}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
        else:
            (folder / f"{pair}-{kind}-ubyte").write_bytes(content)


def fetch(path: Path, out: Path) -> None:
    out.mkdir(exist_ok=True)
    fetch_source("idx", Request(path, "published", out / "unused"), out)


@pytest.fixture
def images() -> NDArray[np.uint8]:
    return np.arange(5 * 3 * 4, dtype=np.uint8).reshape(5, 3, 4)


@pytest.mark.parametrize("packed", [True, False])
def test_a_folder_is_copied_as_it_is_and_read(tmp_path: Path, images: NDArray[np.uint8], packed: bool) -> None:
    write_pair(tmp_path / "mine", "train", images, [0, 1, 0, 1, 2], packed=packed)
    write_pair(tmp_path / "mine", "t10k", 255 - images[:2], [2, 0], packed=packed)

    fetch(tmp_path / "mine", tmp_path / "raw")

    for file in (tmp_path / "mine").iterdir():
        assert (tmp_path / "raw" / file.name).read_bytes() == file.read_bytes()
    assert set(read_record(tmp_path / "raw").files) == {file.name for file in (tmp_path / "mine").iterdir()}
    collection = idx.open_images(tmp_path / "raw")
    assert collection.names == ["train/0", "train/1", "train/2", "train/3", "train/4", "t10k/0", "t10k/1"]
    official = {split: indices.tolist() for split, indices in collection.official_splits.items()}
    assert official == {"train": [0, 1, 2, 3, 4], "test": [5, 6]}
    assert collection.classes == ["0", "1", "2"]
    assert collection.labels is not None
    assert collection.labels.tolist() == [0, 1, 0, 1, 2, 2, 0]
    np.testing.assert_array_equal(np.array(collection.read(4)), images[4])
    np.testing.assert_array_equal(np.array(collection.read(6)), 255 - images[1])


def test_the_test_pair_may_be_missing(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    write_pair(tmp_path / "mine", "train", images, [3, 7, 3, 7, 3])
    fetch(tmp_path / "mine", tmp_path / "raw")
    collection = idx.open_images(tmp_path / "raw")
    assert not collection.official_splits
    assert collection.classes == ["3", "7"]
    assert collection.labels is not None
    assert collection.labels.tolist() == [0, 1, 0, 1, 0]


def test_an_archive_is_preferred_to_its_unpacked_twin(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    write_pair(tmp_path / "mine", "train", images, [0] * 5)
    write_pair(tmp_path / "mine", "train", images[:1], [0], packed=False)
    assert {file.suffix for file in idx.find_files(tmp_path / "mine").values()} == {".gz"}


def test_a_missing_folder_and_missing_files_are_named(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    with pytest.raises(InputError, match=r"data\.path: .*nowhere: no such folder"):
        fetch(tmp_path / "nowhere", tmp_path / "raw")
    write_pair(tmp_path / "mine", "t10k", images, [0] * 5)
    with pytest.raises(InputError, match="holds no train-images-idx3-ubyte or"):
        fetch(tmp_path / "mine", tmp_path / "raw")
    write_pair(tmp_path / "mine", "train", images, [0] * 5)
    (tmp_path / "mine/t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match="holds no t10k-labels-idx1-ubyte or"):
        fetch(tmp_path / "mine", tmp_path / "raw")


def test_images_and_labels_must_match_in_number(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    write_pair(tmp_path / "mine", "train", images, [0, 1, 2, 3])
    with pytest.raises(InputError, match=r"holds 5 images, but train-labels-idx1-ubyte.gz beside it 4 labels"):
        fetch(tmp_path / "mine", tmp_path / "raw")


def damaged(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


NOISE = np.random.default_rng(0).integers(0, 256, (50, 8, 8), np.uint8)
CONTENT = idx_bytes(NOISE)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a", b"\x00\x00\x09\x03" + CONTENT[4:], r"magic number 0x00000903, but .* starts with 0x00000803"),
        ("a", CONTENT[:9], "cut short within its header"),
        ("a", CONTENT[:-1], "announces 3200 values, and it holds only 3199"),
        ("a", CONTENT + b"\x00", "announces 3200 values, and it holds more"),
        ("a", struct.pack(">4I", 0x803, 0, 8, 8), "announces 0×8×8 values"),
        ("a", struct.pack(">4I", 0x803, 2**32 - 1, 28, 28), "announces 4294967295×28×28 values"),
        ("a", struct.pack(">4I", 0x803, 1, 5000, 1), "at most 4096 pixels a side"),
        ("a.gz", gzip.compress(CONTENT)[:-400], "the archive is cut short"),
        ("a.gz", gzip.compress(CONTENT)[:-4], "the archive is cut short"),
        ("a.gz", damaged(gzip.compress(CONTENT)), "damaged"),
        ("a.gz", CONTENT, "not a gzip archive"),
        ("a.gz", gzip.compress(CONTENT[:-1]), "and it holds only 3199"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        idx.read_idx(tmp_path / name, 3)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
