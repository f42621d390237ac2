"""Files that were built to do harm: to fill memory, to take for ever, to write elsewhere, to run code.

Each writes itself into an empty folder and says what kind it is, as `feeding.steps` has it.
"""

import bz2
import gzip
import io
import json
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.torture import valid

CASES: dict[str, Callable[[Path], str]] = {}
"""By name, which begins with the row in the table."""

LARGE = 8192
"""Side of the largest square image that is read."""


def case(name: str) -> Callable[[Callable[[Path], str]], Callable[[Path], str]]:
    def add(write: Callable[[Path], str]) -> Callable[[Path], str]:
        CASES[name] = write
        return write

    return add


def image_case(name: str, kind: str = "images") -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    """A single image between good ones."""

    def add(make: Callable[[], bytes]) -> Callable[[], bytes]:
        def write(folder: Path) -> str:
            valid.write_among_images(folder, make())
            return kind

        CASES[name] = write
        return make

    return add


def zip_case(name: str) -> Callable[[Callable[[zipfile.ZipFile], None]], Callable[[zipfile.ZipFile], None]]:
    """A zip, besides a good image."""

    def add(fill: Callable[[zipfile.ZipFile], None]) -> Callable[[zipfile.ZipFile], None]:
        def write(folder: Path) -> str:
            with zipfile.ZipFile(folder / "given.zip", "w") as archive:
                archive.writestr("good.png", valid.images()["png"])
                fill(archive)
            return "zip"

        CASES[name] = write
        return fill

    return add


# Zips


def zip_bytes(members: list[tuple[bytes, dict[str, Any], bytes]], **end: int) -> bytes:
    """A zip put together by hand: names, fields that lie, and contents as they stand in the file."""
    body, listing = b"", b""
    for name, fields, content in members:
        values: dict[str, Any] = {
            "method": 0,
            "flags": 0x800,
            "crc": zlib.crc32(content),
            "packed": len(content),
            "size": len(content),
            "offset": len(body),
            "attributes": 0o100644 << 16,
            "extra": b"",
        } | fields
        short = (values["method"], 0, 0x21, values["crc"], values["packed"], values["size"], len(name))
        body += struct.pack("<4s5H3I2H", b"PK\3\4", 20, values["flags"], *short, 0) + name + content
        listing += struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 45, 45, values["flags"], *short, len(values["extra"]), 0, 0, 0,
            values["attributes"], values["offset"],
        ) + name + values["extra"]  # fmt: skip
    count = end.get("count", len(members))
    return (
        body
        + listing
        + struct.pack(
            "<4s4H2IH", b"PK\5\6", 0, 0, count, count, end.get("list", len(listing)), end.get("start", len(body)), 0
        )
    )


def write_zip_bytes(name: str, members: list[tuple[bytes, dict[str, Any], bytes]], **end: int) -> None:
    CASES[name] = lambda folder: valid.write_zip(folder, zip_bytes(members, **end))


