"""The training loop: alternating steps of the discriminator and the generator."""

import copy
import logging
import math
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from gan.data.batches import epoch_order, scale_to_float, training_batches
from gan.data.packed import Images
from gan.errors import InputError
from gan.params import TrainParams, check_batch
from gan.seeds import derive_seed
from gan.training import processes
from gan.training.augment import augment
from gan.training.average import average_decay, update_average
from gan.training.checkpoints import CheckpointWriter, load_checkpoint
from gan.training.losses import LOSSES, Loss, draw_real_labels
from gan.training.regularisers import gradient_penalty, gradient_square
from gan.training.schedules import decay, noise_level
from gan.training.watch import Watch

log = logging.getLogger(__name__)

TERMS = (
    "loss_d",
    "loss_g",
    "penalty",
    "d_real",
    "d_fake_before",
    "d_fake_after",
    "saturated",
    "z_spread",
    "grad_norm_d",
    "grad_norm_g",
    "grad_norm_g_first",
)
"""What is measured at each step: both losses, without penalties; the weighted penalties; mean D(x); mean D(G(z)) before
and after the discriminator's step; share of the discriminator's logits, real and generated, beyond ±`SATURATED_LOGIT`;
spread of the generator's output across z (standard deviation, mean over pixels, in units of [-1, 1]); norms of both
gradients, and of that at the generator's first block."""
GENERATOR_TERMS = ("loss_g", "d_fake_after", "grad_norm_g", "grad_norm_g_first")
"""Those of them that only a generator step has."""

SATURATED_LOGIT = 5.0
"""A discriminator this sure, at 0.993, has little left to tell the generator."""
START_LATENTS = 64
"""Latents over which the untrained generator is measured."""

Network = Callable[[Tensor], Tensor]

Row = dict[str, float]
"""A point of the curves: `step`, `kimg`, and the mean of each term since the point before."""


@dataclass(frozen=True)
class Trained:
    """What a run leaves: the generator, its moving average if there is one, the curves, and how it started."""

    generator: nn.Module
    average: nn.Module | None
    curves: list[Row]
    start: Row
    """Before the first step: `z_spread` and `grad_norm_g_first`."""


