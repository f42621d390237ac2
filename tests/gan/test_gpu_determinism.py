"""On a GPU with `hardware.deterministic: true`, training is repeated and gone on with bit by bit."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as the stages have it, before CUDA starts

import torch
from torch import nn

from gan.data.batches import packed_batches
from gan.device import open_device
from gan.metrics.classifier import LabelledImages, train_classifier
from gan.networks.build import add_spectral_norm, build_discriminator, build_generator, first_block, initialise
from gan.params import TrainParams
from gan.sampling import draw_latents, generate
from gan.training.loop import Trained, train
from tests.gan.training.test_loop import RELATIVISTIC, SETTINGS, bits

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

# Wide enough for the kernels that a GPU has for real networks.
GREY = np.random.default_rng(0).integers(0, 256, (72, 32, 32, 1), dtype=np.uint8)
COLOUR = np.random.default_rng(0).integers(0, 256, (72, 64, 64, 3), dtype=np.uint8)
ON_GPU: dict[str, Any] = SETTINGS | {"batch_size": 16, "checkpoint_steps": 3}

FAMILIES = [
    ("dcgan", "dcgan", "batch", {"r1_gamma": 1.0, "augment": ["colour", "translation", "cutout"]}),
    ("vanilla", "vanilla", "none", {"loss": "least-squares", "n_dis": 2}),
    ("cspup", "plain", "spectral", {"loss": "hinge", "real_label": 1.0, "instance_noise": 0.1}),
    ("cspup", "avgpool", "none", {**RELATIVISTIC, "r1_gamma": 0.5, "r2_gamma": 0.5, "penalty_interval": 2}),
    ("dcgan", "dcgan", "none", {"loss": "wasserstein", "real_label": 1.0, "gradient_penalty": 10.0}),
]


class KilledError(Exception):
    pass


def gpu() -> torch.device:
    return open_device("cuda", 1, deterministic=True)


def run(
    folder: Path,
    names: tuple[str, str, str],
    changes: dict[str, Any],
    kill_at: int = 0,
    *,
    low_precision: bool = False,
    compiled: bool = False,
) -> Trained:
    name, judge, norm = names
    size, channels = (64, 3) if name == "cspup" else (32, 1)
    generator = build_generator(name, 16, 16, [128, 256], "after", size, channels)
    discriminator = build_discriminator(judge, 16, [256, 128], norm, size, channels)
    for seed, network in enumerate((generator, discriminator)):
        initialise(network, "normal", 0.05, 1.0, seed)
    if norm == "spectral":
        add_spectral_norm(discriminator, 2)
    folder.mkdir(exist_ok=True)
    forwards = 0

    def count_forwards(*_: Any) -> None:
        nonlocal forwards
        forwards += 1
        if forwards == kill_at:
            raise KilledError

    if not compiled:
        discriminator.register_forward_hook(count_forwards)
    return train(
        COLOUR if name == "cspup" else GREY,
        generator,
        discriminator,
        TrainParams(**(ON_GPU | changes)),
        first_block=first_block(generator),
        z_dim=16,
        seed=1,
        device=gpu(),
        low_precision=low_precision,
        compiled=compiled,
        recovery=folder,
        events=folder / "events",
        on_keep=lambda *_: None,
        on_curves=lambda _: None,
    )


def on_cpu(trained: Trained) -> list[bytes]:
    for network in (trained.generator, trained.average):
        if isinstance(network, nn.Module):
            network.cpu()
    return bits(trained)


@pytest.mark.parametrize(("name", "judge", "norm", "changes"), FAMILIES)
def test_a_training_repeats_and_goes_on_bit_by_bit(
    name: str, judge: str, norm: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    names = (name, judge, norm)
    whole = run(tmp_path / "whole", names, changes)
    again = run(tmp_path / "again", names, changes)
    with pytest.raises(KilledError):
        run(tmp_path / "broken", names, changes, kill_at=17)
    resumed = run(tmp_path / "broken", names, changes)
    assert again.curves == whole.curves == resumed.curves
    assert on_cpu(again) == on_cpu(whole) == on_cpu(resumed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("name", "judge", "norm", "changes"), FAMILIES[:3])
def test_the_faster_modes_repeat_and_train_as_the_exact_one_does(
    name: str, judge: str, norm: str, changes: dict[str, Any], compiled: bool, tmp_path: Path
) -> None:
    names = (name, judge, norm)
    exact = run(tmp_path / "exact", names, changes)
    fast = run(tmp_path / "fast", names, changes, low_precision=True, compiled=compiled)
    again = run(tmp_path / "again", names, changes, low_precision=True, compiled=compiled)
    assert again.curves == fast.curves
    assert on_cpu(again) == on_cpu(fast) != on_cpu(exact)
    for term in ("loss_d", "loss_g", "z_spread"):
        assert fast.curves[0][term] == pytest.approx(exact.curves[0][term], rel=0.1, abs=0.05)


def test_the_classifier_and_samples_repeat_bit_by_bit() -> None:
    labelled = LabelledImages(GREY, np.arange(len(GREY)) % 10)

    def once() -> list[bytes]:
        settings: dict[str, Any] = {"epochs": 2, "batch_size": 16, "lr": 1e-3, "seed": 0, "device": gpu()}
        classifier = train_classifier(labelled, None, 10, **settings)
        described = [classifier.describe(batch) for batch in packed_batches(GREY, 16, gpu())]
        generator = build_generator("dcgan", 16, 16, [], "after", 32, 1)
        initialise(generator, "normal", 0.05, 1.0, 0)
        images = generate(generator.to(gpu()).eval(), draw_latents(64, 16, 0), 16, [gpu()])
        tensors = [tensor for pair in described for tensor in pair] + list(images)
        return [tensor.cpu().numpy().tobytes() for tensor in tensors]

    assert once() == once()


def test_what_has_no_deterministic_kernel_is_refused() -> None:
    pictures = torch.rand(1, 1, 8, 8, device=gpu(), requires_grad=True)
    places = torch.zeros(1, 4, 4, 2, device=gpu())
    with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
        nn.functional.grid_sample(pictures, places, align_corners=False).sum().backward()
