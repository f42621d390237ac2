"""CelebA: local copies and parts of it, and Google Drive, played by a server on this machine."""

import hashlib
import io
import logging
import re
import resource
import shutil
import ssl
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan.data.fetching import fetch_source
from gan.data.packed import read_images, read_labels, read_manifest
from gan.data.preparation import prepare, split_indices
from gan.data.sources import celeba, celeba_layout
from gan.data.sources.source import Collection, Request, read_record
from gan.errors import InputError
from tests.gan.data.celeba_files import (
    code,
    jpeg,
    name,
    smiles,
    write_archive,
    write_attributes,
    write_celeba,
    write_partition,
)
from tests.gan.data.certificate import write_certificate
from tests.serving import Handler, serving

CELEBA = Path(__file__).parents[3] / "../shared/data/celeba"
needs_celeba = pytest.mark.skipif(not CELEBA.is_dir(), reason="needs 20,000 faces of CelebA beside the repository")

ARCHIVE, PARTITION, ATTRIBUTES = "img_align_celeba.zip", "list_eval_partition.txt", "list_attr_celeba.txt"


def fetch(path: Path | None, out: Path, checksum: str | None = None) -> Path:
    out.mkdir(exist_ok=True)
    fetch_source("celeba", Request(path, checksum, out.parent / "downloads"), out)
    return out


def prepare_small(raw: Path, out: Path, **changes: Any) -> Path:
    out.mkdir()
    settings: dict[str, Any] = {
        "image_size": 32,
        "channels": 1,
        "crop": 16,
        "validation_fraction": 0.1,
        "test_fraction": 0.3,
        "max_bad_fraction": 0.0,
        "seed": 0,
        "workers": 1,
    }
    prepare(raw, out, **settings | changes)
    return out


def numbers(out: Path, split: str) -> list[int]:
    return [round(float(image.mean()) / 3) for image in read_images(out, split)]


def refusal(path: Path | None, out: Path, checksum: str | None = None) -> str:
    """The line that refuses a fetch."""
    with pytest.raises(InputError) as caught:
        fetch(path, out, checksum)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Local copies


@pytest.mark.parametrize("kind", ["zip", "folder of the zip", "unpacked", "images alone", "torchvision's root"])
def test_whatever_form_the_images_have(tmp_path: Path, kind: str) -> None:
    mine = tmp_path / ("celeba" if kind == "torchvision's root" else "mine")
    path = write_celeba(mine, 20)
    if kind == "torchvision's root":
        path = tmp_path
    elif kind == "zip":
        path = mine / ARCHIVE
    elif kind in ("unpacked", "images alone"):
        shutil.unpack_archive(mine / ARCHIVE, mine)
        (mine / ARCHIVE).unlink()
        path = mine / "img_align_celeba" if kind == "images alone" else mine
    raw = fetch(path, tmp_path / "raw")
    assert set(read_record(raw).files) == {ARCHIVE, PARTITION, ATTRIBUTES}
    with celeba_layout.open_images(raw, "Smiling") as collection:
        assert collection.names == [name(number) for number in range(1, 21)]
        assert collection.read(6) == jpeg(7)
        assert collection.classes == ["not Smiling", "Smiling"]
        assert collection.labels is not None
        assert collection.labels.tolist() == [smiles(number) for number in range(1, 21)]
        assert {split: indices.tolist() for split, indices in collection.official_splits.items()} == {
            split: [number - 1 for number in range(1, 21) if code(number) == value]
            for value, split in enumerate(("train", "validation", "test"))
        }


def test_a_folder_of_images_becomes_the_same_archive_wherever_it_lies(tmp_path: Path) -> None:
    mine = write_archive(tmp_path / "mine", 7)
    shutil.unpack_archive(mine / ARCHIVE, tmp_path / "unpacked")
    shutil.copytree(tmp_path / "unpacked/img_align_celeba", tmp_path / "faces")
    (tmp_path / "faces/000003.jpg").touch()
    first, second = (fetch(tmp_path / place, tmp_path / f"raw-{place}") for place in ("unpacked", "faces"))
    assert (first / ARCHIVE).read_bytes() == (second / ARCHIVE).read_bytes()


