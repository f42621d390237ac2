"""Training loops that a user would pick instead, written from their descriptions, for networks that return logits.

Each takes the networks, what loads the real images, a folder for what it writes, and `on_step`, which it calls after
each step; nothing else here is for the measurement's sake.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.utils import save_image

Loader = Iterable[Any]
"""Batches whose first part is the images, N×C×H×W in [-1, 1]."""
Curves = dict[str, list[float]]
Loop = Callable[[nn.Module, nn.Module, Loader, int, torch.device, Path, Callable[[], None]], Curves]
"""Generator, discriminator, real images, dimensions of z, device, folder, `on_step`."""


def write_up(
    generator: nn.Module,
    discriminator: nn.Module,
    loader: Loader,
    z_dim: int,
    device: torch.device,
    folder: Path,
    on_step: Callable[[], None],
    *,
    lr_g: float,
    lr_d: float,
    answers: bool,
) -> Curves:
    """A GAN as a student writes it up: losses of real and fake apart, fresh fakes for the generator, no fused steps.

    The losses are read in each step; with `answers`, D(x) and D(G(z)) too.
    """
    del folder
    generator.to(device).train()
    discriminator.to(device).train()
    optimiser_g = torch.optim.Adam(generator.parameters(), lr=lr_g, betas=(0.5, 0.999))
    optimiser_d = torch.optim.Adam(discriminator.parameters(), lr=lr_d, betas=(0.5, 0.999))
    criterion = nn.BCELoss()
    curves: Curves = {"loss_d": [], "loss_g": [], "d_real": [], "d_fake": []}
    for images, *_ in loader:
        real = images.to(device)
        ones, zeros = torch.ones(len(real), device=device), torch.zeros(len(real), device=device)

        optimiser_d.zero_grad()
        answer_real = discriminator(real).sigmoid()
        fake = generator(torch.randn(len(real), z_dim, device=device))
        answer_fake = discriminator(fake.detach()).sigmoid()
        loss_d = criterion(answer_real, ones) + criterion(answer_fake, zeros)
        loss_d.backward()
        optimiser_d.step()

        optimiser_g.zero_grad()
        fake = generator(torch.randn(len(real), z_dim, device=device))
        loss_g = criterion(discriminator(fake).sigmoid(), ones)
        loss_g.backward()
        optimiser_g.step()

        curves["loss_d"].append(loss_d.item())
        curves["loss_g"].append(loss_g.item())
        if answers:
            curves["d_real"].append(answer_real.mean().item())
            curves["d_fake"].append(answer_fake.mean().item())
        on_step()
    return curves


def pytorch_examples(
    generator: nn.Module,
    discriminator: nn.Module,
    loader: Loader,
    z_dim: int,
    device: torch.device,
    folder: Path,
    on_step: Callable[[], None],
) -> Curves:
    """The DCGAN of https://github.com/pytorch/examples, dcgan/main.py of August 2025, in words of our own.

    Two backward passes for the discriminator; the generator learns from the same fakes again; five numbers read and
    a line printed in each step; two grids each 100 steps; `cudnn.benchmark`.
    """
    torch.backends.cudnn.benchmark = True
    generator.to(device).train()
    discriminator.to(device).train()
    fixed = torch.randn(64, z_dim, device=device)
    optimiser_d = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    optimiser_g = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    criterion = nn.BCELoss()
    curves: Curves = {"loss_d": [], "loss_g": [], "d_real": [], "d_fake": []}
    with (folder / "log.txt").open("w", buffering=1) as log:
        for step, (images, *_) in enumerate(loader):
            discriminator.zero_grad()
            real = images.to(device)
            label = torch.full((len(real),), 1.0, device=device)
            answer = discriminator(real).sigmoid()
            loss_real = criterion(answer, label)
            loss_real.backward()
            d_real = answer.mean().item()

            fake = generator(torch.randn(len(real), z_dim, device=device))
            label.fill_(0)
            answer = discriminator(fake.detach()).sigmoid()
            loss_fake = criterion(answer, label)
            loss_fake.backward()
            d_fake = answer.mean().item()
            loss_d = loss_real + loss_fake
            optimiser_d.step()

            generator.zero_grad()
            label.fill_(1)
            answer = discriminator(fake).sigmoid()
            loss_g = criterion(answer, label)
            loss_g.backward()
            d_fake_after = answer.mean().item()
            optimiser_g.step()

            shown = (loss_d.item(), loss_g.item(), d_real, d_fake, d_fake_after)
            print(step, *(f"{value:.4f}" for value in shown), file=log)
            if step % 100 == 0:
                save_image(real, folder / "real.png", normalize=True)
                save_image(generator(fixed).detach(), folder / "fake.png", normalize=True)
            for name, value in zip(curves, shown, strict=False):
                curves[name].append(value)
            on_step()
    return curves


LOOPS: dict[str, Loop] = {
    "MNIST write-up": partial(write_up, lr_g=2e-4, lr_d=2e-4, answers=False),
    "CelebA write-up": partial(write_up, lr_g=1e-4, lr_d=5e-5, answers=True),
    "PyTorch examples": pytorch_examples,
}
