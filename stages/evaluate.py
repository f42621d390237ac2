"""evaluate: the samples and the reference in; scores with their protocol, and figures, out."""

import csv
import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan.errors import InputError
from gan.params import Params
from stages.layout import EVALUATION_FIGURES, PREPARED, REFERENCE, SAMPLES, SCORES
from stages.stage import new_folder, run_stage, write_metrics

if TYPE_CHECKING:
    from gan.data.packed import Images, Manifest

NEIGHBOURS = 10
"""Samples shown above their nearest training images."""
FIGURE_SCALE = 2

Scores = dict[str, Any]


def evaluate(params: Params) -> None:
    """Score the samples against the real images of `evaluate.split`, and look for copies of training images."""
    from gan.data.packed import read_images, read_manifest

    manifest = read_manifest(PREPARED)
    samples = read_images(SAMPLES, "images")
    protocol = _protocol(params, manifest)
    with new_folder(EVALUATION_FIGURES) as folder:
        scores: Scores = {}
        lists: Scores = {}
        if params.evaluate.extractor == "classifier":
            scores, lists = _score_by_classifier(params, manifest, samples, folder)
        scores["neighbour_distance"] = _show_neighbours(samples, folder)
    write_metrics(SCORES, {**scores, **lists, "protocol": [protocol]})


def _protocol(params: Params, manifest: "Manifest") -> dict[str, Any]:
    """All that two scores must share to be comparable."""
    from gan.data.packed import file_md5

    samples = json.loads((SAMPLES / "manifest.json").read_text())
    split = params.evaluate.split
    weights = REFERENCE / "classifier.safetensors"
    return {
        "extractor": params.evaluate.extractor,
        "weights_md5": file_md5(weights) if params.evaluate.extractor == "classifier" else None,
        "real_split": split,
        "real_images": manifest.splits[split].count if split in manifest.splits else 0,
        "generated_images": samples["count"],
        "image_size": manifest.image_size,
        "crop": manifest.crop,
        "resize": manifest.resize,
        "inception_score_splits": params.evaluate.splits,
        "neighbour_samples": NEIGHBOURS,
        "neighbour_split": "train",
        "seed": samples["seed"],
        "versions": {name: version(name) for name in ("torch", "scipy", "numpy")},
    }


def _score_by_classifier(
    params: Params, manifest: "Manifest", samples: "Images", folder: Path
) -> tuple[Scores, Scores]:
    """The scores, and the shares of each class; writes the latter as `classes.csv` too."""
    import numpy as np

    from gan import metrics
    from gan.device import open_device
    from gan.metrics.classifier import load_classifier

    device = open_device(params.hardware.device, params.hardware.threads, params.hardware.deterministic)
    classifier = load_classifier(REFERENCE / "classifier.safetensors", device)
    features, probabilities = classifier.features_and_probabilities(samples)

    score, spread = metrics.inception_score(probabilities, params.evaluate.splits)
    with np.load(REFERENCE / f"{params.evaluate.split}_statistics.npz") as real:
        distance = metrics.frechet_distance(*metrics.feature_statistics(features), real["mean"], real["cov"])

    assert manifest.classes is not None
    counts = np.array(manifest.splits[params.evaluate.split].class_counts)
    shares, real_shares = metrics.class_shares(probabilities), counts / counts.sum()
    unknown = np.flatnonzero((shares > 0) & (counts == 0))
    if len(unknown):
        raise InputError(
            f"the {params.evaluate.split} split has no image of class {manifest.classes[unknown[0]]}, so the samples' "
            "classes cannot be compared with it; set evaluate.split to the other split, or evaluate.extractor to none"
        )
    with (folder / "classes.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["class", "share_samples", "share_real"])
        for name, share, real_share in zip(manifest.classes, shares, real_shares, strict=True):
            table.writerow([name, metrics.significant(share), metrics.significant(real_share)])

    scores = {
        "inception_score": metrics.significant(score),
        "inception_score_std": metrics.significant(spread),
        "classifier-FD": metrics.significant(distance),
        "rarest_class": metrics.significant(shares.min()),
        "class_divergence": metrics.significant(metrics.class_divergence(shares, real_shares)),
    }
    return scores, {"class_shares": [metrics.significant(share) for share in shares]}


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
