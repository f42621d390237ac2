import copy

import pytest
import torch
from torch import nn

from gan.training.average import average_decay, update_average


def test_the_half_life_is_what_it_says() -> None:
    steps = 50  # of 40 images: 2,000 images
    assert average_decay(2.0, 0.0, 0, 40) ** steps == pytest.approx(0.5)


def test_a_ramp_up_shortens_the_half_life_of_early_averages() -> None:
    seen = 1000  # of which a twentieth is 50 images
    assert average_decay(2.0, 0.05, seen, 50) == pytest.approx(0.5)
    assert average_decay(2.0, 0.05, 0, 50) == 0.0  # nothing is kept of the weights it started from
    assert average_decay(2.0, 0.05, 1_000_000, 40) == average_decay(2.0, 0.0, 1_000_000, 40)


def test_weights_and_batch_norm_statistics_are_averaged_and_counts_copied() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    average = copy.deepcopy(network)
    before = copy.deepcopy(average.state_dict())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    network(torch.randn(16, 1, 4, 4) * 3 + 5)
    update_average(average.state_dict().values(), network.state_dict().values(), 0.75)
    now = network.state_dict()
    for name, value in average.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert value == now[name] == 1
        else:
            assert torch.allclose(value, 0.75 * before[name] + 0.25 * now[name])
            assert not torch.equal(value, before[name])