def test_a_zip_is_copied_as_it_is(tmp_path: Path) -> None:
    mine = write_celeba(tmp_path / "mine", 20)
    raw = fetch(mine, tmp_path / "raw")
    for file in (ARCHIVE, PARTITION, ATTRIBUTES):
        assert (raw / file).read_bytes() == (mine / file).read_bytes()


def test_the_official_splits_are_taken_whatever_the_fractions(tmp_path: Path) -> None:
    raw = fetch(write_celeba(tmp_path / "mine", 60), tmp_path / "raw")
    out = prepare_small(raw, tmp_path / "prepared", attribute="Smiling", validation_fraction=0.0)
    manifest = read_manifest(out)
    assert {split: entry.count for split, entry in manifest.splits.items()} == {
        "train": 36,
        "validation": 12,
        "test": 12,
    }
    for value, split in enumerate(("train", "validation", "test")):
        mine = numbers(out, split)
        assert sorted(mine) == [number for number in range(1, 61) if code(number) == value]
        assert read_labels(out, split).tolist() == [smiles(number) for number in mine]
    assert numbers(out, "test") == sorted(numbers(out, "test"))
    assert numbers(out, "train") != sorted(numbers(out, "train"))
    assert manifest.classes == ["not Smiling", "Smiling"]
    assert manifest.splits["test"].class_counts == [8, 4]
    assert manifest.published_images == 202_599
    again = prepare_small(raw, tmp_path / "again", attribute="Smiling", seed=1)
    assert sorted(numbers(again, "train")) == sorted(numbers(out, "train"))
    assert numbers(again, "train") != numbers(out, "train")


def test_the_order_of_train_mixes_the_classes(tmp_path: Path) -> None:
    raw = fetch(write_celeba(tmp_path / "mine", 60), tmp_path / "raw")
    out = prepare_small(raw, tmp_path / "prepared", attribute="Smiling")
    assert np.bincount(read_labels(out, "train")[:9]).tolist() == [6, 3]


def test_without_a_partition_the_fractions_split(tmp_path: Path) -> None:
    raw = fetch(write_archive(tmp_path / "mine", 60), tmp_path / "raw")
    manifest = read_manifest(prepare_small(raw, tmp_path / "prepared"))
    assert {split: entry.count for split, entry in manifest.splits.items()} == {
        "train": 36,
        "validation": 6,
        "test": 18,
    }
    assert manifest.classes is None
    assert list(read_manifest(prepare_small(raw, tmp_path / "none", test_fraction=0)).splits) == ["train", "validation"]


def test_a_part_needs_no_more_than_its_own_lines(tmp_path: Path) -> None:
    mine = write_attributes(write_partition(write_archive(tmp_path / "mine", 20), 60), 60)
    with celeba_layout.open_images(fetch(mine, tmp_path / "raw"), None) as collection:
        assert len(collection.names) == 20
        assert collection.labels is None
        assert collection.classes is None


def test_a_crop_larger_than_the_images_is_named(tmp_path: Path) -> None:
    raw = fetch(write_celeba(tmp_path / "mine", 20), tmp_path / "raw")
    with pytest.raises(InputError) as caught:
        prepare_small(raw, tmp_path / "prepared", crop=300)
    assert str(caught.value).startswith("data.crop: 300 is larger than every image, as '0000")
    assert "of 18x22 pixels; lower it, or use null" in str(caught.value)
    assert "\n" not in str(caught.value)


# Digests


def test_a_part_is_not_the_official_archive(tmp_path: Path) -> None:
    mine = write_celeba(tmp_path / "mine", 20)
    line = refusal(mine, tmp_path / "raw", "published")
    assert re.search(
        r"img_align_celeba\.zip: MD5 [0-9a-f]{32}, but the official img_align_celeba\.zip has 00d2c5bc", line
    )
    assert line.endswith("set data.checksum to null to use a part of CelebA")
    line = refusal(mine, tmp_path / "raw", "md5:" + "0" * 32)
    assert "but data.checksum is 000" in line
    for algorithm in ("md5", "sha256"):
        fetch(
            mine, tmp_path / "raw", f"{algorithm}:{hashlib.new(algorithm, (mine / ARCHIVE).read_bytes()).hexdigest()}"
        )


