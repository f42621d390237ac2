"""Files made to differ by a known amount."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from flows.differences import file_differences, measure

Write = Callable[[Path, Any], None]


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., list[str]]:
    """Writes both contents as a file of that name, as DVC's cache would keep it, and says how they differ."""

    def compared(name: str, write: Write, committed: Any, reproduced: Any) -> list[str]:
        files = []
        for folder, content in (("committed", committed), ("reproduced", reproduced)):
            (tmp_path / folder).mkdir()
            write(tmp_path / folder / name, content)
            files.append(tmp_path / folder / "0a1b2c")  # the cache's files have no endings
            (tmp_path / folder / name).rename(files[-1])
        return file_differences(files[0], files[1], name)

    return compared


def write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def write_image(path: Path, pixels: Any) -> None:
    Image.fromarray(pixels).save(path)


def write_frames(path: Path, frames: Any) -> None:
    first, *others = (Image.fromarray(frame) for frame in frames)
    first.save(path, save_all=True, append_images=others)


def write_npz(path: Path, arrays: Any) -> None:
    np.savez(path, **arrays)


def write_tensors(path: Path, tensors: Any) -> None:
    save_file(tensors, path)


def test_one_element_of_a_hundred_differs_by_three(compare: Any) -> None:
    x = np.full((10, 10), 50, np.uint8)
    y = x.copy()
    y[3, 7] = 47
    assert compare("a.npy", np.save, x, y) == ["1 of 100 elements (1%) differ, by at most 3 (6% of the largest value)"]


def test_measure_of_one_element() -> None:
    x = np.full(100, 50, np.uint8)
    y = x.copy()
    y[42] = 53
    found = measure(x, y)
    assert (found.differing / found.total, found.largest, found.scale) == (0.01, 3, 53)


def test_measure_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.differences.CHUNK", 7)
    x = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    y = x.copy()
    y[2, 3, 4] += 2
    y[0, 0, 0] -= 0.5
    for pair in ((x, y), (np.asfortranarray(x), y), (x, np.asfortranarray(y))):
        found = measure(*pair)
        assert (found.differing, found.total, found.largest, found.scale) == (2, 60, 2, 61)


def test_nan_equals_nan_and_infinity_is_no_number() -> None:
    x = np.array([np.nan, np.inf, 1.0, 2.0])
    assert measure(x, x.copy()).differing == 0
    assert measure(x, np.array([np.nan, np.inf, 1.0, np.nan])).largest == np.inf
    assert measure(x, np.array([np.nan, -np.inf, 1.0, 2.0])).largest == np.inf
    assert measure(x, np.array([0.0, np.inf, 1.0, 2.0])).differing == 1
    assert measure(x, np.array([np.nan, np.inf, 1.5, 2.0])).largest == 0.5


def test_integers_are_subtracted_without_overflow() -> None:
    assert measure(np.array([0], np.uint8), np.array([255], np.uint8)).largest == 255
    assert measure(np.array([-128], np.int8), np.array([127], np.int8)).largest == 255
    assert measure(np.array([-1], np.int16), np.array([255], np.uint8)).largest == 256
    assert measure(np.array([True]), np.array([False])).largest == 1
    assert measure(np.array([-128], np.int8), np.array([127], np.int8)).scale == 128


def test_texts_have_no_distance(compare: Any) -> None:
    assert compare("a.npy", np.save, np.array(["a", "b"]), np.array(["a", "c"])) == ["1 of 2 elements (50%) differ"]


def test_arrays_of_other_shape_or_type(compare: Any, tmp_path: Path) -> None:
    assert compare("a.npy", np.save, np.zeros((2, 3)), np.zeros((3, 2))) == ["shape (2, 3) → (3, 2)"]
    for folder in ("committed", "reproduced"):
        (tmp_path / folder / "0a1b2c").unlink()
        (tmp_path / folder).rmdir()
    found = compare("a.npy", np.save, np.zeros(4, np.float64), np.zeros(4, np.float32))
    assert found == ["type float64 → float32"]


def test_pixels(compare: Any) -> None:
    x = np.zeros((20, 10, 3), np.uint8)
    y = x.copy()
    y[0, 0, 0] = 7
    y[0, 0, 2] = 1  # the same pixel
    y[19, 9, 1] = 5
    assert compare("a.png", write_image, x, y) == ["2 of 200 pixels (1%) differ, by at most 7 of 255"]


def test_pixels_of_an_animation(compare: Any) -> None:
    x = np.zeros((4, 10, 10), np.uint8)
    x[:, 0, 0] = 10, 20, 30, 40  # else the writer joins equal frames
    y = x.copy()
    y[1, 5, 5] = 9
    y[3, 5, 5:7] = 4
    found = compare("a.png", write_frames, x, y)
    assert found == ["3 of 400 pixels (0.75%) differ, by at most 9 of 255, in 2 of 4 frames"]


