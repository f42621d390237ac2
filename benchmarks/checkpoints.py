"""What recovery checkpoints cost in training time: `python -m benchmarks.checkpoints`.

The real training loop, at the size of an experiment, with one checkpoint on the way and with none, round after round.
The difference is what a checkpoint costs, of which one is written each `train.checkpoint_seconds`: the copy in memory,
and what the thread that writes it takes from the steps meanwhile.
"""

import argparse
import logging
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML

from gan.data.packed import Images
from gan.networks.build import build_discriminator, build_generator, first_block, initialise
from gan.params import Params, check_params
from gan.training.checkpoints import list_checkpoints
from gan.training.loop import train

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ("mnist-quick", "mnist-dcgan", "celeba-cspup")


def read_experiment(name: str) -> Params:
    """The parameters of an experiment of experiments.yaml."""
    yaml = YAML(typ="safe", pure=True)
    values = yaml.load(ROOT / "params.yaml")
    for key, value in yaml.load(ROOT / "experiments.yaml")[name].get("set", {}).items():
        section, _, leaf = key.rpartition(".")
        (values[section] if section else values)[leaf] = value
    return check_params(values)


def seconds_of_training(params: Params, images: Images, steps: int, checkpoint_steps: int) -> tuple[float, float]:
    """Seconds for so many steps, and the size of a checkpoint in MB."""
    shape = {"image_size": params.data.image_size, "channels": params.data.channels}
    initial = {"init", "init_std", "bn_mean", "right_scale"}
    generator = build_generator(**params.generator.model_dump(exclude=initial) | shape)
    discriminator = build_discriminator(**params.discriminator.model_dump(exclude=initial) | shape)
    for network in (generator, discriminator):
        initialise(network, "normal", 0.02, 1.0, 0)
    settings: dict[str, Any] = {"epochs": 1, "keep": 0, "checkpoint_seconds": 0.0, "grid_every": 10**9}
    settings |= {"checkpoint_steps": checkpoint_steps}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        start = time.perf_counter()
        train(
            images[: steps * params.train.batch_size],
            generator,
            discriminator,
            params.train.model_copy(update=settings),
            first_block=first_block(generator),
            z_dim=params.generator.z_dim,
            seed=0,
            device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
            recovery=folder,
            events=folder / "events",
            on_keep=lambda *_: None,
            on_curves=lambda _: None,
        )
        return time.perf_counter() - start, list_checkpoints(folder)[0].stat().st_size / 1e6


def main() -> None:
    """Print a row an experiment."""
    parser = argparse.ArgumentParser("python -m benchmarks.checkpoints", description=__doc__)
    parser.add_argument("experiments", nargs="*", default=EXPERIMENTS, help="of experiments.yaml")
    parser.add_argument("--steps", type=int, default=6, help="of each round, an even number (default: 6)")
    parser.add_argument("--rounds", type=int, default=5, help="with checkpoints and without (default: 5)")
    options = parser.parse_args()
    if options.steps < 2 or options.steps % 2:
        parser.error("--steps: give an even number")
    logging.disable()
    processor = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    print(
        f"{processor}, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}; {options.steps} steps a round"
    )
    print(
        "\n| experiment | MB a checkpoint | seconds a step | seconds a checkpoint (spread) | each | share of the time |"
    )
    print("|---|---|---|---|---|---|")
    for name in options.experiments:
        params = read_experiment(name)
        shape = (options.steps * params.train.batch_size, params.data.image_size, params.data.image_size)
        images = np.random.default_rng(0).integers(0, 256, (*shape, params.data.channels), np.uint8)
        seconds_of_training(params, images, options.steps, 0)  # warms up
        costs, steps = [], []
        for _ in range(options.rounds):
            without, size = seconds_of_training(params, images, options.steps, 0)
            with_one, _ = seconds_of_training(params, images, options.steps, options.steps // 2)
            costs.append(with_one - without)  # the last step has one in both
            steps.append(without / options.steps)
        cost, interval = statistics.median(costs), params.train.checkpoint_seconds
        print(
            f"| {name} | {size:.0f} | {statistics.median(steps):.2f} "
            f"| {cost:.2f} ({min(costs):.2f} to {max(costs):.2f}) | {interval:g} s | {cost / interval:.2%} |"
        )


if __name__ == "__main__":
    main()