def publish(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Take the files of a folder for the official ones."""
    for file in (ARCHIVE, PARTITION, ATTRIBUTES):
        monkeypatch.setitem(celeba.MD5, file, hashlib.md5((folder / file).read_bytes()).hexdigest())


def test_published_digests_are_of_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = write_celeba(tmp_path / "mine", 20)
    publish(monkeypatch, mine)
    fetch(mine, tmp_path / "raw", "published")
    (mine / PARTITION).write_text((mine / PARTITION).read_text().replace("000001.jpg 0", "000001.jpg 1"))
    assert re.search(
        r"list_eval_partition\.txt: MD5 .* but the official .* data\.checksum", refusal(mine, tmp_path, "published")
    )


def test_a_folder_of_images_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/000001.jpg").write_bytes(jpeg(1))
    assert "published is of one archive, and " in refusal(tmp_path / "mine", tmp_path / "raw", "published")


# What does not match


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            PARTITION,
            "000007.jpg 0\n",
            "",
            "1 of the archive's 20 images are not listed, as '000007.jpg'",
        ),
        (PARTITION, "000007.jpg 0", "000007.jpg", "line 7: '000007.jpg' is not an image's name and its split, 0 (tr"),
        (PARTITION, "000007.jpg 0", "000007.jpg 3", "line 7: '000007.jpg 3' is not"),
        (PARTITION, "000007.jpg 0", "", "line 7: '' is not"),
        (PARTITION, "000007.jpg", "000006.jpg", "line 7: '000006.jpg' is listed for the second time"),
        (PARTITION, "000007.jpg 0", "\x00" * 99, "line 7: '\\x00"),
        (ATTRIBUTES, "20\n", "many\n", "line 1: 'many' is not the number of images, of which 20 follow"),
        (ATTRIBUTES, "20\n", "21\n", "line 1: '21' is not the number of images"),
        (ATTRIBUTES, "Bald Smiling Young ", "", "line 2: '' is not a list of different attributes"),
        (ATTRIBUTES, "Bald", "Young", "line 2: 'Young Smiling Young ' is not"),
        (ATTRIBUTES, "000007.jpg -1", "000007.jpg", "line 9: '000007.jpg -1 -1' is not an image's name and 3 times"),
        (ATTRIBUTES, "000007.jpg -1", "000007.jpg 0", "line 9: '000007.jpg 0 -1 -1' is not"),
        (ATTRIBUTES, "000007.jpg", "000008.jpg", "line 10: '000008.jpg' is listed for the second time"),
        (ATTRIBUTES, "000007.jpg", "000077.jpg", "1 of the archive's 20 images are not listed, as '000007.jpg'"),
    ],
)
def test_text_files_that_do_not_match_are_refused(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    mine = write_celeba(tmp_path / "mine", 20)
    content = (mine / file).read_text()
    assert content.count(old) == 1
    (mine / file).write_text(content.replace(old, new))
    line = refusal(mine, tmp_path / "raw")
    assert line.startswith(f"{mine / file}")
    assert message in line


@pytest.mark.parametrize("file", [PARTITION, ATTRIBUTES])
def test_text_files_without_text_are_refused(tmp_path: Path, file: str) -> None:
    mine = write_celeba(tmp_path / "mine", 20)
    for content in (b"", b"\xff\xfe\x80"):
        (mine / file).write_bytes(content)
        assert refusal(mine, tmp_path / "raw").startswith(f"{mine / file}")


def test_a_part_that_leaves_an_official_split_empty_is_refused(tmp_path: Path) -> None:
    mine = write_partition(write_archive(tmp_path / "mine", 3), 20)
    assert (
        "none of the 3 images of img_align_celeba.zip is in the official test split; use more of them, or take the "
        "file away and set data.validation_fraction and data.test_fraction"
    ) in refusal(mine, tmp_path / "raw")


def test_images_in_several_folders_are_refused(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / "mine" / place).mkdir(parents=True)
        (tmp_path / "mine" / place / "000001.jpg").write_bytes(jpeg(1))
    assert "'b/000001.jpg' and 'a/000001.jpg' are in different folders" in refusal(tmp_path / "mine", tmp_path / "raw")


def test_nothing_there_is_refused(tmp_path: Path) -> None:
    assert "nowhere: no such file or folder" in refusal(tmp_path / "nowhere", tmp_path / "raw")
    assert "holds no images" in refusal(tmp_path, tmp_path / "raw")
    (tmp_path / "text.zip").write_bytes(b"text")
    assert "text.zip: not a zip archive" in refusal(tmp_path / "text.zip", tmp_path / "raw")


def test_an_attribute_must_be_known_and_its_file_there(tmp_path: Path) -> None:
    def open_error(raw: Path) -> str:
        with pytest.raises(InputError) as caught, celeba_layout.open_images(raw, "Smile"):
            pass
        return str(caught.value)

    whole = fetch(write_celeba(tmp_path / "mine", 20), tmp_path / "whole")
    assert open_error(whole) == "data.attribute: 'Smile' is not one of Bald, Smiling, Young"
    alone = fetch(write_archive(tmp_path / "other", 20), tmp_path / "alone")
    assert re.fullmatch(
        r"data\.attribute: 'Smile' needs list_attr_celeba\.txt, and none was fetched; fetch it by hand from "
        r"https://\S+ \(Anno\), put it beside the images at data\.path, and run dvc repro --force fetch",
        open_error(alone),
    )


# Google Drive

PIECE = 512 * 1024
"""Bytes that gdown takes at a time; what comes of the next ones before a break is lost."""
QUOTA = '<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p>'


@dataclass
class Drive:
    """Google Drive, whose faults a test sets."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Contents by file id."""
    faults: list[str] = field(default_factory=list)
    """Of the next answers: `quota`, `404`, `endless`, `trickle`, `no type`, or the bytes after which one breaks off."""
    requests: list[str] = field(default_factory=list)
    """Id and range of each request."""


def write_body(file: io.BufferedIOBase, content: bytes, fault: str) -> None:
    with suppress(OSError):  # whoever asked may well hang up
        while fault == "endless":
            file.write(content)
        for byte in content if fault == "trickle" else b"":
            file.write(bytes([byte]))
            time.sleep(0.02)
        file.write(content[: int(fault) if fault.isdigit() else None])


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drive]:
    """A proxy that answers in the name of Google Drive, with a certificate that holds for this test alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(write_certificate(tmp_path / "drive.pem"))
    state = Drive()

    class OfDrive(Handler):
        def do_CONNECT(self) -> None:
            assert self.path == "drive.google.com:443"
            self.send_response(200)
            self.end_headers()
            plain = self.rfile, self.wfile
            with context.wrap_socket(self.connection, server_side=True) as secure:
                with secure.makefile("rb") as self.rfile, secure.makefile("wb") as self.wfile:
                    self.handle_one_request()
                self.rfile, self.wfile = plain

        def do_GET(self) -> None:
            identity = self.path.partition("id=")[2]
            wanted = self.headers.get("Range", "")
            state.requests.append(f"{identity} {wanted}".strip())
            fault = state.faults.pop(0) if state.faults else ""
            if fault == "404":
                self.send_error(404)
                return
            content = QUOTA.encode() if fault == "quota" else state.files[identity]
            start = int(match[1]) if (match := re.fullmatch(r"bytes=(\d+)-", wanted)) else 0
            self.send_response(206 if start else 200)
            length, kind = str(len(content) - start), "text/html" if fault == "quota" else "application/octet-stream"
            self.send_header("X-None" if fault == "endless" else "Content-Length", length)
            self.send_header("X-None" if fault == "no type" else "Content-Type", kind)
            self.send_header("X-None" if fault == "quota" else "Content-Disposition", 'attachment; filename="file"')
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            write_body(self.wfile, content[start:], fault)

    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "drive.pem"))
    with serving(OfDrive) as port:
        for variable in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{port}")
        yield state


@pytest.fixture
def published(tmp_path: Path, drive: Drive, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A little CelebA that is the official one, and is on the drive."""
    folder = write_celeba(tmp_path / "official", 20)
    with zipfile.ZipFile(folder / ARCHIVE, "a") as archive:
        archive.writestr("notes.txt", np.random.default_rng(0).bytes(3 * PIECE))
    publish(monkeypatch, folder)
    drive.files.update({celeba.DRIVE[file]: (folder / file).read_bytes() for file in celeba.DRIVE})
    return folder