def test_pictures_of_other_size_or_mode(compare: Any) -> None:
    found = compare("a.png", write_image, np.zeros((20, 10), np.uint8), np.zeros((20, 11), np.uint8))
    assert found == ["size 10×20 → 11×20"]


def test_keys_with_both_values(compare: Any) -> None:
    committed = {"verdict": "converged", "score": 8.0, "shares": [0.5, 0.5], "md5": "0" * 32, "same": 1, "old": 1}
    reproduced = {"verdict": "stalled", "score": 10.0, "shares": [0.5, 0.4], "md5": "f" * 32, "same": 1, "new": None}
    assert compare("a.json", write_json, committed, reproduced) == [
        'verdict: "converged" → "stalled"',
        "score: 8.0 → 10.0 (20%)",
        "shares[1]: 0.5 → 0.4 (20%)",
        f'md5: "{"0" * 32}" → "{"f" * 32}"',
        "old: only in what was committed",
        "new: only in what was reproduced",
    ]


def test_true_is_not_one(compare: Any) -> None:
    assert compare("a.json", write_json, {"ema": True}, {"ema": 1}) == ["ema: true → 1"]


def test_json_written_otherwise(compare: Any) -> None:
    found = compare("a.json", write_bytes, b'{"a": 1}', b'{"a":1}')
    assert found == ["the same content, written otherwise: 8 bytes → 7 bytes, the first 5 the same"]


def test_columns_by_their_largest_relative_difference(compare: Any) -> None:
    x = b"step,loss,note\n1,2.0,a\n2,4.0,b\n3,1.0,c\n4,0.5,d\n"
    y = b"step,loss,note\n1,2.0,a\n2,5.0,b\n3,1.1,c\n4,0.50,e\n"
    assert compare("a.csv", write_bytes, x, y) == [
        "note: 1 of 4 rows (25%) differ",
        "loss: 2 of 4 rows (50%) differ, by at most 20%",
    ]


def test_rows_that_are_missing(compare: Any) -> None:
    assert compare("a.csv", write_bytes, b"a\n1\n2\n3\n", b"a\n1\n2\n") == ["3 rows → 2 rows"]


def test_other_columns(compare: Any) -> None:
    assert compare("a.csv", write_bytes, b"a,b\n1,2\n", b"a,c\n1,2\n") == ["columns a, b → a, c"]


def test_tensors(compare: Any) -> None:
    x = {
        "a": np.array([100.0, 1.0], np.float32),
        "b": np.array([0.5, 0.25], np.float32),
        "c": np.ones(3, np.float32),
        "d": np.ones(2, np.float32),
    }
    y = x | {"a": np.array([101.0, 1.0], np.float32), "b": np.array([0.5, 0.125], np.float32)}
    del y["d"]
    assert compare("a.safetensors", write_tensors, x, y) == [
        "2 of 4 tensors (50%) differ, by at most 1 (a) and at most 25% of an array's largest value (b)",
        "d: only in what was committed",
    ]


def test_arrays_of_an_archive(compare: Any) -> None:
    x = {"mean": np.array([1.0, 2.0]), "count": np.array(100), "wide": np.zeros(3)}
    y = {"mean": np.array([1.0, 2.5]), "count": np.array(100), "wide": np.zeros(4)}
    assert compare("a.npz", write_npz, x, y) == [
        "1 of 3 arrays (33.3%) differ, by at most 0.5 (mean) and at most 20% of an array's largest value (mean)",
        "wide: shape (3,) → (4,)",
    ]


@pytest.mark.parametrize("reproduced", [b"<p>nought</p>", b"<p>zero</p>\n", b"<p>"])
def test_other_files_by_their_first_difference(compare: Any, reproduced: bytes) -> None:
    length = {13: 3, 12: 11, 3: 3}[len(reproduced)]
    found = compare("a.html", write_bytes, b"<p>zero</p>", reproduced)
    assert found == [f"11 bytes → {len(reproduced)} bytes, the first {length} the same"]


def test_first_difference_beyond_a_chunk(compare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.differences.CHUNK", 4)
    assert compare("a", write_bytes, b"0123456789", b"012345x789") == ["10 bytes, the first 6 the same"]


def test_the_same_bytes(compare: Any) -> None:
    assert compare("a.npy", write_bytes, b"anything", b"anything") == []


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.png", "a.jpg", "a.json", "a.csv", "a.safetensors"])
def test_a_damaged_file_is_compared_by_its_bytes(compare: Any, name: str) -> None:
    (found,) = compare(name, write_bytes, b"h,i\n1\n\xff\xfe", b"h,i\n1\n\xff\xfd")
    assert found == f"not readable as .{name[2:]}: 8 bytes, the first 7 the same"
