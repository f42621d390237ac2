"""The exponential moving average of a network."""

import torch
from torch import nn


def average_decay(half_life_kimg: float, batch_size: int) -> float:
    """Decay of one step, for a half-life in thousands of images."""
    return float(0.5 ** (batch_size / (half_life_kimg * 1000)))


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
