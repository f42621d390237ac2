"""Downloads, from a real server that breaks off."""

import hashlib
import logging
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from gan.data import download as download_module
from gan.data.download import download
from gan.data.sources import celeba, mnist
from gan.errors import InputError
from gan.metrics.pretrained import PUBLISHED
from tests.gan.data import mirror
from tests.gan.data.certificate import write_certificate
from tests.serving import Handler, serving

CONTENT = np.random.default_rng(0).integers(0, 256, 500_000, np.uint8).tobytes()
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
USE = "put it there"
WAIT = 0.001


@dataclass
class Server:
    """A mirror whose faults a test sets."""

    address: str = ""
    content: bytes = CONTENT
    ranges: bool = True
    breaks: list[int] = field(default_factory=list)
    """Bytes after which each of the first answers breaks off."""
    requests: list[str] = field(default_factory=list)
    """Path and range of each request."""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Counting(Handler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            state.requests.append(f"{self.path} {wanted}".strip())
            if self.path.startswith("/missing"):
                self.send_error(404)
                return
            match = re.fullmatch(r"bytes=(\d+)-", wanted)
            start = int(match[1]) if match and state.ranges else 0
            if start and start >= len(state.content):
                self.send_error(416)
                return
            body = state.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
            self.end_headers()
            self.wfile.write(body[: state.breaks.pop(0)] if state.breaks else body)

    with serving(Counting) as port:
        state.address = f"http://127.0.0.1:{port}"
        yield state


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir() if file.suffix != ".lock"}