def train(
    images: Images,  # the training split, N×H×W×C
    generator: nn.Module,  # with its initial weights; trained in place
    discriminator: nn.Module,  # likewise
    params: TrainParams,
    *,
    first_block: nn.Module,  # of the generator: the layers that read z
    z_dim: int,  # dimensions of the latent z
    seed: int,  # root of all randomness
    device: torch.device,
    low_precision: bool = False,  # the networks' products in bfloat16; weights, norms and losses stay float32
    compiled: bool = False,  # whether torch.compile makes kernels for these networks
    recovery: Path,  # folder that outlives a kill: checkpoints are read from here and written to
    events: Path,  # folder of TensorBoard's events
    on_keep: Callable[[int, nn.Module, nn.Module | None], None],  # step, generator, average: a generator to keep
    on_curves: Callable[[list[Row]], None],  # the curves so far, at each checkpoint
) -> Trained:
    """Train both networks for `params.epochs`, going on from the newest checkpoint in `recovery` if there is one.

    Killed at any moment and called again, it ends with the same bits as if it had never been killed. Called in all
    processes of a group, it trains with all of them, and the first alone reads and writes files and has the curves.
    Raises InputError, naming step and term, when a loss is no longer finite, or where another process has ended, and
    OSError where a checkpoint cannot be written.
    """
    batch_size = params.batch_size
    check_batch(batch_size, processes.count())
    part = processes.own_part(batch_size)
    keeps_books = processes.rank() == 0
    steps_per_epoch = len(images) // batch_size
    if steps_per_epoch == 0:
        raise InputError(f"train.batch_size: {batch_size} is more than the {len(images)} images of the training split")
    total = params.epochs * steps_per_epoch
    kept_steps = {round(total * (index + 1) / params.keep) for index in range(params.keep)} if params.keep else set()

    generator = generator.to(device).to(memory_format=torch.channels_last).train()
    discriminator = discriminator.to(device).to(memory_format=torch.channels_last).train()
    average = copy.deepcopy(generator).eval().requires_grad_(False) if params.ema_kimg else None
    for network in (generator, discriminator):
        processes.synchronise_layers(network, params.sync_batch_norm)
    loss = LOSSES[params.loss]
    penalised = params.r1_gamma > 0 or params.r2_gamma > 0 or params.gradient_penalty > 0
    betas = (params.beta1, params.beta2)
    optimiser_g = torch.optim.Adam(generator.parameters(), lr=params.lr_g, betas=betas, fused=True)
    optimiser_d = torch.optim.Adam(discriminator.parameters(), lr=params.lr_d, betas=betas, fused=True)

    # Looked up once: to walk through a network's modules takes longer than what each step does with the tensors found.
    weights_g, weights_d, weights_first = (list(each.parameters()) for each in (generator, discriminator, first_block))
    state_g = list(generator.state_dict().values())
    state_average = [] if average is None else list(average.state_dict().values())

    torch.manual_seed(derive_seed(seed, "dropout"))
    stream = processes.Stream(derive_seed(seed, "train"), device)  # latents, labels, augmentations
    fixed = torch.randn(16, z_dim, generator=torch.Generator().manual_seed(derive_seed(seed, "fixed"))).to(device)
    measured = torch.zeros(params.log_every, len(TERMS), device=device)  # a line a step since the last row
    nothing = torch.zeros((), device=device)
    curves: list[Row] = []
    step = 0

    modules: dict[str, Any] = {
        "generator": generator,
        "discriminator": discriminator,
        "optimiser_g": optimiser_g,
        "optimiser_d": optimiser_d,
    }
    if average is not None:
        modules["average"] = average

    z = torch.randn(START_LATENTS, z_dim, generator=torch.Generator().manual_seed(derive_seed(seed, "start")))
    start = measure_start(generator, discriminator, first_block, loss, z.to(device))

    state = processes.share(load_checkpoint(recovery) if keeps_books else None, device)
    if state is not None:
        for name, module in modules.items():
            module.load_state_dict(state[name])
        step, curves = state["step"], state["curves"]
        if keeps_books:
            log.info("going on from step %d", step)
        measured.copy_(state["measured"])
        stream.generator.set_state(state["stream"])
        torch.set_rng_state(state["random"])
        if device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], device)

    def current_state() -> dict[str, Any]:
        state = {name: module.state_dict() for name, module in modules.items()}
        state |= {"step": step, "curves": curves, "measured": measured}
        state |= {"stream": stream.generator.get_state(), "random": torch.get_rng_state()}
        if device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(device)
        return state

    def draw_latents() -> Tensor:
        return stream.normal(part.stop - part.start, z_dim)

    autocast = torch.autocast(device.type, torch.bfloat16, enabled=low_precision)
    fast_generator: Network = torch.compile(generator) if compiled else generator
    fast_discriminator: Network = torch.compile(discriminator) if compiled else discriminator

    def generate(z: Tensor) -> Tensor:
        with autocast:
            images = fast_generator(z)
        return images.float()

    def discriminate(images: Tensor, network: Network) -> Tensor:
        images = augment(images, params.augment, stream)
        noise = noise_level(params.instance_noise, params.instance_noise_kimg, step * batch_size / 1000)
        if noise:
            images = images + noise * stream.normal(*images.shape)
        with autocast:
            logits = network(images)
        return logits.float()

    with ExitStack() as books:
        if keeps_books:
            checkpoints = books.enter_context(CheckpointWriter(recovery))
            watch = books.enter_context(Watch(events, step, total, batch_size))
        order = partial(epoch_order, len(images), seed)
        batches = books.enter_context(training_batches(images, order, step, batch_size, device, part))
        saved = time.monotonic()
        while step < total:
            real = scale_to_float(next(batches).permute(0, 3, 1, 2))
            terms = dict.fromkeys(TERMS, nothing)
            row = measured[step % params.log_every]
            optimiser_g.param_groups[0]["lr"] = params.lr_g * decay(params.lr_decay_g, step / total, params.lr_end)
            optimiser_d.param_groups[0]["lr"] = params.lr_d * decay(params.lr_decay_d, step / total, params.lr_end)
            penalise = step % params.penalty_interval == 0 and penalised
            step += 1

            # The discriminator learns to tell real from fake.
            generator_step = step % params.n_dis == 0
            with torch.set_grad_enabled(generator_step and not params.fresh_latents):
                fake = generate(draw_latents())
            real.requires_grad_(penalise and params.r1_gamma > 0)
            shown = fake.detach().requires_grad_(penalise and params.r2_gamma > 0)
            judge = discriminator if penalise else fast_discriminator  # what is compiled has no second derivative
            real_logits, fake_logits = discriminate(real, judge), discriminate(shown, judge)
            labels = draw_real_labels(params.real_label, real_logits, stream)
            loss_d = loss.discriminator(real_logits, fake_logits, labels)
            penalty = nothing
            if real.requires_grad:
                penalty = penalty + params.r1_gamma / 2 * gradient_square(real_logits, real)
            if shown.requires_grad:
                penalty = penalty + params.r2_gamma / 2 * gradient_square(fake_logits, shown)
            if penalise and params.gradient_penalty:
                penalty = penalty + params.gradient_penalty * gradient_penalty(
                    lambda images: discriminate(images, discriminator), real, shown, stream
                )
            penalty = penalty * params.penalty_interval  # as much in all as if it were taken at each step
            optimiser_d.zero_grad()
            (loss_d + penalty).backward()
            processes.average_gradients(discriminator)
            logits = torch.cat([real_logits, fake_logits]).detach()
            terms["grad_norm_d"] = _gradient_norm(weights_d)
            optimiser_d.step()
            terms["loss_d"] = loss_d.detach()
            terms["penalty"] = penalty.detach()
            terms["d_real"] = real_logits.detach().sigmoid().mean()
            terms["d_fake_before"] = fake_logits.detach().sigmoid().mean()
            terms["saturated"] = (logits.abs() > SATURATED_LOGIT).float().mean()
            terms["z_spread"] = processes.spread(shown)

            # The generator learns to be taken for real; the discriminator only passes the gradient on.
            if generator_step:
                discriminator.requires_grad_(False)
                fake_logits = discriminate(
                    generate(draw_latents()) if params.fresh_latents else fake, fast_discriminator
                )
                if params.loss == "relativistic":
                    real_logits = discriminate(real.detach(), fast_discriminator)
                loss_g = loss.generator(fake_logits, real_logits.detach())
                optimiser_g.zero_grad()
                loss_g.backward()
                processes.average_gradients(generator)
                terms["grad_norm_g"] = _gradient_norm(weights_g)
                terms["grad_norm_g_first"] = _gradient_norm(weights_first)
                optimiser_g.step()
                discriminator.requires_grad_(True)
                terms["loss_g"] = loss_g.detach()
                terms["d_fake_after"] = fake_logits.detach().sigmoid().mean()
                if average is not None:
                    seen = batch_size * params.n_dis
                    ema = average_decay(params.ema_kimg, params.ema_rampup, step * batch_size, seen)
                    update_average(state_average, state_g, ema)

            row.copy_(processes.average(torch.stack(list(terms.values()))))
            if not keeps_books:
                continue
            row_due = step % params.log_every == 0 or step == total
            grid_due = step % params.grid_every == 0 or step == total
            checkpoint_due = step == total or _is_due(params, step, time.monotonic() - saved)
            if row_due or grid_due or checkpoint_due or step in kept_steps:
                _refuse_infinite(_window(measured, step, params), step, generator, discriminator)
            if row_due:
                curves.append(_summarise(_window(measured, step, params), step, batch_size))
                watch.row(curves[-1])
            if grid_due:
                watch.grid(step, _render(average or generator, fixed))
            if step in kept_steps:
                on_keep(step, generator, average)
            if checkpoint_due:
                watch.flush()
                checkpoints.save(step, current_state())
                on_curves(curves)
                saved = time.monotonic()
    return Trained(generator, average, curves, start)


