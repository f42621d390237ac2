from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gan.errors import InputError
from gan.networks.build import (
    add_spectral_norm,
    build_discriminator,
    build_generator,
    first_block,
    initialise,
    load_generator,
    save_generator,
    scale_right_branches,
)
from gan.networks.cspup import CSPup
from gan.params import CSPUP_NETWORKS, CSPUP_SIZES, IMAGE_SIZES, DiscriminatorParams, GeneratorParams

GENERATOR: dict[str, Any] = {"name": "dcgan", "z_dim": 100, "base": 8, "hidden": [16, 32], "block": "plain"}
DISCRIMINATOR: dict[str, Any] = {"name": "dcgan", "base": 8, "hidden": [32, 16], "norm": "batch"}
GENERATORS = get_args(GeneratorParams.model_fields["name"].annotation)
DISCRIMINATORS = get_args(DiscriminatorParams.model_fields["name"].annotation)
BLOCKS = get_args(GeneratorParams.model_fields["block"].annotation)


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


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


def test_cspup_networks_have_the_write_ups_parameter_counts() -> None:
    write_up: dict[str, Any] = {"base": 64, "image_size": 128, "channels": 3}
    assert count_parameters(generator(name="cspup", block="plain", **write_up)) == 31_939_392
    assert count_parameters(generator(name="cspup", block="inside", **write_up)) == 31_947_328
    assert count_parameters(discriminator(name="plain", **write_up)) == 11_164_416
    assert count_parameters(discriminator(name="avgpool", **write_up)) == 11_036_416


def sizes(name: str) -> tuple[int, ...]:
    return CSPUP_SIZES if name in CSPUP_NETWORKS else IMAGE_SIZES


@pytest.mark.parametrize(("name", "image_size"), [(name, size) for name in GENERATORS for size in sizes(name)])
@pytest.mark.parametrize("channels", [1, 3])
def test_generators_shapes_and_ranges(name: str, image_size: int, channels: int) -> None:
    latents = torch.randn(3, 100, generator=torch.Generator().manual_seed(0)) * 100
    images = generator(name=name, image_size=image_size, channels=channels)(latents)
    assert images.shape == (3, channels, image_size, image_size)
    assert images.abs().max() <= 1


@pytest.mark.parametrize(("name", "image_size"), [(name, size) for name in DISCRIMINATORS for size in sizes(name)])
@pytest.mark.parametrize("channels", [1, 3])
def test_discriminators_give_a_logit_an_image(name: str, image_size: int, channels: int) -> None:
    logits = discriminator(name=name, image_size=image_size, channels=channels)(
        torch.zeros(3, channels, *[image_size] * 2)
    )
    assert logits.shape == (3,)


def test_a_cspup_block_is_the_sum_of_a_linear_and_a_rectified_branch() -> None:
    block = CSPup(6, 4, 4, 2, 1, "plain")
    features = torch.randn(2, 6, 8, 8)
    assert block(features).shape == (2, 4, 16, 16)
    left, right = features.clone(), features.clone()
    left[:, 3:], right[:, :3] = 0, 0
    silent = block(torch.zeros_like(features))
    assert torch.allclose(block(features), block(left) + block(right) - silent, atol=1e-5)
    assert torch.allclose(block(2 * left) - silent, 2 * (block(left) - silent), atol=1e-5)  # the left half is linear
    assert not torch.allclose(block(-right) - silent, -(block(right) - silent), atol=1e-3)  # the right half is not


@pytest.mark.parametrize(
    ("block", "norms", "leaky"), [("plain", 0, 0), ("inside", 2, 2), ("after", 1, 1), ("unnormalised", 0, 3)]
)
def test_norms_and_activations_of_a_cspup_block(block: str, norms: int, leaky: int) -> None:
    modules = list(CSPup(6, 4, 4, 2, 1, block).modules())
    assert sum(isinstance(module, nn.BatchNorm2d) for module in modules) == norms
    assert sum(isinstance(module, nn.LeakyReLU) for module in modules) == leaky


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_batch_norm_is_where_it_is_asked_for(name: str) -> None:
    def norms(norm: str) -> int:
        modules = discriminator(name=name, norm=norm, image_size=64, channels=3).modules()
        return sum(isinstance(module, nn.BatchNorm2d) for module in modules)

    # Four convolutions, of which the first has none; the pool of avgpool replaces one, and its first has one too.
    assert norms("batch") == (0 if name == "vanilla" else 3)
    assert norms("none") == norms("spectral") == 0


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_spectral_norm_brings_every_layers_largest_singular_value_to_one(name: str) -> None:
    network = discriminator(name=name, norm="spectral", image_size=64, channels=3)
    initialise(network, "normal", 0.02, 1.0, 0)
    add_spectral_norm(network, 1)
    for _ in range(50):  # of the power iteration
        network(torch.zeros(2, 3, 64, 64))
    weights = [module.weight for module in network.eval().modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for weight in weights:
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, rel=0.02)
    again = discriminator(name=name, norm="spectral", image_size=64, channels=3)
    initialise(again, "normal", 0.02, 1.0, 0)
    state = torch.get_rng_state()
    add_spectral_norm(again, 1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["dcgan", "cspup"])
