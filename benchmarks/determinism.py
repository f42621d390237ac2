"""What `hardware.deterministic` costs: `python -m benchmarks.determinism [--scale 4]`.

A training of the same networks on the same images, with and without it, turn by turn, each in a process of its own, as
the setting holds for a whole process. The seconds are of the training alone, after a short one that warms up; the last
column is the median of the ratios of the two in each round.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measuring import build_networks, open_device, random_images, read_experiment, synchronise, train_ours
from stages.arithmetic import hold_arithmetic

if TYPE_CHECKING:
    from gan.data.packed import Images

STEPS = 50
NETWORKS: dict[str, tuple[str, ...]] = {
    "dcgan": (),
    "vanilla": (
        *("generator.name=vanilla", "discriminator.name=vanilla", "discriminator.norm=none", "train.r1_gamma=0"),
        "generator.z_dim=64",
    ),
    "cspup": (
        *("generator.name=cspup", "generator.block=after", "generator.z_dim=64", "discriminator.name=plain"),
        *("discriminator.norm=spectral", "data.image_size=64", "data.channels=3", "train.r1_gamma=0"),
        "train.augment=[colour, translation, cutout]",
    ),
}
"""What each has that is not as in params.yaml."""


def training(name: str, scale: int, batch: int, deterministic: bool) -> float:
    """Seconds for a step of one training, in this process."""
    widths = (
        *(f"generator.base={8 * scale}", f"discriminator.base={8 * scale}"),
        *(f"generator.hidden=[{128 * scale}, {256 * scale}]", f"discriminator.hidden=[{256 * scale}, {128 * scale}]"),
    )
    rare = ("train.epochs=1", "train.keep=0", "train.checkpoint_seconds=0", f"train.batch_size={batch}")
    held = f"hardware.deterministic={str(deterministic).lower()}"
    params = read_experiment("mnist-quick", (*NETWORKS[name], *widths, *rare, held))
    hold_arithmetic(params.hardware)

    from gan.networks.build import first_block

    images = random_images(params, batch * STEPS)

    def seconds(shown: "Images") -> float:
        generator, discriminator = build_networks(params)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            train_ours(params, shown, generator, discriminator, first_block(generator), Path(folder))
            synchronise(open_device(params))
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
