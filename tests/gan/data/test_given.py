import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan.data.given import open_samples
from gan.errors import InputError


def write(folder: Path, name: str, pixels: np.ndarray) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def read(path: Path, channels: int = 3) -> np.ndarray:
    with open_samples(path, 32, channels, seed=0) as (count, images):
        found = np.stack(list(images))
    assert len(found) == count
    return found


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


def test_images_come_as_they_are_in_an_order_of_the_seed(tmp_path: Path, pixels: np.ndarray) -> None:
    for name, image in zip(("c.png", "sub/a.bmp", "a.png", "b.png"), pixels, strict=True):
        write(tmp_path / "images", name, image)
    (tmp_path / "images/notes.txt").write_text("no image")
    by_name = pixels[[2, 3, 0, 1]]
    expected = by_name[np.random.default_rng(0).permutation(4)]
    assert (expected != by_name).any()
    assert (read(tmp_path / "images") == expected).all()
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for file in (tmp_path / "images").rglob("*.*"):
            archive.write(file, file.relative_to(tmp_path / "images"))
    assert (read(tmp_path / "images.zip") == expected).all()


def test_colour_becomes_grey_and_grey_colour(tmp_path: Path, pixels: np.ndarray) -> None:
    write(tmp_path, "grey.png", pixels[0, :, :, 0])
    assert (read(tmp_path, 3)[0] == pixels[0, :, :, :1]).all()
    write(tmp_path, "grey.png", pixels[0])
    grey = read(tmp_path, 1)[0, :, :, 0]
    luma = pixels[0] @ np.array([0.299, 0.587, 0.114])  # ITU-R 601-2
    assert np.abs(grey - luma).max() <= 1


def test_mixed_sizes_damage_and_emptiness_are_one_line(tmp_path: Path, pixels: np.ndarray) -> None:
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        read(tmp_path / "empty")
    write(tmp_path / "mixed", "a.png", pixels[0])
    write(tmp_path / "mixed", "b.png", pixels[0, :20, :16])
    with pytest.raises(
        InputError, match=r"'b\.png' has 16x20 pixels, and the real images 32x32; samples are"
    ) as caught:
        read(tmp_path / "mixed")
    assert "\n" not in str(caught.value)
    (tmp_path / "mixed/b.png").write_bytes((tmp_path / "mixed/a.png").read_bytes()[:200])
    with pytest.raises(InputError, match=r"'b\.png': cannot be decoded: .*; repair or remove it"):
        read(tmp_path / "mixed")
    (tmp_path / "bad.zip").write_bytes(b"PK no")
    with pytest.raises(InputError, match="not a zip archive"):
        read(tmp_path / "bad.zip")