def kept(tmp_path: Path) -> set[str]:
    """What the downloads leave, but for their locks."""
    return {file.name for file in (tmp_path / "downloads/celeba").iterdir() if file.suffix != ".lock"}


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")


def test_a_download_is_verified_and_kept(
    tmp_path: Path, published: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    raw = fetch(None, tmp_path / "raw", "published")
    for file in (ARCHIVE, PARTITION, ATTRIBUTES):
        assert (raw / file).read_bytes() == (published / file).read_bytes()
    assert kept(tmp_path) == {ARCHIVE, PARTITION, ATTRIBUTES}
    assert "fetching img_align_celeba.zip from Google Drive" in caplog.messages
    go_offline(monkeypatch)
    assert read_record(fetch(None, tmp_path / "again")).files == read_record(raw).files


def assert_tells_the_way_out(line: str) -> None:
    for file in (ARCHIVE, PARTITION, ATTRIBUTES):
        assert file in line
    assert "by hand from https://drive.google.com/drive/folders/" in line
    assert line.endswith("put them into one folder and set data.path to it")


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        (["quota"], "list_eval_partition.txt: Google Drive does not give it out now"),
        (["", "", "quota"], "img_align_celeba.zip: Google Drive does not give it out now, as when too many people"),
        (["404"], "list_eval_partition.txt: Google Drive does not give it out now"),
        (["", "", "99"], "img_align_celeba.zip: the connection failed (ChunkedEncodingError); "),
    ],
)
def test_a_refused_download_tells_what_to_fetch_by_hand(
    tmp_path: Path, drive: Drive, monkeypatch: pytest.MonkeyPatch, faults: list[str], reason: str
) -> None:
    monkeypatch.setattr(celeba, "RETRIES", 0)
    drive.faults.extend(faults)
    line = refusal(None, tmp_path / "raw")
    assert line.startswith(reason)
    assert_tells_the_way_out(line)
    assert ARCHIVE not in kept(tmp_path)
    assert len(kept(tmp_path) - {PARTITION, ATTRIBUTES}) == (faults[-1] == "99")