def measure_start(generator: nn.Module, discriminator: nn.Module, first_block: nn.Module, loss: Loss, z: Tensor) -> Row:
    """Spread of the output across z, and the first block's gradient norm, of untrained networks; leaves no trace.

    The discriminator stands in evaluation mode: batch norm, fed a batch that is nearly constant, would magnify what
    little the images differ by, and so hide that they do not.
    """
    pair = {"generator": generator, "discriminator": discriminator, "first_block": first_block}
    copies = copy.deepcopy(pair)  # in one, so that the first block's copy is the generator's
    with torch.random.fork_rng(devices=[z.device] if z.device.type == "cuda" else []):
        images = copies["generator"](z)
        logits = copies["discriminator"].eval()(images)
        loss.generator(logits, logits.detach()).backward()
    return {
        "z_spread": float(images.detach().std(0).mean()),
        "grad_norm_g_first": float(_gradient_norm(copies["first_block"].parameters())),
    }


def _is_due(params: TrainParams, step: int, elapsed: float) -> bool:
    by_steps = params.checkpoint_steps > 0 and step % params.checkpoint_steps == 0
    return by_steps or 0 < params.checkpoint_seconds <= elapsed


def _gradient_norm(weights: Iterable[nn.Parameter]) -> Tensor:
    return get_total_norm([weight.grad for weight in weights if weight.grad is not None])


