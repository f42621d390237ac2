"""Trainings that must fail or come to nothing: stopped by name or carried on to the end, the last good state kept."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gan.diagnosis import Run, diagnose
from gan.errors import InputError
from gan.networks.build import build_discriminator, build_generator, first_block, initialise
from gan.params import TrainParams
from gan.training.loop import Trained, train
from tests.gan.training.test_loop import SETTINGS

SAME = np.full((44, 32, 32, 1), 128, dtype=np.uint8)
BLACK = np.zeros((44, 32, 32, 1), dtype=np.uint8)
TWO = np.tile(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), dtype=np.uint8), (22, 1, 1, 1))


class Certain(nn.Module):
    """A discriminator without a doubt, whose loss is zero and whose gradients are too."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        real = (images[:, 0, 0, 0].detach() == -1).float()  # black
        return self.weight * (2e4 * real - 1e4) + 0 * images.mean()


def run(folder: Path, images: Any, discriminator: nn.Module | None = None, **changes: Any) -> Trained:
    generator = build_generator("dcgan", 6, 2, [16], "plain", 32, 1)
    initialise(generator, "normal", 0.05, 1.0, 0)
    if discriminator is None:
        discriminator = build_discriminator("dcgan", 2, [16], "batch", 32, 1)
        initialise(discriminator, "normal", 0.05, 1.0, 1)
    return train(
        images,
        generator,
        discriminator,
        TrainParams.model_construct(**(SETTINGS | changes)),  # the schema refuses some of what explodes
        first_block=first_block(generator),
        z_dim=6,
        seed=1,
        device=torch.device("cpu"),
        recovery=folder,
        events=folder / "events",
        on_keep=lambda *_: None,
        on_curves=lambda _: None,
    )


@pytest.mark.parametrize("images", [SAME, BLACK, TWO])
@pytest.mark.parametrize("changes", [{}, {"r1_gamma": 10.0, "augment": ["colour", "cutout"]}])
def test_images_without_variety_are_trained_on_to_the_end(images: Any, changes: dict[str, Any], tmp_path: Path) -> None:
    trained = run(tmp_path, images, **changes)
    assert trained.curves[-1]["step"] == 15
    assert all(math.isfinite(value) for row in trained.curves for value in row.values())


def test_a_discriminator_of_zero_loss_and_gradient_leaves_finite_networks_and_a_verdict(tmp_path: Path) -> None:
    trained = run(tmp_path, BLACK, Certain(), real_label=1.0)
    row = trained.curves[-1]
    assert row["loss_d"] == 0
    assert row["grad_norm_d"] == 0
    assert row["grad_norm_g"] == 0
    assert row["d_real"] == 1
    assert row["d_fake_before"] == 0
    assert all(weight.isfinite().all() for weight in trained.generator.state_dict().values())
    names = trained.curves[0].keys()
    curves = {name: np.array([each[name] for each in trained.curves]) for name in names}
    curves["step"] *= 100  # as if it had gone on like this
    found = diagnose(Run(curves, None, None, [], None, None, None))
    assert found.verdict in {"discriminator wins", "generator collapsed"}


@pytest.mark.parametrize(
    "changes", [{"lr_d": 1e30}, {"lr_g": 1e30}, {"r1_gamma": 1e38}, {"lr_g": 1e30, "log_every": 1000, "keep": 0}]
)
def test_a_training_that_explodes_is_stopped_by_name_and_its_checkpoint_stays_good(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (44, 32, 32, 1), dtype=np.uint8)
    with pytest.raises(InputError, match=r" at step \d+; | is not finite after step \d+; ") as caught:
        run(tmp_path, images, **changes)
    assert "\n" not in str(caught.value)
    for file in tmp_path.rglob("*.pt"):
        state = torch.load(file, weights_only=True)
        for name in ("generator", "discriminator"):
            assert all(weight.isfinite().all() for weight in state[name].values())
