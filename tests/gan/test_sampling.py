import math

import pytest
import torch

from gan.errors import InputError
from gan.networks.build import build_generator
from gan.sampling import draw_latents, generate, interpolate

CPU = torch.device("cpu")


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
    batches = list(generate(generator, latents, 4, [CPU]))
    assert [tuple(batch.shape) for batch in batches] == [(4, 1, 32, 32), (4, 1, 32, 32), (2, 1, 32, 32)]
    assert all(batch.dtype == torch.uint8 for batch in batches)
    alone = next(generate(generator, latents[9:], 1, [CPU]))
    assert (batches[2][1].int() - alone[0].int()).abs().max() <= 1


def test_several_devices_draw_the_same_images_in_the_same_order() -> None:
    generator = build_generator("dcgan", 10, 4, [], "plain", 32, 1).eval()
    latents = draw_latents(30, 10, 2)
    alone = torch.cat(list(generate(generator, latents, 4, [CPU])))
    assert torch.equal(torch.cat(list(generate(generator, latents, 4, [CPU, CPU, CPU]))), alone)


def test_a_generator_that_draws_nothing_finite_is_refused() -> None:
    generator = build_generator("vanilla", 4, 1, [8], "plain", 32, 1)
    torch.nn.init.constant_(next(generator.parameters()), float("nan"))
    with pytest.raises(InputError, match="the generator draws pixels that are not finite"):
        list(generate(generator, draw_latents(2, 4, 0), 1, [CPU]))
    with pytest.raises(InputError, match="the generator draws pixels that are not finite"):
        list(generate(generator, draw_latents(9, 4, 0), 1, [CPU, CPU]))
