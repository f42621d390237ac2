from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models import Inception3, Inception_V3_Weights, inception_v3, resnet18

from gan.errors import InputError
from gan.metrics.inception_v3 import (
    InceptionV3,
    Kind,
    load_inception_v3,
    read_inception_weights,
    resize_like_tensorflow,
    save_inception_weights,
)
from tests.gan.metrics.inception_weights import random_weights, write_random_inception

CPU = torch.device("cpu")
KINDS: tuple[Kind, ...] = ("fid", "imagenet")


def random_images(count: int, side: int, channels: int = 3, seed: int = 0) -> Tensor:
    """Blobs under noise, of which each image has its own."""
    generator = np.random.default_rng(seed)
    rows = np.linspace(0, 1, side)
    phases = generator.uniform(0, 9, (count * channels, 2))
    waves = np.stack([np.sin(a * rows[:, None] + a) * np.cos(b * rows + b) for a, b in phases])
    noise = generator.normal(0, 20, (count, channels, side, side))
    return torch.from_numpy((waves.reshape(noise.shape) * 100 + 128 + noise).clip(0, 255).astype(np.uint8))


def assert_agree(found: Tensor, expected: Tensor, tolerance: float = 3e-4) -> None:
    """To `tolerance` of the spread between the images, which is what scores are made of."""
    assert found.shape == expected.shape
    spread = float(expected.std(0).mean())
    assert spread > 0.005 * float(expected.abs().mean())
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * spread)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    for kind in KINDS:
        write_random_inception(folder / f"{kind}.pth", kind)
    return {kind: folder / f"{kind}.pth" for kind in KINDS}


@pytest.fixture(scope="module")
def networks(files: dict[str, Path]) -> dict[str, InceptionV3]:
    return {kind: InceptionV3(*read_inception_weights(file), CPU) for kind, file in files.items()}


@pytest.mark.parametrize(
    "size", [(32, 32), (64, 64), (128, 128), (256, 256), (33, 33), (75, 101), (299, 299), (301, 512), (1, 2)]
)
def test_resizes_as_tensorflow_did(size: tuple[int, int]) -> None:
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, *size), np.uint8))
    expected = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(299, 299), align_corners=False)
    assert torch.equal(resize_like_tensorflow(images, 299), expected)


def test_resizing_keeps_the_first_pixel_in_its_place() -> None:
    line = torch.tensor([[[[0, 100]]]], dtype=torch.uint8)
    assert resize_like_tensorflow(line, 4)[0, 0].tolist() == [[0, 50, 100, 100]] * 4


@pytest.mark.parametrize("side", [32, 64, 299])
def test_fid_network_agrees_with_torch_fidelity(
    networks: dict[str, InceptionV3], files: dict[str, Path], side: int
) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    reference = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(files["fid"])
    )
    images = random_images(4, side)
    with torch.no_grad():
        features, logits = reference(images)
    found, probabilities = networks["fid"].describe(images)
    assert_agree(found, features)
    assert_agree(probabilities.log(), logits.double().log_softmax(1))


