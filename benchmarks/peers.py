"""Training beside a peer's own source: `python -m benchmarks.peers CHECKOUT`.

CHECKOUT is a clone of https://github.com/eriklindernoren/PyTorch-GAN. Its implementations/dcgan/dcgan.py runs as it is,
with its own defaults, on as many digits as MNIST has; and the project's loop trains the same networks, which that
script defines, in the same batches. Round after round; the first quarter of the steps warms up.
"""

import argparse
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import measuring
from benchmarks.measuring import ratios, run_task, spread, table
from benchmarks.training import DIGITS, Clock, write_digits

if TYPE_CHECKING:
    from torch import nn

MODULE = "benchmarks.peers"
SCRIPT = "implementations/dcgan/dcgan.py"
STEPS = {"cpu": 80, "cuda": 800}
BATCH, Z_DIM = 64, 100
"""The script's own."""
LIKE_IT = (
    f"train.batch_size={BATCH}", f"generator.z_dim={Z_DIM}", "train.lr_g=0.0002", "train.lr_d=0.0002",
    "train.lr_decay_g=none", "train.lr_decay_d=none", "train.r1_gamma=0", "train.ema_kimg=0", "sample.ema=false",
)  # fmt: skip
"""What is not as params.yaml has it, so that both do the same."""


def time_peer(script: Path, folder: Path, steps: int) -> float:
    """Seconds a step of the script, by the lines that it prints, each of which waits for the GPU."""
    import torch

    place = folder / "implementations/dcgan"
    place.mkdir(parents=True, exist_ok=True)
    clock = Clock(steps // 4, steps, torch.device("cpu"))
    command = [sys.executable, "-u", "-W", "ignore", str(script.resolve())]
    with subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("[Epoch"):
                clock.tick()
            if clock.seconds:
                break
        process.kill()
    if not clock.seconds:
        raise SystemExit(f"{script} failed")
    return clock.seconds / (steps - steps // 4)


def time_ours(script: Path, folder: Path, steps: int, changes: Sequence[str]) -> float:
    """Seconds a step of the project's loop on the networks that the script builds."""
    from stages.arithmetic import hold_arithmetic

    params = measuring.read_experiment("mnist-quick", [*LIKE_IT, *changes])
    hold_arithmetic(params.hardware)
    generator, discriminator = networks_of(script, folder)
    train = params.train.model_copy(update={"epochs": 1, "keep": 4})
    clock = Clock(steps // 4, steps, measuring.open_device(params))
    with tempfile.TemporaryDirectory() as temporary:
        measuring.train_ours(
            params.model_copy(update={"train": train}),
            measuring.random_images(params, steps * BATCH),
            generator,
            discriminator,
            generator.get_submodule("l1"),
            Path(temporary),
            lambda step, *_: clock.at(step),
        )
    return clock.seconds / (steps - steps // 4)


def networks_of(script: Path, folder: Path) -> "tuple[nn.Module, nn.Module]":
    """The script's generator, and its discriminator without the sigmoid at its end, which our losses have inside."""
    from torch import Tensor, nn

    place = folder / "implementations/dcgan"
    place.mkdir(parents=True, exist_ok=True)
    script = script.resolve()
    before, arguments = Path.cwd(), sys.argv
    os.chdir(place)
    sys.argv = [str(script), "--n_epochs", "0"]
    try:
        found = runpy.run_path(str(script))
    finally:
        os.chdir(before)
        sys.argv = arguments

    class Logits(nn.Module):
        def __init__(self, model: nn.Module, last: nn.Module) -> None:
            super().__init__()
            self.model, self.last = model, last

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.last(self.model(images).flatten(1)).squeeze(1)
            return logits

    judge = found["discriminator"]
    return found["generator"], Logits(judge.model, judge.adv_layer[0])


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(f"python -m {MODULE}", description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", type=Path, help="a clone of PyTorch-GAN")
    parser.add_argument("--steps", type=int, help="of each, a multiple of 4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a parameter of ours")
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    script = options.checkout / SCRIPT
    if not script.is_file():
        parser.error(f"{script}: no such file; give a clone of https://github.com/eriklindernoren/PyTorch-GAN")
    if options.task is not None:
        folder, steps = options.task
        print(json.dumps(time_ours(script, Path(folder), steps, options.set)))
        return
    device = measuring.find_device()
    steps = options.steps or STEPS[device]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_digits(folder / "data/mnist", DIGITS)
        words = [str(options.checkout), *(f"--set={change}" for change in options.set)]

        def ours() -> float:
            return float(run_task(MODULE, [str(folder), steps], words).value)

        def theirs() -> float:
            return time_peer(script, folder, steps)

        contestants = {"atelier": ours, "PyTorch-GAN's dcgan.py": theirs}
        found = measuring.alternate(contestants, options.rounds)
    print(measuring.describe_machine(device))
    print(f"PyTorch-GAN's networks, 32x32, batches of {BATCH}; {steps} steps, {options.rounds} rounds\n")
    rows = [
        (
            name,
            f"{1000 * statistics.median(seconds):.1f}",
            f"{BATCH / statistics.median(seconds):,.0f}",
            spread(ratios(seconds, found["atelier"])),
        )
        for name, seconds in found.items()
    ]
    print(table(("loop", "ms a step", "images/s", "times atelier's time (spread)"), rows))


if __name__ == "__main__":
    main(sys.argv[1:])