def test_without_a_network_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    go_offline(monkeypatch)
    line = refusal(None, tmp_path / "raw")
    assert line.startswith("list_eval_partition.txt: the connection failed (ProxyError); ")
    assert_tells_the_way_out(line)
    assert kept(tmp_path) == set()


def test_a_broken_download_goes_on_in_the_same_run_and_in_the_next(
    tmp_path: Path, drive: Drive, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive.faults.extend(["", "", str(PIECE + 1)])
    fetch(None, tmp_path / "raw")
    assert drive.requests[-1] == f"{celeba.DRIVE[ARCHIVE]} bytes={PIECE}-"

    shutil.rmtree(tmp_path / "downloads")
    monkeypatch.setattr(celeba, "RETRIES", 0)
    drive.faults.extend(["", "", str(2 * PIECE + 1)])
    refusal(None, tmp_path / "raw")
    raw = fetch(None, tmp_path / "raw")
    assert drive.requests[-1] == f"{celeba.DRIVE[ARCHIVE]} bytes={2 * PIECE}-"
    assert (raw / ARCHIVE).read_bytes() == (published / ARCHIVE).read_bytes()
    assert kept(tmp_path) == {ARCHIVE, PARTITION, ATTRIBUTES}


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("endless", "Google Drive sends more than the 3145728 bytes allowed"),
        ("trickle", "less than 512 KiB came in 0.5 seconds"),
        ("no type", "Google Drive's answer is not understood (KeyError)"),
    ],
)
def test_what_drive_never_does_is_one_line_too(
    tmp_path: Path, drive: Drive, monkeypatch: pytest.MonkeyPatch, fault: str, reason: str
) -> None:
    monkeypatch.setattr(celeba, "MAX_BYTES", 6 * PIECE)
    monkeypatch.setattr(celeba, "STALLED", 0.5)
    drive.faults.extend(["", "", fault])
    line = refusal(None, tmp_path / "raw")
    assert line.startswith(f"img_align_celeba.zip: {reason}; try again later")
    assert_tells_the_way_out(line)
    assert ARCHIVE not in kept(tmp_path)
    assert sum(file.stat().st_size for file in (tmp_path / "downloads/celeba").iterdir()) < 7 * PIECE