def test_a_broken_download_goes_on_where_it_stopped(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    piece = download_module.PIECE
    server.breaks = [3 * piece + 10, 2 * piece + 10]
    with caplog.at_level(logging.INFO):
        download([f"{server.address}/file"], tmp_path / "sub/file", MD5, USE, WAIT)
    assert (tmp_path / "sub/file").read_bytes() == CONTENT
    assert server.requests == ["/file", f"/file bytes={3 * piece + 10}-", f"/file bytes={5 * piece + 20}-"]
    assert files(tmp_path / "sub") == {"file"}
    assert sum("trying again" in line for line in caplog.messages) == 2
    assert caplog.messages[-1] == "file: 500,000 of 500,000 B"


def test_it_goes_on_after_a_break_at_any_byte(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    with mirror.serve(CONTENT) as server:
        for number in range(30):
            cuts = random.integers(0, len(CONTENT) // 4, download_module.ATTEMPTS - 1).tolist()
            server.answers = [mirror.cut(size) for size in cuts]
            server.requests.clear()
            download([f"{server.address}/file"], tmp_path / str(number), SHA256, USE, WAIT)
            assert (tmp_path / str(number)).read_bytes() == CONTENT
            starts = [0, *np.cumsum(cuts).tolist()]
            assert server.requests == [f"/file bytes={start}-" if start else "/file" for start in starts]


def test_a_killed_download_goes_on(tmp_path: Path, server: Server) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:123_456])
    download([f"{server.address}/file"], tmp_path / "file", MD5, USE, WAIT)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == ["/file bytes=123456-"]


def test_a_server_without_ranges_starts_again(tmp_path: Path, server: Server) -> None:
    server.ranges = False
    server.breaks = [200_000]
    download([f"{server.address}/file"], tmp_path / "file", MD5, USE, WAIT)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more", b"x" * 1000], ids=["whole", "too long", "other bytes"])
def test_any_unfinished_file_ends_well(tmp_path: Path, server: Server, part: bytes) -> None:
    (tmp_path / "file.part").write_bytes(part)
    download([f"{server.address}/file"], tmp_path / "file", MD5, USE, WAIT)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert files(tmp_path) == {"file"}


def test_a_verified_file_is_not_fetched_again_and_a_wrong_one_is(tmp_path: Path, server: Server) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    download([f"{server.address}/file"], tmp_path / "file", MD5, USE, WAIT)
    assert server.requests == []
    (tmp_path / "file").write_bytes(b"wrong")
    download([f"{server.address}/file"], tmp_path / "file", MD5, USE, WAIT)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_the_next_mirror_is_tried(tmp_path: Path, server: Server) -> None:
    download([f"{server.address}/missing", f"{server.address}/file"], tmp_path / "file", MD5, USE, WAIT)
    assert server.requests == ["/missing", "/file"]


@pytest.mark.parametrize("digest", [SHA256, SHA256[: len("sha256:") + 8], MD5[: len("md5:") + 6]])
def test_the_beginning_of_any_digest_is_enough(tmp_path: Path, server: Server, digest: str) -> None:
    for _ in range(2):
        download([f"{server.address}/file"], tmp_path / "file", digest, USE, WAIT)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == ["/file"]


@pytest.mark.parametrize(
    ("path", "digest", "reason"),
    [
        ("/file", f"md5:{'0' * 32}", "the file's MD5 is [0-9a-f]{32}, not 0{32}"),
        ("/file", f"sha256:{'0' * 64}", "the file's SHA256 is [0-9a-f]{64}, not 0{64}"),
        ("/file", "sha256:00000000", "the file's SHA256 is [0-9a-f]{64}, not 0{8}…"),
        ("/missing", MD5, "the server answers 404 Not Found"),
    ],
)
def test_after_the_last_attempt_nothing_is_left(
    tmp_path: Path, server: Server, path: str, digest: str, reason: str
) -> None:
    message = f"{path}: {reason}, in the last of 5 attempts; try again later, or fetch file in another way and {USE}$"
    with pytest.raises(InputError, match=message) as caught:
        download([server.address + path], tmp_path / "file", digest, USE, WAIT)
    assert "\n" not in str(caught.value)
    assert len(server.requests) == download_module.ATTEMPTS
    assert files(tmp_path) == set()


def test_no_connection_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the connection failed \(ConnectionError\), in the last of 5"):
        download(["http://127.0.0.1:1/file"], tmp_path / "file", MD5, USE, WAIT)


def test_experiments_side_by_side_download_once(tmp_path: Path, server: Server) -> None:
    threads = [
        threading.Thread(target=download, args=([f"{server.address}/file"], tmp_path / "file", MD5, USE, WAIT))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.requests == ["/file"]
    assert (tmp_path / "file").read_bytes() == CONTENT


# Mirrors that are not what they should be


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "MAX_BYTES", 2 * len(CONTENT))
    monkeypatch.setattr(download_module, "WINDOW", 0.1)
    monkeypatch.setattr(download_module, "SLOWEST", 10_000.0)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (mirror.page, "the file's SHA256 is [0-9a-f]{64}, not"),
        (mirror.flipped(77_777), "the file's SHA256 is [0-9a-f]{64}, not"),
        (mirror.of_length(len(CONTENT) - 1, len(CONTENT)), "the file's SHA256 is [0-9a-f]{64}, not"),
        (mirror.of_length(len(CONTENT) + 1, len(CONTENT)), r"the connection failed \(\w+\)"),
        (mirror.of_length(2**40, 1000), "the server sends more than the 1000000 bytes allowed"),
        (mirror.endless, "the server sends more than the 1000000 bytes allowed"),
        (mirror.endless_chunks, "the server sends more than the 1000000 bytes allowed"),
        (mirror.trickle(0.01), r"the connection failed \(Timeout\)"),
        (mirror.gzipped, "the file's SHA256 is [0-9a-f]{64}, not"),
        (mirror.redirect("/file"), r"the connection failed \(TooManyRedirects\)"),
        (
            mirror.redirect("http://192.0.2.1/file"),
            "it leads to http://192.0.2.1/file, and downloads go over https alone",
        ),
        (mirror.redirect("file:///etc/passwd"), "it leads to file:///etc/passwd, and downloads go over https alone"),
        (mirror.redirect("https://["), r"the connection failed \(\w+\)"),
        (mirror.status("429 Too Many Requests"), "the server answers 429 Too Many Requests"),
        (mirror.status("503 Service Unavailable"), "the server answers 503 Service Unavailable"),
        (mirror.status("416 Range Not Satisfiable"), "the server answers 416 Range Not Satisfiable"),
        (mirror.status("403 \x1b[2J" + "x" * 5000), r"the server answers 403 \\x1b\[2Jx+ … x+"),
        (mirror.part_from(5), "the server sends another part of the file than it was asked for"),
        (mirror.part_without_range, "the server sends another part of the file than it was asked for"),
        (mirror.raw(b"\0" * 100), r"the connection failed \(ConnectionError\)"),
        (mirror.raw(b""), r"the connection failed \(ConnectionError\)"),
    ],
)
def test_what_is_not_the_file_is_refused_in_one_line_and_never_kept(
    tmp_path: Path, answer: mirror.Answer, reason: str
) -> None:
    with mirror.serve(CONTENT) as server:
        server.always = answer
        with pytest.raises(InputError, match=rf"/file: {reason}.*, in the last of 5 attempts; .*{USE}$") as caught:
            download([f"{server.address}/file"], tmp_path / "file", SHA256, USE, WAIT)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500
        assert not (tmp_path / "file").exists()
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= download_module.MAX_BYTES
        server.always = None
        download([f"{server.address}/file"], tmp_path / "file", SHA256, USE, WAIT)
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("answer", "requests"),
    [
        (mirror.without_ranges, 1),
        (mirror.part_from(7), 2),
        (mirror.part_without_range, 2),
        (mirror.part_that_lies, 2),
        (mirror.page, 2),
        (mirror.chunked, 1),
        (mirror.called_gzip, 1),
    ],
)
def test_a_beginning_and_a_mirror_that_does_not_go_on_from_there(
    tmp_path: Path, answer: mirror.Answer, requests: int
) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:123_456])
    with mirror.serve(CONTENT) as server:
        server.answers = [answer]
        download([f"{server.address}/file"], tmp_path / "file", SHA256, USE, WAIT)
        assert len(server.requests) == requests
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_plain_http_goes_to_this_machine_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it leads to http://192\.0\.2\.1/file, and downloads go over https alone"):
        download(["http://192.0.2.1/file"], tmp_path / "file", MD5, USE, WAIT)


