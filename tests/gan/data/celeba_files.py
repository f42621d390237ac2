"""A little CelebA: generated JPEGs in the official layout."""

import io
import zipfile
from pathlib import Path

from PIL import Image

ATTRIBUTES = ["Bald", "Smiling", "Young"]


def name(number: int) -> str:
    return f"{number:06}.jpg"


def jpeg(number: int) -> bytes:
    """An image that tells its number: it is filled with three times it."""
    buffer = io.BytesIO()
    Image.new("RGB", (18, 22), (3 * number,) * 3).save(buffer, "JPEG", quality=100)
    return buffer.getvalue()


def code(number: int) -> int:
    """The official split of an image: of five, three are train, one is validation and one test."""
    return max(0, number % 5 - 2)


def smiles(number: int) -> bool:
    return number % 3 == 0


def write_archive(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        archive.writestr("img_align_celeba/", b"")
        for number in range(1, count + 1):
            archive.writestr(f"img_align_celeba/{name(number)}", jpeg(number))
    return folder


def write_partition(folder: Path, count: int) -> Path:
    lines = [f"{name(number)} {code(number)}\n" for number in range(1, count + 1)]
    (folder / "list_eval_partition.txt").write_text("".join(lines))
    return folder


def write_attributes(folder: Path, count: int) -> Path:
    rows = [f"{name(number)} -1 {' 1' if smiles(number) else '-1'} -1\n" for number in range(1, count + 1)]
    (folder / "list_attr_celeba.txt").write_text(f"{count}\n{' '.join(ATTRIBUTES)} \n{''.join(rows)}")
    return folder


def write_celeba(folder: Path, count: int) -> Path:
    return write_attributes(write_partition(write_archive(folder, count), count), count)
