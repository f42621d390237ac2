"""evaluate: the samples, the kept generators and the reference in; scores, their protocol, a diagnosis, figures out."""

import csv
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan.errors import InputError
from gan.params import Params
from stages.layout import (
    CURVES,
    EVALUATION_FIGURES,
    PREPARED,
    REFERENCE,
    REFERENCE_SCORES,
    SAMPLES,
    SCORES,
    TRAINED,
    TRAINING_SUMMARY,
)
from stages.stage import new_folder, run_stage, write_metrics

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from gan.data.packed import Images, Manifest
    from gan.diagnosis import Diagnosis
    from gan.metrics.extractors import Extractor

NEIGHBOURS = 10
"""Samples shown above their nearest training images."""
FIGURE_SCALE = 2
GENERATED_TOGETHER = 100
"""Images that a kept generator makes at a time."""

Scores = dict[str, Any]
Statistics = tuple["NDArray[np.float64]", "NDArray[np.float64]"]
"""Mean, D, and covariance, D×D, of features."""
Point = tuple[int, float, float]
"""A point of the course of training: step, kimg, and Fréchet distance."""


def evaluate(params: Params) -> None:
    """Score the samples against the real images of `evaluate.split`, look for copies, and say how training went."""
    from gan.data.packed import read_images, read_manifest

    manifest = read_manifest(PREPARED)
    made = _read_json(SAMPLES / "manifest.json")
    samples = read_images(SAMPLES, "images")
    protocol = _protocol(params, manifest, made)
    with new_folder(EVALUATION_FIGURES) as folder:
        scores: Scores = {}
        lists: Scores = {}
        course: list[Point] = []
        if params.evaluate.extractor != "none":
            scores, lists, course = _score_by_features(params, manifest, made, samples, folder)
        scores["neighbour_distance"] = _show_neighbours(samples, folder)
        diagnosis = _diagnose(params.evaluate.extractor, params.evaluate.split, scores, course, folder)
    write_metrics(SCORES, {"verdict": diagnosis.verdict, **scores, **lists, "protocol": [protocol]})


def _protocol(params: Params, manifest: "Manifest", made: dict[str, Any]) -> dict[str, Any]:
    """All that two scores must share to be comparable."""
    import numpy as np

    from gan.data.packed import file_md5
    from gan.metrics.extractors import weights_name

    extractor, split = params.evaluate.extractor, params.evaluate.split
    weights_md5 = real_images = None
    if extractor != "none":
        weights_md5 = file_md5(REFERENCE / weights_name(extractor))
        with np.load(REFERENCE / f"{split}_statistics.npz") as real:
            real_images = int(real["count"])
    return {
        "extractor": extractor,
        "weights_md5": weights_md5,
        "real_split": split,
        "real_images": real_images,
        "generated_images": made["count"],
        "trajectory_images": params.evaluate.trajectory if extractor != "none" else 0,
        "image_size": manifest.image_size,
        "crop": manifest.crop,
        "resize": manifest.resize,
        "inception_score_splits": params.evaluate.splits,
        "neighbour_samples": NEIGHBOURS,
        "neighbour_split": "train",
        "neighbour_images": manifest.splits["train"].count,
        "seed": made["seed"],
        "versions": {name: version(name) for name in ("torch", "torchvision", "scipy", "numpy")},
    }


def _score_by_features(
    params: Params, manifest: "Manifest", made: dict[str, Any], samples: "Images", folder: Path
) -> tuple[Scores, Scores, list[Point]]:
    """The scores, the shares of each class where the extractor knows classes, and the course of training."""
    import numpy as np

    from gan import metrics
    from gan.device import open_device
    from gan.metrics.extractors import SHORT_NAMES, describe, load_extractor

    name = params.evaluate.extractor
    device = open_device(params.hardware.device, params.hardware.threads, params.hardware.deterministic)
    extractor = load_extractor(name, REFERENCE, device)
    with np.load(REFERENCE / f"{params.evaluate.split}_statistics.npz") as file:
        real = file["mean"], file["cov"]

    features, probabilities = describe(extractor, samples, "features of the samples")
    scores: Scores = {}
    lists: Scores = {}
    if probabilities is not None:
        score, spread = metrics.inception_score(probabilities, params.evaluate.splits)
        scores |= {"inception_score": metrics.significant(score), "inception_score_std": metrics.significant(spread)}
    mean, cov = metrics.feature_statistics(features)
    scores[f"{SHORT_NAMES[name]}-FD"] = metrics.significant(metrics.frechet_distance(mean, cov, *real))
    scores["feature_diversity"] = metrics.significant(metrics.feature_diversity(cov, real[1]))
    if probabilities is not None:
        shares, divergence = _compare_classes(params.evaluate.split, manifest, probabilities, folder)
        scores |= {"rarest_class": min(shares), "class_divergence": divergence}
        lists["class_shares"] = shares

    course: list[Point] = []
    if params.evaluate.trajectory:
        course = _follow_training(params.evaluate.trajectory, made, extractor, real, device)
        with (folder / "trajectory.csv").open("w", newline="") as table:
            csv.writer(table, lineterminator="\n").writerows([("step", "kimg", "distance"), *course])
    if course:
        _, scores["best_kimg"], scores["best_distance"] = min(course, key=lambda point: point[2])
    return scores, lists, course


