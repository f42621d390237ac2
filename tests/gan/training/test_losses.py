import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gan.training.losses import LOSSES, draw_real_labels
from gan.training.processes import Stream

LN2 = math.log(2)
REAL, FAKE = torch.tensor([0.3, -1.2], dtype=torch.float64), torch.tensor([2.0, -0.4], dtype=torch.float64)
ONES = torch.ones(2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "loss_d", "loss_g"),
    [
        ("non-saturating", 2 * LN2, LN2),
        ("minimax", 2 * LN2, -LN2),
        ("least-squares", 0.5, 0.5),
        ("hinge", 2.0, 0.0),
        ("wasserstein", 0.0, 0.0),
        ("relativistic", LN2, LN2),
    ],
)
def test_at_zero_logits(name: str, loss_d: float, loss_g: float) -> None:
    zero = torch.zeros(8)
    assert LOSSES[name].discriminator(zero, zero, torch.ones(8)).item() == pytest.approx(loss_d)
    assert LOSSES[name].generator(zero, zero).item() == pytest.approx(loss_g)


def log_d(logits: Tensor) -> Tensor:
    return logits.sigmoid().log()


@pytest.mark.parametrize(
    ("name", "loss_d", "loss_g"),
    [
        ("non-saturating", lambda r, f: -(log_d(r) + log_d(-f)).mean(), lambda _, f: -log_d(f).mean()),
        ("minimax", lambda r, f: -(log_d(r) + log_d(-f)).mean(), lambda _, f: log_d(-f).mean()),
        ("least-squares", lambda r, f: ((r - 1) ** 2 + f**2).mean() / 2, lambda _, f: ((f - 1) ** 2).mean() / 2),
        ("hinge", lambda r, f: ((1 - r).clamp(0) + (1 + f).clamp(0)).mean(), lambda _, f: -f.mean()),
        ("wasserstein", lambda r, f: f.mean() - r.mean(), lambda _, f: -f.mean()),
        ("relativistic", lambda r, f: -log_d(r - f).mean(), lambda r, f: -log_d(f - r).mean()),
    ],
)
def test_against_the_definition(
    name: str, loss_d: Callable[[Tensor, Tensor], Tensor], loss_g: Callable[[Tensor, Tensor], Tensor]
) -> None:
    assert LOSSES[name].discriminator(REAL, FAKE, ONES).item() == pytest.approx(loss_d(REAL, FAKE).item())
    assert LOSSES[name].generator(FAKE, REAL).item() == pytest.approx(loss_g(REAL, FAKE).item())


def test_smoothed_labels_are_the_target_of_real_images_alone() -> None:
    labels = torch.full((2,), 0.9, dtype=torch.float64)
    expected = -(0.9 * log_d(REAL) + 0.1 * log_d(-REAL) + log_d(-FAKE)).mean().item()
    assert LOSSES["non-saturating"].discriminator(REAL, FAKE, labels).item() == pytest.approx(expected)
    expected = ((REAL - 0.9).square() + FAKE.square()).mean().item() / 2
    assert LOSSES["least-squares"].discriminator(REAL, FAKE, labels).item() == pytest.approx(expected)


def test_relativistic_pairing_sees_only_differences() -> None:
    loss = LOSSES["relativistic"]
    assert loss.discriminator(REAL + 40, FAKE + 40, ONES).item() == pytest.approx(
        loss.discriminator(REAL, FAKE, ONES).item()
    )


def test_gradients_survive_logits_where_a_sigmoid_has_saturated() -> None:
    fake = torch.tensor([-200.0, 200.0], requires_grad=True)
    LOSSES["non-saturating"].generator(fake, torch.zeros(2)).backward()
    assert fake.grad is not None
    assert fake.grad.tolist() == pytest.approx([-0.5, 0.0])
    fake.grad.zero_()
    LOSSES["non-saturating"].discriminator(torch.zeros(2), fake, torch.ones(2)).backward()
    assert fake.grad.tolist() == pytest.approx([0.0, 0.5])


def test_the_minimax_generator_gets_no_gradient_where_it_loses() -> None:
    fake = torch.tensor([-20.0], requires_grad=True)
    LOSSES["minimax"].generator(fake, torch.zeros(1)).backward()
    assert fake.grad is not None
    assert abs(fake.grad.item()) < 1e-8


def test_drawn_labels() -> None:
    stream = Stream(0, torch.device("cpu"))
    like = torch.zeros(10_000)
    assert draw_real_labels(0.9, like, stream).unique().tolist() == pytest.approx([0.9])
    drawn = draw_real_labels([0.7, 1.2], like, stream)
    assert drawn.min().item() == pytest.approx(0.7, abs=1e-3)
    assert drawn.max().item() == pytest.approx(1.2, abs=1e-3)
    assert drawn.mean().item() == pytest.approx(0.95, abs=5e-3)
