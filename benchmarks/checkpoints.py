"""What recovery checkpoints cost in training time: `python -m benchmarks.checkpoints`.

The real training loop, at the size of an experiment, with one checkpoint on the way and with none, round after round.
The difference is what a checkpoint costs, of which one is written each `train.checkpoint_seconds`: the copy in memory,
and what the thread that writes it takes from the steps meanwhile.
"""

import argparse
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import (
    build_networks,
    describe_machine,
    find_device,
    random_images,
    read_experiment,
    train_ours,
)
from gan.data.packed import Images
from gan.networks.build import first_block
from gan.params import Params
from gan.training.checkpoints import list_checkpoints

EXPERIMENTS = ("mnist-quick", "mnist-dcgan", "celeba-cspup")


def seconds_of_training(params: Params, images: Images, steps: int, checkpoint_steps: int) -> tuple[float, float]:
    """Seconds for so many steps, and the size of a checkpoint in MB."""
    generator, discriminator = build_networks(params)
    settings: dict[str, Any] = {"epochs": 1, "keep": 0, "checkpoint_seconds": 0.0, "grid_every": 10**9}
    settings |= {"checkpoint_steps": checkpoint_steps}
    params = params.model_copy(update={"train": params.train.model_copy(update=settings)})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        start = time.perf_counter()
        images = images[: steps * params.train.batch_size]
        train_ours(params, images, generator, discriminator, first_block(generator), folder)
        return time.perf_counter() - start, list_checkpoints(folder / "recovery")[0].stat().st_size / 1e6


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
    print(f"{describe_machine(find_device())}; {options.steps} steps a round")
    print(
        "\n| experiment | MB a checkpoint | seconds a step | seconds a checkpoint (spread) | each | share of the time |"
    )
    print("|---|---|---|---|---|---|")
    for name in options.experiments:
        params = read_experiment(name)
        images = random_images(params, options.steps * params.train.batch_size)
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
