"""Networks by name, their initial weights, and generators in files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from gan.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from gan.networks.vanilla import VanillaDiscriminator, VanillaGenerator

ARCHITECTURE = "architecture"


def build_generator(
    name: str, z_dim: int, base: int, hidden: Sequence[int], image_size: int, channels: int
) -> nn.Module:
    """The generator `name`: latents N×Z to images N×C×S×S in [-1, 1]. Raises ValueError for an unknown name."""
    match name:
        case "dcgan":
            return DCGANGenerator(z_dim, base, image_size, channels)
        case "vanilla":
            return VanillaGenerator(z_dim, hidden, image_size, channels)
    raise ValueError(f"no generator is named {name!r}")


def build_discriminator(name: str, base: int, hidden: Sequence[int], image_size: int, channels: int) -> nn.Module:
    """The discriminator `name`: images N×C×S×S in [-1, 1] to logits N. Raises ValueError for an unknown name."""
    match name:
        case "dcgan":
            return DCGANDiscriminator(base, image_size, channels)
        case "vanilla":
            return VanillaDiscriminator(hidden, image_size, channels)
    raise ValueError(f"no discriminator is named {name!r}")


@torch.no_grad()
def initialise(network: nn.Module, init_std: float, bn_mean: float, seed: int) -> None:
    """Draw all weights afresh, in place.

    Convolutions and linear layers from N(0, init_std²), batch-norm scales from N(bn_mean, 0.02²), biases zero
    (Radford, Metz and Chintala 2016, section 4, has 0.02 and 1).
    """
    stream = torch.Generator().manual_seed(seed)
    for module in network.modules():
        match module:
            case nn.Conv2d() | nn.ConvTranspose2d() | nn.Linear():
                nn.init.normal_(module.weight, 0.0, init_std, generator=stream)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            case nn.BatchNorm2d():
                nn.init.normal_(module.weight, bn_mean, 0.02, generator=stream)
                nn.init.zeros_(module.bias)


def count_parameters(network: nn.Module) -> int:
    """Trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def save_generator(path: Path, generator: nn.Module, architecture: dict[str, Any]) -> None:
    """Write weights and buffers as safetensors, with `architecture` (the arguments of `build_generator`) inside."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in generator.state_dict().items()}
    save_file(tensors, path, metadata={ARCHITECTURE: json.dumps(architecture, sort_keys=True)})


def load_generator(path: Path, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    """Read what `save_generator` wrote: the generator in evaluation mode on `device`, and its architecture.

    The file holds numbers alone, so that reading one can run no code.
    """
    with safe_open(path, framework="pt") as file:
        architecture: dict[str, Any] = json.loads(file.metadata()[ARCHITECTURE])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    generator = build_generator(**architecture)
    generator.load_state_dict(tensors)
    return generator.to(device).to(memory_format=torch.channels_last).eval(), architecture
