import math
import multiprocessing
import os
import shutil
import signal
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from gan.errors import InputError
from gan.networks.build import add_spectral_norm, build_discriminator, build_generator, first_block, initialise
from gan.params import TrainParams
from gan.training.checkpoints import list_checkpoints, load_checkpoint
from gan.training.loop import TERMS, Trained, measure_start, train
from gan.training.losses import LOSSES, Loss

SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 8,
    "loss": "non-saturating",
    "lr_g": 1e-3,
    "lr_d": 1e-3,
    "lr_decay_g": "none",
    "lr_decay_d": "none",
    "lr_end": 0.0,
    "beta1": 0.5,
    "beta2": 0.999,
    "real_label": [0.8, 1.0],
    "r1_gamma": 0.0,
    "r2_gamma": 0.0,
    "gradient_penalty": 0.0,
    "penalty_interval": 1,
    "instance_noise": 0.0,
    "instance_noise_kimg": 0.0,
    "augment": [],
    "n_dis": 1,
    "fresh_latents": True,
    "ema_kimg": 0.05,
    "ema_rampup": 0.0,
    "log_every": 4,
    "grid_every": 5,
    "keep": 3,
    "sync_batch_norm": True,
    "checkpoint_seconds": 0.0,
    "checkpoint_steps": 1,
}
IMAGES = np.random.default_rng(0).integers(0, 256, (44, 32, 32, 1), dtype=np.uint8)  # 5 steps an epoch, 4 left over
FACES = np.random.default_rng(0).integers(0, 256, (44, 64, 64, 3), dtype=np.uint8)


RELATIVISTIC = {"loss": "relativistic", "real_label": 1.0}


class KilledError(Exception):
    pass


def build(name: str, norm: str) -> tuple[nn.Module, nn.Module]:
    size, channels = (64, 3) if name == "cspup" else (32, 1)
    generator = build_generator(name, 6, 2, [16], "after", size, channels)
    discriminator = build_discriminator("plain" if name == "cspup" else name, 2, [16], norm, size, channels)
    for seed, network in enumerate((generator, discriminator)):
        initialise(network, "normal", 0.05, 1.0, seed)
    if norm == "spectral":
        add_spectral_norm(discriminator, 2)
    return generator, discriminator


def run(
    folder: Path,
    *,
    name: str = "dcgan",
    norm: str = "batch",
    images: int | None = None,
    kill_at: int = 0,
    kill: Any = None,
    low_precision: bool = False,
    compiled: bool = False,
    on_keep: Any = None,
    on_curves: Any = None,
    **changes: Any,
) -> Trained:
    networks = build(name, norm)
    folder.mkdir(exist_ok=True, parents=True)
    forwards = 0

    def count_forwards(*_: Any) -> None:
        nonlocal forwards
        forwards += 1
        if forwards == kill_at:
            (kill or _raise)()

    hook = networks[1].register_forward_hook(count_forwards) if kill_at else None
    try:
        return train(
            (FACES if name == "cspup" else IMAGES)[:images],
            *networks,
            TrainParams(**(SETTINGS | changes)),
            first_block=first_block(networks[0]),
            z_dim=6,
            seed=1,
            device=torch.device("cpu"),
            low_precision=low_precision,
            compiled=compiled,
            recovery=folder,
            events=folder / "events",
            on_keep=on_keep or (lambda *_: None),
            on_curves=on_curves or (lambda _: None),
        )
    finally:
        if hook:
            hook.remove()


def _raise() -> None:
    raise KilledError


