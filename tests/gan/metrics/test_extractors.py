from pathlib import Path

import numpy as np
import pytest
import torch

from gan.data.batches import packed_batches
from gan.errors import InputError
from gan.metrics.classifier import Architecture, Classifier, save_classifier
from gan.metrics.extractors import describe, load_extractor, load_extractors, weights_name
from gan.metrics.inception_v3 import read_inception_weights, save_inception_weights
from gan.metrics.squeezenet import read_weights, save_weights
from tests.gan.metrics.inception_weights import write_random_inception
from tests.gan.metrics.squeezenet_weights import write_random_weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of every extractor."""
    folder = tmp_path_factory.mktemp("extractors")
    save_classifier(folder / weights_name("classifier"), Classifier(Architecture(32, 1, 3)))
    write_random_weights(folder / "random.pth")
    save_weights(folder / weights_name("squeezenet1_1"), read_weights(folder / "random.pth"))
    write_random_inception(folder / "random.pth", "fid")
    kind, weights = read_inception_weights(folder / "random.pth")
    save_inception_weights(folder / weights_name("inception_v3"), kind, weights)
    return folder


@pytest.mark.parametrize(
    ("name", "width", "classes"), [("classifier", 128, 3), ("squeezenet1_1", 512, None), ("inception_v3", 2048, 1008)]
)
def test_many_images_are_described_as_one_is(folder: Path, name: str, width: int, classes: int | None) -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 1), dtype=np.uint8)
    extractor = load_extractor(name, folder, CPU)
    done: list[int] = []
    features, probabilities = describe({CPU: extractor}, packed_batches(images, 7, CPU), 10, done.append)
    assert sum(done) == 10
    assert max(done) <= min(7, extractor.batch)
    assert features.shape == (10, width) == (10, extractor.width)
    last, last_probabilities = extractor.describe(torch.from_numpy(images[9:]).permute(0, 3, 1, 2))
    np.testing.assert_allclose(features[9:], last.numpy(), rtol=1e-3, atol=1e-5 * np.abs(features).max())
    if classes is None:
        assert probabilities is None
        assert last_probabilities is None
    else:
        assert probabilities is not None
        assert last_probabilities is not None
        assert probabilities.shape == (10, classes)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
        np.testing.assert_allclose(probabilities[9:], last_probabilities.numpy(), rtol=1e-2)


@pytest.mark.parametrize("name", ["classifier", "squeezenet1_1"])
def test_several_devices_describe_as_one_does(folder: Path, name: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 1), dtype=np.uint8)
    found = []
    for devices in ([CPU], [CPU, torch.device("cpu", 0)]):  # the same processor by two names
        extractors = load_extractors(name, folder, devices)
        assert len(extractors) == len(devices)
        done: list[int] = []
        found.append(describe(extractors, packed_batches(images, 7, CPU), 30, done.append))
        assert done[:2] == [7, 7]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    if found[0][1] is not None:
        np.testing.assert_array_equal(found[0][1], found[1][1])


def test_features_that_are_not_finite_are_refused() -> None:
    classifier = Classifier(Architecture(32, 1, 3))
    torch.nn.init.constant_(classifier.body[0].get_parameter("weight"), float("nan"))
    images = np.zeros((2, 32, 32, 1), np.uint8)
    with pytest.raises(InputError, match=r"the features are not all finite \(NaN\)"):
        describe({CPU: classifier}, packed_batches(images, 2, CPU), 2, lambda _: None)


def test_no_other_name_is_known(folder: Path) -> None:
    with pytest.raises(ValueError, match="no extractor is named 'vgg'"):
        load_extractor("vgg", folder, CPU)
