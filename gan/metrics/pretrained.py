"""Where the weights of a network that was trained elsewhere are found."""

import hashlib
import logging
from pathlib import Path

import requests

from gan.data.download import TIMEOUT, alone, describe_failure
from gan.errors import InputError
from gan.metrics.squeezenet import PUBLISHED, PUBLISHED_NAME

LOG = logging.getLogger(__name__)


def find_weights(path: Path | None, downloads: Path) -> Path:
    """The file of SqueezeNet's weights: `path`, or, for None, torchvision's, brought into `downloads` if missing.

    Raises InputError for a missing file and a failed download.
    """
    if path is None:
        return download_weights(PUBLISHED.url, downloads)
    if not path.is_file():
        raise InputError(f"evaluate.weights: {path}: no such file; null downloads torchvision's {PUBLISHED_NAME}")
    return path


def download_weights(url: str, downloads: Path) -> Path:
    """Bring a file whose name ends with the beginning of its SHA-256, `NAME-DIGEST.pth`, into `downloads`.

    One that is there already is taken if its digest is right. Raises InputError for anything wrong.
    """
    path = downloads / url.rpartition("/")[2]
    beginning = path.stem.rpartition("-")[2]
    downloads.mkdir(parents=True, exist_ok=True)
    with alone(path):
        if path.exists() and file_sha256(path).startswith(beginning):
            return path
        LOG.info("downloading %s", url)
        try:
            with requests.get(url, timeout=TIMEOUT) as response:
                response.raise_for_status()
                content = response.content
        except requests.RequestException as error:
            reason = describe_failure(error)
        else:
            digest = hashlib.sha256(content).hexdigest()
            if digest.startswith(beginning):
                partial = path.with_name(f"{path.name}.part")
                partial.write_bytes(content)
                partial.replace(path)
                return path
            reason = f"the file's SHA-256 is {digest}, and should begin with {beginning}"
    raise InputError(
        f"{url}: {reason}; try again later, or fetch {path.name} in another way and set evaluate.weights to it"
    )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
