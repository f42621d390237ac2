import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import SqueezeNet1_1_Weights, alexnet, squeezenet1_1

from gan.errors import InputError
from gan.metrics.squeezenet import SqueezeNet, load_squeezenet, read_weights, save_weights
from tests.gan.metrics.squeezenet_weights import TRAINED, write_random_weights

CPU = torch.device("cpu")
needs_trained_weights = pytest.mark.skipif(not TRAINED.is_file(), reason="needs SqueezeNet's trained weights")


def random_images(count: int, side: int, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, channels, side, side), dtype=np.uint8))


def smooth_images(count: int, side: int, channels: int = 3) -> Tensor:
    """Blobs of colour, which photographs are nearer to than noise is."""
    rows = np.linspace(0, 1, side)
    phases = np.random.default_rng(1).uniform(0, 6, (count, channels, 2))
    waves = [np.sin(4 * rows[:, None] + a) * np.cos(3 * rows + b) for a, b in phases.reshape(-1, 2)]
    return torch.from_numpy((np.stack(waves).reshape(count, channels, side, side) * 127.5 + 127.5).astype(np.uint8))


def torchvisions_features(weights: Path, images: Tensor) -> Tensor:
    """One image at a time through torchvision's own transforms and network, as its documentation shows."""
    network = squeezenet1_1()
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.eval()
    transforms = SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()
    rows = []
    with torch.no_grad():
        for image in images:
            colour = image.repeat(3 // len(image), 1, 1)
            rows.append(network.features(transforms(colour)[None]).mean((2, 3))[0])
    return torch.stack(rows)


def assert_agree(found: Tensor, expected: Tensor) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.max()))


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "squeezenet1_1.pth"
    write_random_weights(path)
    return path


@pytest.fixture(scope="module")
def network(weights_file: Path) -> SqueezeNet:
    return SqueezeNet(read_weights(weights_file), CPU)


@pytest.mark.parametrize(("side", "channels"), [(32, 1), (64, 3), (97, 3), (256, 3), (300, 1)])
def test_agrees_with_torchvision(network: SqueezeNet, weights_file: Path, side: int, channels: int) -> None:
    images = random_images(3, side, channels)
    expected = torchvisions_features(weights_file, images)
    assert_agree(network.describe(images)[0], expected)


@needs_trained_weights
@pytest.mark.parametrize("channels", [1, 3])
def test_agrees_with_torchvision_on_the_trained_weights(channels: int) -> None:
    images = smooth_images(4, 64, channels)
    expected = torchvisions_features(TRAINED, images)
    found, _ = SqueezeNet(read_weights(TRAINED), CPU).describe(images)
    assert expected.max() > 1
    assert_agree(found, expected)


@needs_trained_weights
def test_the_trained_features_tell_pictures_from_noise() -> None:
    from gan.metrics import feature_statistics, frechet_distance

    network = SqueezeNet(read_weights(TRAINED), CPU)
    first, second, noise = (
        feature_statistics(network.describe(images)[0].numpy())
        for images in (smooth_images(24, 32)[:12], smooth_images(24, 32)[12:], random_images(12, 32))
    )
    assert frechet_distance(*first, *second) < frechet_distance(*first, *noise) / 3


def test_features_are_512_floats_and_there_are_no_classes(network: SqueezeNet) -> None:
    features, probabilities = network.describe(random_images(2, 32))
    assert (features.shape, features.dtype) == ((2, network.width), torch.float32)
    assert network.width == 512
    assert probabilities is None


def test_grey_is_colour_of_equal_channels(network: SqueezeNet) -> None:
    grey = random_images(3, 32, 1)
    assert torch.equal(network.describe(grey)[0], network.describe(grey.repeat(1, 3, 1, 1))[0])