@torch.no_grad()
def _render(generator: nn.Module, z: Tensor) -> Tensor:
    training = generator.training
    images: Tensor = generator.eval()(z)
    generator.train(training)
    return images


Window = dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]
"""For each term, the steps since the last row that have it, and its values there."""


def _window(measured: Tensor, step: int, params: TrainParams) -> Window:
    count = (step - 1) % params.log_every + 1
    steps = np.arange(step - count + 1, step + 1)
    values = measured[:count].double().cpu().numpy()
    window = {}
    for name, column in zip(TERMS, values.T, strict=True):
        taken = steps % params.n_dis == 0 if name in GENERATOR_TERMS else slice(None)
        window[name] = (steps[taken], column[taken])
    return window


def _summarise(window: Window, step: int, batch_size: int) -> Row:
    """The row of the curves at `step`; a term that no step of the window has is NaN."""
    means = {name: float(values.mean()) if len(values) else math.nan for name, (_, values) in window.items()}
    return {"step": step, "kimg": step * batch_size / 1000} | means


def _refuse_infinite(window: Window, step: int, *networks: nn.Module) -> None:
    """Raise InputError at the first measurement, or else weight, that is not finite.

    Such a state must never replace a good checkpoint.
    """
    advice = "the last good checkpoint is kept; lower train.lr_g or train.lr_d"
    broken = [
        (at, order, name, value)
        for order, (name, column) in enumerate(window.items())
        for at, value in zip(*column, strict=True)
        if not math.isfinite(value)
    ]
    if broken:
        at, _, name, value = min(broken)
        raise InputError(f"{name} is {value} at step {at}; {advice}")
    states = [(name, tensor) for network in networks for name, tensor in network.state_dict().items()]
    finite = torch.stack([tensor.isfinite().all() for _, tensor in states]).tolist()  # waits for a GPU once
    for (name, _), is_finite in zip(states, finite, strict=True):
        if not is_finite:
            raise InputError(f"{name} is not finite after step {step}; {advice}")
