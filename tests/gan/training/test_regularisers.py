import pytest
import torch

from gan.training.losses import discriminator_loss, generator_loss
from gan.training.regularisers import r1_penalty


def test_r1_of_a_linear_discriminator_is_the_squared_norm_of_its_weights() -> None:
    weights = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    penalty = r1_penalty((images * weights).sum((1, 2, 3)) + 7, images)
    assert penalty.item() == pytest.approx(weights.square().sum().item())
    (gradient,) = torch.autograd.grad(penalty, weights)
    assert torch.allclose(gradient, 2 * weights)


@pytest.mark.parametrize(("gamma", "bounds"), [(0.0, (0.1, 0.3)), (0.1, (0.0, 1e-4)), (0.5, (0.0, 1e-20))])
def test_the_dirac_gan_converges_with_r1_and_not_without(gamma: float, bounds: tuple[float, float]) -> None:
    """Mescheder et al. 2018, section 2: data at 0, a generator at θ, a discriminator ψ·x; alternating, rate 0.1."""
    theta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    psi = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    rate = 0.1
    for _ in range(2000):
        real = torch.zeros(1, 1, 1, 1, dtype=torch.float64, requires_grad=True)
        real_logits = (psi * real).flatten()
        loss_d = discriminator_loss(real_logits, (psi * theta.detach())[None], torch.ones(1, dtype=torch.float64))
        loss_d = loss_d + gamma / 2 * r1_penalty(real_logits, real)
        (gradient,) = torch.autograd.grad(loss_d, psi)
        with torch.no_grad():
            psi -= rate * gradient
        (gradient,) = torch.autograd.grad(generator_loss((psi.detach() * theta)[None]), theta)
        with torch.no_grad():
            theta -= rate * gradient
    norm = float(torch.hypot(theta, psi).detach())
    assert bounds[0] <= norm <= bounds[1]
