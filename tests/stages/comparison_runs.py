"""Made-up results of three experiments, in the form in which flows hand them to the comparison."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from gan.figures.grid import save_png, tile

PARAMS = {
    "seed": 0,
    "data.source": "mnist-5k",
    "generator.name": "dcgan",
    "discriminator.norm": "batch",
    "train.epochs": 38,
    "train.lr_d": 0.001,
    "train.augment": [],
    "sample.count": 10000,
}
PROTOCOL = {
    "extractor": "classifier",
    "weights_md5": "2c88205c5ff3453a44e1ef89b35f28e3",
    "real_split": "train",
    "data_md5": "5d41402abc4b2a76b9719d911017c592",
    "real_images": 4250,
    "generated_images": 10000,
    "image_size": 32,
    "crop": None,
    "interval": "95 % percentile bootstrap",
    "seed": 0,
    "versions": {"torch": "2.15.0", "numpy": "2.4.6"},
}
FLOOR = {
    "inception_score": 9.69,
    "classifier-FD": 1.207,
    "classifier-KD": 0.0009,
    "precision": 0.88,
    "recall": 0.86,
    "density": 0.98,
    "coverage": 0.93,
    "near_copies": 0.001,
}
EXPLANATION = "Both networks hold each other and the samples are near the real images."


def scores_of(distance: float, spread: float, **changes: Any) -> dict[str, Any]:
    """A scores.json around a Fréchet distance whose 95 % interval is as wide as twice `spread`."""
    values = {
        "inception_score": round(9.6 - distance / 4, 4),
        "classifier-FD": distance,
        "classifier-KD": round(0.0011 * distance, 6),
        "precision": round(0.86 - 0.02 * distance, 4),
        "recall": round(0.84 - 0.05 * distance, 4),
        "near_copies": 0.002,
    }
    relative = spread / distance
    return {
        "verdict": "converged",
        **values,
        "details": [{"inception_score_std": 0.0968, "density": 0.94, "coverage": 0.9, "feature_diversity": 0.956}],
        "intervals": [
            {
                key: [value * (1 - relative * shrink), value * (1 + relative * shrink)]
                for key, value, shrink in zip(values, values.values(), (0.1, 1, 2, 0.15, 0.25, 5), strict=True)
                if key != "near_copies"
            }
        ],
        "floor": [FLOOR],
        "warnings": [],
        "class_shares": [0.1] * 10,
        "protocol": [PROTOCOL],
    } | changes


def write_run(results: Path, scores: dict[str, Any], *, end: float, seed: int, noise: float) -> None:
    """What a run leaves in `results`: curves, a course of the distance down to `end`, and a grid of blobs."""
    random = np.random.default_rng(seed)
    for name in ("evaluation", "samples"):
        (results / name).mkdir(parents=True)
    (results / "scores.json").write_text(json.dumps(scores))
    diagnosis = {"verdict": scores["verdict"], "rule": "", "evidence": [], "explanation": EXPLANATION, "advice": ""}
    (results / "evaluation/diagnosis.json").write_text(json.dumps(diagnosis))
    kept = np.linspace(10, 160, 16)
    distances = end + 110 * np.exp(-kept / 12) * np.exp(random.normal(0, 0.1, 16))
    _write_csv(results / "evaluation/trajectory.csv", ("step", "kimg", "distance"), [kept * 31, kept, distances])
    kimg = np.arange(1, 201) * 0.8
    losses = [1.2 + random.normal(0, 0.15, 200), 0.9 + 0.8 * np.exp(-kimg / 30) + random.normal(0, 0.15, 200)]
    _write_csv(results / "curves.csv", ("step", "kimg", "loss_d", "loss_g"), [kimg * 31, kimg, *losses])
    x, y = np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 32))
    centres = random.uniform(-0.4, 0.4, (2, 100, 1, 1))
    blobs = 255 * np.exp(-8 * ((x - centres[0]) ** 2 + (y - centres[1]) ** 2)) + random.normal(0, noise, (100, 32, 32))
    save_png(results / "samples/grid.png", tile(np.clip(blobs, 0, 255).astype(np.uint8)[..., None], 10), 2)


def _write_csv(path: Path, header: tuple[str, ...], columns: list[Any]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *zip(*columns, strict=True)])


def entry(name: str, scores: dict[str, Any], **params: Any) -> dict[str, Any]:
    """What comparison.json says of an experiment; parameters named with two underscores for the dot."""
    changed = {key.replace("__", "."): value for key, value in params.items()}
    commit = f"{sum(map(ord, name)):x}".rjust(4, "a") * 10
    command = f"git switch --detach {'1' * 40} && dvc exp run --temp --name {name}"
    return {"name": name, "commit": commit, "command": command, "params": PARAMS | changed, "scores": scores}


def write_comparison(
    folder: Path, entries: list[dict[str, Any]], *, failed: dict[str, str] | None = None, refusal: str = ""
) -> None:
    """The whole folder that the comparison reads, with results for each entry."""
    document = {"experiments": entries, "failed": failed or {}, "refusal": refusal}
    folder.mkdir(exist_ok=True)
    (folder / "comparison.json").write_text(json.dumps(document))
    for number, each in enumerate(entries):
        end = each["scores"].get("classifier-FD", 1.0)
        write_run(folder / f"{number}/results", each["scores"], end=end, seed=number, noise=12.0 * number)


def three() -> list[dict[str, Any]]:
    """Two experiments whose intervals overlap, and one far from them."""
    return [
        entry("mnist-quick", scores_of(1.022, 0.05)),
        entry("mnist-quick-augment-translation-lr_d-0.002", scores_of(1.08, 0.06), train__lr_d=0.002,
              train__augment=["translation"]),
        entry("mnist-vanilla-quick", scores_of(14.7, 0.4, verdict="mode collapse",
              warnings=["Few samples: the distance is uncertain."]), generator__name="vanilla",
              discriminator__norm="none"),
    ]  # fmt: skip
