"""Penalties on the discriminator: functions of images and logits that know nothing of networks."""

from collections.abc import Callable

import torch
from torch import Tensor

from gan.training.processes import Stream


def gradient_square(logits: Tensor, images: Tensor) -> Tensor:
    """Mean over images of ‖∇D(x)‖², as a scalar that can be differentiated again.

    On real images it is R1, on generated ones R2, of Mescheder, Geiger and Nowozin 2018 (arXiv 1801.04406), equation 9,
    without the factor γ/2. `logits` (N) must come from `images` (N×C×H×W, requiring gradients).
    """
    return _gradient_norm_square(logits, images).mean()


def gradient_penalty(discriminate: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, stream: Stream) -> Tensor:
    """Mean of (‖∇D(x̂)‖ − 1)² at points x̂ drawn between real and generated images (N×C×H×W each), as a scalar.

    WGAN-GP of Gulrajani et al. 2017 (arXiv 1704.00028), equation 3, without its factor λ.
    """
    mix = stream.uniform(len(real), 1, 1, 1)
    between = torch.lerp(real.detach(), fake.detach(), mix).requires_grad_()
    # A root has no slope at zero, where a discriminator that ignores its input would make the gradient NaN.
    norm = (_gradient_norm_square(discriminate(between), between) + 1e-12).rsqrt().reciprocal()
    return (norm - 1).square().mean()


def _gradient_norm_square(logits: Tensor, images: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3))
