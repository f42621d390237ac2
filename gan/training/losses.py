"""Adversarial losses: functions of logits that know nothing of networks."""

import torch
from torch import Tensor
from torch.nn import functional


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, real_labels: Tensor) -> Tensor:
    """Binary cross-entropy of real (N, targets `real_labels`, N) and fake logits (N, targets 0), as a scalar.

    Goodfellow et al. 2014 (arXiv 1406.2661), equation 1; targets below 1 are the one-sided label smoothing of
    Salimans et al. 2016 (arXiv 1606.03498), section 3.4. The sigmoid is inside, where it cannot overflow.
    """
    real = functional.binary_cross_entropy_with_logits(real_logits, real_labels)
    return real + functional.softplus(fake_logits).mean()


def generator_loss(fake_logits: Tensor) -> Tensor:
    """The non-saturating loss −log D(G(z)) of fake logits, N, as a scalar (Goodfellow et al. 2014, section 3)."""
    return functional.softplus(-fake_logits).mean()


def draw_real_labels(real_label: float | list[float], like: Tensor, stream: torch.Generator) -> Tensor:
    """Targets for real images, shaped like `like`: a constant, or drawn evenly from [low, high]."""
    if isinstance(real_label, list):
        low, high = real_label
        return torch.empty_like(like).uniform_(low, high, generator=stream)
    return torch.full_like(like, real_label)
