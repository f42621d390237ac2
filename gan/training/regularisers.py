"""Penalties on the discriminator: functions of images and logits that know nothing of networks."""

import torch
from torch import Tensor


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Mean over real images of ‖∇D(x)‖², as a scalar that can be differentiated again.

    R1 of Mescheder, Geiger and Nowozin 2018 (arXiv 1801.04406), equation 9, without its factor γ/2. `logits` (N) must
    come from `images` (N×C×H×W, requiring gradients).
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()
