"""Folders and zips of images."""

import hashlib
import io
import os
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan.data.fetching import fetch_source
from gan.data.sources import archive as archive_module
from gan.data.sources import folder as folder_source
from gan.data.sources.source import Request, UnreadableError, read_record
from gan.errors import InputError


def png(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (40, 40), value).save(buffer, "PNG")
    return buffer.getvalue()


def write_tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png())
    return root


def write_zip(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, png())
    return path


def fetch(path: Path, out: Path, checksum: str | None = None) -> None:
    out.mkdir(exist_ok=True)
    fetch_source("folder", Request(path, checksum, out / "unused"), out)


def contents(out: Path) -> tuple[list[str], list[int] | None, list[str] | None]:
    with folder_source.open_images(out) as collection:
        labels = None if collection.labels is None else collection.labels.tolist()
        return list(collection.names), labels, None if collection.classes is None else list(collection.classes)


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize(
    ("names", "labels", "classes"),
    [
        (["a.png", "b.JPG", "c.webp"], None, None),
        (["celeba/1.jpg", "celeba/2.jpg"], None, None),
        (["cat/1.png", "dog/1.png", "dog/2.png"], [0, 1, 1], ["cat", "dog"]),
        (["pets/small/cat/1.png", "pets/small/dog/1.png"], [0, 1], ["cat", "dog"]),
    ],
    ids=["flat", "wrapped", "classes", "wrapped classes"],
)
def test_sub_folders_are_classes(
    tmp_path: Path, kind: str, names: list[str], labels: list[int] | None, classes: list[str] | None
) -> None:
    noise = [".hidden.png", ".git/x.png", "__MACOSX/a.png", "notes.txt", "Thumbs.db"]
    everything = [*reversed(names), *noise]
    source = (
        write_tree(tmp_path / "mine", *everything) if kind == "folder" else write_zip(tmp_path / "m.zip", *everything)
    )
    fetch(source, tmp_path / "raw")
    assert contents(tmp_path / "raw") == (names, labels, classes)
    assert list(read_record(tmp_path / "raw").files) == ["images.zip"]


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.png", "cat/1.png"], "'a.png' is in no sub-folder; the images must all lie together"),
        (["cat/1.png", "dog/big/1.png"], "'dog/big/1.png' is in dog/big; the images must"),
        (["notes.txt"], r"holds no images \(.bmp, "),
    ],
)
def test_unclear_folders_are_refused(tmp_path: Path, kind: str, names: list[str], message: str) -> None:
    source = write_tree(tmp_path / "mine", *names) if kind == "folder" else write_zip(tmp_path / "m.zip", *names)
    with pytest.raises(InputError, match=message) as caught:
        fetch(source, tmp_path / "raw")
    assert "\n" not in str(caught.value)


def test_missing_and_empty_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.path: .*nowhere: no such file or folder"):
        fetch(tmp_path / "nowhere", tmp_path / "raw")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        fetch(tmp_path / "empty", tmp_path / "raw")


def test_the_zip_of_a_folder_depends_on_its_images_alone(tmp_path: Path) -> None:
    first = write_tree(tmp_path / "first", "b/1.png", "a/2.png", "a/1.png")
    second = write_tree(tmp_path / "second", "a/1.png", "notes.txt", "b/1.png", "a/2.png")
    for name in ("a/1.png", "b/1.png"):
        os.utime(second / name, (10**9, 10**9))
        (second / name).chmod(0o600)
    fetch(first, tmp_path / "raw1")
    fetch(second, tmp_path / "raw2")
    assert (tmp_path / "raw1/images.zip").read_bytes() == (tmp_path / "raw2/images.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "raw1/images.zip") as archive:
        assert archive.namelist() == ["a/1.png", "a/2.png", "b/1.png"]
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}


def test_a_zip_is_copied_as_it_is(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "m.zip", "b.png", "a.png")
    fetch(source, tmp_path / "raw")
    assert (tmp_path / "raw/images.zip").read_bytes() == source.read_bytes()