def endless_deflate(size: int) -> bytes:
    """Zeros, deflated to a thousandth; the same block again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packer.compress(bytes(2**24))
    packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (size // 2**24) + packer.flush()


@zip_case("zip: a member that unpacks to a gigabyte")
def _(archive: zipfile.ZipFile) -> None:
    with archive.open(zipfile.ZipInfo("bomb.png"), "w", force_zip64=True) as member:
        for _number in range(64):
            member.write(bytes(2**24))


@case("zip: four gigabytes that are announced as a hundred bytes")
def _(folder: Path) -> str:
    bomb = endless_deflate(2**32)
    return valid.write_zip(folder, zip_bytes([(b"a.png", {"method": 8, "size": 100}, bomb)]))


@case("zip: bzip2 that is announced as a hundred bytes")
def _(folder: Path) -> str:
    return valid.write_zip(folder, zip_bytes([(b"a.png", {"method": 12, "size": 100}, bz2.compress(bytes(2**28)))]))


@case("zip: bzip2 of the largest size")
def _(folder: Path) -> str:
    content = bz2.compress(bytes(2**26))
    return valid.write_zip(folder, zip_bytes([(b"a.png", {"method": 12, "size": 2**26}, content)]))


@case("zip: a hundred thousand members that share their bytes")
def _(folder: Path) -> str:
    png = solid("RGB", 2048)
    whole = zip_bytes([(b"a.png", {}, png)])
    start = whole.index(b"PK\1\2")
    one = whole[start : whole.index(b"PK\5\6")]
    listing = b"".join(one[:-5] + b"%05d.png" % number for number in range(60_000)).replace(
        one[28:30], struct.pack("<H", 9)
    )
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 60_000, 60_000, len(listing), start, 0)
    return valid.write_zip(folder, whole[:start] + listing + end)


@case("zip: a million empty members")
def _(folder: Path) -> str:
    names = [b"%06x.png" % number for number in range(10**6)]
    short = (0, 0, 0x21, 0, 0, 0, 10)
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, *short, 0)
    body = b"".join(local + name for name in names)
    central = struct.pack("<4s6H3I5HI", b"PK\1\2", 20, 20, 0, *short, 0, 0, 0, 0, 0)
    listing = b"".join(central + struct.pack("<I", 40 * at) + name for at, name in enumerate(names))
    far = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 10**6, 10**6, len(listing), len(body))
    where = struct.pack("<4sIQI", b"PK\6\7", 0, len(body) + len(listing), 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    return valid.write_zip(folder, body + listing + far + where + end)


PNG = valid.images()["png"]
for _number, _raw in enumerate(
    (
        b"../out.png",
        b"a/../../out.png",
        b"/etc/out.png",
        b"..\\out.png",
        b"C:\\out.png",
        b"\\\\host\\share\\o.png",
        b"C:out.png",
        b"a.png\0.txt",
        b"\0.png",
        b"\n\r\x1b[2J.png",
        b"\xe2\x80\xae.png",
        b"\xff\xfe.png",
        b"",
        b"/",
        b"x" * 65531 + b".png",
        b"a/" * 30000 + b"a.png",
        b"CON.png",
        b"~/a.png",
        b"$HOME/a.png",
        b"-rf.png",
    )
):
    write_zip_bytes(f"zip: name {_number}, {_raw[:20]!r}", [(b"a.png", {}, PNG), (_raw, {}, PNG)])
write_zip_bytes("zip: two of one name", [(b"a.png", {}, PNG), (b"a.png", {}, PNG[:-9])])
write_zip_bytes("zip: a symbolic link", [(b"a.png", {"attributes": (stat.S_IFLNK | 0o777) << 16}, b"/etc/passwd")])
write_zip_bytes("zip: a device", [(b"a.png", {"attributes": (stat.S_IFCHR | 0o777) << 16}, PNG)])
write_zip_bytes("zip: encrypted", [(b"a.png", {"flags": 1}, PNG)])
write_zip_bytes("zip: strongly encrypted", [(b"a.png", {"flags": 0x41}, PNG)])
write_zip_bytes("zip: patched data", [(b"a.png", {"flags": 0x20}, PNG)])
write_zip_bytes("zip: compressed by AES", [(b"a.png", {"method": 99}, PNG)])
write_zip_bytes("zip: compressed by zstd", [(b"a.png", {"method": 93}, PNG)])
write_zip_bytes("zip: a wrong digest", [(b"a.png", {"crc": 1}, PNG)])
write_zip_bytes("zip: a size that lies", [(b"a.png", {"size": 2**26}, PNG)])
write_zip_bytes("zip: a packed size that lies", [(b"a.png", {"packed": 2**32 - 2}, PNG)])
write_zip_bytes("zip: an offset beyond the end", [(b"a.png", {"offset": 2**31}, PNG)])
write_zip_bytes("zip: a long list", [(b"a.png", {}, PNG)], list=2**32 - 2)
write_zip_bytes("zip: a list elsewhere", [(b"a.png", {}, PNG)], start=2**31)
write_zip_bytes("zip: many announced", [(b"a.png", {}, PNG)], count=65535)
write_zip_bytes("zip: a zip within", [(b"a.png", {}, zip_bytes([(b"a.png", {}, PNG)]))])
for _label, _extra in {
    "a size of 2**60": struct.pack("<2H3Q", 1, 24, 2**60, 2**60, 0),
    "an offset of 2**63": struct.pack("<2H3Q", 1, 24, 1, 1, 2**63),
    "cut": struct.pack("<2HI", 1, 24, 1),
    "none": b"",
}.items():
    _fields = {"size": 2**32 - 1, "packed": 2**32 - 1, "offset": 2**32 - 1, "extra": _extra}
    write_zip_bytes(f"zip: zip64, {_label}", [(b"a.png", _fields, PNG)])


# Folders


@case("folder: a pipe")
def _(folder: Path) -> str:
    os.mkfifo(folder / "a.png")
    return "images"


@case("folder: a pipe in a zip's place")
def _(folder: Path) -> str:
    os.mkfifo(folder / "given.zip")
    return "zip"


@case("folder: a device without end")
def _(folder: Path) -> str:
    (folder / "a.png").symlink_to("/dev/zero")
    return "images"


@case("folder: a very large file")
def _(folder: Path) -> str:
    (folder / "a.png").touch()
    os.truncate(folder / "a.png", 2**40)
    return "images"


@case("folder: very deep")
def _(folder: Path) -> str:
    back = Path.cwd()
    try:
        os.chdir(folder)
        for _number in range(1500):
            Path("d").mkdir()
            os.chdir("d")
        Path("a.png").write_bytes(PNG)
    finally:
        os.chdir(back)
    return "images"


@case("folder: names of all kinds")
def _(folder: Path) -> str:
    for name in (b"\n.png", b"\x1b[31m.png", b"\xff.png", b"x" * 251 + b".png", "\u202e.png".encode(), b"a b'\".png"):
        (folder / os.fsdecode(name)).write_bytes(b"no image")
    return "images"


@case("folder: line breaks in names")
def _(folder: Path) -> str:
    for number in range(20):
        (folder / f"{number}\nTraceback\x1b[2J{'x' * 200}.png").write_bytes(b"no image")
    return "images"


@case("folder: celeba's archive is a device")
def _(folder: Path) -> str:
    (folder / "img_align_celeba.zip").symlink_to("/dev/zero")
    return "celeba"


@case("folder: celeba's list has 60 MB of lines")
def _(folder: Path) -> str:
    lines = b"".join(b"%07x 0\n" % number for number in range(6_000_000))
    return valid.write_celeba("list_eval_partition.txt")(folder, lines)


@case("folder: celeba's attributes have 60 MB of names")
def _(folder: Path) -> str:
    names = b" ".join(b"a%07x" % number for number in range(6_000_000))
    return valid.write_celeba("list_attr_celeba.txt")(folder, b"1\n" + names + b"\n")


@case("folder: idx files that are pipes")
def _(folder: Path) -> str:
    os.mkfifo(folder / "train-images-idx3-ubyte")
    os.mkfifo(folder / "train-labels-idx1-ubyte")
    return "idx"


# Gzips


def gzip_of(header: bytes, zeros: int) -> bytes:
    """A header, then any number of zeros; the digest at the end is wrong."""
    return (
        gzip.compress(header)[:10]
        + b"\0"
        + struct.pack("<2H", len(header), len(header) ^ 0xFFFF)
        + header
        + (endless_deflate(zeros) + bytes(8))
    )


def idx_case(name: str, shape: tuple[int, int, int], zeros: int, labels: int = 20) -> None:
    def write(folder: Path) -> str:
        header = struct.pack(">2I", 0x801, labels)
        (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header + bytes(labels), 1))
        content = gzip_of(struct.pack(">4I", 0x803, *shape), zeros)
        (folder / "train-images-idx3-ubyte.gz").write_bytes(content)
        return "idx"

    CASES[name] = write


idx_case("gz: idx, four gigabytes that are announced as one image", (1, 28, 28), 2**32)
idx_case("gz: idx, four gigabytes as announced", (2**20, 64, 64), 2**32)
idx_case("gz: idx, the most that is read", (2**18, 64, 64), 2**30)
idx_case("gz: idx, a thousand million images of a pixel", (2**30, 1, 1), 2**30)
idx_case("gz: idx, two million images of a pixel", (2**21, 1, 1), 2**21, labels=2**21)
idx_case("gz: idx, sizes whose product is small in 32 bits", (2**16, 2**16, 2**16), 2**24)


@case("gz: idx, two pairs of the most that is read")
def _(folder: Path) -> str:
    for pair in ("train", "t10k"):
        header = struct.pack(">2I", 0x801, 2**18)
        (folder / f"{pair}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header + bytes(2**18), 1))
        packed = gzip.compress(struct.pack(">4I", 0x803, 2**18, 64, 64)) + gzip.compress(bytes(2**20), 1) * 2**10
        (folder / f"{pair}-images-idx3-ubyte.gz").write_bytes(packed)
    return "idx"


@case("gz: csv, four gigabytes in a line")
def _(folder: Path) -> str:
    return valid.write_csv(folder, gzip_of(b"0,", 2**32))


@case("gz: csv, a megabyte in a number")
def _(folder: Path) -> str:
    return valid.write_csv(folder, gzip.compress(b"1" * 2**20 + b"," + valid.csv()))


@case("gz: csv, no number")
def _(folder: Path) -> str:
    return valid.write_csv(folder, gzip.compress(b"\x1b[2J\0" * 2**20))


@case("gz: csv, nothing")
def _(folder: Path) -> str:
    return valid.write_csv(folder, gzip.compress(b"\n" * 100))


@case("gz: csv, commas alone")
def _(folder: Path) -> str:
    return valid.write_csv(folder, gzip.compress(b"," * (2**24 - 1)))


@case("gz: csv, short lines alone")
def _(folder: Path) -> str:
    return valid.write_csv(folder, gzip.compress(b"1\n" * 2**23))


# Images


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, *chunks: bytes, data: bytes | None = None) -> bytes:
    """A PNG of zeros, or of other `data`, with further chunks before it."""
    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0))
    if data is None:
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
        size = height * (1 + (width * depth * channels + 7) // 8)
        data = zlib.compress(b"", 0)[:2] + endless_deflate(size + 2**24)
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def solid(mode: str, side: int, kind: str = "PNG", **options: Any) -> bytes:
    return valid.encode(Image.new(mode, (side, side)), kind, **options)


GREY_PALETTE = chunk(b"PLTE", bytes(768))
for _name, _make in {
    "the largest in colour": lambda: png(LARGE, LARGE, 8, 2),
    "the largest with transparency": lambda: png(LARGE, LARGE, 8, 6),
    "the largest of 16 bits of grey": lambda: png(LARGE, LARGE, 16, 0),
    "the largest of 16 bits with transparency": lambda: png(LARGE, LARGE, 16, 6),
    "the largest with a clear grey": lambda: png(LARGE, LARGE, 8, 0, chunk(b"tRNS", b"\0\0")),
    "the largest with a clear colour": lambda: png(LARGE, LARGE, 8, 2, chunk(b"tRNS", bytes(6))),
    "the largest with a palette": lambda: png(LARGE, LARGE, 8, 3, GREY_PALETTE, chunk(b"tRNS", bytes(256))),
    "one line as long as may be": lambda: png(2**16 - 1, 1000, 8, 2),
    "one line, longer": lambda: png(2**26, 1, 8, 2),
    "one column": lambda: png(1, 2**26, 8, 2),
    "a little more than the largest": lambda: png(LARGE, LARGE + 1, 8, 6),
    "as large as Pillow takes": lambda: png(13_000, 13_000, 8, 6),
    "2**31 - 1 pixels a side": lambda: png(2**31 - 1, 2**31 - 1, 8, 6, data=b""),
    "no pixels": lambda: png(0, 0, 8, 6, data=b""),
    "a palette that is not there": lambda: png(32, 32, 8, 3),
    "a palette longer than may be": lambda: png(32, 32, 8, 3, chunk(b"PLTE", bytes(3 * 10**6))),
    "more transparency than colours": lambda: png(32, 32, 8, 3, GREY_PALETTE, chunk(b"tRNS", bytes(10**6))),
    "texts that unpack to a gigabyte": lambda: png(
        32, 32, 8, 2, *[chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**24))) for _ in range(64)]
    ),
    "one text of 60 MB": lambda: png(32, 32, 8, 2, chunk(b"tEXt", b"k\0" + b"x" * 60_000_000)),
    "a million empty texts": lambda: png(32, 32, 8, 2, chunk(b"tEXt", b"k\0v") * 10**6),
    "four million chunks of no kind": lambda: png(32, 32, 8, 2, chunk(b"abCd", b"") * 4 * 10**6),
    "a profile that unpacks to 4 GB": lambda: png(
        32, 32, 8, 2, chunk(b"iCCP", b"p\0\0" + zlib.compress(b"", 0)[:2] + endless_deflate(2**32))
    ),
    "an EXIF profile in text": lambda: png(
        32, 32, 8, 2, chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n99999999\n" + b"f" * 10**6))
    ),
    "animated, a thousand million frames": lambda: png(
        32, 32, 8, 2, chunk(b"acTL", struct.pack(">2I", 2**30, 0)), chunk(b"fcTL", bytes(26))
    ),
}.items():
    image_case(f"png: {_name}")(_make)
image_case("png: the largest with transparency, by two processes", "images side by side")(
    lambda: png(LARGE, LARGE, 8, 6)
)


def jpeg_segments(*segments: tuple[int, bytes]) -> bytes:
    """A good JPEG, with these before all others."""
    plain = valid.images()["jpeg cmyk"]
    added = b"".join(bytes([0xFF, marker]) + struct.pack(">H", 2 + len(body)) + body for marker, body in segments)
    return plain[:2] + added + plain[2:]


def exif(*entries: bytes, following: int = 8) -> tuple[int, bytes]:
    body = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + struct.pack("<I", following)
    return 0xE1, b"Exif\0\0" + body


def tag(number: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<2H2I", number, kind, count, value)


def scans(side: int, count: int) -> bytes:
    """A progressive JPEG whose image is gone over again and again, in a few bytes each."""
    plain = solid("L", side, "JPEG", progressive=True)
    last = plain.rindex(b"\xff\xda")
    return plain[:last] + plain[last:-2] * count + plain[-2:]


for _name, _make in {
    "the largest, progressive, in four colours": lambda: solid("CMYK", LARGE, "JPEG", progressive=True),
    "the largest, progressive, turned": lambda: solid(
        "RGB", LARGE, "JPEG", progressive=True, exif=struct.pack("<6s4sIH", b"Exif\0\0", b"II*\0", 8, 1)
        + tag(0x0112, 3, 1, 5) + bytes(4),
    ),
    "65,500 pixels a side": lambda: valid.images()["jpeg"].replace(b"\0\x20\0\x20", b"\xff\xdc\xff\xdc"),
    "a hundred thousand passes": lambda: scans(32, 100_000),
    "a thousand passes over the largest": lambda: scans(LARGE, 1000),
    "as many passes as may be": lambda: scans(1024, 900),
    "EXIF that goes round": lambda: jpeg_segments(
        exif(tag(0x8769, 4, 1, 8), tag(0x8825, 4, 1, 8), tag(0xA005, 4, 1, 8), tag(0x0112, 3, 1, 6))
    ),
    "EXIF of a thousand million values": lambda: jpeg_segments(
        exif(tag(0x0112, 3, 2**30, 0), tag(0x9286, 7, 2**31, 0))
    ),
    "EXIF with 5,000 entries": lambda: jpeg_segments(exif(*[tag(n, 5, 2**20, 8) for n in range(5000)])),
    "an orientation that is none": lambda: jpeg_segments(exif(tag(0x0112, 2, 4, 0x41414141))),
    "60 MB of comments": lambda: jpeg_segments(*[(0xFE, b"c" * 65_000)] * 920),
    "60 MB of EXIF": lambda: jpeg_segments(*[(0xE1, b"Exif\0\0" + b"c" * 65_000)] * 920),
    "60 MB of profiles": lambda: jpeg_segments(*[(0xE2, b"ICC_PROFILE\0\1\1" + b"c" * 65_000)] * 920),
    "15 million empty segments": lambda: jpeg_segments(*[(0xFE, b"")] * 15_000_000),
    "60 MB of fill": lambda: (j := valid.images()["jpeg"])[:2] + b"\xff" * 60_000_000 + j[2:],
    "many images in one, that are not there": lambda: jpeg_segments(
        (0xE2, b"MPF\0II*\0" + struct.pack("<IH", 8, 3) + tag(0xB000, 7, 4, 0x30303130) + tag(0xB001, 4, 1, 2**31)
         + tag(0xB002, 7, 2**31, 50) + bytes(4))
    ),
    "Photoshop's resources without content": lambda: jpeg_segments(
        (0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5000)
    ),
}.items():  # fmt: skip
    image_case(f"jpeg: {_name}")(_make)


def tiff(*entries: bytes, following: int = 0, data: bytes = b"") -> bytes:
    """A TIFF of entries; its `data` begins at 8."""
    start = 8 + len(data)
    return (
        b"II*\0"
        + struct.pack("<I", start)
        + data
        + struct.pack("<H", len(entries))
        + b"".join(entries)
        + (struct.pack("<I", following))
    )


def plain_tiff(width: int = 32, height: int = 32, **changes: tuple[int, int, int]) -> bytes:
    """Grey pixels in one strip; `changes` are of a tag's kind, count and value, by `tNUMBER`; kind 0 takes it away."""
    data = bytes(4096)
    entries = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 8)}
    entries |= {277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, min(width * height, 2**32 - 1))}
    entries |= {int(key[1:]): value for key, value in changes.items()}
    return tiff(*[tag(number, *entries[number]) for number in sorted(entries) if entries[number][0]], data=data)