def test_fid_network_agrees_with_pytorch_fid(
    networks: dict[str, InceptionV3], files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pytorch_fid.inception

    def load(*_: object, **__: object) -> Any:
        return torch.load(files["fid"], weights_only=True)

    monkeypatch.setattr(pytorch_fid.inception, "load_state_dict_from_url", load)
    reference = pytorch_fid.inception.InceptionV3(resize_input=False, normalize_input=False).eval()
    images = random_images(3, 299)
    with torch.no_grad():
        (features,) = reference((images.float() - 128) / 128)
    assert_agree(networks["fid"].describe(images)[0], features[:, :, 0, 0])


@pytest.mark.parametrize("side", [32, 97, 256])
def test_imagenet_network_agrees_with_torchvision(
    networks: dict[str, InceptionV3], files: dict[str, Path], side: int
) -> None:
    # As inception_v3 builds it for the published weights.
    reference = Inception3(transform_input=True, init_weights=False).eval()
    reference.load_state_dict(torch.load(files["imagenet"], weights_only=True))
    pooled: list[Tensor] = []
    reference.avgpool.register_forward_hook(lambda *call: pooled.append(call[-1]))
    transforms = Inception_V3_Weights.IMAGENET1K_V1.transforms()
    images = random_images(3, side)
    with torch.no_grad():
        logits = torch.cat([reference(transforms(image)[None]) for image in images])
    features, probabilities = networks["imagenet"].describe(images)
    assert_agree(features, torch.cat(pooled)[:, :, 0, 0])
    assert_agree(probabilities.log(), logits.double().log_softmax(1))


@pytest.mark.parametrize("kind", KINDS)
def test_features_and_probabilities_have_their_kinds(networks: dict[str, InceptionV3], kind: Kind) -> None:
    network = networks[kind]
    features, probabilities = network.describe(random_images(2, 32))
    assert (features.shape, features.dtype) == ((2, network.width), torch.float32)
    assert (probabilities.shape, probabilities.dtype) == ((2, {"fid": 1008, "imagenet": 1000}[kind]), torch.float64)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_images_do_not_mix_and_repeat_bit_by_bit(networks: dict[str, InceptionV3], kind: Kind) -> None:
    images = random_images(3, 32)
    features, probabilities = networks[kind].describe(images)
    again, probabilities_again = networks[kind].describe(images)
    assert torch.equal(again, features)
    assert torch.equal(probabilities_again, probabilities)
    single = torch.cat([networks[kind].describe(image[None])[0] for image in images])
    assert_agree(single, features)


@pytest.mark.parametrize("kind", KINDS)
def test_grey_is_colour_of_equal_channels(networks: dict[str, InceptionV3], kind: Kind) -> None:
    grey = random_images(2, 32, 1)
    assert torch.equal(networks[kind].describe(grey)[0], networks[kind].describe(grey.repeat(1, 3, 1, 1))[0])


def test_leaves_the_process_as_it_was(networks: dict[str, InceptionV3]) -> None:
    backends = torch.backends
    before = (backends.cudnn.allow_tf32, backends.cudnn.benchmark, backends.cudnn.deterministic)
    state = torch.get_rng_state()
    images = random_images(1, 32)
    copy = images.clone()
    networks["fid"].describe(images)
    assert (backends.cudnn.allow_tf32, backends.cudnn.benchmark, backends.cudnn.deterministic) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert torch.equal(images, copy)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_gives_the_same_features(
    networks: dict[str, InceptionV3], files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    network = InceptionV3(*read_inception_weights(files[kind]), torch.device("cuda"))
    images = random_images(8, 64)
    features, probabilities = network.describe(images.cuda())
    expected, expected_probabilities = networks[kind].describe(images)
    assert_agree(features.cpu(), expected, 1e-3)
    assert_agree(probabilities.log().cpu(), expected_probabilities.log(), 1e-3)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 3, 32, dtype=torch.uint8),
        torch.zeros(2, 2, 32, 32, dtype=torch.uint8),
        torch.zeros(2, 32, 32, 3, dtype=torch.uint8),
        torch.zeros(2, 3, 32, 32),
    ],
)
def test_refuses_other_images(networks: dict[str, InceptionV3], images: Tensor) -> None:
    with pytest.raises(ValueError, match="must be N×C×H×W uint8 with C 1 or 3"):
        networks["fid"].describe(images)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_known_by_their_names_and_shapes(files: dict[str, Path], kind: Kind) -> None:
    found, weights = read_inception_weights(files[kind])
    assert found == kind
    assert weights["fc.weight"].shape == ({"fid": 1008, "imagenet": 1000}[kind], 2048)
    assert not any(name.startswith("AuxLogits") or name.endswith("tracked") for name in weights)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_weights_are_equal_files_and_round_trips_are_exact(
    files: dict[str, Path], networks: dict[str, InceptionV3], tmp_path: Path, kind: Kind
) -> None:
    repacked = torch.load(files[kind], weights_only=True)
    if kind == "fid":
        counts = {name.replace("running_mean", "num_batches_tracked"): torch.tensor(7) for name in repacked}
        repacked |= {name: count for name, count in counts.items() if name.endswith("tracked")}
    torch.save(dict(reversed(repacked.items())), tmp_path / "repacked.pth")
    write_random_inception(tmp_path / "other.pth", kind, seed=1)
    for name, source in (("one", files[kind]), ("two", tmp_path / "repacked.pth"), ("three", tmp_path / "other.pth")):
        save_inception_weights(tmp_path / name, *read_inception_weights(source))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").read_bytes() != (tmp_path / "three").read_bytes()

    images = random_images(1, 32)
    for found, expected in zip(
        load_inception_v3(tmp_path / "one", CPU).describe(images), networks[kind].describe(images), strict=True
    ):
        assert torch.equal(found, expected)


def test_missing_weights_are_never_random() -> None:
    with pytest.raises(RuntimeError, match="Missing key"):
        InceptionV3("fid", {}, CPU)


@pytest.mark.parametrize("content", ["empty", "html", "truncated"])
def test_damaged_files_are_one_line(files: dict[str, Path], tmp_path: Path, content: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(
        {"empty": b"", "html": b"<html>Not found</html>\n", "truncated": files["fid"].read_bytes()[:1_000_000]}[content]
    )
    with pytest.raises(InputError, match=r"evaluate\.weights: .*weights\.pth is cut short, damaged, or no") as caught:
        read_inception_weights(path)
    assert "\n" not in str(caught.value)
    assert "pt_inception-2015-12-05-6726825d.pth or torchvision's inception_v3_google-0cc3c7bd.pth" in str(caught.value)


def test_a_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"evaluate\.weights: {tmp_path} cannot be read \(Is a directory\)"):
        read_inception_weights(tmp_path)


OTHERS: dict[str, Callable[[], object]] = {
    "another network": lambda: resnet18().state_dict(),
    "no tensors": lambda: {"epoch": 3},
    "a list": lambda: [torch.ones(1)],
    "torchvision's without its auxiliary head": lambda: {
        name: tensor for name, tensor in random_weights("imagenet").items() if not name.startswith("AuxLogits")
    },
    "other classes": lambda: random_weights("fid") | {"fc.weight": torch.ones(10, 2048), "fc.bias": torch.ones(10)},
    "one missing": lambda: {name: tensor for name, tensor in random_weights("fid").items() if name != "fc.bias"},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_weights_of_another_network_are_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save(OTHERS[kind](), path)
    with pytest.raises(InputError, match=r"holds no weights of Inception v3: \d+ names or shapes differ, as") as caught:
        read_inception_weights(path)
    assert "\n" not in str(caught.value)


def test_only_the_difference_to_the_nearer_network_is_told(tmp_path: Path) -> None:
    torch.save(random_weights("imagenet") | {"extra": torch.ones(1)}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"1 names or shapes differ, as extra;"):
        read_inception_weights(tmp_path / "weights.pth")


def test_torchvision_names_its_weights_as_it_did() -> None:
    assert Inception_V3_Weights.IMAGENET1K_V1.url.endswith("/inception_v3_google-0cc3c7bd.pth")
    assert inception_v3(weights=None, init_weights=False).state_dict().keys() == random_weights("imagenet").keys()
