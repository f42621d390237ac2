"""Sampling beside a plain loop over the same generator: `python -m benchmarks.sampling [EXPERIMENT …]`.

Both turn latents into images of uint8 in memory, as files and scores take them: the project's `generate` with what the
stage `sample` does with a batch, and what a user writes instead: batches under `no_grad`, brought to numpy and scaled
there. Each in a process of its own, round after round, after a batch that warms up.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import measuring
from benchmarks.measuring import build_networks, ratios, run_task, spread
from gan.errors import InputError
from gan.params import Params

if TYPE_CHECKING:
    import numpy as np

MODULE = "benchmarks.sampling"
EXPERIMENTS = ("mnist-quick", "mnist-dcgan", "celeba-cspup")

Batches = Callable[[int], "Iterator[np.ndarray[Any, Any]]"]
"""So many images, batch after batch, uint8."""


def atelier(params: Params) -> Batches:
    """The project's own way, with the arithmetic of its stages."""
    from stages.arithmetic import hold_arithmetic

    hold_arithmetic(params.hardware)
    import torch

    from gan.data.batches import to_packed
    from gan.sampling import draw_latents, generate

    device = measuring.open_device(params)
    generator = build_networks(params)[0].to(device).to(memory_format=torch.channels_last).eval()

    def batches(count: int) -> "Iterator[np.ndarray[Any, Any]]":
        latents = draw_latents(count, params.generator.z_dim, 0)
        yield from map(to_packed, generate(generator, latents, params.sample.batch_size, [device]))

    return batches


def plain_loop(params: Params) -> Batches:
    """What a user writes."""
    import numpy as np
    import torch

    torch.set_num_threads(params.hardware.threads)
    wanted = params.hardware.device
    device = torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
    generator = build_networks(params)[0].to(device).eval()

    def batches(count: int) -> "Iterator[np.ndarray[Any, Any]]":
        for start in range(0, count, params.sample.batch_size):
            size = min(params.sample.batch_size, count - start)
            with torch.no_grad():
                images = generator(torch.randn(size, params.generator.z_dim, device=device))
            scaled = (images.cpu().numpy().transpose(0, 2, 3, 1) + 1) * 127.5
            yield scaled.clip(0, 255).round().astype(np.uint8)

    return batches


CONTESTANTS: dict[str, Callable[[Params], Batches]] = {"atelier": atelier, "plain loop": plain_loop}


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(f"python -m {MODULE}", description=__doc__.partition("\n")[0])
    parser.add_argument("experiments", nargs="*", default=EXPERIMENTS, help="of experiments.yaml")
    parser.add_argument("--images", type=int, help="default: 2000 on a CPU, 50000 on a GPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a parameter")
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.task is not None:
        experiment, changes, name, count = options.task
        params = measuring.read_experiment(experiment, changes)
        batches = CONTESTANTS[name](params)
        for _ in batches(min(params.sample.batch_size, count)):
            pass
        start = time.perf_counter()
        for _ in batches(count):  # on a GPU, its last bytes are here at the end
            pass
        print(json.dumps(time.perf_counter() - start))
        return
    try:
        cases = {name: measuring.read_experiment(name, options.set) for name in options.experiments}
    except InputError as error:
        sys.exit(f"sampling: {error}")
    device = measuring.find_device()
    count = options.images or {"cpu": 2000, "cuda": 50_000}[device]
    rows = []
    for name, params in cases.items():
        tasks: dict[str, Any] = {each: [name, options.set, each, count] for each in CONTESTANTS}
        runs = {each: partial(run_task, MODULE, task) for each, task in tasks.items()}
        found = {each: [run.value for run in all_] for each, all_ in measuring.alternate(runs, options.rounds).items()}
        side = params.data.image_size
        for each, seconds in found.items():
            speed = f"{count / statistics.median(seconds):,.0f}"
            rows.append((name, f"{side}x{side}", each, speed, spread(ratios(seconds, found["atelier"]))))
    print(measuring.describe_machine(device))
    print(f"{count} images, {options.rounds} rounds{''.join(f', {change}' for change in options.set)}\n")
    print(measuring.table(("experiment", "images", "", "images/s", "times atelier's time (spread)"), rows))


if __name__ == "__main__":
    main(sys.argv[1:])
