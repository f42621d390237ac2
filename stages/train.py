"""train: the prepared images in, generators and curves out."""

import csv
import io
import json
import math
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gan.errors import InputError
from gan.params import Params
from stages.hosts import count_devices, read_hosts
from stages.layout import CURVES, EVENTS, PREPARED, RECOVERY, TOGETHER, TRAINED, TRAINING_SUMMARY
from stages.processes import run_member, run_together
from stages.record import describe_device, describe_machine, read_code, read_params
from stages.recovery import open_recovery
from stages.stage import check_unchanged, new_folder, run_stage, write_file, write_metrics

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gan.training.loop import Row

DECIDE_NOTHING = frozenset({"train.checkpoint_seconds", "train.checkpoint_steps"})
"""Parameters that a training may go on under after they have changed."""


def train(params: Params) -> Callable[[], None] | None:
    """Train both networks and write the generators, the curves, and where the curves ended.

    Where what is to be scored comes from elsewhere, train nothing, and say so in the generators' place. On a host that
    only takes part in a training, write nothing.
    """
    if params.sample.generator is not None or params.evaluate.samples is not None:
        with new_folder(TRAINED) as folder:
            (folder / "not_trained.txt").write_text("sample.generator or evaluate.samples is scored instead\n")
        write_curves([])
        write_metrics(TRAINING_SUMMARY, {})
        return None

    if not PREPARED.exists():  # DVC sees to it, but not on a host that only takes part
        raise InputError(f"{PREPARED}: no such folder; run `dvc repro prepare` on this host first")

    from gan.device import open_device

    hardware = params.hardware
    count = count_devices(hardware)
    tf32 = hardware.precision == "tf32"
    device = open_device(hardware.device, hardware.threads, hardware.deterministic, tf32=tf32)
    decisive = decisive_inputs(params)
    check_unchanged("train")  # or else a checkpoint of these parameters and this code would have another run's place
    if read_hosts().rank > 0:
        TOGETHER.mkdir(parents=True, exist_ok=True)
        run_together(params, "stages.train", json.dumps(decisive), folder=TOGETHER)
        return None
    recovery = open_recovery(RECOVERY, decisive)
    if count > 1:
        run_together(params, "stages.train", json.dumps(decisive), str(recovery.folder), folder=recovery.folder)
    else:
        train_here(params, device, recovery.folder)
    return lambda: recovery.finish(TRAINED)


def decisive_inputs(params: Params) -> dict[str, str]:
    """All that decides the bits of a training, by name."""
    import numpy as np
    import torch

    from gan.data.packed import read_manifest

    decisive = {key: json.dumps(value) for key, value in read_params("train").items() if key not in DECIDE_NOTHING}
    decisive |= read_code("train") | {
        "data": read_manifest(PREPARED).splits["train"].md5,
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    machine = describe_machine(params.hardware, computes=True, shared=True)
    return decisive | {key: str(machine[key]) for key in ("system", "device", "devices", "instructions", "c_library")}


def train_together(params: Params, device: "torch.device", inputs: str, folder: str = "") -> None:
    """Train in one of several processes, of which the first writes; `inputs` are what `decisive_inputs` says there."""
    from gan.training import processes

    ours = json.dumps(json.loads(inputs) | {"device": describe_device(params.hardware)})  # of all devices of all hosts
    theirs, ours = json.loads(processes.share(ours, device)), json.loads(ours)
    differing = sorted(key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key))
    if differing:
        raise InputError(f"this process cannot take part: it differs from the first in {', '.join(differing)}")
    train_here(params, device, Path(folder))


def train_here(params: Params, device: "torch.device", recovery: Path) -> None:
    """Train, in this process or in all of its group, going on from what is in `recovery`; write what comes of it."""
    from gan.data.packed import read_images, read_manifest
    from gan.durable import sync
    from gan.networks.build import (
        add_spectral_norm,
        build_discriminator,
        build_generator,
        first_block,
        initialise,
        save_generator,
        scale_right_branches,
    )
    from gan.seeds import derive_seed
    from gan.training import processes
    from gan.training.loop import train as train_networks

    manifest = read_manifest(PREPARED)
    shape = {"image_size": manifest.image_size, "channels": manifest.channels}
    initial = {"init", "init_std", "bn_mean", "right_scale"}
    architecture = params.generator.model_dump(exclude=initial) | shape
    generator = build_generator(**architecture)
    discriminator = build_discriminator(**params.discriminator.model_dump(exclude=initial) | shape)
    for role, network, section in (
        ("generator", generator, params.generator),
        ("discriminator", discriminator, params.discriminator),
    ):
        seed = derive_seed(params.seed, "initialise", role)
        initialise(network, section.init, section.init_std, section.bn_mean, seed)
    scale_right_branches(generator, params.generator.right_scale)
    if params.discriminator.norm == "spectral":
        add_spectral_norm(discriminator, derive_seed(params.seed, "spectral norm"))

    def save(folder: Path, generator: "nn.Module", average: "nn.Module | None") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        files = {"generator.safetensors": generator, "generator_ema.safetensors": average}
        for name, network in files.items():
            if network is not None:
                save_generator(folder / name, network, architecture)
                sync(folder / name)
        for place in (folder, folder.parent):
            sync(place)  # no checkpoint may outlive a generator that was kept before it

    trained = train_networks(
        read_images(PREPARED, "train"),
        generator,
        discriminator,
        params.train,
        first_block=first_block(generator),
        z_dim=params.generator.z_dim,
        seed=params.seed,
        device=device,
        low_precision=params.hardware.precision == "bfloat16",
        compiled=params.hardware.compile,
        recovery=recovery,
        events=EVENTS / f"{os.environ.get('DVC_EXP_NAME', 'workspace')}-{recovery.name[:8]}",
        on_keep=lambda step, generator, average: save(recovery / "kept" / f"{step:08}", generator, average),
        on_curves=write_curves,
    )
    if processes.rank() == 0:
        with new_folder(TRAINED) as folder:
            save(folder, trained.generator, trained.average)
            if (recovery / "kept").exists():
                shutil.copytree(recovery / "kept", folder / "kept")
        write_curves(trained.curves)
        write_metrics(TRAINING_SUMMARY, summarise(trained.curves[-1], trained.start))


def summarise(row: "Row", start: "Row") -> dict[str, float]:
    """Where the curves ended and how they started, in the few numbers that a table of experiments has room for."""
    columns = {"loss_d": "loss_d", "loss_g": "loss_g", "d_real": "d_real", "d_fake": "d_fake_before"}
    summary = {name: float(f"{row[column]:.6g}") for name, column in columns.items() if math.isfinite(row[column])}
    summary |= {f"{name}_initial": float(f"{value:.6g}") for name, value in start.items()}
    return {"steps": int(row["step"]), "kimg": row["kimg"]} | summary


def write_curves(curves: "list[Row]") -> None:
    """Write the curves as CSV; a term that has no value is left empty."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(curves[0] if curves else [])
    for row in curves:
        writer.writerow(value if name == "step" else _number(value) for name, value in row.items())
    write_file(CURVES, table.getvalue())


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.7g}"


if __name__ == "__main__":
    if sys.argv[1:]:
        run_member("train", train_together)
    run_stage("train", train)