def _compare_classes(
    split: str, manifest: "Manifest", probabilities: "NDArray[np.float64]", folder: Path
) -> tuple[list[float], float]:
    """Each class's share of the samples, and the divergence from the real shares; writes `classes.csv`."""
    import numpy as np

    from gan import metrics

    assert manifest.classes is not None
    counts = np.array(manifest.splits[split].class_counts)
    shares, real_shares = metrics.class_shares(probabilities), counts / counts.sum()
    unknown = np.flatnonzero((shares > 0) & (counts == 0))
    if len(unknown):
        raise InputError(
            f"the {split} split has no image of class {manifest.classes[unknown[0]]}, so the samples' "
            "classes cannot be compared with it; set evaluate.split to the other split, or evaluate.extractor to none"
        )
    with (folder / "classes.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["class", "share_samples", "share_real"])
        for name, share, real_share in zip(manifest.classes, shares, real_shares, strict=True):
            table.writerow([name, metrics.significant(share), metrics.significant(real_share)])
    divergence = metrics.class_divergence(shares, real_shares)
    return [metrics.significant(share) for share in shares], metrics.significant(divergence)


def _follow_training(
    count: int, made: dict[str, Any], extractor: "Extractor", real: Statistics, device: "torch.device"
) -> list[Point]:
    """The Fréchet distance of `count` samples of each kept generator, all from the same latents.

    Fewer samples than features leave directions without any spread, and every few make the distance too large: these
    distances show a course, and compare with each other alone.
    """
    import numpy as np

    from gan import metrics
    from gan.data.progress import progress
    from gan.networks.build import load_generator
    from gan.sampling import draw_latents, generate
    from gan.seeds import derive_seed

    summary = _read_json(TRAINING_SUMMARY)
    file_name = "generator_ema.safetensors" if made["ema"] else "generator.safetensors"
    kept = sorted((TRAINED / "kept").glob(f"*/{file_name}"))
    course = []
    with progress("course of training", len(kept), "generators") as advance:
        for file in kept:
            generator, architecture = load_generator(file, device)
            latents = draw_latents(count, architecture["z_dim"], derive_seed(made["seed"], "trajectory"))
            batches = generate(generator, latents, GENERATED_TOGETHER, device)
            features = np.concatenate([extractor(batch)[0] for batch in batches])
            distance = metrics.frechet_distance(*metrics.feature_statistics(features), *real)
            step = int(file.parent.name)
            kimg = step * summary["kimg"] / summary["steps"]
            course.append((step, metrics.significant(kimg), metrics.significant(distance)))
            advance(1)
    return course


def _diagnose(extractor: str, split: str, scores: Scores, course: Sequence[Point], folder: Path) -> "Diagnosis":
    """Write `diagnosis.json`, and return what it says."""
    from dataclasses import asdict

    import numpy as np

    from gan.diagnosis import Run, diagnose
    from gan.metrics.extractors import SHORT_NAMES

    with CURVES.open(newline="") as file:
        header, *rows = csv.reader(file)
    # A term that has no value at a step is empty there.
    columns = np.array([[float(value or "nan") for value in row] for row in rows]).reshape(len(rows), len(header)).T
    summary = _read_json(TRAINING_SUMMARY)
    score = f"{SHORT_NAMES[extractor]}-FD" if extractor != "none" else None
    diagnosis = diagnose(
        Run(
            curves=dict(zip(header, columns, strict=True)),
            initial_z_spread=summary["z_spread_initial"],
            initial_grad_norm_g_first=summary["grad_norm_g_first_initial"],
            trajectory=[(kimg, distance) for _, kimg, distance in course],
            distance=scores[score] if score else None,
            floor=_read_json(REFERENCE_SCORES)[f"floor_{score}"] if score else None,
            diversity=scores["feature_diversity"] if score else None,
            real_variance=_real_variance(split) if score else None,
        )
    )
    (folder / "diagnosis.json").write_text(json.dumps(asdict(diagnosis), indent=2, ensure_ascii=False) + "\n")
    return diagnosis


def _real_variance(split: str) -> float:
    """Variance of the real images' features, summed over the features."""
    import numpy as np

    with np.load(REFERENCE / f"{split}_statistics.npz") as real:
        return float(np.trace(real["cov"]))


def _read_json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text())
    return values


def _show_neighbours(samples: "Images", folder: Path) -> float:
    """Write `neighbours.png`; return the mean distance of its samples to the training images below them.

    A root mean square difference in grey levels, 0 to 255: toward 0 where the generator copies.
    """
    import numpy as np

    from gan import metrics
    from gan.data.packed import read_images
    from gan.figures.grid import save_png, tile

    shown = np.array(samples[:NEIGHBOURS])
    training = read_images(PREPARED, "train")
    indices, distances = metrics.nearest(shown, training)
    save_png(folder / "neighbours.png", tile(np.concatenate([shown, training[indices]]), NEIGHBOURS), FIGURE_SCALE)
    return metrics.significant(distances.mean())


if __name__ == "__main__":
    run_stage("evaluate", evaluate)
