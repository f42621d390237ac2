"""Weights by download, from a real server."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gan.errors import InputError
from gan.metrics.pretrained import PUBLISHED, download_weights, file_sha256, find_weights, weights_label
from tests.serving import Handler, serving

WAIT = 0.001
CONTENT = b"weights" * 1000
NAME = f"network-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server that has the content under any name but `missing-…`."""

    class OfWeights(Handler):
        def do_GET(self) -> None:
            if self.path.startswith("/missing"):
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

    with serving(OfWeights) as port:
        yield f"http://127.0.0.1:{port}"


def test_what_is_published_names_its_digest_and_has_the_same_on_all_mirrors() -> None:
    names = {key: [url.rpartition("/")[2] for url in urls] for key, urls in PUBLISHED.items()}
    assert names == {
        ("squeezenet1_1", None): ["squeezenet1_1-b8a52dc0.pth"],
        ("inception_v3", None): [
            "pt_inception-2015-12-05-6726825d.pth",
            "weights-inception-2015-12-05-6726825d.pth",
        ],
        ("inception_v3", "imagenet"): ["inception_v3_google-0cc3c7bd.pth"],
    }
    assert all(url.startswith("https://") for urls in PUBLISHED.values() for url in urls)


@pytest.mark.parametrize(("extractor", "weights"), PUBLISHED)
def test_published_weights_come_by_download_from_any_mirror(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, extractor: str, weights: str | None
) -> None:
    monkeypatch.setitem(PUBLISHED, (extractor, weights), [f"{server}/{NAME}"])
    downloads = tmp_path / "new/folder"
    path = find_weights(extractor, weights, tmp_path.joinpath, downloads)
    assert path == downloads / NAME
    assert path.read_bytes() == CONTENT
    monkeypatch.setitem(PUBLISHED, (extractor, weights), [f"http://127.0.0.1:9/{NAME}"])  # where nobody answers
    assert find_weights(extractor, weights, tmp_path.joinpath, downloads) == path


def test_the_next_mirror_is_tried(tmp_path: Path, server: str) -> None:
    path = download_weights([f"{server}/missing/{NAME}", f"{server}/other-name.pth"], tmp_path, WAIT)
    assert path == tmp_path / NAME
    assert path.read_bytes() == CONTENT


def test_a_damaged_earlier_download_is_replaced(tmp_path: Path, server: str) -> None:
    (tmp_path / NAME).write_bytes(b"<html>Please sign in</html>")
    assert download_weights([f"{server}/{NAME}"], tmp_path, WAIT).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("address", "name", "reason"),
    [
        ("", "missing-12345678.pth", "the server answers 404 Not Found"),
        ("", "network-00000000.pth", "the file's SHA256 is [0-9a-f]{64}, not 00000000…"),
        ("http://127.0.0.1:9", NAME, r"the connection failed \(ConnectionError\)"),
    ],
)
def test_a_failed_download_says_what_to_do_and_leaves_no_file(
    tmp_path: Path, server: str, address: str, name: str, reason: str
) -> None:
    with pytest.raises(InputError, match=f"/{name}: {reason}") as caught:
        download_weights([f"{address or server}/{name}"], tmp_path, WAIT)
    assert str(caught.value).endswith(f"or fetch {name} in another way and set evaluate.weights to it")
    assert "\n" not in str(caught.value)
    assert [file.suffix for file in tmp_path.iterdir()] == [".lock"]


def test_a_local_file_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.pth").touch()
    downloads = tmp_path / "downloads"
    for extractor in ("squeezenet1_1", "inception_v3"):
        assert find_weights(extractor, "mine.pth", tmp_path.joinpath, downloads) == tmp_path / "mine.pth"
    assert not downloads.exists()


@pytest.mark.parametrize(
    ("extractor", "default"),
    [
        ("squeezenet1_1", "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth"),
        (
            "inception_v3",
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        ),
    ],
)
@pytest.mark.parametrize("given", ["nowhere.pth", ".", "~nobody-of-that-name/x.pth"])
def test_a_missing_file_is_named_and_what_there_is_instead(
    tmp_path: Path, extractor: str, default: str, given: str
) -> None:
    with pytest.raises(InputError) as caught:
        find_weights(extractor, given, tmp_path.joinpath, tmp_path)
    assert str(caught.value) == (
        f"evaluate.weights: {tmp_path / given}: no such file; give one, or null to download {default}"
    )


@pytest.mark.parametrize(
    ("extractor", "kind", "sha256", "label"),
    [
        ("inception_v3", "fid", "6726825d" + "0" * 56, "fid"),
        ("inception_v3", "fid", "5726825d" + "0" * 56, "inception_v3"),
        ("inception_v3", "fid", "0" * 56 + "6726825d", "inception_v3"),
        ("inception_v3", "imagenet", "6726825d" + "0" * 56, "inception_v3"),
        ("inception_v3", "imagenet", "0cc3c7bd" + "0" * 56, "inception_v3"),
        ("squeezenet1_1", None, "b8a52dc0" + "0" * 56, "squeezenet"),
    ],
)
def test_only_the_published_weights_give_fid(extractor: str, kind: str | None, sha256: str, label: str) -> None:
    assert weights_label(extractor, kind, sha256) == label


def test_the_digest_is_of_the_files_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert file_sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
