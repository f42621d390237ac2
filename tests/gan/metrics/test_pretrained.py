"""Weights by download, from a real server."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gan.errors import InputError
from gan.metrics.pretrained import download_weights, find_weights
from gan.metrics.squeezenet import PUBLISHED, PUBLISHED_NAME

CONTENT = b"weights" * 1000
NAME = f"network-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server that has the content under any name but `missing-…`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/missing"):
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as real:
        thread = threading.Thread(target=real.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{real.server_port}"
        real.shutdown()
        thread.join()


def test_torchvisions_file_names_its_digest() -> None:
    assert PUBLISHED_NAME == "squeezenet1_1-b8a52dc0.pth"
    assert PUBLISHED.url.startswith("https://")


def test_a_download_is_verified_and_kept(tmp_path: Path, server: str) -> None:
    path = download_weights(f"{server}/{NAME}", tmp_path / "new/folder")
    assert path == tmp_path / "new/folder" / NAME
    assert path.read_bytes() == CONTENT
    assert download_weights(f"http://127.0.0.1:9/{NAME}", path.parent) == path  # where nobody answers


def test_a_damaged_earlier_download_is_replaced(tmp_path: Path, server: str) -> None:
    (tmp_path / NAME).write_bytes(CONTENT[:-1])
    assert download_weights(f"{server}/{NAME}", tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("address", "name", "reason"),
    [
        ("", "missing-12345678.pth", "the server answers 404"),
        ("", "network-00000000.pth", "the file's SHA-256 is .* should begin with 00000000"),
        ("http://127.0.0.1:9", NAME, r"the connection failed \(ConnectionError\)"),
    ],
)
def test_a_failed_download_says_what_to_do_and_leaves_no_file(
    tmp_path: Path, server: str, address: str, name: str, reason: str
) -> None:
    with pytest.raises(InputError, match=f"/{name}: {reason}") as caught:
        download_weights(f"{address or server}/{name}", tmp_path)
    assert str(caught.value).endswith(f"or fetch {name} in another way and set evaluate.weights to it")
    assert "\n" not in str(caught.value)
    assert [file.suffix for file in tmp_path.iterdir()] == [".lock"]


def test_a_local_file_is_taken_as_it_is_and_a_missing_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.pth").touch()
    assert find_weights(tmp_path / "mine.pth", tmp_path) == tmp_path / "mine.pth"
    for path in (tmp_path / "nowhere.pth", tmp_path):
        with pytest.raises(InputError, match=rf"evaluate\.weights: {path}: no such file; null downloads") as caught:
            find_weights(path, tmp_path)
        assert "\n" not in str(caught.value)
