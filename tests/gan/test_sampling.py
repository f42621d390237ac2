import math

import pytest
import torch

from gan.networks.build import build_generator
from gan.sampling import draw_latents, generate, interpolate


def test_interpolation_runs_along_the_arc() -> None:
    starts, ends = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    path = interpolate(starts, ends, 3)[0]
    half = math.sqrt(0.5)
    expected = torch.tensor([[1.0, 0.0], [half, half], [0.0, 1.0]])
    assert torch.allclose(path, expected, atol=1e-6)


def test_interpolation_keeps_the_length_of_latents_of_equal_length() -> None:
    latents = torch.nn.functional.normalize(draw_latents(20, 100, 0), dim=1) * 10
    path = interpolate(latents[:10], latents[10:], 7)
    assert path.shape == (10, 7, 100)
    assert torch.allclose(path.norm(dim=2), torch.full((10, 7), 10.0), rtol=1e-4)
    assert torch.allclose(path[:, 0], latents[:10], atol=1e-5)
    assert torch.allclose(path[:, -1], latents[10:], atol=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_interpolation_between_parallel_latents_is_finite(sign: int) -> None:
    latents = draw_latents(4, 10, 1)
    assert interpolate(latents, sign * latents, 5).isfinite().all()


def test_generate_keeps_the_order_of_the_latents() -> None:
    generator = build_generator("dcgan", 10, 4, [], "plain", 32, 1).eval()
    latents = draw_latents(10, 10, 2)
    batches = list(generate(generator, latents, 4, torch.device("cpu")))
    assert [batch.shape for batch in batches] == [(4, 32, 32, 1), (4, 32, 32, 1), (2, 32, 32, 1)]
    alone = next(generate(generator, latents[9:], 1, torch.device("cpu")))
    assert abs(batches[2][1].astype(int) - alone[0].astype(int)).max() <= 1