def test_fan_in_initialisation_keeps_the_size_of_a_signal(name: str) -> None:
    network = generator(name=name, base=64, block="unnormalised", image_size=64, channels=3)
    initialise(network, "fan-in", 0.02, 1.0, 0)
    layers = [module for module in network.modules() if isinstance(module, nn.ConvTranspose2d)]
    for layer in layers:
        upsamples = layer.stride == (2, 2)
        features = torch.randn(64, layer.in_channels, *((8, 8) if upsamples else (1, 1)))
        inner = layer(features)[..., 2:-2, 2:-2] if upsamples else layer(features)  # edges meet fewer values
        assert inner.std().item() == pytest.approx(2**0.5, rel=0.1)


def test_the_right_branches_last_layers_can_start_small() -> None:
    network = generator(name="cspup", image_size=64, channels=3)
    initialise(network, "normal", 0.02, 1.0, 0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    scale_right_branches(network, 0.0)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"blocks.up{side}.right.5.weight" for side in (4, 8, 16, 32)}
    assert not any(network.state_dict()[name].any() for name in changed)


@pytest.mark.parametrize("name", GENERATORS)
def test_the_first_block_reads_the_latent(name: str) -> None:
    network = generator(name=name, image_size=64, channels=1)
    seen = []
    first_block(network).register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    z = torch.randn(2, 100)
    network(z)
    assert torch.equal(seen[0].flatten(1), z)


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


@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_the_dcgan_logit_is_the_linear_layer_of_the_features_in_their_order(norm: str) -> None:
    network = discriminator(image_size=64, channels=3, norm=norm).to(memory_format=torch.channels_last)
    if norm == "spectral":
        add_spectral_norm(network, 0)
    network.eval()  # a forward in training turns the spectral norm's vectors
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    features = network.get_submodule("blocks")(images)
    by_hand = network.get_submodule("logit")(features.flatten(1)).squeeze(1)
    torch.testing.assert_close(network(images), by_hand, atol=1e-6, rtol=1e-5)


def test_what_enters_and_leaves_the_dcgan_blocks_is_channels_last_and_so_are_its_gradients() -> None:
    seen: list[torch.Tensor] = []

    def watch(tensor: torch.Tensor) -> None:
        seen.append(tensor)
        tensor.register_hook(seen.append)

    networks = [generator(image_size=32, channels=3), discriminator(image_size=32, channels=3)]
    for network in networks:
        network.to(memory_format=torch.channels_last)
    networks[0].get_submodule("blocks").register_forward_pre_hook(lambda _, inputs: watch(inputs[0]))
    networks[1].get_submodule("blocks").register_forward_hook(lambda _, __, output: watch(output))
    networks[1](networks[0](torch.randn(2, 100))).sum().backward()
    assert len(seen) == 4
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in seen)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="no generator is named 'x'"):
        generator(name="x", image_size=32, channels=1)
    with pytest.raises(ValueError, match="no discriminator is named 'x'"):
        discriminator(name="x", image_size=32, channels=1)


def test_initial_weights_have_the_asked_for_distribution_and_depend_on_the_seed_alone() -> None:
    network = generator(base=64, image_size=64, channels=1)
    initialise(network, "normal", init_std=0.05, bn_mean=0.0, seed=3)
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
    initialise(again, "normal", init_std=0.05, bn_mean=0.0, seed=3)
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    initialise(again, "normal", init_std=0.05, bn_mean=1.0, seed=4)
    assert again.state_dict()["blocks.norm8.weight"].mean().item() == pytest.approx(1, abs=0.006)
    assert not torch.equal(again.state_dict()["blocks.up8.weight"], weights)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_saved_generator_comes_back_whole(name: str, tmp_path: Path) -> None:
    architecture: dict[str, Any] = {
        "name": name,
        "z_dim": 7,
        "base": 4,
        "hidden": [16],
        "block": "after",
        "image_size": 64,
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


def test_another_file_is_no_generator(tmp_path: Path) -> None:
    architecture = GENERATOR | {"image_size": 32, "channels": 1}
    save_generator(tmp_path / "g", build_generator(**architecture), architecture | {"base": 4})
    whole = (tmp_path / "g").read_bytes()
    save_file({"a": torch.zeros(3)}, tmp_path / "other")
    for name, content in (("text", b"no tensors"), ("cut", whole[: len(whole) // 2]), ("wrong", whole), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
    for name in ("text", "cut", "wrong", "empty", "other"):
        with pytest.raises(InputError, match=f"{name} is damaged or no generator's file") as caught:
            load_generator(tmp_path / name, torch.device("cpu"))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="nowhere: no such file"):
        load_generator(tmp_path / "nowhere", torch.device("cpu"))
