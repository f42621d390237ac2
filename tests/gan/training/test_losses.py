import math

import pytest
import torch

from gan.training.losses import discriminator_loss, draw_real_labels, generator_loss


def test_at_zero_logits() -> None:
    zero = torch.zeros(8)
    assert discriminator_loss(zero, zero, torch.ones(8)).item() == pytest.approx(2 * math.log(2))
    assert generator_loss(zero).item() == pytest.approx(math.log(2))


def test_against_the_definition() -> None:
    real, fake, label = torch.tensor([0.3, -1.2]), torch.tensor([2.0, -0.4]), 0.9
    d_real, d_fake = real.double().sigmoid(), fake.double().sigmoid()
    expected = -(label * d_real.log() + (1 - label) * (1 - d_real).log()).mean() - (1 - d_fake).log().mean()
    assert discriminator_loss(real, fake, torch.full((2,), label)).item() == pytest.approx(expected.item(), rel=1e-6)
    assert generator_loss(fake).item() == pytest.approx(-d_fake.log().mean().item(), rel=1e-6)


def test_gradients_survive_logits_where_a_sigmoid_has_saturated() -> None:
    fake = torch.tensor([-200.0, 200.0], requires_grad=True)
    generator_loss(fake).backward()
    assert fake.grad is not None
    assert fake.grad.tolist() == pytest.approx([-0.5, 0.0])
    fake.grad.zero_()
    discriminator_loss(torch.zeros(2), fake, torch.ones(2)).backward()
    assert fake.grad.tolist() == pytest.approx([0.0, 0.5])


def test_smoothed_labels() -> None:
    stream = torch.Generator().manual_seed(0)
    like = torch.zeros(10_000)
    assert draw_real_labels(0.9, like, stream).unique().tolist() == pytest.approx([0.9])
    drawn = draw_real_labels([0.7, 1.2], like, stream)
    assert drawn.min().item() == pytest.approx(0.7, abs=1e-3)
    assert drawn.max().item() == pytest.approx(1.2, abs=1e-3)
    assert drawn.mean().item() == pytest.approx(0.95, abs=5e-3)
