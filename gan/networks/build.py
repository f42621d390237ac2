"""Networks by name, their initial weights, and generators in files."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm, spectral_norm

from gan.errors import InputError
from gan.networks.cspup import CSPup, CSPupDiscriminator, CSPupGenerator
from gan.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from gan.networks.vanilla import VanillaDiscriminator, VanillaGenerator
from gan.params import IMAGE_SIZES

ARCHITECTURE = "architecture"


def build_generator(
    name: str, z_dim: int, base: int, hidden: Sequence[int], block: str, image_size: int, channels: int
) -> nn.Module:
    """The generator `name`: latents N×Z to images N×C×S×S in [-1, 1]. Raises ValueError for an unknown name."""
    match name:
        case "dcgan":
            return DCGANGenerator(z_dim, base, image_size, channels)
        case "vanilla":
            return VanillaGenerator(z_dim, hidden, image_size, channels)
        case "cspup":
            return CSPupGenerator(z_dim, base, block, image_size, channels)
    raise ValueError(f"no generator is named {name!r}")


def build_discriminator(
    name: str, base: int, hidden: Sequence[int], norm: str, image_size: int, channels: int
) -> nn.Module:
    """The discriminator `name`: images N×C×S×S in [-1, 1] to logits N.

    Of `norm`, batch norm is built here; `add_spectral_norm` comes after the initial weights. Raises ValueError for an
    unknown name.
    """
    batch_norm = norm == "batch"
    match name:
        case "dcgan":
            return DCGANDiscriminator(base, image_size, channels, batch_norm=batch_norm)
        case "vanilla":
            return VanillaDiscriminator(hidden, image_size, channels)
        case "plain" | "avgpool":
            pooled = name == "avgpool"
            return CSPupDiscriminator(base, image_size, channels, batch_norm=batch_norm, pooled=pooled)
    raise ValueError(f"no discriminator is named {name!r}")


def first_block(generator: nn.Module) -> nn.Module:
    """The layers that read the latent: where a gradient that vanishes on its way back is first missed."""
    match generator:
        case DCGANGenerator():
            return generator.project
        case CSPupGenerator():
            return generator.blocks[0]
        case VanillaGenerator():
            return generator.layers[0]
    raise ValueError(f"{type(generator).__name__} is no generator")


@torch.no_grad()
def initialise(network: nn.Module, init: str, init_std: float, bn_mean: float, seed: int) -> None:
    """Draw all weights afresh, in place.

    Convolutions and linear layers from N(0, init_std²), batch-norm scales from N(bn_mean, 0.02²), biases zero
    (Radford, Metz and Chintala 2016, section 4, has 0.02 and 1). With `init` fan-in instead of normal, the former from
    N(0, 2 / fan-in) (He et al. 2015, arXiv 1502.01852, equation 10), which keeps the size of a signal through
    rectified layers that no norm follows.
    """
    stream = torch.Generator().manual_seed(seed)
    for module in network.modules():
        match module:
            case nn.Conv2d() | nn.ConvTranspose2d() | nn.Linear():
                std = init_std if init == "normal" else math.sqrt(2 / _fan_in(module))
                nn.init.normal_(module.weight, 0.0, std, generator=stream)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            case nn.BatchNorm2d():
                nn.init.normal_(module.weight, bn_mean, 0.02, generator=stream)
                nn.init.zeros_(module.bias)


def _fan_in(module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> int:
    """Products summed in one value of the output."""
    match module:
        case nn.Linear():
            return module.in_features
        case nn.Conv2d():
            return module.in_channels * math.prod(module.kernel_size)
    # A kernel spread over a finer grid meets each value in part; that of stride 1 starts from a map of one pixel.
    steps = zip(module.kernel_size, module.stride, strict=True)
    return module.in_channels * math.prod(kernel // stride if stride > 1 else 1 for kernel, stride in steps)


@torch.no_grad()
def scale_right_branches(generator: nn.Module, scale: float) -> None:
    """Make the last layer of each CSPup block's right branch `scale` times as large, in place.

    A block that starts as little more than its linear branch is the small or zero last layer of residual networks
    (Zhang et al. 2019, arXiv 1901.09321, section 3; R3GAN, arXiv 2501.05441).
    """
    for module in generator.modules():
        if isinstance(module, CSPup):
            module.right[-1].get_parameter("weight").mul_(scale)


def add_spectral_norm(network: nn.Module, seed: int) -> None:
    """Divide each layer's weight by its largest singular value (Miyato et al. 2018, arXiv 1802.05957), in place.

    By torch's own parametrisation, in float32 whatever the precision of products is; the vectors of its power iteration
    start from `seed`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                spectral_norm(module)
        for module in network.modules():
            if isinstance(module, _SpectralNorm):
                module.__class__ = _ExactSpectralNorm


class _ExactSpectralNorm(_SpectralNorm):
    """Spectral norm whose singular value autocast does not round."""

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            normalised: Tensor = super().forward(weight)
        return normalised


def save_generator(path: Path, generator: nn.Module, architecture: dict[str, Any]) -> None:
    """Write weights and buffers as safetensors, with `architecture` (the arguments of `build_generator`) inside."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in generator.state_dict().items()}
    save_file(tensors, path, metadata={ARCHITECTURE: json.dumps(architecture, sort_keys=True)})


def load_generator(path: Path, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    """Read what `save_generator` wrote: the generator in evaluation mode on `device`, and its architecture.

    The file holds numbers alone, so that reading one can run no code. Raises InputError for any other file.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a file")  # to open a pipe is to wait for its other end
    try:
        with safe_open(path, framework="pt") as file:
            architecture: dict[str, Any] = json.loads(file.metadata()[ARCHITECTURE])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        # What a file says of its network may be of any size: the network is built without memory, and only one that the
        # file's own tensors fill is built in earnest.
        if len(architecture["hidden"]) > len(tensors) or architecture["image_size"] not in IMAGE_SIZES:
            raise ValueError("an architecture that no generator has")
        with torch.device("meta"):
            state = build_generator(**architecture).state_dict()
        if _kinds(tensors) != _kinds(state):
            raise ValueError("tensors that this generator does not have")
        generator = build_generator(**architecture)
        generator.load_state_dict(tensors)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except (SafetensorError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is damaged or no generator's file ({type(error).__name__}); "
            "the stage train writes them as generator.safetensors and generator_ema.safetensors"
        ) from error
    return generator.to(device).to(memory_format=torch.channels_last).eval(), architecture


def _kinds(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
