"""Where the weights of a network that was trained elsewhere are found, and what scores made with them are called."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from gan.data.download import download
from gan.errors import InputError
from gan.metrics import inception_v3, squeezenet

FID_SHA256 = "6726825d"
"""How the SHA-256 of the FID network's weights begins: scores may be called FID and KID with no others."""

PUBLISHED = {
    ("squeezenet1_1", None): [squeezenet.PUBLISHED.url],
    ("inception_v3", None): [
        f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{inception_v3.PUBLISHED_FID_NAME}",
        f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-{FID_SHA256}.pth",
    ],
    ("inception_v3", "imagenet"): [inception_v3.PUBLISHED_IMAGENET.url],
}
"""Mirrors of the weights that come by download, by `evaluate.extractor` and `evaluate.weights`."""


def find_weights(extractor: str, weights: str | None, locate: Callable[[str], Path], downloads: Path) -> Path:
    """The file of the weights of `extractor` that `weights` names, as `evaluate.weights` does.

    `locate` says where a local file of that name lies; what is published is brought into `downloads` if missing.
    Raises InputError for a missing file and a failed download.
    """
    if weights is None or (extractor, weights) in PUBLISHED:
        return download_weights(PUBLISHED[extractor, weights], downloads)
    path = locate(weights)
    if not path.is_file():
        url = PUBLISHED[extractor, None][0]
        raise InputError(f"evaluate.weights: {path}: no such file; give one, or null to download {url}")
    return path


def download_weights(urls: Sequence[str], downloads: Path, first_wait: float = 1.0) -> Path:
    """Bring a file whose name ends with the beginning of its SHA-256, `NAME-DIGEST.pth`, into `downloads`.

    One that is there already is taken if its digest is right. `first_wait` is `download`'s. Raises InputError for
    anything wrong.
    """
    path = downloads / urls[0].rpartition("/")[2]
    digest = f"sha256:{path.stem.rpartition('-')[2]}"
    download(urls, path, digest, "set evaluate.weights to it", first_wait)
    return path


def weights_label(extractor: str, kind: str | None, sha256: str) -> str:
    """What scores are called after: `fid`, `inception_v3` or `squeezenet`.

    kind: of inception_v3, which of the two networks.
    sha256: of the file that the weights come from; another one holds other numbers, even for the same network.
    """
    if extractor == "squeezenet1_1":
        return "squeezenet"
    return "fid" if kind == "fid" and sha256.startswith(FID_SHA256) else extractor


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