def deflated_tiff(samples: int, depth: int) -> bytes:
    size = LARGE * LARGE * samples * depth // 8
    data = zlib.compress(b"", 0)[:2] + endless_deflate(size + 2**24)
    data += struct.pack("<4H", *[depth] * 4)
    bits = (3, 1, depth) if samples == 1 else (3, samples, len(data))
    entries = {
        256: (4, 1, LARGE), 257: (4, 1, LARGE), 258: bits, 259: (3, 1, 8), 262: (3, 1, 1 if samples < 3 else 2),
        273: (4, 1, 8), 277: (3, 1, samples), 278: (4, 1, LARGE), 279: (4, 1, len(data) - 8),
    } | ({338: (3, 1, 2)} if samples == 4 else {})  # fmt: skip
    return tiff(*[tag(number, *entry) for number, entry in sorted(entries.items())], data=data)


for _name, _make in {
    "the largest in grey, in one strip": lambda: deflated_tiff(1, 8),
    "the largest with transparency, in one strip": lambda: deflated_tiff(4, 8),
    "the largest of 16 bits with transparency": lambda: deflated_tiff(4, 16),
    "a directory that is its own next": lambda: tiff(tag(256, 4, 1, 32), tag(257, 4, 1, 32), following=8),
    "a strip of a thousand million bytes": lambda: plain_tiff(t279=(4, 1, 2**30)),
    "a thousand million strips": lambda: plain_tiff(t273=(4, 2**30, 8), t279=(4, 2**30, 8)),
    "lines of strips: none": lambda: plain_tiff(t278=(4, 1, 0)),
    "lines of strips: too many": lambda: plain_tiff(t278=(4, 1, 2**32 - 1)),
    "a strip beyond the end": lambda: plain_tiff(t273=(4, 1, 2**32 - 1)),
    "no strips": lambda: plain_tiff(t273=(0, 0, 0), t279=(0, 0, 0)),
    "tiles of 2**31 pixels": lambda: plain_tiff(
        t322=(4, 1, 2**31), t323=(4, 1, 2**31), t324=(4, 1, 8), t325=(4, 1, 100), t259=(3, 1, 8)
    ),
    "tiles of 30,000 pixels": lambda: plain_tiff(
        t322=(4, 1, 30_000), t323=(4, 1, 30_000), t324=(4, 1, 8), t325=(4, 1, 100), t259=(3, 1, 8)
    ),
    "tiles of 2**24 by 64 pixels, packed": lambda: plain_tiff(
        t322=(4, 1, 2**24), t323=(4, 1, 64), t324=(4, 1, 8), t325=(4, 1, 100), t259=(3, 1, 32773)
    ),
    "65,535 samples": lambda: plain_tiff(t277=(3, 1, 65535)),
    "2**31 pixels a side": lambda: plain_tiff(2**31, 2**31),
    "a large size and little in it": lambda: plain_tiff(LARGE, LARGE),
    "a large size, packed, and little in it": lambda: plain_tiff(LARGE, LARGE, t259=(3, 1, 5)),
    "64 bits a sample": lambda: plain_tiff(t258=(3, 1, 64)),
    "no bits a sample": lambda: plain_tiff(t258=(3, 1, 0)),
    "inner directories that go round": lambda: plain_tiff(t330=(4, 1, 8), t34665=(4, 1, 8), t34853=(4, 1, 4104)),
    "an orientation of 65,535": lambda: plain_tiff(t274=(3, 1, 65535)),
    "unknown compression": lambda: plain_tiff(t259=(3, 1, 65000)),
    "values of a thousand million bytes": lambda: plain_tiff(t700=(7, 2**30, 8), t34377=(7, 2**30, 8)),
    "65,535 entries": lambda: tiff(*[tag(number, 4, 2**20, 8) for number in range(65535)]),
}.items():
    image_case(f"tiff: {_name}")(_make)
