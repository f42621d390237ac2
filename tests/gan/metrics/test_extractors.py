import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from gan.metrics import extractors
from gan.metrics.classifier import Architecture, Classifier, save_classifier
from gan.metrics.extractors import SHORT_NAMES, describe, load_extractor, weights_name
from gan.metrics.squeezenet import read_weights, save_weights
from tests.gan.metrics.squeezenet_weights import write_random_weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of every extractor."""
    folder = tmp_path_factory.mktemp("extractors")
    save_classifier(folder / weights_name("classifier"), Classifier(Architecture(32, 1, 3)))
    write_random_weights(folder / "random.pth")
    save_weights(folder / weights_name("squeezenet1_1"), read_weights(folder / "random.pth"))
    return folder


@pytest.mark.parametrize(("name", "features", "classes"), [("classifier", 128, 3), ("squeezenet1_1", 512, None)])
def test_many_images_are_described_as_a_few_are(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    features: int,
    classes: int | None,
) -> None:
    monkeypatch.setattr(extractors, "CHUNK", 4)
    images = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 1), dtype=np.uint8)
    extractor = load_extractor(name, folder, CPU)
    with caplog.at_level(logging.INFO):
        found, probabilities = describe(extractor, images, "some images")
    expected, expected_probabilities = extractor(images)
    assert found.shape == (10, features)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    if classes is None:
        assert probabilities is expected_probabilities is None
    else:
        assert probabilities is not None
        assert expected_probabilities is not None
        assert probabilities.shape == (10, classes)
        np.testing.assert_allclose(probabilities, expected_probabilities, rtol=1e-4)
    assert caplog.messages == [f"some images: {done} of 10 images" for done in (4, 8, 10)]


def test_every_name_is_known_and_no_other(folder: Path) -> None:
    for name in SHORT_NAMES:
        load_extractor(name, folder, CPU)
    with pytest.raises(ValueError, match="no extractor is named 'vgg'"):
        load_extractor("vgg", folder, CPU)
