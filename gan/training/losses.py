"""Adversarial losses: functions of logits that know nothing of networks.

Each is a pair: what the discriminator minimises and what the generator minimises. Logits are N of real and N of
generated images; what comes out is a scalar. A sigmoid is inside the loss, where it can neither overflow nor saturate.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, relu, softplus

from gan.training.processes import Stream


class Loss(NamedTuple):
    """The two sides of a game."""

    discriminator: Callable[[Tensor, Tensor, Tensor], Tensor]
    """Of real logits, generated ones, and the targets of the real ones (all 1 without label smoothing), N each."""
    generator: Callable[[Tensor, Tensor], Tensor]
    """Of generated logits and real ones, N each; only relativistic pairing looks at the latter."""


def cross_entropy(real: Tensor, fake: Tensor, labels: Tensor) -> Tensor:
    """−log D(x) − log(1 − D(G(z))), of Goodfellow et al. 2014 (arXiv 1406.2661), equation 1.

    `labels` below 1 are the one-sided label smoothing of Salimans et al. 2016 (arXiv 1606.03498), section 3.4.
    """
    return binary_cross_entropy_with_logits(real, labels) + softplus(fake).mean()


def non_saturating(fake: Tensor, _real: Tensor) -> Tensor:
    """−log D(G(z)), of Goodfellow et al. 2014, section 3: its gradient is largest where the generator loses."""
    return softplus(-fake).mean()


def minimax(fake: Tensor, _real: Tensor) -> Tensor:
    """log(1 − D(G(z))), of Goodfellow et al. 2014, equation 1: its gradient vanishes where the generator loses."""
    return -softplus(fake).mean()


def least_squares_discriminator(real: Tensor, fake: Tensor, labels: Tensor) -> Tensor:
    """½(D(x) − b)² + ½D(G(z))², of Mao et al. 2017 (arXiv 1611.04076), equation 9; `labels` are b."""
    return ((real - labels).square().mean() + fake.square().mean()) / 2


def least_squares_generator(fake: Tensor, _real: Tensor) -> Tensor:
    """½(D(G(z)) − 1)², of Mao et al. 2017, equation 9."""
    return (fake - 1).square().mean() / 2


def hinge_discriminator(real: Tensor, fake: Tensor, _labels: Tensor) -> Tensor:
    """max(0, 1 − D(x)) + max(0, 1 + D(G(z))), of Lim and Ye 2017 (arXiv 1705.02894)."""
    return relu(1 - real).mean() + relu(1 + fake).mean()


def wasserstein_discriminator(real: Tensor, fake: Tensor, _labels: Tensor) -> Tensor:
    """D(G(z)) − D(x), of Arjovsky et al. 2017 (arXiv 1701.07875), equation 2; its slope must be held."""
    return fake.mean() - real.mean()


def raise_logits(fake: Tensor, _real: Tensor) -> Tensor:
    """−D(G(z)): the generator's side of the hinge and of the Wasserstein loss."""
    return -fake.mean()


def relativistic_discriminator(real: Tensor, fake: Tensor, _labels: Tensor) -> Tensor:
    """−log σ(D(x) − D(G(z))), pair by pair: Jolicoeur-Martineau 2018 (arXiv 1807.00734), R3GAN's equation 2.

    The pair's difference alone counts, so no landscape of D keeps all fakes on one side (R3GAN, arXiv 2501.05441).
    """
    return softplus(fake - real).mean()


def relativistic_generator(fake: Tensor, real: Tensor) -> Tensor:
    """−log σ(D(G(z)) − D(x)), pair by pair."""
    return softplus(real - fake).mean()


LOSSES: dict[str, Loss] = {
    "non-saturating": Loss(cross_entropy, non_saturating),
    "minimax": Loss(cross_entropy, minimax),
    "least-squares": Loss(least_squares_discriminator, least_squares_generator),
    "hinge": Loss(hinge_discriminator, raise_logits),
    "wasserstein": Loss(wasserstein_discriminator, raise_logits),
    "relativistic": Loss(relativistic_discriminator, relativistic_generator),
}
"""By `train.loss`."""


def draw_real_labels(real_label: float | list[float], like: Tensor, stream: Stream) -> Tensor:
    """Targets for real images, as the logits `like` (N): a constant, or drawn evenly from [low, high]."""
    if isinstance(real_label, list):
        low, high = real_label
        return stream.uniform(len(like), low=low, high=high)
    return torch.full_like(like, real_label)