image_case("tiff: the largest of 16 bits, by two processes", "images side by side")(lambda: deflated_tiff(4, 16))


def gif(width: int, height: int, *, before: bytes = b"", frame: tuple[int, int, int, int] = (0, 0, 32, 32)) -> bytes:
    """A GIF whose canvas and first frame may differ."""
    small = valid.encode(Image.new("P", frame[2:]), "GIF")
    start = small.index(b",\0\0\0\0")
    head = b"GIF89a" + struct.pack("<2H", width, height) + small[10 : 13 + 3 * 2 ** (1 + (small[10] & 7))]
    return head + before + b"," + struct.pack("<4H", *frame) + small[start + 9 :]


for _name, _make in {
    "a canvas of 65,535 a side": lambda: gif(65535, 65535),
    "a canvas of the largest": lambda: gif(LARGE, LARGE),
    "a canvas of the largest, clear": lambda: gif(LARGE, LARGE, before=b"!\xf9\4\1\0\0\0\0"),
    "animated on a canvas of the largest": lambda: gif(LARGE, LARGE)[:-1] * 1 + gif(LARGE, LARGE)[13:],
    "a frame beyond its canvas": lambda: gif(32, 32, frame=(65000, 65000, 500, 500)),
    "60 MB of comments": lambda: gif(32, 32, before=b"!\xfe" + (b"\xff" + b"c" * 255) * 235_000 + b"\0"),
    "20 million comments": lambda: gif(32, 32, before=b"!\xfe\1c\0" * 12_000_000),
    "30 million extensions": lambda: gif(32, 32, before=b"!\1\0" * 20_000_000),
    "nothing but blocks of no kind": lambda: b"GIF89a" + bytes(60_000_000),
}.items():
    image_case(f"gif: {_name}")(_make)


