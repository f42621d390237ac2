import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from gan.data.packed import read_images
from gan.errors import InputError
from gan.metrics import frechet_distance
from gan.metrics.scores import read_real
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
        "test_features.npy",
        "test_statistics.npz",
        "train_features.npy",
        "train_statistics.npz",
    ]
    train, test = (read_real(REFERENCE, split) for split in ("train", "test"))
    assert (train.features.shape, test.features.shape) == ((90, 128), (40, 128))
    np.testing.assert_allclose(train.mean, train.features.mean(axis=0, dtype=np.float64), rtol=1e-6)
    scores = json.loads(REFERENCE_SCORES.read_text())
    assert list(scores) == ["test_accuracy", "floors"]
    assert scores["test_accuracy"] > 0.9
    (floors,) = scores["floors"]
    assert list(floors) == ["train", "test"]
    names = {"inception_score", "classifier-KD", "feature_diversity"}
    names |= {"precision", "recall", "density", "near_copies", "neighbour_distance"}
    # 40 images cannot reach the neighbourhoods of 90, real as they are; and of no more images than features the
    # Fréchet distance would be nearly all bias.
    assert set(floors["train"]) == names
    assert set(floors["test"]) == names | {"coverage"}
    for floor in floors.values():
        assert 1.5 < floor["inception_score"] <= 3
        assert floor["near_copies"] == 0
    # What lies in one's neighbourhoods is the other way round in the other's.
    assert floors["train"]["precision"] == floors["test"]["recall"]
    assert floors["train"]["feature_diversity"] == pytest.approx(1 / floors["test"]["feature_diversity"], rel=1e-4)


def test_the_floor_is_the_distance_between_the_splits() -> None:
    write_prepared(train=150, test=130)
    reference(small_params())
    train, test = (read_real(REFERENCE, split) for split in ("train", "test"))
    (floors,) = json.loads(REFERENCE_SCORES.read_text())["floors"]
    distance = pytest.approx(frechet_distance(train.mean, train.cov, test.mean, test.cov), rel=1e-5)
    assert floors["train"]["classifier-FD"] == distance
    assert floors["test"]["classifier-FD"] == distance


def test_twice_gives_the_same_bytes() -> None:
    write_prepared(train=20, test=10)
    reference(small_params())
    first, scores = contents(REFERENCE), REFERENCE_SCORES.read_bytes()
    time.sleep(2.1)  # the clock of zip archives ticks every two seconds
    reference(small_params())
    assert contents(REFERENCE) == first
    assert REFERENCE_SCORES.read_bytes() == scores


def test_without_an_extractor_compares_pixels() -> None:
    write_prepared(None, train=20, test=5)
    images = np.load("data/prepared/test.npy")
    images[0] = np.load("data/prepared/train.npy")[11]
    np.save("data/prepared/test.npy", images)
    reference(small_params(extractor="none"))
    assert [file.name for file in REFERENCE.iterdir()] == ["extractor.json"]
    assert json.loads((REFERENCE / "extractor.json").read_text()) == {"extractor": "none"}
    (floors,) = json.loads(REFERENCE_SCORES.read_text())["floors"]
    assert floors["train"] == floors["test"]
    assert floors["train"]["near_copies"] == 0.2


def test_without_an_extractor_and_a_test_split_there_is_no_floor() -> None:
    write_prepared(None, train=20)
    reference(small_params(extractor="none"))
    assert json.loads(REFERENCE_SCORES.read_text()) == {"floors": [{"train": {}, "test": {}}]}


