"""A small set of prepared images, generators as training leaves them, and parameters to match."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gan.data.packed import Manifest, write_manifest
from gan.device import deal
from gan.networks.build import build_generator, initialise, save_generator
from gan.params import Params, check_params, load_params
from stages.layout import CURVES, PREPARED, RESULTS, TRAINED, TRAINING_SUMMARY
from tests.gan.data.packed_split import write_split

ROOT = Path(__file__).parents[2]
CLASSES = ["corner, top", "middle", "corner, bottom"]


def marked_squares(count: int, seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels: a bright square on noise, whose place is its class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    images = random.integers(0, 100, (count, 32, 32, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        start = 2 + 10 * label
        image[start : start + 8, start : start + 8] = 250
    return images, labels


def write_prepared(classes: list[str] | None = CLASSES, **counts: int) -> None:
    """Write data/prepared into the current folder, with the given number of images a split."""
    PREPARED.mkdir(parents=True)
    splits = {}
    for seed, (name, count) in enumerate(counts.items()):
        images, labels = marked_squares(count, seed)
        splits[name] = write_split(
            PREPARED, name, images, labels if classes else None, len(classes) if classes else None
        )
    write_manifest(PREPARED, Manifest("folder", {"a.zip": "0" * 32}, 32, 1, None, "bicubic", classes, splits))


def write_trained(steps: Sequence[int] = (10, 20)) -> None:
    """Write into the current folder what the stage `train` leaves: tiny kept generators, curves and their summary."""
    architecture: dict[str, Any] = {
        "name": "vanilla", "z_dim": 4, "base": 1, "hidden": [8], "block": "plain", "image_size": 32, "channels": 1,
    }  # fmt: skip
    for seed, (step, name) in enumerate(product(steps, ("generator", "generator_ema"))):
        folder = TRAINED / "kept" / f"{step:08}"
        folder.mkdir(parents=True, exist_ok=True)
        generator = build_generator(**architecture)
        initialise(generator, "normal", 0.5, 1.0, seed)
        save_generator(folder / f"{name}.safetensors", generator, architecture)
    RESULTS.mkdir(exist_ok=True)
    columns = (
        "step", "kimg", "loss_d", "loss_g", "d_real", "d_fake_before", "d_fake_after", "saturated", "z_spread",
        "grad_norm_d", "grad_norm_g", "grad_norm_g_first",
    )  # fmt: skip
    rows = [f"{step},{step * 0.05:g},0.6,0.9,0.6,0.4,0.3,0,0.4,,1,1" for step in range(1, 21)]
    CURVES.write_text("\n".join([",".join(columns), *rows, ""]))
    summary = {"steps": 20, "kimg": 1.0, "loss_d": 0.6, "z_spread_initial": 0.1, "grad_norm_g_first_initial": 1.0}
    TRAINING_SUMMARY.write_text(json.dumps(summary))


def small_params(sample: Mapping[str, Any] | None = None, **evaluate: Any) -> Params:
    """The project's parameters with a short training; `sample` and `evaluate` override keys of those sections."""
    document = load_params(ROOT / "params.yaml").model_dump()
    document["reference"] = {"images": 1000, "epochs": 3, "batch_size": 8, "lr": 0.002}
    document["evaluate"] |= {"trajectory": 20} | evaluate
    document["sample"] |= {"count": 64} | dict(sample or {})
    document["hardware"] |= {"device": "cpu", "threads": 1}
    return check_params(document)


@contextmanager
def several_devices(monkeypatch: pytest.MonkeyPatch, count: int) -> Iterator[list[int]]:
    """Have stages find the processor `count` times, each as a device; yields how many each work was dealt to."""
    dealt: list[int] = []

    def counted(workers: Sequence[Any], items: Iterable[Any]) -> Iterator[Any]:
        dealt.append(len(workers))
        return deal(workers, items)

    with monkeypatch.context() as patch:
        processors = [torch.device("cpu"), *(torch.device("cpu", index) for index in range(count - 1))]
        patch.setattr("gan.device.with_others", lambda *_: processors)
        patch.setattr("gan.sampling.deal", counted)
        patch.setattr("gan.metrics.extractors.deal", counted)
        yield dealt
