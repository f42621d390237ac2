"""MNIST: 60,000 and 10,000 handwritten digits, from torchvision's mirrors or a local folder."""

from pathlib import Path

from gan.data.download import download
from gan.data.packed import file_md5
from gan.data.sources import idx
from gan.data.sources.source import Request
from gan.errors import InputError

MIRRORS = ["https://ossci-datasets.s3.amazonaws.com/mnist/", "https://yann.lecun.com/exdb/mnist/"]

ARCHIVES = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
"""The published MD5 of each archive."""

UNPACKED = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""MD5 of what the published archives hold."""


def fetch(request: Request, folder: Path) -> None:
    """Bring MNIST's four files into `folder`: downloaded, or copied from `request.path` just as they are.

    Downloads are always checked against the published digests, files at `request.path` if `checksum` is `published`.
    Raises InputError for a failed download and for a missing, altered, damaged or mismatching file.
    """
    if request.path is None:
        downloads = request.downloads / "mnist"
        for name, md5 in ARCHIVES.items():
            urls = [mirror + name for mirror in MIRRORS]
            download(urls, downloads / name, f"md5:{md5}", "set data.path to its folder")
        files = idx.find_files(downloads)
    else:
        files = idx.find_files(request.path)
        if files.keys() != UNPACKED.keys():
            raise InputError(f"data.path: {request.path} holds no t10k pair; data.source idx reads it without one")
    if request.checksum == "published":
        for file in files.values():
            _check_digest(file)
    idx.copy_files(files, folder)


def _check_digest(file: Path) -> None:
    expected, found = (ARCHIVES | UNPACKED)[file.name], file_md5(file)
    if found != expected:
        raise InputError(
            f"{file}: MD5 {found}, but {expected} is published; fetch it again, or set data.checksum to null to "
            f"use it all the same"
        )
