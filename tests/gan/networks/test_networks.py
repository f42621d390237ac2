from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from gan.networks.build import (
    build_discriminator,
    build_generator,
    count_parameters,
    initialise,
    load_generator,
    save_generator,
)
from gan.params import IMAGE_SIZES, NetworkParams

GENERATOR: dict[str, Any] = {"name": "dcgan", "z_dim": 100, "base": 8, "hidden": [16, 32]}
DISCRIMINATOR: dict[str, Any] = {"name": "dcgan", "base": 8, "hidden": [32, 16]}
NAMES = get_args(NetworkParams.model_fields["name"].annotation)


def generator(**changes: Any) -> nn.Module:
    return build_generator(**(GENERATOR | changes))


def discriminator(**changes: Any) -> nn.Module:
    return build_discriminator(**(DISCRIMINATOR | changes))


def test_dcgan_has_the_published_parameter_counts() -> None:
    assert count_parameters(generator(base=128, image_size=64, channels=1)) == 12_668_672
    assert count_parameters(discriminator(base=128, image_size=64, channels=1)) == 11_032_065


def test_vanilla_parameter_counts() -> None:
    # Weights and biases of 100-16-32-1024 and of 1024-32-16-1.
    expected = (100 * 16 + 16) + (16 * 32 + 32) + (32 * 1024 + 1024)
    assert count_parameters(generator(name="vanilla", image_size=32, channels=1)) == expected
    expected = (1024 * 32 + 32) + (32 * 16 + 16) + (16 + 1)
    assert count_parameters(discriminator(name="vanilla", image_size=32, channels=1)) == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("image_size", IMAGE_SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_ranges(name: str, image_size: int, channels: int) -> None:
    latents = torch.randn(3, 100, generator=torch.Generator().manual_seed(0)) * 100
    images = generator(name=name, image_size=image_size, channels=channels)(latents)
    assert images.shape == (3, channels, image_size, image_size)
    assert images.abs().max() <= 1
    logits = discriminator(name=name, image_size=image_size, channels=channels)(images)
    assert logits.shape == (3,)


@pytest.mark.parametrize("build", [generator, discriminator])
def test_dcgan_widths_double_toward_4x4_and_stop_at_base(build: Any) -> None:
    modules = build(image_size=128, channels=3).modules()
    norms = [module.num_features for module in modules if isinstance(module, nn.BatchNorm2d)]
    assert sorted(norms) == [8, 8, 16, 32] if build is generator else [8, 16, 32, 64]


def test_discriminator_gives_logits_not_probabilities() -> None:
    network = discriminator(image_size=32, channels=1)
    with torch.no_grad():
        network.get_parameter("logit.bias").fill_(30.0)
        network.get_parameter("logit.weight").zero_()
    assert network(torch.zeros(2, 1, 32, 32)).tolist() == [30.0, 30.0]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="no generator is named 'x'"):
        generator(name="x", image_size=32, channels=1)
    with pytest.raises(ValueError, match="no discriminator is named 'x'"):
        discriminator(name="x", image_size=32, channels=1)


def test_initial_weights_have_the_asked_for_distribution_and_depend_on_the_seed_alone() -> None:
    network = generator(base=64, image_size=64, channels=1)
    initialise(network, init_std=0.05, bn_mean=0.0, seed=3)
    state = network.state_dict()
    weights = state["blocks.up8.weight"]
    assert weights.mean().item() == pytest.approx(0, abs=3e-4)
    assert weights.std().item() == pytest.approx(0.05, rel=0.01)
    scales = state["blocks.norm8.weight"]
    assert scales.mean().item() == pytest.approx(0, abs=0.006)
    assert scales.std().item() == pytest.approx(0.02, rel=0.2)
    assert not state["project.bias"].any()

    torch.manual_seed(99)
    again = generator(base=64, image_size=64, channels=1)
    initialise(again, init_std=0.05, bn_mean=0.0, seed=3)
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    initialise(again, init_std=0.05, bn_mean=1.0, seed=4)
    assert again.state_dict()["blocks.norm8.weight"].mean().item() == pytest.approx(1, abs=0.006)
    assert not torch.equal(again.state_dict()["blocks.up8.weight"], weights)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_generator_comes_back_whole(name: str, tmp_path: Path) -> None:
    architecture: dict[str, Any] = {
        "name": name,
        "z_dim": 7,
        "base": 4,
        "hidden": [16],
        "image_size": 32,
        "channels": 3,
    }
    network = build_generator(**architecture)
    network(torch.randn(8, 7))  # moves the batch-norm statistics
    save_generator(tmp_path / "g.safetensors", network, architecture)
    loaded, its_architecture = load_generator(tmp_path / "g.safetensors", torch.device("cpu"))
    assert its_architecture == architecture
    assert not loaded.training
    z = torch.randn(5, 7)
    assert torch.equal(loaded(z), network.eval().to(memory_format=torch.channels_last)(z))