def animated_webp(width: int, height: int, frames: int) -> bytes:
    """A WEBP of small frames on a canvas of any size."""
    small = valid.encode(Image.new("RGB", (16, 16)), "WEBP", lossless=True)[12:]

    def part(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)

    def three(number: int) -> bytes:
        return struct.pack("<I", number)[:3]

    frame = part(b"ANMF", three(0) + three(0) + three(15) + three(15) + three(100) + b"\0" + small)
    body = part(b"VP8X", b"\2\0\0\0" + three(width - 1) + three(height - 1)) + part(b"ANIM", bytes(6)) + frame * frames
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


for _name, _make in {
    "a canvas of the largest": lambda: animated_webp(LARGE, LARGE, 2),
    "a canvas of 16,383 a side": lambda: animated_webp(16383, 16383, 2),
    "a canvas of 2**24 a side": lambda: animated_webp(2**24, 2**24, 2),
    "half a million frames": lambda: animated_webp(32, 32, 500_000),
    "lossless, the largest": lambda: solid("RGBA", LARGE, "WEBP", lossless=True, quality=0, method=0),
}.items():  # fmt: skip
    image_case(f"webp: {_name}")(_make)
image_case("webp: a canvas of the largest, by two processes", "images side by side")(
    lambda: animated_webp(LARGE, LARGE, 2)
)


