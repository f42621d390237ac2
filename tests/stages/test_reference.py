import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from gan.data.packed import read_images
from gan.errors import InputError
from gan.metrics import feature_statistics, frechet_distance
from gan.metrics.squeezenet import SqueezeNet, read_weights
from stages.layout import PREPARED, REFERENCE, REFERENCE_SCORES
from stages.reference import reference
from tests.gan.metrics.squeezenet_weights import write_random_weights
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
    with pytest.raises(
        InputError, match=f"images are {found}; set evaluate.extractor to squeezenet1_1 or none, or put"
    ) as caught:
        reference(small_params())
    assert "\n" not in str(caught.value)
    assert not REFERENCE.exists()


def test_a_missing_test_split_is_refused() -> None:
    write_prepared(train=20, validation=5)
    with pytest.raises(InputError, match=r"the test split has 0 images .* change data\.validation_fraction or"):
        reference(small_params())


def test_a_set_without_spread_is_refused() -> None:
    write_prepared(train=20, test=5)
    np.save("data/prepared/test.npy", np.full((5, 32, 32, 1), 7, np.uint8))
    with pytest.raises(InputError, match="the images of the test split are all the same"):
        reference(small_params())


def test_describes_no_more_images_than_asked() -> None:
    write_prepared(train=60, test=40)
    params = small_params()
    reference(params.model_copy(update={"reference": params.reference.model_copy(update={"images": 50})}))
    with np.load(REFERENCE / "train_statistics.npz") as train, np.load(REFERENCE / "test_statistics.npz") as test:
        assert (int(train["count"]), int(test["count"])) == (50, 40)
    assert 0 <= json.loads(REFERENCE_SCORES.read_text())["test_accuracy"] <= 1


def test_describes_unlabelled_images_by_squeezenet() -> None:
    write_prepared(None, train=20, test=10)
    write_random_weights(Path("mine.pth"))
    reference(small_params(extractor="squeezenet1_1", weights="mine.pth"))
    assert contents(REFERENCE).keys() == {
        "extractor.json",
        "squeezenet1_1.safetensors",
        "test_statistics.npz",
        "train_statistics.npz",
    }
    assert json.loads((REFERENCE / "extractor.json").read_text()) == {
        "extractor": "squeezenet1_1",
        "weights_sha256": hashlib.sha256(Path("mine.pth").read_bytes()).hexdigest(),
    }
    network = SqueezeNet(read_weights(Path("mine.pth")), torch.device("cpu"))
    statistics: list[np.ndarray] = []
    for split in ("train", "test"):
        expected = feature_statistics(network.features(read_images(PREPARED, split)))
        with np.load(REFERENCE / f"{split}_statistics.npz") as found:
            np.testing.assert_allclose(found["mean"], expected[0], rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(found["cov"], expected[1], rtol=1e-3, atol=1e-6)
        statistics += expected
    assert json.loads(REFERENCE_SCORES.read_text()) == {
        "floor_squeezenet-FD": pytest.approx(frechet_distance(*statistics), rel=1e-3)
    }

    first = contents(REFERENCE)
    reference(small_params(extractor="squeezenet1_1", weights="mine.pth"))
    assert contents(REFERENCE) == first


def test_weights_are_looked_for_in_the_main_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_prepared(None, train=4, test=2)
    (tmp_path / "main").mkdir()
    write_random_weights(tmp_path / "main/mine.pth")
    monkeypatch.setattr("stages.reference.MAIN_REPOSITORY", tmp_path / "main")
    reference(small_params(extractor="squeezenet1_1", weights="mine.pth"))
    assert (REFERENCE / "squeezenet1_1.safetensors").exists()


@pytest.mark.parametrize(("weights", "message"), [("nowhere.pth", "no such file"), ("a.pth", "cut short, damaged, or")])
def test_bad_weights_are_one_line_and_leave_what_was_there(weights: str, message: str) -> None:
    write_prepared(None, train=4, test=2)
    Path("a.pth").write_text("no weights")
    REFERENCE.mkdir()
    (REFERENCE / "before").touch()
    with pytest.raises(InputError, match=message) as caught:
        reference(small_params(extractor="squeezenet1_1", weights=weights))
    assert "\n" not in str(caught.value)
    assert [file.name for file in REFERENCE.iterdir()] == ["before"]


def test_squeezenet_needs_a_test_split_for_its_floor() -> None:
    write_prepared(None, train=20)
    with pytest.raises(InputError, match=r"evaluate\.extractor: squeezenet1_1, but the test split has 0 images"):
        reference(small_params(extractor="squeezenet1_1"))
