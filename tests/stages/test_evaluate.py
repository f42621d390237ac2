import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gan.data.packed import file_md5, read_images
from gan.errors import InputError
from gan.metrics import inception_score, nearest
from stages.evaluate import evaluate
from stages.layout import EVALUATION_FIGURES, PREPARED, REFERENCE, SAMPLES, SCORES
from stages.reference import reference
from tests.stages.small_run import CLASSES, marked_squares, small_params, write_prepared


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_samples(images: np.ndarray) -> None:
    SAMPLES.mkdir(parents=True, exist_ok=True)
    np.save(SAMPLES / "images.npy", images)
    manifest = {"count": len(images), "seed": 7, "ema": True, "generator_md5": "a" * 32}
    (SAMPLES / "manifest.json").write_text(json.dumps(manifest))


def scores_of(images: np.ndarray, **parameters: Any) -> dict[str, Any]:
    write_samples(images)
    evaluate(small_params(**parameters))
    scores: dict[str, Any] = json.loads(SCORES.read_text())
    return scores


def test_scores_with_their_protocol() -> None:
    write_prepared(train=90, test=40)
    reference(small_params())
    scores = scores_of(marked_squares(64, 9)[0], splits=2)
    assert list(scores) == [
        "inception_score",
        "inception_score_std",
        "classifier-FD",
        "rarest_class",
        "class_divergence",
        "neighbour_distance",
        "class_shares",
        "protocol",
    ]
    assert all(isinstance(value, list | float) for value in scores.values())
    assert sum(scores["class_shares"]) == pytest.approx(1, abs=1e-5)
    assert scores["rarest_class"] == min(scores["class_shares"])
    (protocol,) = scores["protocol"]
    versions = protocol.pop("versions")
    assert sorted(versions) == ["numpy", "scipy", "torch"]
    assert protocol == {
        "extractor": "classifier",
        "weights_md5": file_md5(REFERENCE / "classifier.safetensors"),
        "real_split": "train",
        "real_images": 90,
        "generated_images": 64,
        "image_size": 32,
        "crop": None,
        "resize": "bicubic",
        "inception_score_splits": 2,
        "neighbour_samples": 10,
        "neighbour_split": "train",
        "seed": 7,
    }


def test_scores_tell_good_samples_from_bad() -> None:
    write_prepared(train=90, test=40)
    reference(small_params())
    copies = np.array(read_images(PREPARED, "train")[:64])
    good = scores_of(copies)
    collapsed = scores_of(np.repeat(copies[:1], 64, axis=0))
    assert good["neighbour_distance"] == collapsed["neighbour_distance"] == 0
    assert good["inception_score"] > 1.5
    assert collapsed["inception_score"] == pytest.approx(1, abs=1e-5)
    assert good["classifier-FD"] < collapsed["classifier-FD"] / 5
    assert good["class_divergence"] < 0.05 < collapsed["class_divergence"]
    assert collapsed["rarest_class"] == 0

    exactly = scores_of(np.array(read_images(PREPARED, "train")))
    assert exactly["classifier-FD"] == pytest.approx(0, abs=1e-6)
    assert exactly["class_divergence"] < 0.01


def test_figures() -> None:
    write_prepared(train=90, test=40)
    reference(small_params())
    samples = marked_squares(64, 9)[0]
    scores = scores_of(samples)
    assert sorted(file.name for file in EVALUATION_FIGURES.iterdir()) == ["classes.csv", "neighbours.png"]

    with (EVALUATION_FIGURES / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == CLASSES
    assert [float(row["share_samples"]) for row in rows] == scores["class_shares"]
    assert sum(float(row["share_real"]) for row in rows) == pytest.approx(1, abs=1e-5)

    picture = np.asarray(Image.open(EVALUATION_FIGURES / "neighbours.png"))
    training = read_images(PREPARED, "train")
    indices, distances = nearest(samples[:10], training)
    assert scores["neighbour_distance"] == pytest.approx(distances.mean(), rel=1e-5)
    for image in (samples[0], training[indices[0]]):
        enlarged = image[:, :, 0].repeat(2, axis=0).repeat(2, axis=1)
        windows = np.lib.stride_tricks.sliding_window_view(picture[:, :80], enlarged.shape)
        assert (windows == enlarged).all(axis=(2, 3)).any()


def test_same_inputs_same_bytes() -> None:
    write_prepared(train=30, test=20)
    reference(small_params())
    samples = marked_squares(64, 9)[0]
    scores_of(samples)
    first = [SCORES.read_bytes(), *(file.read_bytes() for file in sorted(EVALUATION_FIGURES.iterdir()))]
    scores_of(samples)
    assert [SCORES.read_bytes(), *(file.read_bytes() for file in sorted(EVALUATION_FIGURES.iterdir()))] == first


def test_without_an_extractor_looks_for_copies_only() -> None:
    write_prepared(None, train=20)
    reference(small_params(extractor="none"))
    scores = scores_of(marked_squares(64, 9)[0], extractor="none")
    assert list(scores) == ["neighbour_distance", "protocol"]
    assert scores["protocol"][0]["weights_md5"] is None
    assert [file.name for file in EVALUATION_FIGURES.iterdir()] == ["neighbours.png"]


def test_a_class_that_the_real_split_lacks_is_named() -> None:
    write_prepared(train=90, test=40)
    reference(small_params())
    path = PREPARED / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["splits"]["test"]["class_counts"] = [20, 0, 20]
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="the test split has no image of class middle"):
        scores_of(marked_squares(64, 9)[0], split="test")
    assert not SCORES.exists()


def test_the_score_of_the_samples_is_the_inception_score_of_their_probabilities() -> None:
    from gan.device import open_device
    from gan.metrics.classifier import load_classifier

    write_prepared(train=90, test=40)
    reference(small_params())
    samples = marked_squares(64, 9)[0]
    scores = scores_of(samples, splits=4)
    classifier = load_classifier(REFERENCE / "classifier.safetensors", open_device("cpu", 1, True))
    _, probabilities = classifier.features_and_probabilities(samples)
    expected = inception_score(probabilities, 4)
    assert (scores["inception_score"], scores["inception_score_std"]) == pytest.approx(expected, rel=1e-5)
