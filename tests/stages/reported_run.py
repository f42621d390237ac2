"""What the stages before leave to the report stage, as small as can be, for tests."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from gan.data.packed import Manifest, write_manifest
from gan.figures.grid import draw_side_by_side, film_strip, save_animation, save_png, tile
from stages import layout
from stages.report import RECORDED
from tests.gan.data.packed_split import write_split

ROOT = Path(__file__).parents[2]
CURVES = (
    "step", "kimg", "loss_d", "loss_g", "d_real", "d_fake_before", "d_fake_after", "saturated", "z_spread",
    "grad_norm_d", "grad_norm_g", "grad_norm_g_first",
)  # fmt: skip
DIAGNOSIS = {
    "verdict": "still improving",
    "rule": "The distance fell by more than 15 %.",
    "evidence": ["it fell by 30 %", "Fréchet distance 12.3"],
    "explanation": "It was too early.",
    "advice": "Double train.epochs.",
}
SCORES: dict[str, Any] = {
    "verdict": "still improving",
    "inception_score": 8.31,
    "classifier-FD": 12.3,
    "classifier-KD": 0.0123,
    "precision": 0.81,
    "recall": 0.74,
    "near_copies": 0.001,
    "details": [{"inception_score_std": 0.12, "density": 0.8, "coverage": 0.9, "neighbour_distance": 38.2}],
    "intervals": [{"inception_score": [8.2, 8.4], "precision": [0.79, 0.83], "recall": [0.7, 0.77]}],
    "floor": [{"inception_score": 9.5, "classifier-FD": 0.84, "precision": 0.88, "recall": 0.87, "near_copies": 0.0}],
    "warnings": ["10,000 samples against 40 real images."],
    "class_shares": [0.1] * 10,
    "protocol": [{"extractor": "classifier"}],
}


def write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values))


def write_csv(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def make_run() -> None:
    """The inputs of the report stage, as the stages before it leave them, in the current folder."""
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    for path in (layout.PREPARED, layout.SAMPLES, layout.SAMPLE_FIGURES, layout.EVALUATION_FIGURES):
        path.mkdir(parents=True)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 32, 32, 1), np.uint8)
    labels = np.arange(40) % 10
    splits = {name: write_split(layout.PREPARED, name, images, labels, 10) for name in ("train", "test")}
    names = [str(digit) for digit in range(10)]
    write_manifest(layout.PREPARED, Manifest("mnist-5k", {"a.csv": "0" * 32}, 32, 1, None, "none", names, splits))
    write_json(
        layout.SAMPLES / "manifest.json",
        {
            "origin": "training",
            "count": 10000,
            "seed": 0,
            "ema": True,
            "generator": "generator_ema.safetensors",
            "generator_md5": "a" * 32,
            "images_md5": "b" * 32,
            "kept_md5": {"kept/00000025/generator_ema.safetensors": "c" * 32},
        },
    )
    save_png(layout.SAMPLE_FIGURES / "grid.png", tile(images, 10))
    save_png(layout.SAMPLE_FIGURES / "interpolation.png", tile(images, 8))
    save_animation(layout.SAMPLE_FIGURES / "training.png", [tile(images[:9], 3), tile(images[9:18], 3)], 0.2)
    film_strip(layout.SAMPLE_FIGURES / "filmstrip.png", [images[:9], images[9:18]], [2.5, 10])
    save_png(layout.EVALUATION_FIGURES / "neighbours.png", tile(images[:20], 10))
    draw_side_by_side(layout.EVALUATION_FIGURES / "real.png", images[:20], images[20:], 5)
    write_csv(
        layout.EVALUATION_FIGURES / "neighbours.csv",
        ("sample", "training_image", "distance"),
        [(sample, 39 - sample, 30 + sample) for sample in range(40)],
    )
    curves = [(step, step / 10, *random.uniform(0.1, 1, 10)) for step in range(1, 101)]
    write_csv(layout.CURVES, CURVES, [*curves, (101, 10.1, *[""] * 10)])
    write_csv(
        layout.EVALUATION_FIGURES / "classes.csv",
        ("class", "share_samples", "share_real"),
        [(name, 0.1, 0.1) for name in names],
    )
    write_json(layout.EVALUATION_FIGURES / "diagnosis.json", DIAGNOSIS)
    write_csv(
        layout.EVALUATION_FIGURES / "trajectory.csv",
        ("step", "kimg", "distance"),
        [(25 * step, 2.5 * step, 50 / step) for step in range(1, 5)],
    )
    write_json(layout.TRAINING_SUMMARY, {"steps": 101, "kimg": 10.1, "loss_d": 0.6})
    write_json(layout.SCORES, SCORES)
    write_json(layout.REFERENCE_SCORES, {"test_accuracy": 0.996, "floors": [{"train": {}, "test": {}}]})
    layout.RECORDS.mkdir()
    for stage in RECORDED:
        record = {
            "stage": stage,
            "machine": {"system": "Linux x86_64", "device": "cpu", "versions": {"numpy": "2.0", "torch": "2.9"}},
            "inputs": {"data/prepared": "d" * 32 + ".dir"} if stage != "fetch" else {},
            "params": {"seed": 0},
            "code": {f"stages/{stage}.py": "e" * 64},
        }
        (layout.RECORDS / f"{stage}.json").write_text(json.dumps([record]))
