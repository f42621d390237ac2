"""Agreement with the tools whose numbers papers quote, on the same features and from the same images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax
from torch import nn
from torch_fidelity import calculate_metrics
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from gan.data.batches import packed_batches
from gan.metrics import (
    feature_statistics,
    frechet_distance,
    inception_score,
    kernel_distance,
    manifold_scores,
    neighbourhood_radii,
)
from gan.metrics.extractors import describe
from gan.metrics.inception_v3 import InceptionV3, read_inception_weights
from tests.gan.metrics.inception_weights import write_random_inception

pytestmark = pytest.mark.filterwarnings("ignore:Metric .* will save all extracted features:UserWarning")

SIZE = 48


class Identity(nn.Identity):
    num_features = SIZE


@pytest.fixture(scope="module")
def features() -> tuple[np.ndarray, np.ndarray]:
    """Samples and real images, 600×48 each: skewed and not negative, as features of networks are."""
    random = np.random.default_rng(0)
    mix = random.normal(size=(SIZE, SIZE)) / np.sqrt(SIZE)
    real = np.maximum(random.normal(0.2, 1, (600, SIZE)) @ mix, 0)
    samples = np.maximum(random.normal(0.3, 1.1, (600, SIZE)) @ mix, 0)
    return samples.astype(np.float32), real.astype(np.float32)


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 3, (1000, 10))


def test_frechet_distance(features: tuple[np.ndarray, np.ndarray]) -> None:
    samples, real = features
    ours = frechet_distance(*feature_statistics(samples), *feature_statistics(real))
    statistics = [fid_features_to_statistics(torch.from_numpy(each.astype(np.float64))) for each in features]
    fidelity = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert ours == pytest.approx(fidelity, rel=1e-8)
    metric = FrechetInceptionDistance(Identity()).set_dtype(torch.float64)
    metric.update(torch.from_numpy(samples), real=False)
    metric.update(torch.from_numpy(real), real=True)
    assert ours == pytest.approx(float(metric.compute()), rel=1e-4)


def test_frechet_distance_of_fewer_images_than_features(features: tuple[np.ndarray, np.ndarray]) -> None:
    samples, real = (each[:30] for each in features)
    ours = frechet_distance(*feature_statistics(samples), *feature_statistics(real))
    statistics = [fid_features_to_statistics(torch.from_numpy(each.astype(np.float64))) for each in (samples, real)]
    fidelity = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert ours == pytest.approx(fidelity, rel=1e-4)


def test_kernel_distance(features: tuple[np.ndarray, np.ndarray]) -> None:
    samples, real = features
    ours = kernel_distance(samples, real, seed=0, size=600).value
    wide = [torch.from_numpy(each.astype(np.float64)) for each in features]
    fidelity = kid_features_to_metric(*wide, kid_subsets=1, kid_subset_size=600, verbose=False)
    assert ours == pytest.approx(fidelity["kernel_inception_distance_mean"], rel=1e-8)
    metric = KernelInceptionDistance(Identity(), subsets=1, subset_size=600)
    metric.update(torch.from_numpy(samples), real=False)
    metric.update(torch.from_numpy(real), real=True)
    assert ours == pytest.approx(float(metric.compute()[0]), rel=1e-4)


def test_kernel_distance_over_subsets(features: tuple[np.ndarray, np.ndarray]) -> None:
    samples, real = features
    ours = kernel_distance(samples, real, seed=0, subsets=400, size=100)
    wide = [torch.from_numpy(each.astype(np.float64)) for each in features]
    fidelity = kid_features_to_metric(*wide, kid_subsets=400, kid_subset_size=100, verbose=False)
    error = fidelity["kernel_inception_distance_std"] / np.sqrt(400)
    assert ours.value == pytest.approx(fidelity["kernel_inception_distance_mean"], abs=5 * error)
    assert ours.spread == pytest.approx(fidelity["kernel_inception_distance_std"], rel=0.15)


@pytest.mark.parametrize("splits", [1, 7, 10])
def test_inception_score(splits: int, logits: np.ndarray) -> None:
    ours = inception_score(softmax(logits, axis=1), splits)
    fidelity = isc_features_to_metric(torch.from_numpy(logits), splits, shuffle=False)
    assert ours[0] == pytest.approx(fidelity["inception_score_mean"], rel=1e-8)
    assert ours[1] == pytest.approx(fidelity["inception_score_std"], rel=1e-8, abs=1e-12)


@pytest.mark.filterwarnings("ignore:std\\(\\):UserWarning")
def test_inception_score_of_images_in_any_order(logits: np.ndarray) -> None:
    metric = InceptionScore(nn.Identity(), splits=1)
    metric.update(torch.from_numpy(logits))
    assert inception_score(softmax(logits, axis=1), 1)[0] == pytest.approx(float(metric.compute()[0]), rel=1e-4)


@pytest.mark.parametrize("k", [3, 5])
def test_precision_and_recall(k: int, features: tuple[np.ndarray, np.ndarray]) -> None:
    samples, real = (each[:, :16].astype(np.float64) for each in features)
    ours = manifold_scores(samples, real, neighbourhood_radii(real, k), k)
    fidelity = prc_features_to_metric(
        torch.from_numpy(samples), torch.from_numpy(real), prc_neighborhood=k, save_cpu_ram=False, verbose=False
    )
    assert 0.1 < fidelity["precision"] < 0.95
    assert ours.precision.mean() == pytest.approx(fidelity["precision"], rel=1e-6)
    assert ours.recall.mean() == pytest.approx(fidelity["recall"], rel=1e-6)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.slow
def test_the_scores_of_images_are_torch_fidelitys(tmp_path: Path) -> None:
    count, side = 40, 48
    random = np.random.default_rng(0)
    write_random_inception(tmp_path / "weights.pth", "fid")
    extractor = InceptionV3(*read_inception_weights(tmp_path / "weights.pth"), torch.device("cpu"))
    features, probabilities = {}, {}
    for name, brightness in (("generated", 200), ("real", 256)):
        small = random.integers(0, brightness, (count, 6, 6, 3), np.uint8)
        (tmp_path / name).mkdir()
        images = [Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC) for image in small]
        for index, image in enumerate(images):
            image.save(tmp_path / name / f"{index:03}.png")
        packed = np.stack([np.asarray(image) for image in images])
        batches = packed_batches(packed, extractor.batch, torch.device("cpu"))
        features[name], probabilities[name] = describe({torch.device("cpu"): extractor}, batches, count, lambda _: None)
    expected = calculate_metrics(
        input1=str(tmp_path / "generated"), input2=str(tmp_path / "real"), cuda=False, isc=True, fid=True, kid=True,
        isc_splits=2, kid_subsets=1, kid_subset_size=count, samples_shuffle=False, cache=False, verbose=False,
        feature_extractor_weights_path=str(tmp_path / "weights.pth"),
    )  # fmt: skip
    assert probabilities["generated"] is not None
    score, spread = inception_score(probabilities["generated"], 2)
    assert score == pytest.approx(expected["inception_score_mean"], rel=1e-4)
    assert spread == pytest.approx(expected["inception_score_std"], rel=1e-3)
    statistics = [feature_statistics(features[name]) for name in ("generated", "real")]
    assert frechet_distance(*statistics[0], *statistics[1]) == pytest.approx(
        expected["frechet_inception_distance"], rel=1e-4
    )
    distance = kernel_distance(features["generated"], features["real"], seed=0, subsets=1, size=count)
    assert distance.value == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
