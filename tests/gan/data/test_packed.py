"""The packed image set on disk."""

from pathlib import Path

import numpy as np
import pytest

from gan.data.packed import (
    Manifest,
    Skipped,
    file_md5,
    image_writer,
    read_images,
    read_labels,
    read_manifest,
    write_manifest,
)
from tests.gan.data.packed_split import write_split


@pytest.mark.parametrize("count", [0, 1, 12_345])
def test_writing_image_by_image_gives_the_bytes_of_np_save(tmp_path: Path, count: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 2, 3), np.uint8)
    with image_writer(tmp_path, "train", (3, 2, 3)) as write:
        for image in images:
            write(image)
    np.save(tmp_path / "whole.npy", images)
    assert (tmp_path / "train.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_another_shape_or_type_is_a_fault(tmp_path: Path) -> None:
    with image_writer(tmp_path, "train", (2, 2, 1)) as write:
        with pytest.raises(AssertionError):
            write(np.zeros((2, 2, 3), np.uint8))
        with pytest.raises(AssertionError):
            write(np.zeros((2, 2, 1), np.float32))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    images = np.arange(24, dtype=np.uint8).reshape(3, 2, 2, 2)
    split = write_split(tmp_path, "test", images, np.array([2, 0, 2]), 4)
    assert split.count == 3
    assert split.class_counts == [1, 0, 2, 0]
    assert split.md5 == file_md5(tmp_path / "test.npy")
    np.testing.assert_array_equal(read_images(tmp_path, "test"), images)
    assert read_labels(tmp_path, "test").tolist() == [2, 0, 2]
    manifest = Manifest("idx", {"a": "b"}, 2, 2, None, "none", list("abcd"), {"test": split}, [Skipped("x", "why")])
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest


def test_a_digest_is_that_of_md5sum(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_md5(tmp_path / "abc") == "900150983cd24fb0d6963f7d28e17f72"
