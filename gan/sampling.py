"""Images from a generator in evaluation mode, in an order that the seed fixes."""

import copy
import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from gan.data.batches import to_bytes
from gan.device import deal
from gan.errors import InputError


def draw_latents(count: int, z_dim: int, seed: int) -> Tensor:
    """`count` latents from N(0, I), N×Z, drawn on the CPU so that they are the same for every device."""
    return torch.randn(count, z_dim, generator=torch.Generator().manual_seed(seed))


def generate(
    generator: nn.Module, latents: Tensor, batch_size: int, devices: Sequence[torch.device]
) -> Iterator[Tensor]:
    """Batches of images, N×C×H×W uint8, of latents N×Z, in their order, each on the one of `devices` that drew it.

    The generator lies on the first of them, and the others draw by copies of it. Raises InputError for a generator
    that draws values that are not finite.
    """
    copies = [generator, *(copy.deepcopy(generator).to(device) for device in devices[1:])]
    workers = [partial(_draw, each, device) for each, device in zip(copies, devices, strict=True)]
    return deal(workers, latents.split(batch_size))


@torch.no_grad()
def _draw(generator: nn.Module, device: torch.device, latents: Tensor) -> Tensor:
    images = generator(latents.to(device))
    if not torch.isfinite(images).all():
        raise InputError("the generator draws pixels that are not finite (NaN); its training has diverged")
    return to_bytes(images)


def interpolate(starts: Tensor, ends: Tensor, steps: int) -> Tensor:
    """Spherical interpolation from each of `starts` to its partner in `ends` (both N×Z), as N×steps×Z.

    Shoemake 1985; White 2016 (arXiv 1609.04468) for latents, whose length a straight line would not keep.
    """
    cosine = torch.nn.functional.cosine_similarity(starts, ends, dim=1)
    cosines = cosine.clamp(-1 + 1e-6, 1 - 1e-6).tolist()
    angle = torch.tensor([math.acos(value) for value in cosines])[:, None, None]  # N×1×1
    t = torch.linspace(0, 1, steps)[None, :, None]  # 1×steps×1
    weights_start, weights_end = torch.sin((1 - t) * angle), torch.sin(t * angle)
    return (weights_start * starts[:, None] + weights_end * ends[:, None]) / torch.sin(angle)