def test_https_leads_to_no_http_not_even_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = write_certificate(tmp_path / "own.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with mirror.serve(CONTENT, certificate) as secure, mirror.serve(CONTENT) as plain:
        secure.always = mirror.redirect(f"{plain.address}/file")
        with pytest.raises(InputError, match=r"it leads to http://127\.0\.0\.1:\d+/file, and downloads go over https"):
            download([f"{secure.address}/file"], tmp_path / "file", MD5, USE, WAIT)
        assert plain.requests == []
        assert len(secure.requests) == download_module.ATTEMPTS
        secure.always = None
        download([f"{secure.address}/file"], tmp_path / "file", MD5, USE, WAIT)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_every_address_is_https_and_has_a_digest() -> None:
    addresses = [*mnist.MIRRORS, *(url for urls in PUBLISHED.values() for url in urls)]
    assert len(addresses) == 6
    assert all(address.startswith("https://") for address in addresses)
    assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in [*mnist.ARCHIVES.values(), *celeba.MD5.values()])
    assert celeba.MD5.keys() == celeba.DRIVE.keys()


def test_a_full_disk_is_one_line(tmp_path: Path, server: Server) -> None:
    (tmp_path / "file.part").symlink_to("/dev/full")
    with pytest.raises(
        InputError, match=r"file\.part: No space left on device; put that right and run it again"
    ) as caught:
        download([f"{server.address}/file"], tmp_path / "file", MD5, USE, WAIT)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "file").exists()
