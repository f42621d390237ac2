import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from gan.data.batches import packed_batches
from gan.data.fetching import fetch_source
from gan.data.packed import read_images, read_labels, read_manifest
from gan.data.preparation import prepare
from gan.data.sources.source import Request
from gan.device import open_device
from gan.metrics import accuracy
from gan.metrics.classifier import (
    Architecture,
    Classifier,
    LabelledImages,
    load_classifier,
    save_classifier,
    train_classifier,
)
from gan.params import load_params

ROOT = Path(__file__).parents[3]
MNIST = ROOT.parent / "shared/data/mnist"
CPU = torch.device("cpu")


def marked_squares(count: int, seed: int, channels: int = 1) -> LabelledImages:
    """Three classes: a bright square at the top left, in the middle, or at the bottom right, in noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    images = random.integers(0, 100, (count, 32, 32, channels), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        start = 2 + 10 * label
        image[start : start + 8, start : start + 8] = 250
    return LabelledImages(images, labels)


def train_small(seed: int = 0, epochs: int = 2, channels: int = 1) -> Classifier:
    train, validation = marked_squares(90, 1, channels), marked_squares(30, 2, channels)
    return train_classifier(
        train, validation, 3, epochs=epochs, batch_size=8, lr=0.002, seed=seed, device=open_device("cpu", 1, True)
    )


@pytest.fixture(scope="module")
def small() -> Classifier:
    return train_small()


def prepared(source: str, path: Path | None, folder: Path) -> dict[str, LabelledImages]:
    raw, out = folder / "raw", folder / "prepared"
    raw.mkdir()
    out.mkdir()
    fetch_source(source, Request(path, "published", folder / "downloads"), raw)
    prepare(
        raw,
        out,
        image_size=32,
        channels=1,
        crop=None,
        validation_fraction=0.05,
        test_fraction=0.1,
        max_bad_fraction=0,
        seed=0,
        workers=1,
    )
    return {name: LabelledImages(read_images(out, name), read_labels(out, name)) for name in read_manifest(out).splits}


def described(classifier: Classifier, images: np.ndarray, batch: int = 250) -> tuple[np.ndarray, np.ndarray]:
    found = [classifier.describe(each) for each in packed_batches(images, batch, CPU)]
    features, probabilities = zip(*found, strict=True)
    return torch.cat(features).numpy(), torch.cat(probabilities).numpy()


def accuracy_after(splits: dict[str, LabelledImages], epochs: int, threads: int) -> float:
    """Test accuracy with the project's own rate and batch size."""
    reference = load_params(ROOT / "params.yaml").reference
    classifier = train_classifier(
        splits["train"],
        splits["validation"],
        10,
        epochs=epochs or reference.epochs,
        batch_size=reference.batch_size,
        lr=reference.lr,
        seed=0,
        device=open_device("cpu", threads, True),
    )
    _, probabilities = described(classifier, splits["test"].images)
    return accuracy(probabilities, splits["test"].labels)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LabelledImages]:
    return prepared("mnist-5k", None, tmp_path_factory.mktemp("digits"))


def test_learns_classes_that_are_plain_to_see(small: Classifier) -> None:
    test = marked_squares(60, 3)
    _, probabilities = described(small, test.images)
    assert accuracy(probabilities, test.labels) > 0.95


def test_learns_digits(digits: dict[str, LabelledImages]) -> None:
    assert accuracy_after(digits, epochs=2, threads=1) > 0.9


@pytest.mark.slow
def test_accuracy_on_5000_digits(digits: dict[str, LabelledImages]) -> None:
    assert accuracy_after(digits, epochs=0, threads=2) >= 0.97


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not MNIST.is_dir(), reason="needs MNIST beside the repository")
def test_accuracy_on_all_of_mnist(tmp_path: Path) -> None:
    assert accuracy_after(prepared("mnist", MNIST, tmp_path), epochs=4, threads=2) >= 0.99


@pytest.mark.parametrize(("image_size", "channels"), [(32, 1), (64, 3), (128, 1), (256, 3)])
def test_takes_every_image_size(image_size: int, channels: int) -> None:
    classifier = Classifier(Architecture(image_size, channels, 5))
    images = np.random.default_rng(0).integers(0, 256, (3, image_size, image_size, channels), dtype=np.uint8)
    features, probabilities = described(classifier, images)
    assert features.shape == (3, 128)
    assert features.dtype == np.float32
    assert probabilities.shape == (3, 5)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)


def test_number_of_parameters() -> None:
    convolutions = 9 * (1 * 32 + 32 * 64 + 64 * 128)
    batch_norms = 2 * (32 + 64 + 128 + 128)
    linear = 16 * 128 * 128 + 128 * 10 + 10
    classifier = Classifier(Architecture(32, 1, 10))
    assert sum(parameter.numel() for parameter in classifier.parameters()) == convolutions + batch_norms + linear


def test_batches_do_not_mix(small: Classifier) -> None:
    images = marked_squares(10, 4).images
    together, _ = described(small, images)
    alone, _ = described(small, images, batch=3)
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_scoring_is_in_evaluation_mode_and_leaves_the_mode(small: Classifier) -> None:
    images = marked_squares(10, 4).images
    expected, _ = described(small, images)
    small.train()
    found, _ = described(small, images)
    assert small.training
    small.eval()
    np.testing.assert_array_equal(found, expected)


def test_takes_a_read_only_memory_map(small: Classifier, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", marked_squares(5, 5).images)
    features, _ = described(small, np.load(tmp_path / "images.npy", mmap_mode="r"))
    assert len(features) == 5


def test_refuses_images_of_another_shape(small: Classifier) -> None:
    with pytest.raises(ValueError, match="trained on"):
        described(small, np.zeros((2, 64, 64, 1), np.uint8))


def test_same_seed_same_bytes(small: Classifier, tmp_path: Path) -> None:
    save_classifier(tmp_path / "first", small)
    torch.rand(7)
    save_classifier(tmp_path / "second", train_small())
    save_classifier(tmp_path / "other", train_small(seed=1))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert (tmp_path / "first").read_bytes() != (tmp_path / "other").read_bytes()


def test_round_trip_is_exact(small: Classifier, tmp_path: Path) -> None:
    save_classifier(tmp_path / "weights", small)
    loaded = load_classifier(tmp_path / "weights", CPU)
    assert not loaded.training
    assert loaded.architecture == small.architecture
    images = marked_squares(10, 6).images
    for found, expected in zip(described(loaded, images), described(small, images), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_trains_in_colour_without_validation_and_on_less_than_a_batch() -> None:
    images = marked_squares(5, 7, channels=3)
    classifier = train_classifier(images, None, 3, epochs=1, batch_size=64, lr=0.002, seed=0, device=CPU)
    assert classifier.architecture.channels == 3


def test_a_last_batch_of_one_image_is_no_obstacle() -> None:
    train_classifier(marked_squares(9, 7), None, 3, epochs=1, batch_size=4, lr=0.002, seed=0, device=CPU)


def test_says_one_line_an_epoch(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        train_small(epochs=2)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2: loss ")
    assert "validation accuracy" in lines[1]