def test_images_do_not_mix_and_repeat_bit_by_bit(network: SqueezeNet) -> None:
    images = random_images(11, 32)
    together, _ = network.describe(images)
    assert torch.equal(network.describe(images)[0], together)
    assert_agree(torch.cat([network.describe(part)[0] for part in images.split(3)]), together)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_features(weights_file: Path, network: SqueezeNet) -> None:
    images = random_images(20, 64)
    expected, _ = network.describe(images)
    found, _ = SqueezeNet(read_weights(weights_file), torch.device("cuda")).describe(images.cuda())
    np.testing.assert_allclose(found.cpu(), expected, rtol=1e-3, atol=1e-4 * float(expected.max()))


@pytest.mark.parametrize("shape", [(2, 32, 32), (2, 2, 32, 32), (2, 4, 32, 32), (2, 32, 32, 3)])
def test_refuses_images_of_another_shape(network: SqueezeNet, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="C 1 or 3"):
        network.describe(torch.zeros(shape, dtype=torch.uint8))


def test_refuses_images_that_are_no_bytes(network: SqueezeNet) -> None:
    with pytest.raises(ValueError, match=r"uint8 .* are torch\.float32"):
        network.describe(torch.zeros(2, 3, 32, 32))


def test_equal_weights_are_equal_files_and_round_trips_are_exact(weights_file: Path, tmp_path: Path) -> None:
    repacked = tmp_path / "repacked.pth"
    torch.save(torch.load(weights_file, weights_only=True), repacked, _use_new_zipfile_serialization=False)
    assert repacked.read_bytes() != weights_file.read_bytes()
    write_random_weights(tmp_path / "other.pth", seed=1)
    for name, source in (("first", weights_file), ("second", repacked), ("third", tmp_path / "other.pth")):
        save_weights(tmp_path / name, read_weights(source))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert (tmp_path / "first").read_bytes() != (tmp_path / "third").read_bytes()

    images = random_images(2, 32)
    expected, _ = SqueezeNet(read_weights(weights_file), CPU).describe(images)
    assert torch.equal(load_squeezenet(tmp_path / "first", CPU).describe(images)[0], expected)


def test_missing_weights_are_never_random() -> None:
    with pytest.raises(RuntimeError, match="Missing key"):
        SqueezeNet({}, CPU)


class Code:
    """What a pickle can hide."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return sys.exit, (7,)


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "truncated inside", "code"])
def test_damaged_files_and_files_of_other_kinds_are_one_line(weights_file: Path, tmp_path: Path, kind: str) -> None:
    path, content = tmp_path / "weights.pth", weights_file.read_bytes()
    if kind == "code":
        torch.save(Code(), path)
    else:
        path.write_bytes(
            {
                "empty": b"",
                "text": b"<html>Not found</html>\n",
                "truncated": content[:-100],
                "truncated inside": content[:1_000_000],
            }[kind]
        )
    with pytest.raises(InputError, match=r"evaluate\.weights: .*weights\.pth is cut short, damaged, or no") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_weights_that_may_not_be_read_are_said_to_be_that(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"evaluate\.weights: {tmp_path} cannot be read \(Is a directory\); it takes"):
        read_weights(tmp_path)


def other_contents(weights: dict[str, torch.Tensor]) -> dict[str, object]:
    name = "features.0.weight"
    return {
        "another network": alexnet().state_dict(),
        "a whole module": list(nn.Linear(2, 2).parameters()),
        "no tensors": {"epoch": 3},
        "one missing": {key: value for key, value in weights.items() if key != name},
        "one too many": weights | {"extra": torch.ones(1)},
        "another shape": weights | {name: torch.ones(96, 3, 7, 7)},
        "no tensor": weights | {name: "a text"},
        "numbers for names": {7: torch.ones(1)},
    }


@pytest.mark.parametrize(
    "kind",
    [
        "another network",
        "a whole module",
        "no tensors",
        "one missing",
        "one too many",
        "another shape",
        "no tensor",
        "numbers for names",
    ],
)
def test_weights_of_another_network_are_one_line(weights_file: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save(other_contents(torch.load(weights_file, weights_only=True))[kind], path)
    with pytest.raises(InputError, match=r"holds no weights of SqueezeNet 1\.1: \d+ names or shapes differ") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