def bits(trained: Trained) -> list[bytes]:
    networks = [trained.generator, *([trained.average] if trained.average else [])]
    return [value.numpy().tobytes() for network in networks for value in network.state_dict().values()]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "vanilla", "lr_decay_g": "cosine", "lr_decay_d": "linear", "loss": "least-squares"},
        {"n_dis": 2, "real_label": 1.0, "r1_gamma": 0.5, "augment": ["colour", "translation", "cutout"]},
        {"name": "cspup", "norm": "spectral", "loss": "minimax", "instance_noise": 0.1, "instance_noise_kimg": 0.05},
        {"norm": "none", **RELATIVISTIC, "r1_gamma": 0.5, "r2_gamma": 0.5, "penalty_interval": 2, "ema_rampup": 0.05},
        {"norm": "none", "loss": "wasserstein", "real_label": 1.0, "gradient_penalty": 10.0, "n_dis": 2},
        {"name": "cspup", "norm": "spectral", "loss": "hinge", "real_label": 1.0},
        {"fresh_latents": False, "ema_kimg": 0.0},
        {"checkpoint_seconds": 0.05, "checkpoint_steps": 0},
    ],
)
def test_a_run_broken_off_anywhere_ends_with_the_same_bits(changes: dict[str, Any], tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", **changes)
    for kill_at in (1, 2, 5, 7, 9):  # forward passes of the discriminator: before the first step and in any part of one
        with pytest.raises(KilledError):
            run(tmp_path / "broken", kill_at=kill_at, **changes)
    resumed = run(tmp_path / "broken", **changes)
    assert bits(resumed) == bits(whole)
    assert resumed.curves == whole.curves


def _run_in_process(folder: Path) -> None:
    torch.set_num_threads(1)
    run(folder, epochs=40)


@pytest.mark.slow
def test_a_run_killed_by_the_system_ends_with_the_same_bits(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    killed = tmp_path / "killed"
    for _ in range(3):
        process = context.Process(target=_run_in_process, args=(killed,))
        process.start()
        assert process.pid is not None
        before = list_checkpoints(killed)
        while process.is_alive() and list_checkpoints(killed) == before:
            process.join(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    torch.set_num_threads(1)
    assert bits(run(killed, epochs=40)) == bits(run(tmp_path / "whole", epochs=40))


def test_curves_have_a_row_every_log_every_steps_and_one_at_the_end(tmp_path: Path) -> None:
    curves = run(tmp_path).curves
    assert [row["step"] for row in curves] == [4, 8, 12, 15]
    assert [row["kimg"] for row in curves] == [0.032, 0.064, 0.096, 0.12]
    assert all(math.isfinite(row[name]) for row in curves for name in TERMS)
    assert all(0 < row[name] < 1 for row in curves for name in ("d_real", "d_fake_before", "d_fake_after"))


def test_a_row_is_the_mean_over_its_steps(tmp_path: Path) -> None:
    each = run(tmp_path / "each", log_every=1).curves
    rows = run(tmp_path / "rows", log_every=5).curves
    for name in TERMS:
        assert rows[1][name] == pytest.approx(np.mean([row[name] for row in each[5:10]]), rel=1e-6)


def test_generators_are_kept_evenly_spaced_with_the_last(tmp_path: Path) -> None:
    kept = []
    run(tmp_path, on_keep=lambda step, _generator, average: kept.append((step, average is not None)))
    assert kept == [(5, True), (10, True), (15, True)]


def test_tensorboard_has_every_curve_and_grid_once_after_a_break(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        run(tmp_path, kill_at=40, checkpoint_steps=0)  # in the last steps; no checkpoint was written
    time.sleep(1.1)  # files of events are read in the order of their names, which begin with the second
    run(tmp_path)
    events = EventAccumulator(str(tmp_path / "events"), size_guidance={"images": 0}).Reload()
    for name in (*TERMS, "images_per_second"):
        assert [event.step for event in events.Scalars(name)] == [4, 8, 12, 15]
    assert [event.step for event in events.Images("fixed_latents")] == [5, 10, 15]


def test_each_rate_follows_its_own_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []

    def remember(_folder: Path, _step: int, state: dict[str, Any]) -> None:
        rates.append([state[name]["param_groups"][0]["lr"] for name in ("optimiser_g", "optimiser_d")])

    monkeypatch.setattr("gan.training.checkpoints.save_checkpoint", remember)
    run(tmp_path, lr_decay_g="cosine", lr_decay_d="linear", lr_end=0.1, lr_g=2e-3)
    cosine = [0.1 + 0.9 * (1 + math.cos(math.pi * step / 15)) / 2 for step in range(15)]
    line = [0.1 + 0.9 * (1 - step / 15) for step in range(15)]
    assert rates == [pytest.approx([2e-3 * g, 1e-3 * d]) for g, d in zip(cosine, line, strict=True)]


def test_n_dis_steps_of_the_discriminator_for_one_of_the_generator(tmp_path: Path) -> None:
    alone = run(tmp_path / "alone", n_dis=15, epochs=1, ema_kimg=0.0, log_every=15)
    fresh, _ = build("dcgan", "batch")
    weights = zip(alone.generator.parameters(), fresh.parameters(), strict=True)
    assert all(torch.equal(trained, initial) for trained, initial in weights)  # 5 steps: not its turn yet
    assert all(math.isnan(alone.curves[-1][name]) for name in ("loss_g", "grad_norm_g", "d_fake_after"))
    assert math.isfinite(alone.curves[-1]["loss_d"])


def test_the_generators_step_spends_no_gradient_on_the_discriminator(tmp_path: Path) -> None:
    calls = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = build_discriminator("vanilla", 1, [4], "none", 32, 1)
            self.network.get_parameter("layers.0.weight").register_hook(lambda _: calls.append(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.network(images)
            return logits

    arguments: dict[str, Any] = {"z_dim": 6, "seed": 1, "device": torch.device("cpu")}
    arguments |= {"recovery": tmp_path, "events": tmp_path, "on_keep": lambda *_: None, "on_curves": lambda _: None}
    generator = build_generator("vanilla", 6, 1, [4], "plain", 32, 1)
    arguments["first_block"] = first_block(generator)
    train(IMAGES, generator, Counting(), TrainParams(**(SETTINGS | {"epochs": 1})), **arguments)
    assert len(calls) == 5  # one a step, from the discriminator's own loss


def test_lazy_penalties_weigh_as_much_in_all(tmp_path: Path) -> None:
    rows = run(tmp_path, norm="none", r1_gamma=3.0, penalty_interval=3, log_every=1, epochs=2).curves
    penalties = [row["penalty"] for row in rows]
    assert [penalty > 0 for penalty in penalties] == [True, False, False] * 3 + [True]
    each = run(tmp_path / "each", norm="none", r1_gamma=3.0, log_every=1, epochs=1).curves
    assert penalties[0] == pytest.approx(3 * each[0]["penalty"], rel=1e-6)


@pytest.mark.parametrize("name", ["dcgan", "cspup"])
def test_an_average_without_memory_is_the_generator_of_each_step(name: str, tmp_path: Path) -> None:
    def same(_: int, generator: nn.Module, average: nn.Module | None) -> None:
        assert average is not None
        pairs = zip(generator.state_dict().values(), average.state_dict().values(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
        kept.append(generator)

    kept: list[nn.Module] = []
    changes: dict[str, Any] = {"name": name, "images": 16, "ema_kimg": 1e-9, "keep": 2, "epochs": 2, "on_keep": same}
    with pytest.raises(KilledError):
        run(tmp_path, kill_at=8, **changes)
    run(tmp_path, **changes)  # goes on from a checkpoint
    assert len(kept) == 2


def test_instance_noise_and_its_end(tmp_path: Path) -> None:
    quiet = run(tmp_path / "quiet", log_every=1).curves
    noisy = run(tmp_path / "noisy", log_every=1, instance_noise=1.0, instance_noise_kimg=0.04).curves
    assert noisy[0]["loss_d"] != quiet[0]["loss_d"]
    assert noisy[0]["z_spread"] == quiet[0]["z_spread"]  # the generator's output itself has none


@cache
def start_of_cspup(block: str, init: str) -> dict[str, float]:
    generator = build_generator("cspup", 100, 64, [1], block, 128, 3)
    discriminator = build_discriminator("plain", 64, [1], "batch", 128, 3)
    initialise(generator, init, 0.02, 1.0, 1)
    initialise(discriminator, "normal", 0.02, 1.0, 2)
    z = torch.randn(24, 100, generator=torch.Generator().manual_seed(0))
    return measure_start(generator, discriminator, first_block(generator), LOSSES["non-saturating"], z)


@pytest.mark.parametrize(
    ("block", "init", "spread", "gradient"),
    [
        ("plain", "normal", 0.003, None),
        ("inside", "normal", 0.030, None),
        ("after", "normal", 0.145, 75.0),
        ("plain", "fan-in", 0.55, None),
    ],
)
def test_what_a_cspup_generator_starts_from(block: str, init: str, spread: float, gradient: float | None) -> None:
    """As measured on the write-up's networks: a generator that starts all but constant."""
    measured = start_of_cspup(block, init)
    assert measured["z_spread"] == pytest.approx(spread, rel=0.1)
    if gradient is not None:
        plain = start_of_cspup("plain", "normal")
        assert measured["grad_norm_g_first"] / plain["grad_norm_g_first"] == pytest.approx(gradient, rel=0.2)


def test_measuring_the_start_leaves_no_trace() -> None:
    networks = build("dcgan", "spectral")
    before = [value.clone() for network in networks for value in network.state_dict().values()]
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    measure_start(*networks, first_block(networks[0]), LOSSES["hinge"], torch.zeros(4, 6))
    assert torch.equal(torch.rand(4), expected)
    after = [value for network in networks for value in network.state_dict().values()]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert all(parameter.grad is None for network in networks for parameter in network.parameters())


@pytest.mark.parametrize("changes", [{}, {"checkpoint_steps": 0, "log_every": 15, "grid_every": 10}])
def test_a_loss_that_is_not_finite_stops_with_step_and_term_and_keeps_the_checkpoint(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine, calls = LOSSES["non-saturating"], 0

    def breaks_at_step_seven(fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1  # the first is of the untrained networks
        return genuine.generator(fake, real) * (math.nan if calls == 8 else 1)

    monkeypatch.setitem(LOSSES, "non-saturating", Loss(genuine.discriminator, breaks_at_step_seven))
    with pytest.raises(InputError, match=r"^loss_g is nan at step 7; the last good checkpoint is kept"):
        run(tmp_path, **changes)
    if not changes:  # a checkpoint each step
        state = load_checkpoint(tmp_path)
        assert state is not None
        assert state["step"] == 6


def test_a_batch_larger_than_the_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^train.batch_size: 45 is more than the 44 images"):
        run(tmp_path, batch_size=45)


@pytest.mark.parametrize(
    ("name", "norm", "changes"),
    [
        ("dcgan", "batch", {"r1_gamma": 1.0}),
        ("vanilla", "none", {"loss": "least-squares"}),
        ("cspup", "spectral", {"loss": "hinge", "real_label": 1.0}),
        ("dcgan", "none", {"loss": "wasserstein", "real_label": 1.0, "gradient_penalty": 10.0}),
    ],
)
def test_products_in_low_precision_make_other_bits_and_like_curves(
    name: str, norm: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    exact = run(tmp_path / "exact", name=name, norm=norm, **changes)
    low = run(tmp_path / "low", name=name, norm=norm, low_precision=True, **changes)
    assert bits(low) != bits(exact)
    assert {value.dtype for value in low.generator.state_dict().values()} <= {torch.float32, torch.int64}
    for term in ("loss_d", "loss_g", "d_real", "z_spread", "grad_norm_d"):
        assert low.curves[0][term] == pytest.approx(exact.curves[0][term], rel=0.05, abs=0.02)
        assert low.curves[0][term] != exact.curves[0][term]
    with pytest.raises(KilledError):
        run(tmp_path / "killed", name=name, norm=norm, low_precision=True, kill_at=20, **changes)
    assert bits(run(tmp_path / "killed", name=name, norm=norm, low_precision=True, **changes)) == bits(low)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "norm", "changes"),
    [
        ("dcgan", "batch", {"r1_gamma": 1.0, "penalty_interval": 2}),
        ("cspup", "spectral", {"loss": "hinge", "real_label": 1.0, "n_dis": 2}),
        ("vanilla", "none", {"low_precision": True}),
    ],
)
def test_compiled_networks_train_as_others_do(name: str, norm: str, changes: dict[str, Any], tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", name=name, norm=norm, **changes)
    compiled = run(tmp_path / "compiled", name=name, norm=norm, compiled=True, **changes)
    assert list(compiled.generator.state_dict()) == list(plain.generator.state_dict())
    if name != "vanilla":  # compiled, dropout draws other numbers
        for term in ("loss_d", "loss_g", "d_real", "z_spread", "grad_norm_d", "grad_norm_g"):
            assert compiled.curves[0][term] == pytest.approx(plain.curves[0][term], rel=1e-3, abs=1e-4)
    again = run(tmp_path / "again", name=name, norm=norm, compiled=True, **changes)
    assert bits(again) == bits(compiled)