@pytest.mark.usefixtures("published")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * PIECE, limits[1]))
    try:
        line = refusal(None, tmp_path / "raw")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert re.match(r"img_align_celeba\.zip: \S+/downloads/celeba: File too large; try again later", line)
    assert ARCHIVE not in kept(tmp_path)


@pytest.mark.usefixtures("published")
def test_an_altered_download_is_not_kept(tmp_path: Path, drive: Drive) -> None:
    drive.files[celeba.DRIVE[ARCHIVE]] += b"more"
    line = refusal(None, tmp_path / "raw")
    assert re.match(r"img_align_celeba\.zip: the file's MD5 is [0-9a-f]{32}, not [0-9a-f]{32}; ", line)
    assert_tells_the_way_out(line)
    assert kept(tmp_path) == {PARTITION, ATTRIBUTES}


@pytest.mark.usefixtures("published")
def test_what_cannot_be_continued_is_begun_anew(tmp_path: Path, drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celeba, "RETRIES", 0)
    drive.faults.extend(["", "", str(2 * PIECE + 1)])
    refusal(None, tmp_path / "raw")
    drive.files[celeba.DRIVE[ARCHIVE]], whole = b"short", drive.files[celeba.DRIVE[ARCHIVE]]
    assert "img_align_celeba.zip: Server did not honor" in refusal(None, tmp_path / "raw")
    drive.files[celeba.DRIVE[ARCHIVE]] = whole
    fetch(None, tmp_path / "raw")
    assert drive.requests[-1] == celeba.DRIVE[ARCHIVE]


# 20,000 real faces


def official_sizes(collection: Collection) -> dict[str, int]:
    splits = split_indices(
        len(collection.names),
        collection.labels,
        collection.official_splits,
        validation_fraction=0.1,
        test_fraction=0.1,
        seed=0,
    )
    assert len(np.unique(np.concatenate(list(splits.values())))) == len(collection.names)
    return {split: len(indices) for split, indices in splits.items()}


@needs_celeba
def test_real_faces_and_their_official_splits(tmp_path: Path) -> None:
    raw = fetch(
        CELEBA / ARCHIVE, tmp_path / "raw", "sha256:10a0b59611f234443d17e0265b0724750903fb41c5c071788d2ee1edde8c985f"
    )
    assert set(read_record(raw).files) == {ARCHIVE, PARTITION}
    assert read_record(raw).files[PARTITION] == celeba.MD5[PARTITION]
    with celeba_layout.open_images(raw, None) as collection:
        assert official_sizes(collection) == {"train": 15_979, "validation": 2_044, "test": 1_977}
        assert collection.names[:2] == ["000040.jpg", "000045.jpg"]


@needs_celeba
@pytest.mark.slow
def test_real_faces_are_prepared(tmp_path: Path) -> None:
    raw = fetch(CELEBA, tmp_path / "raw")
    out = prepare_small(raw, tmp_path / "prepared", image_size=128, channels=3, crop=178, workers=2)
    manifest = read_manifest(out)
    assert {split: entry.count for split, entry in manifest.splits.items()} == {
        "train": 15_979,
        "validation": 2_044,
        "test": 1_977,
    }
    assert read_images(out, "train").shape == (15_979, 128, 128, 3)
    # Faces: brighter and redder in the middle than at the bottom corners.
    mean = read_images(out, "test").mean(axis=0)
    assert mean[64, 64, 0] > mean[64, 64, 2] + 30
    assert mean[64, 64].mean() > mean[-8:, :8].mean()
