"""The exponential moving average of a network."""

from collections.abc import Iterable

import torch
from torch import Tensor


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
def update_average(average: Iterable[Tensor], network: Iterable[Tensor], decay: float) -> None:
    """Move the state of `average` toward that of `network`, in place: a ← decay·a + (1 − decay)·n.

    Both are the values of a `state_dict`, so that batch-norm statistics are averaged as weights are: an average of the
    weights under another network's batch statistics would not be a network that was ever trained. Integers (batch
    counts) are copied.
    """
    moving: list[tuple[Tensor, Tensor]] = []
    counts: list[tuple[Tensor, Tensor]] = []
    for pair in zip(average, network, strict=True):
        (moving if pair[0].is_floating_point() else counts).append(pair)
    torch._foreach_lerp_([ours for ours, _ in moving], [theirs for _, theirs in moving], 1 - decay)
    if counts:
        torch._foreach_copy_([ours for ours, _ in counts], [theirs for _, theirs in counts])
