import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pytest

from gan.errors import InputError
from gan.metrics import frechet_distance
from stages.layout import REFERENCE, REFERENCE_SCORES
from stages.reference import reference
from tests.stages.small_run import small_params, write_prepared


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def contents(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_describes_the_real_images() -> None:
    write_prepared(train=90, validation=10, test=40)
    reference(small_params())
    assert sorted(file.name for file in REFERENCE.iterdir()) == [
        "classifier.safetensors",
        "extractor.json",
        "test_statistics.npz",
        "train_statistics.npz",
    ]
    statistics = {name: np.load(REFERENCE / f"{name}_statistics.npz") for name in ("train", "test")}
    assert [int(statistics[name]["count"]) for name in ("train", "test")] == [90, 40]
    scores = json.loads(REFERENCE_SCORES.read_text())
    assert list(scores) == ["test_accuracy", "real_inception_score", "floor_classifier-FD"]
    assert scores["test_accuracy"] > 0.9
    assert 1.5 < scores["real_inception_score"] <= 3
    train, test = statistics["train"], statistics["test"]
    floor = frechet_distance(train["mean"], train["cov"], test["mean"], test["cov"])
    assert scores["floor_classifier-FD"] == pytest.approx(floor, rel=1e-5)


def test_twice_gives_the_same_bytes() -> None:
    write_prepared(train=20, test=10)
    reference(small_params())
    first, scores = contents(REFERENCE), REFERENCE_SCORES.read_bytes()
    time.sleep(2.1)  # the clock of zip archives ticks every two seconds
    reference(small_params())
    assert contents(REFERENCE) == first
    assert REFERENCE_SCORES.read_bytes() == scores


def test_without_an_extractor_only_says_so() -> None:
    write_prepared(None, train=20, test=5)
    reference(small_params(extractor="none"))
    assert [file.name for file in REFERENCE.iterdir()] == ["extractor.json"]
    assert json.loads((REFERENCE / "extractor.json").read_text()) == {"extractor": "none"}
    assert json.loads(REFERENCE_SCORES.read_text()) == {"images": 25}


@pytest.mark.parametrize(("classes", "found"), [(None, "unlabelled"), (["all"], "all of one class")])
def test_images_without_classes_are_refused(classes: list[str] | None, found: str) -> None:
    write_prepared(None, train=20, test=5)
    path = Path("data/prepared/manifest.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"classes": classes}))
    with pytest.raises(InputError, match=f"images are {found}; set evaluate.extractor=none, or put") as caught:
        reference(small_params())
    assert "\n" not in str(caught.value)
    assert not REFERENCE.exists()


def test_a_missing_test_split_is_refused() -> None:
    write_prepared(train=20, validation=5)
    with pytest.raises(InputError, match=r"the test split has 0 images .* change data\.validation_fraction or"):
        reference(small_params())
