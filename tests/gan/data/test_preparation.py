"""From native files to the packed image set."""

import gzip
import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from gan.data import preparation
from gan.data.decoding import convert_image
from gan.data.fetching import fetch_source
from gan.data.packed import Images, file_md5, read_images, read_labels, read_manifest
from gan.data.preparation import prepare, split_indices
from gan.data.sources.source import Request, UnreadableError
from gan.errors import InputError

ROOT = Path(__file__).parents[3]
MNIST = ROOT / "../shared/data/mnist"


def run(source: str, path: Path | None, tmp_path: Path, name: str = "prepared", **changes: Any) -> Path:
    """Fetch and prepare; the folder of the packed set."""
    raw = tmp_path / f"{name}-raw"
    out = tmp_path / name
    raw.mkdir()
    out.mkdir()
    fetch_source(source, Request(path, None, tmp_path / "downloads"), raw)
    settings: dict[str, Any] = {
        "image_size": 32,
        "channels": 1,
        "crop": None,
        "validation_fraction": 0.1,
        "test_fraction": 0.2,
        "max_bad_fraction": 0.0,
        "seed": 0,
        "workers": 1,
    }
    prepare(raw, out, **settings | changes)
    return out


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_images(folder: Path, count: int) -> Path:
    """Images that tell their number: each is filled with it."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:03}.png").write_bytes(encode(Image.new("L", (33, 35), number)))
    return folder


def numbers(out: Path, split: str) -> list[int]:
    return [int(image[0, 0, 0]) for image in read_images(out, split)]


def write_idx(folder: Path, pair: str, labels: list[int]) -> None:
    """Images that tell their position: each is filled with it."""
    folder.mkdir(exist_ok=True)
    images = b"".join(bytes([position % 256]) * 9 for position in range(len(labels)))
    header = struct.pack(">4I", 0x803, len(labels), 3, 3)
    (folder / f"{pair}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images))
    (folder / f"{pair}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, len(labels)) + bytes(labels))


# Splits


@given(
    labels=st.lists(st.integers(0, 5), min_size=30, max_size=300),
    validation=st.sampled_from([0.05, 0.1, 0.25]),
    test=st.sampled_from([0.05, 0.1, 0.5]),
    seed=st.integers(0, 2**63 - 1),
)
def test_splits_do_not_overlap_and_classes_keep_their_share(
    labels: list[int], validation: float, test: float, seed: int
) -> None:
    array = np.array(labels)
    splits = split_indices(len(labels), array, {}, validation_fraction=validation, test_fraction=test, seed=seed)
    together = np.concatenate(list(splits.values()))
    assert sorted(together.tolist()) == list(range(len(labels)))
    assert len(splits["validation"]) == round(validation * len(labels))
    assert len(splits["test"]) == round(test * len(labels))
    share = len(splits["validation"]) / len(labels)
    for label in range(6):
        held = np.count_nonzero(array[splits["validation"]] == label)
        assert abs(held - share * np.count_nonzero(array == label)) <= 1 + 1e-9


def test_splits_follow_the_seed() -> None:
    def train(seed: int) -> list[int]:
        splits = split_indices(100, None, {}, validation_fraction=0.1, test_fraction=0.2, seed=seed)
        return [int(index) for index in splits["train"]]

    assert train(1) == train(1)
    assert train(1) != train(2)
    assert train(1) != sorted(train(1))


def test_any_beginning_of_a_split_holds_every_class() -> None:
    labels = np.repeat(np.arange(10), 500)
    splits = split_indices(5000, labels, {}, validation_fraction=0.05, test_fraction=0.1, seed=0)
    for name, each in (("train", 425), ("validation", 25), ("test", 50)):
        assert np.bincount(labels[splits[name]]).tolist() == [each] * 10
        assert sorted(labels[splits[name][:10]].tolist()) == list(range(10))


def test_an_official_test_split_is_taken_as_it_is() -> None:
    labels = np.repeat([0, 1], 60)
    official = {"train": np.arange(100), "test": np.arange(100, 120)}
    splits = split_indices(120, labels, official, validation_fraction=0.1, test_fraction=0.5, seed=0)
    assert splits["test"].tolist() == list(range(100, 120))
    assert len(splits["validation"]) == 10
    assert np.bincount(labels[splits["validation"]]).tolist() == [6, 4]
    assert sorted([*splits["train"], *splits["validation"]]) == list(range(100))


def test_official_splits_may_lie_anywhere_and_leave_nothing_to_cut() -> None:
    labels = np.arange(90) % 2
    official = {"train": np.arange(0, 90, 3), "validation": np.arange(1, 90, 3), "test": np.arange(2, 90, 3)}
    splits = split_indices(90, labels, official, validation_fraction=0.5, test_fraction=0.4, seed=0)
    assert sorted(splits["train"]) == official["train"].tolist() != splits["train"].tolist()
    assert np.bincount(labels[splits["train"][:10]]).tolist() == [5, 5]
    assert splits["validation"].tolist() == official["validation"].tolist()
    assert splits["test"].tolist() == official["test"].tolist()


def test_a_split_that_is_not_asked_for_is_not_there() -> None:
    assert list(split_indices(9, None, {}, validation_fraction=0, test_fraction=0, seed=0)) == ["train"]


@pytest.mark.parametrize(
    ("count", "validation", "test", "message"),
    [
        (5, 0.05, 0.2, "the validation split is empty, of 5 images to be split; add images, or change data.validation"),
        (5, 0.2, 0.05, "the test split is empty"),
        (3, 0.4, 0.55, "the train split is empty"),
    ],
)
def test_too_few_images_are_refused(count: int, validation: float, test: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_indices(count, None, {}, validation_fraction=validation, test_fraction=test, seed=0)


# One image


def convert(item: bytes | NDArray[np.uint8], size: int = 32, channels: int = 1, crop: int | None = None) -> Images:
    outcome = convert_image(item, image_size=size, channels=channels, crop=crop)
    assert not isinstance(outcome, str), outcome
    assert outcome.shape == (size, size, channels)
    assert outcome.dtype == np.uint8
    return outcome


def reason(item: bytes | UnreadableError, crop: int | None = None) -> str:
    outcome = convert_image(item, image_size=32, channels=1, crop=crop)
    assert isinstance(outcome, str)
    assert "\n" not in outcome
    return outcome


NOISE = np.random.default_rng(0).integers(0, 256, (36, 40, 3), np.uint8)


def test_the_centre_is_cropped() -> None:
    png = encode(Image.fromarray(NOISE))
    np.testing.assert_array_equal(convert(png, 32, 3, crop=32), NOISE[2:34, 4:36])
    np.testing.assert_array_equal(convert(png, 36, 3), NOISE[:, 2:38])


def test_resizing_is_antialiased() -> None:
    checkerboard = (np.indices((128, 128)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = convert(checkerboard, 32)
    assert np.abs(small.astype(int) - 127.5).max() < 8


def test_a_constant_stays_constant_whatever_the_size() -> None:
    assert np.unique(convert(np.full((28, 28), 77, np.uint8), 64)).tolist() == [77]
    assert np.unique(convert(np.full((300, 200), 77, np.uint8), 32, 3)).tolist() == [77]


def test_colour_becomes_grey_by_luma_and_grey_becomes_colour() -> None:
    red = encode(Image.new("RGB", (32, 32), (255, 0, 0)))
    assert np.unique(convert(red)).tolist() == [76]
    grey = convert(encode(Image.new("L", (32, 32), 9)), channels=3)
    assert np.unique(grey).tolist() == [9]


def test_images_are_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn clockwise by a quarter to see it upright
    square = NOISE[:32, :32]
    turned = convert(encode(Image.fromarray(square), exif=exif), 32, 3)
    np.testing.assert_array_equal(turned, np.rot90(square, -1))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(mode: str) -> None:
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 16, 32))
    prepared = convert(encode(image.convert(mode)))
    assert np.unique(prepared[:, :16]).tolist() == [255]
    assert np.unique(prepared[:, 16:]).tolist() == [0]


def test_sixteen_bits_are_scaled_to_eight() -> None:
    values = np.repeat(np.array([0, 257, 32896, 65535], np.uint16), 8)
    png = encode(Image.fromarray(np.tile(values, (32, 1))))
    assert convert(png)[0, ::8, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("image", "kind", "value"),
    [
        (Image.new("1", (32, 32), 1), "PNG", 255),
        (Image.new("P", (32, 32), 0), "GIF", 0),
        (Image.new("CMYK", (32, 32), (0, 0, 0, 255)), "JPEG", 0),
        (Image.new("L", (32, 32), 50), "BMP", 50),
        (Image.new("L", (32, 32), 50), "TIFF", 50),
        (Image.new("RGB", (32, 32), (50, 50, 50)), "WEBP", 50),
    ],
)
def test_other_modes_and_formats(image: Image.Image, kind: str, value: int) -> None:
    assert np.abs(convert(encode(image, kind)).astype(int) - value).max() <= 1


def huge_png() -> bytes:
    """A few bytes that announce ten thousand million pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">2I5B", 100_000, 100_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def test_what_cannot_be_used_has_its_reason() -> None:
    jpeg = encode(Image.fromarray(NOISE), "JPEG")
    png = encode(Image.fromarray(NOISE))
    assert reason(b"text") == "not an image in one of the formats BMP, GIF, JPEG, PNG, TIFF, WEBP"
    assert reason(b"").startswith("not an image")
    assert reason(jpeg[: len(jpeg) // 2]).startswith("cannot be decoded: image file is truncated")
    assert reason(png[: len(png) // 2]).startswith("cannot be decoded: ")
    assert reason(huge_png()) == "more than the 67108864 pixels allowed"
    assert reason(png, crop=37) == "40x36 pixels, smaller than data.crop 37"
    assert reason(encode(Image.new("F", (32, 32)), "TIFF")) == "32 bits a pixel, with no known range"
    assert reason(UnreadableError("damaged in the archive")) == "damaged in the archive"


def test_a_size_that_pillow_has_nothing_against_is_refused_too() -> None:
    image = Image.new("1", (10_000, 7_000))
    assert reason(encode(image)) == "more than the 67108864 pixels allowed"


# The whole


def test_every_image_is_in_one_split_with_its_label(tmp_path: Path) -> None:
    write_idx(tmp_path / "mine", "train", [position % 3 for position in range(90)])
    out = run("idx", tmp_path / "mine", tmp_path)
    manifest = read_manifest(out)
    assert {name: split.count for name, split in manifest.splits.items()} == {
        "train": 63,
        "validation": 9,
        "test": 18,
    }
    assert manifest.splits["validation"].class_counts == [3, 3, 3]
    assert sorted(chain.from_iterable(numbers(out, name) for name in manifest.splits)) == list(range(90))
    for name, split in manifest.splits.items():
        assert read_images(out, name).shape == (split.count, 32, 32, 1)
        assert read_labels(out, name).tolist() == [number % 3 for number in numbers(out, name)]
        assert split.md5 == file_md5(out / f"{name}.npy")


def test_the_official_test_split_is_kept_in_its_order(tmp_path: Path) -> None:
    write_idx(tmp_path / "mine", "train", [0, 1] * 20)
    write_idx(tmp_path / "mine", "t10k", [1, 0, 1])
    out = run("idx", tmp_path / "mine", tmp_path)
    assert numbers(out, "test") == [0, 1, 2]
    assert read_labels(out, "test").tolist() == [1, 0, 1]
    assert read_manifest(out).splits["train"].count == 36


def test_the_manifest_says_what_was_done_and_nothing_of_this_machine(tmp_path: Path) -> None:
    out = run("folder", write_images(tmp_path / "mine", 20), tmp_path, crop=33, validation_fraction=0.0)
    manifest = json.loads((out / "manifest.json").read_text())
    splits = manifest.pop("splits")
    assert manifest == {
        "source": "folder",
        "source_md5": {"images.zip": file_md5(tmp_path / "prepared-raw/images.zip")},
        "image_size": 32,
        "channels": 1,
        "crop": 33,
        "resize": "Pillow BICUBIC, antialiased",
        "classes": None,
        "published_images": None,
        "skipped": [],
        "value_range": [0, 255],
        "layout": "N,H,W,C uint8",
    }
    assert splits.keys() == {"train", "test"}
    assert splits["test"] == {
        "count": 4,
        "md5": file_md5(out / "test.npy"),
        "labels_md5": None,
        "class_counts": None,
    }
    assert {file.name for file in out.iterdir()} == {"manifest.json", "train.npy", "test.npy"}


def test_the_bytes_do_not_depend_on_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "BLOCK", 4)
    folder = tmp_path / "mine"
    generator = np.random.default_rng(0)
    for number in range(150):
        place = folder / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        noise = Image.fromarray(generator.integers(0, 256, (50, 40, 3), np.uint8))
        (place / f"{number}.jpg").write_bytes(encode(noise, "JPEG"))
    (folder / "a/broken.jpg").write_bytes(b"text")
    (folder / "b/broken.jpg").write_bytes(b"text")
    first, second = (
        run("folder", folder, tmp_path, f"with{workers}", workers=workers, channels=3, max_bad_fraction=0.1)
        for workers in (1, 3)
    )
    names = {file.name for file in first.iterdir()}
    assert {file.name for file in second.iterdir()} == names
    assert len(names) == 7
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_only_a_few_blocks_are_read_ahead() -> None:
    read = 0

    def items() -> Iterator[NDArray[np.uint8]]:
        nonlocal read
        for _ in range(2000):
            read += 1
            yield np.zeros((2, 2), np.uint8)

    convert_one = partial(convert_image, image_size=2, channels=1, crop=None)
    with preparation._in_blocks(convert_one, 2) as convert_all:
        outcomes = convert_all(items())
        next(outcomes)
        assert read == 5 * preparation.BLOCK
        assert len(list(outcomes)) == 1999


def test_unreadable_images_are_named_and_left_out(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "mine", 20)
    (folder / "003.png").write_bytes(b"text")
    (folder / "004.png").write_bytes((folder / "004.png").read_bytes()[:50])
    out = run("folder", folder, tmp_path, max_bad_fraction=0.1)
    manifest = read_manifest(out)
    assert [item.name for item in manifest.skipped] == ["003.png", "004.png"]
    assert manifest.skipped[0].reason.startswith("not an image")
    kept = chain.from_iterable(numbers(out, name) for name in manifest.splits)
    assert sorted(kept) == [number for number in range(20) if number not in (3, 4)]
    assert sum(split.count for split in manifest.splits.values()) == 18


def test_leaving_an_image_out_moves_no_other(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "mine", 40)
    whole = run("folder", folder, tmp_path, "whole")
    (folder / "007.png").write_bytes(b"text")
    without = run("folder", folder, tmp_path, "without", max_bad_fraction=0.5)
    for name in ("train", "validation", "test"):
        assert numbers(without, name) == [number for number in numbers(whole, name) if number != 7]


def test_too_many_unreadable_images_are_an_error_that_names_them(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "mine", 20)
    for number in range(7):
        (folder / f"00{number}.png").write_bytes(b"text")
    with pytest.raises(InputError) as caught:
        run("folder", folder, tmp_path, max_bad_fraction=0.3)
    message = str(caught.value)
    assert message.startswith("7 of 20 images are unreadable, more than data.max_bad_fraction 0.3 allows; ")
    assert message.endswith("; and 2 more")
    assert message.count(".png': not an image") == 5
    assert "\n" not in message


def test_a_damaged_member_counts_as_unreadable(tmp_path: Path) -> None:
    archive = tmp_path / "m.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(10):
            file.writestr(f"{number}.png", encode(Image.new("L", (32, 32), number)))
    content = bytearray(archive.read_bytes())
    content[60] ^= 0xFF
    archive.write_bytes(content)
    out = run("folder", archive, tmp_path, max_bad_fraction=0.1)
    assert [(item.name, item.reason) for item in read_manifest(out).skipped] == [
        ("0.png", "damaged in the archive: Bad CRC-32 for file '0.png'")
    ]


def test_a_split_may_not_become_empty(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "mine", 10)
    [victim] = numbers(run("folder", folder, tmp_path, "whole"), "validation")
    (folder / f"00{victim}.png").write_bytes(b"text")
    with pytest.raises(InputError, match="the validation split is empty, once unreadable images are left out"):
        run("folder", folder, tmp_path, max_bad_fraction=0.5)


def test_nothing_fetched_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"source\.json: no such file; fetch the data first, with dvc repro fetch"):
        prepare(
            tmp_path,
            tmp_path,
            image_size=32,
            channels=1,
            crop=None,
            validation_fraction=0.1,
            test_fraction=0.1,
            max_bad_fraction=0,
            seed=0,
            workers=1,
        )


@pytest.mark.skipif(not MNIST.is_dir(), reason="needs MNIST beside the repository")
def test_all_of_mnist(tmp_path: Path) -> None:
    out = run("mnist", MNIST, tmp_path, validation_fraction=0.05)
    manifest = read_manifest(out)
    assert {name: split.count for name, split in manifest.splits.items()} == {
        "train": 57_000,
        "validation": 3_000,
        "test": 10_000,
    }
    assert manifest.splits["test"].class_counts == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert read_labels(out, "test")[:5].tolist() == [7, 2, 1, 0, 4]
    # MNIST's published mean over the training digits is 0.1307; resizing keeps it.
    assert read_images(out, "train").mean() / 255 == pytest.approx(0.1307, abs=2e-3)


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    program = """
import time
from gan.data.preparation import _in_blocks

def wait(item):
    time.sleep(60)
    return str(item)

if __name__ == "__main__":
    with _in_blocks(wait, 2) as convert:
        list(convert(iter([b""] * 64)))
"""
    (tmp_path / "script.py").write_text(program)
    command = [sys.executable, str(tmp_path / "script.py")]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}) as parent:
        workers = wait_for(lambda: children(parent.pid, "spawn_main"), at_least=2)
        parent.send_signal(signal.SIGKILL)
    wait_for(lambda: [0] if not any(map(is_running, workers)) else [], at_least=1)


def is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int, word: str) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed if word in Path(f"/proc/{child}/cmdline").read_text()]


def wait_for(look: Any, at_least: int, seconds: float = 20) -> list[int]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found: list[int] = look()
        if len(found) >= at_least:
            return found
        time.sleep(0.05)
    raise AssertionError("waited too long")
