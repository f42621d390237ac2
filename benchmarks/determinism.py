"""What `hardware.deterministic` costs: `python -m benchmarks.determinism [--scale 4]`.

A training of the same networks on the same images, with and without it, turn by turn, each in a process of its own, as
the setting holds for a whole process. The seconds are of the training alone, after a short one that warms up; the last
column is the median of the ratios of the two in each round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEPS = 50
NETWORKS: dict[str, tuple[str, str, str, int, int, dict[str, Any]]] = {
    "dcgan": ("dcgan", "dcgan", "batch", 32, 1, {"r1_gamma": 1.0}),
    "vanilla": ("vanilla", "vanilla", "none", 32, 1, {}),
    "cspup": ("cspup", "plain", "spectral", 64, 3, {"augment": ["colour", "translation", "cutout"]}),
}
"""Generator, discriminator, norm, side, channels, and what is not as params.yaml has it."""


def training(name: str, scale: int, batch: int, deterministic: bool) -> float:
    """Seconds for a step of one training, in this process."""
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    import numpy as np
    import torch

    from gan.device import open_device
    from gan.networks.build import add_spectral_norm, build_discriminator, build_generator, first_block, initialise
    from gan.params import load_params
    from gan.training.loop import train

    device = open_device("auto", len(os.sched_getaffinity(0)), deterministic)
    generator_name, judge, norm, side, channels, changes = NETWORKS[name]
    images = np.random.default_rng(0).integers(0, 256, (batch * STEPS, side, side, channels), np.uint8)
    chosen = {"epochs": 1, "batch_size": batch, "keep": 0, "checkpoint_seconds": 0.0, "checkpoint_steps": 0}
    params = load_params(Path("params.yaml")).train.model_copy(update=chosen | changes)

    def seconds(shown: "np.ndarray") -> float:
        generator = build_generator(generator_name, 64, 8 * scale, [128 * scale, 256 * scale], "after", side, channels)
        discriminator = build_discriminator(judge, 8 * scale, [256 * scale, 128 * scale], norm, side, channels)
        for seed, network in enumerate((generator, discriminator)):
            initialise(network, "normal", 0.02, 1.0, seed)
        if norm == "spectral":
            add_spectral_norm(discriminator, 2)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            train(
                shown, generator, discriminator, params, first_block=first_block(generator), z_dim=64, seed=0,
                device=device, recovery=Path(folder), events=Path(folder), on_keep=lambda *_: None,
                on_curves=lambda _: None,
            )  # fmt: skip
            if device.type == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - start

    seconds(images[: 3 * batch])
    return seconds(images) / STEPS


def measure(name: str, scale: int, batch: int, deterministic: bool) -> float:
    """Seconds for a step, of a process of its own."""
    command = [sys.executable, "-m", "benchmarks.determinism", "--network", name, "--scale", str(scale)]
    command += ["--batch", str(batch)] + ["--deterministic"] * deterministic
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(result.stdout.splitlines()[-1]))


def main() -> None:
    """Print a Markdown table, or, for one network, the seconds of a step."""
    parser = argparse.ArgumentParser("python -m benchmarks.determinism", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=int, default=4, help="width of the networks; 4 is that of the default run")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--network", choices=NETWORKS, help=argparse.SUPPRESS)
    parser.add_argument("--deterministic", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.network:
        print(json.dumps(training(given.network, given.scale, given.batch, given.deterministic)))
        return
    import torch

    print(f"{torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'}, torch {torch.__version__}\n")
    print("| networks | deterministic, ms a step | not, ms a step | ratio | of rounds |\n|---|---|---|---|---|")
    for name in NETWORKS:
        pairs = []
        for number in range(given.rounds):
            order = (True, False) if number % 2 else (False, True)
            found = {each: 1000 * measure(name, given.scale, given.batch, each) for each in order}
            pairs.append((found[True], found[False]))
        held, free = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = sorted(one / other for one, other in pairs)
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        print(f"| {name} | {held:.1f} | {free:.1f} | {statistics.median(ratios):.2f} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