def bmp(width: int, height: int, bits: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header + bytes(3 * 32 * 32)


for _name, _make in {
    "a large size and little in it": lambda: bmp(LARGE, LARGE, 24),
    "2**31 - 1 pixels a side": lambda: bmp(2**31 - 1, 2**31 - 1, 24),
    "a height below zero": lambda: bmp(32, -(2**31), 24),
    "a width below zero": lambda: bmp(-32, 32, 24),
    "no bits": lambda: bmp(32, 32, 0),
    "65,535 bits": lambda: bmp(32, 32, 65535),
    "runs over the largest": lambda: valid.rle_bmp(LARGE, LARGE, b"\0\2\xff\xff" * 1000),
    "single pixels of the largest": lambda: valid.rle_bmp(LARGE, LARGE, b"\1\7" * 30_000_000),
    "jumps in a long line": lambda: valid.rle_bmp(65535, 1000, b"\0\2\xff\xff" * 10_000),
    "line ends alone": lambda: valid.rle_bmp(32, 32, bytes(60_000_000)),
}.items():
    image_case(f"bmp: {_name}")(_make)


@case("images: twenty of the largest, by two processes")
def _(folder: Path) -> str:
    contents = [png(LARGE, LARGE, 8, 6), animated_webp(LARGE, LARGE, 2), deflated_tiff(4, 8)]
    for number in range(12):
        (folder / f"{number}.png").write_bytes(contents[number % 3])
    return "images side by side"


@case("images: forty files of 60 MB, by two processes")
def _(folder: Path) -> str:
    for number in range(16):
        (folder / f"{number}.bmp").write_bytes(bmp(4400, 4400, 24) + bytes(58_000_000))
    return "images side by side"


# Generators, weights, arrays, records


def safetensors(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def generator_case(name: str, /, **changes: Any) -> None:
    """A generator's file with other words on its architecture."""

    def write(folder: Path) -> str:
        content = valid.generator()
        [length] = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        header["__metadata__"] = {"architecture": json.dumps(valid.ARCHITECTURE | changes)}
        (folder / "g.safetensors").write_bytes(safetensors(json.dumps(header).encode(), content[8 + length :]))
        return "generator"

    CASES[f"generator: {name}"] = write


generator_case("wider than memory", base=10**9)
generator_case("wider than numbers", base=2**80)
generator_case("a very wide one", base=4096, z_dim=4096)
generator_case("a latent of 2**40", z_dim=2**40)
generator_case("a million layers", name="vanilla", hidden=[1] * 10**6)
generator_case("an image of 2**62 pixels a side", image_size=2**62)
generator_case("an image of half a pixel", image_size=0.5)
generator_case("no image", image_size=None)
generator_case("a width below zero", base=-1)
generator_case("a width of a text", base="1")
generator_case("hidden layers of a text", hidden="abc", name="vanilla")
generator_case("hidden layers of nothing", hidden=None)
generator_case("another name", name="__import__('os').system('true')")
generator_case("one thing too many", path="/etc/passwd")
for _name, _content in {
    "an empty file": b"",
    "a header of 2**63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "a header of 99 MB": safetensors(b" " * 99_000_000 + b"{}"),
    "JSON a hundred thousand deep": safetensors(b"[" * 100_000),
    "an architecture that is deep": safetensors(
        json.dumps({"__metadata__": {"architecture": "[" * 10**6}}).encode()
    ),
    "tensors beyond the end": safetensors(b'{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}'),
    "a shape of 2**60": safetensors(b'{"a":{"dtype":"F32","shape":[1152921504606846976,4],"data_offsets":[0,0]}}'),
    "tensors that overlap": safetensors(
        b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
        bytes(4),
    ),
    "text that is no text": safetensors(b'{"\xff":1}'),
}.items():  # fmt: skip
    CASES[f"generator: {_name}"] = lambda folder, content=_content: valid.write_as("g.safetensors", "generator")(  # type: ignore[misc]
        folder, content
    )


@case("generator: a pipe")
def _(folder: Path) -> str:
    os.mkfifo(folder / "g.safetensors")
    return "generator"


class Code:
    """What a pickle can hide: a file that appears when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("../ran",)


class Bytes:
    """Any number of them, from a few."""

    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (8 * 10**9,)


def weights_case(name: str, value: Any, *, zipped: bool = True) -> None:
    def write(folder: Path) -> str:
        torch.save(value, folder / "w.pth", _use_new_zipfile_serialization=zipped)
        return "any weights"

    CASES[f"weights: {name}"] = write


weights_case("code", Code())
weights_case("code in a legacy file", Code(), zipped=False)
weights_case("code among weights", {"features.0.weight": Code()})
weights_case("eight gigabytes of bytes", {"a": Bytes()})
weights_case("eight gigabytes of bytes in a legacy file", {"a": Bytes()}, zipped=False)
weights_case("a tensor of 2**40 numbers", {"a": torch.zeros(1).expand(2**40)})
weights_case("no memory behind them", {"features.0.weight": torch.zeros(64, 3, 3, 3, device="meta")})
weights_case("sparse ones", {"features.0.weight": torch.zeros(64, 3, 3, 3).to_sparse()})
weights_case("a list", [torch.zeros(2)])
weights_case("names of all kinds", {("a", 1): torch.zeros(2), "\x1b[2J\n" * 10**5: torch.zeros(2)})


@case("weights: a bare pickle with code")
def _(folder: Path) -> str:
    import pickle

    (folder / "w.pth").write_bytes(pickle.dumps(Code()))
    return "any weights"


@case("weights: a deflated bomb")
def _(folder: Path) -> str:
    torch.save({"a": torch.zeros(2)}, folder / "plain")
    bomb: dict[str, Any] = {"method": 8, "size": 2**32 - 2}
    with zipfile.ZipFile(folder / "plain") as plain:
        members = [
            (name.encode(), bomb, endless_deflate(2**32))
            if name.endswith("data.pkl")
            else (name.encode(), {}, plain.read(name))
            for name in plain.namelist()
        ]
    (folder / "w.pth").write_bytes(zip_bytes(members))
    return "any weights"


@case("weights: a pipe")
def _(folder: Path) -> str:
    os.mkfifo(folder / "w.pth")
    return "any weights"


def record_case(name: str, file: str, content: Callable[[], bytes]) -> None:
    CASES[f"records: {name}"] = lambda folder: valid.write_record_beside(file)(folder, content())


def npy(header: bytes, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Code()], object), allow_pickle=True)
    return buffer.getvalue()


for _file in ("train.npy", "train_labels.npy"):
    record_case(f"{_file}, code", _file, pickled)
    record_case(
        f"{_file}, a shape of 2**60",
        _file,
        lambda: npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (1152921504606846976, 32, 32, 1)}\n"),
    )
    record_case(f"{_file}, a header without end", _file, lambda: npy(b"[" * 60_000))
    record_case(f"{_file}, a header that computes", _file, lambda: npy(b"{'descr': 9**9**9}"))
    record_case(
        f"{_file}, a shape below zero", _file, lambda: npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (-1,)}")
    )
    record_case(f"{_file}, an archive of arrays", _file, lambda: zip_bytes([(b"a.npy", {}, pickled())]))
for _file in ("source.json", "manifest.json"):
    for _name, _content in {
        "nothing": b"",
        "deep": b"[" * 100_000,
        "a list": b"[]",
        "null": b"null",
        "no text": b"\xff\xfe\0",
        "other names": b'{"a\\u001b[2J": 1}',
        "a number without end": b"1" * 10_000,
    }.items():
        record_case(f"{_file}, {_name}", _file, lambda content=_content: content)  # type: ignore[misc]