def test_images_are_read_by_position(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for value in (10, 20, 30):
        (tmp_path / f"mine/{value}.png").write_bytes(png(value))
    fetch(tmp_path / "mine", tmp_path / "raw")
    with folder_source.open_images(tmp_path / "raw") as collection:
        content = collection.read(1)
    assert content == png(20)


def test_a_checksum_is_of_the_archive(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "m.zip", "a.png")
    content = source.read_bytes()
    for algorithm in ("md5", "sha256"):
        fetch(source, tmp_path / "raw", f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")
    fetch(source, tmp_path / "raw", "published")
    with pytest.raises(InputError, match=r"m\.zip: MD5 [0-9a-f]{32}, but data.checksum is 0{32}"):
        fetch(source, tmp_path / "raw", "md5:" + "0" * 32)
    with pytest.raises(InputError, match=r"is of one archive, and data.path .* is a folder; use null"):
        fetch(write_tree(tmp_path / "mine", "a.png"), tmp_path / "raw", "md5:" + "0" * 32)


@pytest.mark.parametrize(
    "name", ["../out.png", "a/../../out.png", "/etc/out.png", "..\\out.png", "C:\\out.png", "\\\\host\\out.png", "../x"]
)
def test_a_member_outside_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    source = write_zip(tmp_path / "m.zip", "a.png", name)
    with pytest.raises(InputError, match="leads out of the archive's folder") as caught:
        fetch(source, tmp_path / "raw")
    assert "\n" not in str(caught.value)
    assert not any((tmp_path / "raw").iterdir())


def test_a_symbolic_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "m.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("a.png", png())
        link = zipfile.ZipInfo("b.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match=r"'b\.png' is a symbolic link"):
        fetch(source, tmp_path / "raw")


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "m.zip", "a.png")
    content = bytearray(source.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    source.write_bytes(content)
    with pytest.raises(InputError, match=r"'a\.png' is encrypted; give a zip without a password"):
        fetch(source, tmp_path / "raw")


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "m.zip"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a.png", bytes(archive_module.MAX_IMAGE_BYTES + 1))
    assert source.stat().st_size < 2**21
    with pytest.raises(InputError, match=r"'a\.png' unpacks to 67108865 bytes; an image may have 67108864"):
        fetch(source, tmp_path / "raw")


def test_an_image_file_may_be_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "MAX_IMAGE_BYTES", 10)
    with pytest.raises(InputError, match=r"a\.png: larger than the 10 bytes allowed for one image"):
        fetch(write_tree(tmp_path / "mine", "a.png"), tmp_path / "raw")


@pytest.mark.parametrize("content", [b"not a zip", b""])
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"m\.zip: not a zip archive, or a damaged one"):
        fetch(tmp_path / "m.zip", tmp_path / "raw")


def test_a_zip_cut_short_is_refused(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "m.zip", "a.png", "b.png")
    source.write_bytes(source.read_bytes()[:-60])
    with pytest.raises(InputError, match=r"m\.zip: not a zip archive, or a damaged one"):
        fetch(source, tmp_path / "raw")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_damaged_member_is_unreadable_and_the_others_are_not(tmp_path: Path, method: int) -> None:
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)).save(noise, "PNG")
    source = tmp_path / "m.zip"
    with zipfile.ZipFile(source, "w", method) as archive:
        archive.writestr("a.png", noise.getvalue())
        archive.writestr("b.png", png(9))
    content = bytearray(source.read_bytes())
    content[200:220] = bytes(20)
    source.write_bytes(content)
    fetch(source, tmp_path / "raw")
    with folder_source.open_images(tmp_path / "raw") as collection:
        with pytest.raises(UnreadableError, match="damaged in the archive"):
            collection.read(0)
        assert collection.read(1) == png(9)


def test_a_member_whose_own_name_is_no_text_is_unreadable(tmp_path: Path) -> None:
    source = tmp_path / "m.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("é.png", png(9))
    content = source.read_bytes().replace("é.png".encode(), b"\xff\xff.png", 1)  # in its own header, not in the list
    source.write_bytes(content)
    fetch(source, tmp_path / "raw")
    with (
        folder_source.open_images(tmp_path / "raw") as collection,
        pytest.raises(UnreadableError, match="damaged in the archive"),
    ):
        collection.read(0)


def test_links_to_images_are_followed_and_links_to_folders_refused(tmp_path: Path) -> None:
    elsewhere = write_tree(tmp_path / "elsewhere", "x.png")
    mine = write_tree(tmp_path / "mine", "a.png")
    (mine / "b.png").symlink_to(elsewhere / "x.png")
    fetch(mine, tmp_path / "raw")
    assert contents(tmp_path / "raw")[0] == ["a.png", "b.png"]
    (mine / "loop").symlink_to(mine)
    with pytest.raises(InputError, match=r"mine/loop: a link to a folder"):
        fetch(mine, tmp_path / "raw")


def test_a_dangling_link_is_named(tmp_path: Path) -> None:
    mine = write_tree(tmp_path / "mine", "a.png")
    (mine / "b.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(InputError, match=r"mine/b\.png: No such file or directory"):
        fetch(mine, tmp_path / "raw")


def test_a_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    mine = write_tree(tmp_path / "mine", "a.png")
    (mine / os.fsdecode(b"\xff.png")).write_bytes(png())
    with pytest.raises(InputError, match=r"mine: '\\udcff\.png' is not a name in UTF-8"):
        fetch(mine, tmp_path / "raw")
