import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gan.data.packed import file_md5, read_images
from gan.errors import InputError
from gan.metrics import feature_statistics, frechet_distance, inception_score
from stages.evaluate import evaluate
from stages.layout import (
    CURVES,
    EVALUATION_FIGURES,
    PREPARED,
    REFERENCE,
    REFERENCE_SCORES,
    SAMPLES,
    SCORES,
    TRAINED,
    TRAINING_SUMMARY,
)
from stages.reference import reference
from tests.gan.metrics.squeezenet_weights import write_random_weights
from tests.stages.small_run import CLASSES, marked_squares, several_devices, small_params, write_prepared, write_trained


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_samples(images: np.ndarray, ema: bool = True, origin: str = "training") -> None:
    SAMPLES.mkdir(parents=True, exist_ok=True)
    np.save(SAMPLES / "images.npy", images)
    generator = "generator_ema.safetensors" if ema else "generator.safetensors"
    manifest = {"origin": origin, "count": len(images), "seed": 7, "ema": ema, "generator": generator}
    (SAMPLES / "manifest.json").write_text(json.dumps(manifest))


def trajectory() -> list[dict[str, float]]:
    with (EVALUATION_FIGURES / "trajectory.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def scores_of(images: np.ndarray, ema: bool = True, **parameters: Any) -> dict[str, Any]:
    """What the stage writes, the details among the rest."""
    write_samples(images, ema)
    if not TRAINED.exists():
        write_trained()
    evaluate(small_params(**parameters))
    scores: dict[str, Any] = json.loads(SCORES.read_text())
    details: dict[str, Any] = scores.pop("details")[0]
    return scores | details


def test_features_are_dealt_to_all_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    write_prepared(train=90, test=40)
    write_samples(marked_squares(64, 9)[0])
    write_trained()
    found = []
    for count in (1, 2):
        with several_devices(monkeypatch, count) as workers:
            reference(small_params())
            real = (REFERENCE_SCORES.read_bytes(), *(file.read_bytes() for file in sorted(REFERENCE.iterdir())))
            evaluate(small_params(splits=2))
        assert set(workers) == {count}
        found.append((real, SCORES.read_bytes()))
    assert found[0] == found[1]


def test_scores_with_their_protocol() -> None:
    write_prepared(train=90, test=40)
    reference(small_params())
    write_samples(marked_squares(64, 9)[0])
    write_trained()
    evaluate(small_params(splits=2))
    scores = json.loads(SCORES.read_text())
    numbers = ["inception_score", "classifier-FD", "classifier-KD", "precision", "recall", "near_copies"]
    lists = ["details", "intervals", "floor", "warnings", "class_shares", "protocol"]
    assert list(scores) == ["verdict", *numbers, *lists]
    assert all(isinstance(scores[name], float) for name in numbers)
    (details,), (intervals,), (floor,), (protocol,) = (scores[n] for n in ("details", "intervals", "floor", "protocol"))
    assert list(details) == [
        "inception_score_std",
        "density",
        "coverage",
        "feature_diversity",
        "neighbour_distance",
        "rarest_class",
        "class_divergence",
        "best_kimg",
        "best_distance",
        "best_generator",
        "classifier-FD_equal_counts",
    ]
    # 64 samples in 128 features leave the Fréchet distance without an interval, and with a warning.
    manifold = ["precision", "recall", "density", "coverage"]
    assert list(intervals) == ["inception_score", "classifier-KD", *manifold, "near_copies"]
    assert all(low <= (scores | details)[name] <= high for name, (low, high) in intervals.items())
    assert floor == json.loads(REFERENCE_SCORES.read_text())["floors"][0]["train"]
    assert [warning.partition(":")[0] for warning in scores["warnings"]] == [
        "classifier-FD is measured on 64 samples in 128 features",
        "classifier-FD is measured on 90 real images in 128 features",
        "classifier-FD is measured on 40 held-out real images in 128 features",
        "classifier-FD is measured on 20 samples of each kept generator in 128 features",
    ]
    assert sum(scores["class_shares"]) == pytest.approx(1, abs=1e-5)
    assert details["rarest_class"] == min(scores["class_shares"])
    assert sorted(protocol.pop("versions")) == ["numpy", "scipy", "torch", "torchvision"]
    assert protocol == {
        "extractor": "classifier",
        "weights_md5": file_md5(REFERENCE / "classifier.safetensors"),
        "real_images": 90,
        "floor_images": 40,
        "trajectory_images": 20,
        "inception_score_splits": 2,
        "kernel_subsets": 100,
        "kernel_subset_size": 64,
        "neighbours_k": 5,
        "manifold_images": [64, 90],
        "interval": 0.95,
        "resamples": 1000,
        "generated_images": 64,
        "copy_samples": 64,
        "training_images": 90,
        "real_split": "train",
        "data_md5": file_md5(PREPARED / "train.npy"),
        "image_size": 32,
        "channels": 1,
        "crop": None,
        "resize": "bicubic",
        "seed": 7,
    }


def test_scores_tell_good_samples_from_bad() -> None:
    write_prepared(train=90, test=40)
    reference(small_params())
    copies = np.array(read_images(PREPARED, "train")[:64])
    good = scores_of(copies)
    collapsed = scores_of(np.repeat(copies[:1], 64, axis=0))
    assert good["neighbour_distance"] == pytest.approx(0, abs=1e-3)
    assert good["near_copies"] == collapsed["near_copies"] == 1
    assert good["precision"] == good["recall"] == 1  # of a part of the real images themselves
    assert collapsed["recall"] < 0.2
    assert good["inception_score"] > 1.5
    assert collapsed["inception_score"] == pytest.approx(1, abs=1e-5)
    assert good["classifier-FD"] < collapsed["classifier-FD"] / 5
    assert 0.8 < good["feature_diversity"] < 1.2
    assert collapsed["feature_diversity"] < 1e-3
    assert good["class_divergence"] < 0.05 < collapsed["class_divergence"]
    assert collapsed["rarest_class"] == 0

    exactly = scores_of(np.array(read_images(PREPARED, "train")))
    assert exactly["classifier-FD"] == pytest.approx(0, abs=1e-6)
    assert exactly["feature_diversity"] == pytest.approx(1, abs=1e-5)
    assert exactly["class_divergence"] < 0.01


def test_figures() -> None:
    write_prepared(train=90, test=40)
    reference(small_params(extractor="none"))
    samples = marked_squares(64, 9)[0]
    training = read_images(PREPARED, "train")
    samples[3] = training[17]
    scores = scores_of(samples, extractor="none")
    assert sorted(file.name for file in EVALUATION_FIGURES.iterdir()) == [
        "diagnosis.json",
        "neighbours.csv",
        "neighbours.png",
        "real.png",
    ]
    with (EVALUATION_FIGURES / "neighbours.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 64
    assert rows[3] == {"sample": "3", "training_image": "17", "distance": "0.0", "near_copy": "1"}
    assert scores["near_copies"] == pytest.approx(1 / 64, rel=1e-5)
    pixels = training.reshape(90, -1).astype(float)
    nearest = [np.linalg.norm(pixels - sample.reshape(-1), axis=1).argmin() for sample in samples]
    assert [int(row["training_image"]) for row in rows] == nearest

    picture = np.asarray(Image.open(EVALUATION_FIGURES / "neighbours.png"))
    # The first samples above their neighbours, and the sample that is a copy first in the third row.
    for row, image in enumerate((samples[0], training[nearest[0]], samples[3], samples[3])):
        top, left = 2 * (2 + 34 * row), 2 * 2
        assert (picture[top : top + 64 : 2, left : left + 64 : 2] == image[:, :, 0]).all()


def test_classes_are_a_table() -> None:
    write_prepared(train=90, test=40)
    reference(small_params())
    scores = scores_of(marked_squares(64, 9)[0])
    with (EVALUATION_FIGURES / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == CLASSES
    assert [float(row["share_samples"]) for row in rows] == scores["class_shares"]
    assert sum(float(row["share_real"]) for row in rows) == pytest.approx(1, abs=1e-5)


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
    assert set(scores) - {"near_copies", "neighbour_distance"} == {
        "verdict", "intervals", "floor", "warnings", "class_shares", "protocol",
    }  # fmt: skip
    assert scores["near_copies"] == 0
    assert not {"weights_md5", "real_images", "trajectory_images"} & set(scores["protocol"][0])


@pytest.mark.parametrize("origin", ["given generator", "given images"])
def test_what_comes_from_elsewhere_has_scores_and_no_verdict_on_training(origin: str) -> None:
    write_prepared(train=90, test=40)
    reference(small_params())
    write_samples(marked_squares(64, 9)[0], origin=origin)
    TRAINED.mkdir(parents=True)
    CURVES.write_text("\n")
    TRAINING_SUMMARY.write_text("{}")
    evaluate(small_params())
    scores = json.loads(SCORES.read_text())
    assert scores["verdict"] == "not trained here"
    assert scores["classifier-FD"] > 0
    assert not (EVALUATION_FIGURES / "trajectory.csv").exists()


def test_at_equal_counts_real_images_are_no_farther_than_samples() -> None:
    write_prepared(train=200, test=140)
    reference(small_params())
    samples = marked_squares(500, 9)[0]
    scores = scores_of(samples)
    few = scores_of(samples[:140])
    assert scores["classifier-FD_equal_counts"] == pytest.approx(few["classifier-FD"], rel=1e-5)
    assert scores["classifier-FD"] < scores["classifier-FD_equal_counts"]
    assert "classifier-FD_equal_counts" not in few


def test_an_inception_score_of_small_parts_is_warned_of() -> None:
    write_prepared(train=90, test=40)
    reference(small_params())
    samples = marked_squares(64, 9)[0]
    (warning,) = [text for text in scores_of(samples, splits=12)["warnings"] if text.startswith("inception_score")]
    assert warning.startswith("inception_score is of parts of 5 samples for 3 classes: it comes out too low")
    assert not [text for text in scores_of(samples, splits=10)["warnings"] if text.startswith("inception_score")]


def test_too_few_samples_are_refused() -> None:
    write_prepared(train=90, test=40)
    reference(small_params())
    with pytest.raises(InputError, match=r"evaluate\.splits: 10 parts of 9 samples; use fewer parts"):
        scores_of(marked_squares(9, 9)[0])
    with pytest.raises(InputError, match=r"evaluate\.samples: 5 images, and precision and recall take 6 or more"):
        scores_of(marked_squares(5, 9)[0], splits=1)


def test_few_samples_are_enough_without_an_extractor() -> None:
    write_prepared(None, train=20)
    reference(small_params(extractor="none"))
    assert scores_of(marked_squares(2, 9)[0], extractor="none")["near_copies"] == 0


def test_a_split_that_the_data_lacks_is_refused() -> None:
    write_prepared(None, train=20)
    reference(small_params(extractor="none"))
    with pytest.raises(InputError, match=r"evaluate\.split: test, but the data has none; use train, or a data"):
        scores_of(marked_squares(64, 9)[0], extractor="none", split="test")


def test_a_class_that_the_real_split_lacks_is_named() -> None:
    write_prepared(train=90, test=40)
    reference(small_params())
    path = PREPARED / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["splits"]["test"]["class_counts"] = [20, 0, 20]
    path.write_text(json.dumps(manifest))
    scores = scores_of(marked_squares(64, 9)[0], split="test")
    assert "class_divergence" not in scores
    assert "the test split has no image of class middle: class_divergence is left out" in scores["warnings"]
    assert sum(scores["class_shares"]) == pytest.approx(1, abs=1e-5)


def test_the_score_of_the_samples_is_the_inception_score_of_their_probabilities() -> None:
    from gan.device import open_device
    from gan.metrics.classifier import load_classifier

    write_prepared(train=90, test=40)
    reference(small_params())
    samples = marked_squares(64, 9)[0]
    scores = scores_of(samples, splits=4)
    classifier = load_classifier(REFERENCE / "classifier.safetensors", open_device("cpu", 1, True))
    _, probabilities = classifier.describe(torch.from_numpy(samples).permute(0, 3, 1, 2))
    expected = inception_score(probabilities.numpy(), 4)
    assert (scores["inception_score"], scores["inception_score_std"]) == pytest.approx(expected, rel=1e-5)


def test_scores_of_unlabelled_images_by_squeezenet() -> None:
    write_prepared(None, train=64, test=20)
    write_random_weights(Path("mine.pth"))
    parameters: dict[str, Any] = {"extractor": "squeezenet1_1", "weights": "mine.pth", "trajectory": 3}
    reference(small_params(**parameters))
    training = np.array(read_images(PREPARED, "train"))
    scores = scores_of(training, **parameters)
    assert {"squeezenet-FD", "squeezenet-KD", "precision", "best_kimg"} < set(scores)
    assert not {"inception_score", "rarest_class"} & set(scores)
    assert scores["class_shares"] == []
    assert scores["squeezenet-FD"] == pytest.approx(0, abs=1e-6)
    assert scores["feature_diversity"] == pytest.approx(1, abs=1e-5)
    (protocol,) = scores["protocol"]
    assert protocol["extractor"] == "squeezenet1_1"
    assert protocol["weights_md5"] == file_md5(REFERENCE / "squeezenet1_1.safetensors")
    assert (protocol["real_images"], protocol["generated_images"], protocol["trajectory_images"]) == (64, 64, 3)
    assert "classes.csv" not in [file.name for file in EVALUATION_FIGURES.iterdir()]

    collapsed = scores_of(np.repeat(training[:1], 64, axis=0), **parameters)
    assert collapsed["squeezenet-FD"] > scores["squeezenet-FD"]
    assert collapsed["feature_diversity"] < 1e-3


@pytest.mark.parametrize("ema", [True, False])
def test_the_course_of_training_is_that_of_the_kept_generators(ema: bool) -> None:
    from gan.device import open_device
    from gan.metrics.classifier import load_classifier
    from gan.networks.build import load_generator
    from gan.sampling import draw_latents, generate
    from gan.seeds import derive_seed

    write_prepared(train=90, test=40)
    reference(small_params())
    scores = scores_of(marked_squares(64, 9)[0], ema=ema, trajectory=150)
    course = trajectory()
    assert [(row["step"], row["kimg"]) for row in course] == [(10, 0.5), (20, 1.0)]

    device = open_device("cpu", 1, True)
    classifier = load_classifier(REFERENCE / "classifier.safetensors", device)
    latents = draw_latents(150, 4, derive_seed(7, "trajectory"))
    with np.load(REFERENCE / "train_statistics.npz") as file:
        real = file["mean"], file["cov"]
    for step, row in zip((10, 20), course, strict=True):
        name = "generator_ema" if ema else "generator"
        generator, _ = load_generator(TRAINED / f"kept/{step:08}/{name}.safetensors", device)
        (images,) = generate(generator, latents, 150, [device])
        features, _ = classifier.describe(images)
        expected = frechet_distance(*feature_statistics(features.numpy()), *real)
        assert row["distance"] == pytest.approx(expected, rel=1e-4)
    best = min(course, key=lambda row: row["distance"])
    assert (scores["best_kimg"], scores["best_distance"]) == (best["kimg"], best["distance"])


def test_the_course_of_training_takes_fewer_images_than_features() -> None:
    write_prepared(train=90, test=40)
    reference(small_params())
    scores_of(marked_squares(64, 9)[0], trajectory=2)
    assert all(row["distance"] > 0 for row in trajectory())


@pytest.mark.parametrize(("count", "steps", "rows"), [(0, (10, 20), None), (20, (), 0)])
def test_without_a_course_of_training(count: int, steps: tuple[int, ...], rows: int | None) -> None:
    write_prepared(train=90, test=40)
    reference(small_params())
    write_trained(steps)
    TRAINED.mkdir(exist_ok=True)
    scores = scores_of(marked_squares(64, 9)[0], trajectory=count)
    assert "best_kimg" not in scores
    assert (EVALUATION_FIGURES / "trajectory.csv").exists() == (rows is not None)
    if rows is not None:
        assert len(trajectory()) == rows


def test_the_verdict_is_the_diagnosis_of_the_runs_numbers() -> None:
    from dataclasses import asdict

    from gan.diagnosis import Run, diagnose

    write_prepared(train=90, test=40)
    reference(small_params())
    scores = scores_of(marked_squares(64, 9)[0])
    with CURVES.open(newline="") as file:
        rows = list(csv.DictReader(file))
    summary = json.loads(TRAINING_SUMMARY.read_text())
    with np.load(REFERENCE / "train_statistics.npz") as real:
        real_variance = float(np.trace(real["cov"]))
    expected = diagnose(
        Run(
            curves={name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]},
            initial_z_spread=summary["z_spread_initial"],
            initial_grad_norm_g_first=summary["grad_norm_g_first_initial"],
            trajectory=[(row["kimg"], row["distance"]) for row in trajectory()],
            distance=scores["classifier-FD"],
            floor=json.loads(REFERENCE_SCORES.read_text())["floors"][0]["train"].get("classifier-FD"),
            diversity=scores["feature_diversity"],
            real_variance=real_variance,
        )
    )
    written = json.loads((EVALUATION_FIGURES / "diagnosis.json").read_text())
    assert written == json.loads(json.dumps(asdict(expected)))
    assert scores["verdict"] == written["verdict"]


def test_a_collapsed_run_is_called_by_its_name() -> None:
    write_prepared(train=90, test=40)
    reference(small_params())
    write_trained()
    CURVES.write_text(re.sub(r",0\.4,,1,1\n", ",0.0001,,1,1\n", CURVES.read_text()))
    scores = scores_of(np.full((64, 32, 32, 1), 128, np.uint8))
    assert scores["verdict"] == "generator collapsed"
