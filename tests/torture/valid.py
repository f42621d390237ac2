"""One valid file of each kind that is read from outside, for others to damage."""

import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.models import squeezenet1_1

from gan.data.packed import Manifest, Split, write_manifest
from gan.data.sources.source import Record, write_record
from gan.networks.build import build_generator, save_generator
from tests.gan.data import celeba_files

NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 4), np.uint8)
ARCHITECTURE: dict[str, Any] = {
    "name": "dcgan",
    "z_dim": 4,
    "base": 1,
    "hidden": [4],
    "block": "plain",
    "image_size": 32,
    "channels": 1,
}


@dataclass(frozen=True)
class Seed:
    """A valid content, and what writes one of its kind, valid or not, into a folder and says what kind it is."""

    content: bytes
    write: Callable[[Path, bytes], str]


@cache
def seeds() -> dict[str, Seed]:
    """All of them, by a name whose first word is their row in the table."""
    return {
        **{name: Seed(content, write_among_images) for name, content in images().items()},
        **{f"zip {name}": Seed(packed(method), write_zip) for name, method in METHODS.items()},
        "zip celeba": Seed(celeba("img_align_celeba.zip"), write_celeba("img_align_celeba.zip")),
        "text partition": Seed(celeba("list_eval_partition.txt"), write_celeba("list_eval_partition.txt")),
        "text attributes": Seed(celeba("list_attr_celeba.txt"), write_celeba("list_attr_celeba.txt")),
        "idx images": Seed(idx_images(), write_idx("train-images-idx3-ubyte")),
        "idx labels": Seed(idx_labels(), write_idx("train-labels-idx1-ubyte")),
        "gz idx": Seed(gzip.compress(idx_images()), write_idx("train-images-idx3-ubyte.gz")),
        "gz csv": Seed(gzip.compress(csv()), write_csv),
        "csv": Seed(csv(), lambda folder, content: write_csv(folder, gzip.compress(content, 1))),
        "safetensors": Seed(generator(), write_as("g.safetensors", "generator")),
        "weights zip": Seed(weights(zipped=True), write_as("w.pth", "weights")),
        "weights legacy": Seed(weights(zipped=False), write_as("w.pth", "weights")),
        "weights squeezenet": Seed(squeezenet(), write_as("w.pth", "weights")),
        **{f"records {name}": Seed(content, write_record_beside(name)) for name, content in packed_set().items()},
    }