@pytest.mark.parametrize(("classes", "found"), [(None, "unlabelled"), (["all"], "all of one class")])
def test_images_without_classes_are_refused(classes: list[str] | None, found: str) -> None:
    write_prepared(None, train=20, test=5)
    path = Path("data/prepared/manifest.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"classes": classes}))
    with pytest.raises(
        InputError, match=f"images are {found}; set evaluate.extractor to inception_v3, squeezenet1_1 or none, or put"
    ) as caught:
        reference(small_params())
    assert "\n" not in str(caught.value)
    assert not REFERENCE.exists()


def test_a_missing_test_split_is_refused() -> None:
    write_prepared(train=20, validation=5)
    with pytest.raises(InputError, match=r"the test split has 0 images .* change data\.validation_fraction or"):
        reference(small_params())


@pytest.mark.parametrize("count", [6, 251])  # more than a batch, whose last one leaves round-off
def test_a_set_without_spread_is_refused(count: int) -> None:
    write_prepared(train=20, test=count)
    np.save("data/prepared/test.npy", np.full((count, 32, 32, 1), 7, np.uint8))
    with pytest.raises(InputError, match="the images of the test split are all the same"):
        reference(small_params())


def test_describes_no_more_images_than_asked() -> None:
    write_prepared(train=60, test=40)
    params = small_params()
    reference(params.model_copy(update={"reference": params.reference.model_copy(update={"images": 50})}))
    assert [len(read_real(REFERENCE, split).features) for split in ("train", "test")] == [50, 40]
    assert 0 <= json.loads(REFERENCE_SCORES.read_text())["test_accuracy"] <= 1


def test_describes_unlabelled_images_by_squeezenet() -> None:
    write_prepared(None, train=20, test=10)
    write_random_weights(Path("mine.pth"))
    reference(small_params(extractor="squeezenet1_1", weights="mine.pth"))
    assert json.loads((REFERENCE / "extractor.json").read_text()) == {
        "extractor": "squeezenet1_1",
        "label": "squeezenet",
        "weights": "mine.pth",
        "weights_sha256": hashlib.sha256(Path("mine.pth").read_bytes()).hexdigest(),
    }
    network = SqueezeNet(read_weights(Path("mine.pth")), torch.device("cpu"))
    for split in ("train", "test"):
        features, _ = network.describe(torch.from_numpy(np.array(read_images(PREPARED, split))).permute(0, 3, 1, 2))
        found = read_real(REFERENCE, split)
        np.testing.assert_allclose(found.features, features.numpy(), rtol=1e-4, atol=1e-6)
    scores = json.loads(REFERENCE_SCORES.read_text())
    assert list(scores) == ["floors"]
    floor = scores["floors"][0]["train"]
    assert "squeezenet-KD" in floor
    assert not {"squeezenet-FD", "inception_score"} & set(floor)  # of 10 images in 512 features; of no classes

    first = contents(REFERENCE)
    reference(small_params(extractor="squeezenet1_1", weights="mine.pth"))
    assert contents(REFERENCE) == first


def test_weights_are_looked_for_in_the_main_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_prepared(None, train=8, test=6)
    (tmp_path / "main").mkdir()
    write_random_weights(tmp_path / "main/mine.pth")
    monkeypatch.setattr("stages.layout.MAIN_REPOSITORY", tmp_path / "main")
    reference(small_params(extractor="squeezenet1_1", weights="mine.pth"))
    assert (REFERENCE / "squeezenet1_1.safetensors").exists()


@pytest.mark.parametrize(("weights", "message"), [("nowhere.pth", "no such file"), ("a.pth", "cut short, damaged, or")])
def test_bad_weights_are_one_line_and_leave_what_was_there(weights: str, message: str) -> None:
    write_prepared(None, train=8, test=6)
    Path("a.pth").write_text("no weights")
    REFERENCE.mkdir()
    (REFERENCE / "before").touch()
    with pytest.raises(InputError, match=message) as caught:
        reference(small_params(extractor="squeezenet1_1", weights=weights))
    assert "\n" not in str(caught.value)
    assert [file.name for file in REFERENCE.iterdir()] == ["before"]


def test_squeezenet_needs_a_test_split_for_its_floor() -> None:
    write_prepared(None, train=20)
    with pytest.raises(
        InputError, match=r"evaluate\.extractor: squeezenet1_1, but the test split has 0 images and it takes at least 6"
    ):
        reference(small_params(extractor="squeezenet1_1"))
