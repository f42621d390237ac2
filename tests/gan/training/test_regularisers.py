import pytest
import torch

from gan.training.losses import LOSSES
from gan.training.processes import Stream
from gan.training.regularisers import gradient_penalty, gradient_square

LOSS = LOSSES["non-saturating"]


def test_r1_of_a_linear_discriminator_is_the_squared_norm_of_its_weights() -> None:
    weights = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    penalty = gradient_square((images * weights).sum((1, 2, 3)) + 7, images)
    assert penalty.item() == pytest.approx(weights.square().sum().item())
    (gradient,) = torch.autograd.grad(penalty, weights)
    assert torch.allclose(gradient, 2 * weights)


def test_the_gradient_penalty_of_a_linear_discriminator_is_its_slopes_distance_from_one() -> None:
    weights = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    real, fake = torch.randn(2, 5, 3, 4, 4)
    stream = Stream(1, torch.device("cpu"))
    penalty = gradient_penalty(lambda images: (images * weights).sum((1, 2, 3)), real, fake, stream)
    norm = weights.square().sum().sqrt()
    assert penalty.item() == pytest.approx((norm - 1).square().item())
    (gradient,) = torch.autograd.grad(penalty, weights)
    assert torch.allclose(gradient, 2 * (norm - 1) * weights / norm, rtol=1e-4)


def test_the_gradient_penalty_is_taken_between_real_and_generated_images() -> None:
    seen: list[torch.Tensor] = []

    def discriminate(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.detach())
        return images.square().sum((1, 2, 3))

    real, fake = torch.zeros(400, 1, 2, 2), torch.ones(400, 1, 2, 2)
    gradient_penalty(discriminate, real, fake, Stream(0, torch.device("cpu")))
    mixes = seen[0][:, 0, 0, 0]
    assert torch.equal(seen[0], mixes[:, None, None, None].expand(400, 1, 2, 2))  # one mix an image
    assert 0 <= mixes.min() < 0.02
    assert 0.98 < mixes.max() <= 1
    assert mixes.mean().item() == pytest.approx(0.5, abs=0.05)


def test_a_discriminator_that_ignores_its_input_has_a_finite_gradient_penalty() -> None:
    weight = torch.zeros((), requires_grad=True)
    stream = Stream(0, torch.device("cpu"))
    zeros = torch.zeros(4, 1, 2, 2)
    penalty = gradient_penalty(lambda images: (images * weight).sum((1, 2, 3)), zeros, zeros, stream)
    penalty.backward()
    assert penalty.item() == pytest.approx(1, abs=1e-5)
    assert weight.grad is not None
    assert weight.grad.isfinite()


@pytest.mark.parametrize(("gamma", "bounds"), [(0.0, (0.1, 0.3)), (0.1, (0.0, 1e-4)), (0.5, (0.0, 1e-20))])
def test_the_dirac_gan_converges_with_r1_and_not_without(gamma: float, bounds: tuple[float, float]) -> None:
    """Mescheder et al. 2018, section 2: data at 0, a generator at θ, a discriminator ψ·x; alternating, rate 0.1."""
    theta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    psi = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    rate = 0.1
    for _ in range(2000):
        real = torch.zeros(1, 1, 1, 1, dtype=torch.float64, requires_grad=True)
        real_logits = (psi * real).flatten()
        loss_d = LOSS.discriminator(real_logits, (psi * theta.detach())[None], torch.ones(1, dtype=torch.float64))
        loss_d = loss_d + gamma / 2 * gradient_square(real_logits, real)
        (gradient,) = torch.autograd.grad(loss_d, psi)
        with torch.no_grad():
            psi -= rate * gradient
        (gradient,) = torch.autograd.grad(LOSS.generator((psi.detach() * theta)[None], psi.detach()[None]), theta)
        with torch.no_grad():
            theta -= rate * gradient
    norm = float(torch.hypot(theta, psi).detach())
    assert bounds[0] <= norm <= bounds[1]