METHODS = {
    "stored": zipfile.ZIP_STORED,
    "deflated": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "lzma": zipfile.ZIP_LZMA,
}


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def images() -> dict[str, bytes]:
    """Encoded images of 32×32 pixels, of each format in several of its kinds."""
    colour, grey = Image.fromarray(NOISE[..., :3]), Image.fromarray(NOISE[..., 0])
    clear = Image.fromarray(NOISE)
    palette = colour.quantize(16)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    exif.get_ifd(0x8769)[0x9286] = "a comment"
    deep = Image.fromarray(np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64)
    more = {"save_all": True, "append_images": [colour.rotate(90), colour.rotate(180)]}
    return {
        "jpeg": encode(colour, "JPEG", exif=exif),
        "jpeg progressive": encode(colour, "JPEG", progressive=True, comment=b"words"),
        "jpeg cmyk": encode(colour.convert("CMYK"), "JPEG"),
        "png": encode(colour, "PNG", exif=exif),
        "png palette": encode(palette, "PNG", transparency=3),
        "png deep": encode(deep, "PNG"),
        "png clear": encode(clear, "PNG", icc_profile=bytes(200)),
        "gif": encode(palette, "GIF", **more, comment=b"words"),
        "gif clear": encode(palette, "GIF", transparency=1),
        "bmp": encode(colour, "BMP"),
        "bmp palette": encode(palette, "BMP"),
        "bmp rle": rle_bmp(),
        "tiff": encode(colour, "TIFF", exif=exif),
        "tiff lzw": encode(palette, "TIFF", compression="tiff_lzw"),
        "tiff deflate": encode(deep, "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": encode(colour, "TIFF", compression="jpeg"),
        "tiff bilevel": encode(grey.convert("1"), "TIFF", compression="group4"),
        "webp": encode(colour, "WEBP", exif=exif),
        "webp lossless": encode(clear, "WEBP", lossless=True),
        "webp animated": encode(colour, "WEBP", **more),
    }


def rle_bmp(width: int = 32, height: int = 32, runs: bytes | None = None) -> bytes:
    """A run-length encoded BMP, which Pillow reads and does not write; a run a line, unless others are given."""
    colours = bytes(range(256)) * 4
    runs = b"".join(bytes([width, line, 0, 0]) for line in range(height)) + b"\0\1" if runs is None else runs
    start = 14 + 40 + len(colours)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + colours + runs


def packed(method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in (("a/1", "png"), ("a/é", "png palette"), ("b/1", "jpeg"), ("b/2", "gif clear")):
            archive.writestr(f"all/{name}.{content.partition(' ')[0]}", images()[content])
        archive.writestr("notes.txt", "words")
    return buffer.getvalue()


@cache
def celeba(name: str) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return (celeba_files.write_celeba(Path(folder) / "c", 10) / name).read_bytes()


def idx_images() -> bytes:
    return struct.pack(">4I", 0x803, 20, 8, 8) + NOISE.tobytes()[: 20 * 64]


def idx_labels() -> bytes:
    return struct.pack(">2I", 0x801, 20) + bytes(range(10)) * 2


def csv() -> bytes:
    lines = [",".join(str(value) for value in [*NOISE.ravel()[at : at + 784], at % 10]) for at in range(6)]
    return "\n".join(lines).encode() + b"\n"


def file_of(write: Callable[[Path], object]) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()


def generator() -> bytes:
    return file_of(lambda path: save_generator(path, build_generator(**ARCHITECTURE), ARCHITECTURE))


def weights(*, zipped: bool) -> bytes:
    state = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).state_dict()
    return file_of(lambda path: torch.save(state, path, _use_new_zipfile_serialization=zipped))


def squeezenet() -> bytes:
    torch.manual_seed(0)
    return file_of(lambda path: torch.save(squeezenet1_1().state_dict(), path))


@cache
def packed_set() -> dict[str, bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_record(folder, Record("folder", {"images.zip": "0" * 32}))
        split = Split(4, "0" * 32, "0" * 32, [2, 2])
        write_manifest(folder, Manifest("folder", {}, 32, 1, None, "BICUBIC", ["a", "b"], {"train": split}))
        np.save(folder / "train.npy", NOISE.reshape(4, 32, 32, 1))
        np.save(folder / "train_labels.npy", np.arange(4) % 2)
        return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


# What writes a content, damaged or not, among what it belongs to


def write_among_images(folder: Path, content: bytes) -> str:
    for name in ("a.png", "c.png"):
        (folder / name).write_bytes(images()["png clear"])
    (folder / "b.png").write_bytes(content)
    return "images"


def write_zip(folder: Path, content: bytes) -> str:
    (folder / "given.zip").write_bytes(content)
    return "zip"


def write_celeba(name: str) -> Callable[[Path, bytes], str]:
    def write(folder: Path, content: bytes) -> str:
        for other in ("img_align_celeba.zip", "list_eval_partition.txt", "list_attr_celeba.txt"):
            (folder / other).write_bytes(content if other == name else celeba(other))
        return "celeba"

    return write


def write_idx(name: str) -> Callable[[Path, bytes], str]:
    def write(folder: Path, content: bytes) -> str:
        (folder / "train-images-idx3-ubyte").write_bytes(idx_images())
        (folder / "train-labels-idx1-ubyte").write_bytes(idx_labels())
        (folder / name).write_bytes(content)
        return "idx"

    return write


def write_csv(folder: Path, content: bytes) -> str:
    (folder / "mnist_5k.csv.gz").write_bytes(content)
    return "csv"


def write_as(name: str, kind: str) -> Callable[[Path, bytes], str]:
    def write(folder: Path, content: bytes) -> str:
        (folder / name).write_bytes(content)
        return kind

    return write


def write_record_beside(name: str) -> Callable[[Path, bytes], str]:
    def write(folder: Path, content: bytes) -> str:
        for other, valid in packed_set().items():
            (folder / other).write_bytes(content if other == name else valid)
        return "records"

    return write
