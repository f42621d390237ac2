"""The exponential moving average of a network."""

import torch
from torch import nn


def average_decay(half_life_kimg: float, rampup: float, seen: int, batch_size: int) -> float:
    """Decay of one step of `batch_size` images, for a half-life in thousands of images.

    With `rampup` above zero the half-life is at most that share of the `seen` images, so that an average does not keep
    the weights it started from (Karras et al. 2020, arXiv 2006.06676, in its code: 0.05).
    """
    half_life = half_life_kimg * 1000
    if rampup:
        half_life = min(half_life, rampup * seen)
    return float(0.5 ** (batch_size / max(half_life, 1e-8)))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move `average` toward `network`, weights and batch-norm statistics alike: a ← decay·a + (1 − decay)·n.

    An average of the weights under another network's batch statistics would not be a network that was ever trained.
    Integer buffers (batch counts) are copied.
    """
    pairs = list(zip(average.state_dict().values(), network.state_dict().values(), strict=True))
    moving = [(ours, theirs) for ours, theirs in pairs if ours.is_floating_point()]
    torch._foreach_lerp_([ours for ours, _ in moving], [theirs for _, theirs in moving], 1 - decay)
    for ours, theirs in pairs:
        if not ours.is_floating_point():
            ours.copy_(theirs)
