"""evaluate: the samples, the kept generators and the reference in; scores, their protocol, a diagnosis, figures out."""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
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
from stages.stage import count_taken, new_folder, read_json, run_stage, write_metrics

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from gan.data.packed import Images, Manifest
    from gan.diagnosis import Diagnosis
    from gan.metrics.extractors import Extractor
    from gan.metrics.scores import Real

NEIGHBOURS_SHOWN = 10
"""Samples in a row of the figure of nearest training images: the first ones, and those that come nearest."""
SIDE_BY_SIDE_ROWS = SIDE_BY_SIDE_COLUMNS = 8
FIGURE_SCALE = 2
GENERATED_TOGETHER = 100
"""Images that a kept generator makes at a time."""
IMAGES_PER_CLASS = 2
"""Samples for each class in a part of the Inception Score below which it is held down."""
ENOUGH_PER_FEATURE = 10
"""Images for each feature from which on a Fréchet distance's bias is small beside most distances."""

WITH_CLASSES = ("classifier", "inception_v3")
"""Extractors that know classes, and so have an Inception Score."""
HEADLINE = ("inception_score", "FID", "KID", "precision", "recall", "near_copies")
"""Scores that `dvc exp show` has columns for, with those whose names end in -FD and -KD; DVC hides what is in lists."""


@dataclass
class Found:
    """What the stage finds out, to be written in one piece."""

    values: dict[str, Any] = field(default_factory=dict)
    """Numbers by the names of their scores, and what they speak of."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    class_shares: list[float] = field(default_factory=list)
    real_variance: float | None = None
    """Variance of the real images' features, summed over the features."""
    course: list[tuple[int, float, float]] = field(default_factory=list)
    """Step, kimg, and Fréchet distance of each generator kept on the way."""
    warnings: list[str] = field(default_factory=list)


def evaluate(params: Params) -> None:
    """Score the samples against the real images of `evaluate.split`, look for copies, and say how training went."""
    from gan.data.packed import read_images, read_manifest

    manifest = read_manifest(PREPARED)
    made = read_json(SAMPLES / "manifest.json")
    facts = read_json(REFERENCE / "extractor.json")
    samples = read_images(SAMPLES, "images")
    _check_counts(params, manifest, len(samples))
    found = Found()
    floor: dict[str, float] = read_json(REFERENCE_SCORES)["floors"][0][params.evaluate.split]
    with new_folder(EVALUATION_FIGURES) as folder:
        if params.evaluate.extractor == "none":
            training = read_images(PREPARED, "train")
            _look_for_copies(found, samples, samples, training, made["seed"], folder)
            protocol = _protocol(params, manifest, made, len(training), None)
        else:
            protocol = _score_by_features(found, params, manifest, made, facts, samples, folder)
        _show_beside_real(params.evaluate.split, samples, folder)
        diagnosis = _diagnose(made, facts, found, floor)
        text = json.dumps(asdict(diagnosis), indent=2, ensure_ascii=False)
        (folder / "diagnosis.json").write_text(text + "\n", encoding="utf-8")
    in_head = {name: name in HEADLINE or name.endswith(("-FD", "-KD")) for name in found.values}
    write_metrics(
        SCORES,
        {
            "verdict": diagnosis.verdict,
            **{name: value for name, value in found.values.items() if in_head[name]},
            "details": [{name: value for name, value in found.values.items() if not in_head[name]}],
            "intervals": [found.intervals],
            "floor": [floor],
            "warnings": found.warnings,
            "class_shares": found.class_shares,
            "protocol": [protocol],
        },
    )


def _check_counts(params: Params, manifest: "Manifest", samples: int) -> None:
    from gan.metrics.scores import NEIGHBOURS

    extractor, split, splits = params.evaluate.extractor, params.evaluate.split, params.evaluate.splits
    if split not in manifest.splits:
        raise InputError(f"evaluate.split: {split}, but the data has none; use train, or a data.test_fraction above 0")
    if extractor in WITH_CLASSES and samples < splits:
        raise InputError(f"evaluate.splits: {splits} parts of {samples} samples; use fewer parts")
    if extractor != "none" and samples <= NEIGHBOURS:
        raise InputError(f"evaluate.samples: {samples} images, and precision and recall take {NEIGHBOURS + 1} or more")


def _protocol(
    params: Params, manifest: "Manifest", made: dict[str, Any], training_images: int, real_images: int | None
) -> dict[str, Any]:
    """All that two scores must share to be comparable, but for the seed."""
    from gan.data.packed import file_md5
    from gan.metrics import scores
    from gan.metrics.extractors import weights_name

    extractor, split = params.evaluate.extractor, params.evaluate.split
    protocol: dict[str, Any] = {"extractor": extractor}
    if real_images is not None:
        manifold = [min(count, scores.MANIFOLD_IMAGES) for count in (made["count"], real_images)]
        protocol |= {
            "weights_md5": file_md5(REFERENCE / weights_name(extractor)),
            "real_images": real_images,
            "floor_images": _count_held_out(split),
            "trajectory_images": params.evaluate.trajectory,
            "inception_score_splits": params.evaluate.splits,
            "kernel_subsets": scores.KERNEL_SUBSETS,
            "kernel_subset_size": min(scores.KERNEL_SUBSET_SIZE, made["count"], real_images),
            "neighbours_k": scores.NEIGHBOURS,
            "manifold_images": manifold,
            "interval": scores.LEVEL,
            "resamples": scores.RESAMPLES,
        }
    return protocol | {
        "generated_images": made["count"],
        "copy_samples": min(scores.COPY_SAMPLES, made["count"]),
        "training_images": training_images,
        "real_split": split,
        "data_md5": manifest.splits[split].md5,
        "image_size": manifest.image_size,
        "channels": manifest.channels,
        "crop": manifest.crop,
        "resize": manifest.resize,
        "seed": made["seed"],
        "versions": {name: version(name) for name in ("torch", "torchvision", "scipy", "numpy")},
    }


def _count_held_out(split: str) -> int:
    """Real images that stand in the samples' place for the floor."""
    from gan.metrics.scores import read_real

    return len(read_real(REFERENCE, "test" if split == "train" else "train").features)


def _score_by_features(
    found: Found,
    params: Params,
    manifest: "Manifest",
    made: dict[str, Any],
    facts: dict[str, Any],
    samples: "Images",
    folder: Path,
) -> dict[str, Any]:
    """Everything that is measured in an extractor's features; returns the protocol."""
    import numpy as np

    from gan import metrics
    from gan.data.batches import packed_batches
    from gan.data.progress import progress
    from gan.device import open_device, with_others
    from gan.metrics.extractors import describe, load_extractors
    from gan.metrics.scores import read_real

    device = open_device(params.hardware.device, params.hardware.threads, params.hardware.deterministic)
    extractors = load_extractors(
        params.evaluate.extractor, REFERENCE, with_others(device, count_taken("evaluate", params.hardware))
    )
    real = read_real(REFERENCE, params.evaluate.split)
    batches = packed_batches(samples, extractors[device].batch, device)
    with progress("features of the samples", len(samples), "images") as advance:
        features, probabilities = describe(extractors, batches, len(samples), advance)
    label = facts["label"]
    scores = metrics.score(features, probabilities, real, label=label, splits=params.evaluate.splits, seed=made["seed"])
    found.values = {name: metrics.significant(value) for name, value in scores.values.items()}
    found.values |= {name: facts[name] for name in ("weights", "weights_sha256") if name in facts}
    found.intervals = {name: _rounded(bounds) for name, bounds in scores.intervals.items()}
    found.real_variance = float(np.trace(real.cov))
    training = read_real(REFERENCE, "train").features
    _look_for_copies(found, samples, features, training, made["seed"], folder)
    if params.evaluate.extractor == "classifier":
        assert probabilities is not None
        _compare_classes(found, params.evaluate.split, manifest, probabilities, folder)
    if params.evaluate.trajectory and made["origin"] == "training":
        _follow_training(found, params.evaluate.trajectory, made, extractors, real, folder)
    frechet, _ = metrics.score_names(label)
    held_out = _count_held_out(params.evaluate.split)
    if held_out < len(samples):
        few = metrics.frechet_distance(*metrics.feature_statistics(features[:held_out]), real.mean, real.cov)
        found.values[f"{frechet}_equal_counts"] = metrics.significant(few)
    counts = {"samples": len(samples), "real images": len(real.features), "held-out real images": held_out}
    if found.course:
        counts["samples of each kept generator"] = params.evaluate.trajectory
    found.warnings += _warn_of_bias(frechet, extractors[device].width, counts)
    if probabilities is not None:
        found.warnings += _warn_of_parts(len(samples) // params.evaluate.splits, probabilities.shape[1])
    return _protocol(params, manifest, made, len(training), len(real.features))


def _rounded(bounds: tuple[float, float]) -> tuple[float, float]:
    from gan import metrics

    return metrics.significant(bounds[0]), metrics.significant(bounds[1])


def _warn_of_bias(distance: str, width: int, counts: dict[str, int]) -> list[str]:
    """A sentence for each set of no more images than features."""
    return [
        f"{distance} is measured on {count:,} {kind} in {width:,} features: with no more images than features it is "
        f"far too large, and compares at equal counts only; {ENOUGH_PER_FEATURE * width:,} or more make its bias small"
        for kind, count in counts.items()
        if 0 < count <= width
    ]


def _warn_of_parts(images: int, classes: int) -> list[str]:
    """A sentence if the parts of the Inception Score are too small to hold all classes."""
    if images >= IMAGES_PER_CLASS * classes:
        return []
    said = (
        f"inception_score is of parts of {images:,} samples for {classes:,} classes: it comes out too low, and "
        "compares at equal counts and parts only; take more samples, or lower evaluate.splits"
    )
    return [said]


def _look_for_copies(
    found: Found, samples: "Images", described: "NDArray[Any]", training: "NDArray[Any]", seed: int, folder: Path
) -> None:
    """Write `neighbours.csv` and `neighbours.png`: the training images nearest to samples.

    described, training: features, N×D, of samples and training images, or their pixels, N×H×W×C.

    The figure has the first samples above their neighbours, and below those that come nearest of all.
    """
    import numpy as np

    from gan import metrics
    from gan.data.packed import read_images
    from gan.figures.grid import save_png, tile
    from gan.metrics.scores import COPY_SAMPLES
    from gan.seeds import derive_seed

    near = metrics.near_copies(described[:COPY_SAMPLES], training)
    found.values["near_copies"] = metrics.significant(near.copies.mean())
    bounds = metrics.interval(near.copies, derive_seed(seed, "bootstrap", "copies"))
    found.intervals["near_copies"] = _rounded(bounds)
    found.values["neighbour_distance"] = metrics.significant(near.distances.mean())
    distances = [metrics.significant(distance) for distance in near.distances]
    rows = zip(range(len(distances)), near.indices.tolist(), distances, near.copies.astype(int).tolist(), strict=True)
    _write_table(folder / "neighbours.csv", ("sample", "training_image", "distance", "near_copy"), rows)

    images = read_images(PREPARED, "train")
    nearest = np.argsort(near.distances, kind="stable")[:NEIGHBOURS_SHOWN]
    first = np.arange(min(NEIGHBOURS_SHOWN, len(samples)))
    shown = np.concatenate(
        [row for chosen in (first, nearest) for row in (samples[chosen], images[near.indices[chosen]])]
    )
    save_png(folder / "neighbours.png", tile(shown, len(first)), FIGURE_SCALE)


def _compare_classes(
    found: Found, split: str, manifest: "Manifest", probabilities: "NDArray[np.float64]", folder: Path
) -> None:
    """Each class's share of the samples, and the divergence from the real shares; writes `classes.csv`."""
    import numpy as np

    from gan import metrics

    assert manifest.classes is not None
    counts = np.array(manifest.splits[split].class_counts)
    shares, real_shares = metrics.class_shares(probabilities), counts / counts.sum()
    found.class_shares = [metrics.significant(share) for share in shares]
    found.values["rarest_class"] = min(found.class_shares)
    unknown = np.flatnonzero((shares > 0) & (counts == 0))
    if len(unknown):
        name = manifest.classes[unknown[0]]
        found.warnings.append(f"the {split} split has no image of class {name}: class_divergence is left out")
    else:
        found.values["class_divergence"] = metrics.significant(metrics.class_divergence(shares, real_shares))
    rows = zip(manifest.classes, found.class_shares, map(metrics.significant, real_shares), strict=True)
    _write_table(folder / "classes.csv", ("class", "share_samples", "share_real"), rows)


def _follow_training(
    found: Found,
    count: int,
    made: dict[str, Any],
    extractors: "Mapping[torch.device, Extractor]",
    real: "Real",
    folder: Path,
) -> None:
    """The Fréchet distance of `count` samples of each kept generator, all from the same latents; `trajectory.csv`.

    Fewer samples than features leave directions without any spread, and every few make the distance too large: these
    distances show a course, and compare with each other alone.
    """
    from gan import metrics
    from gan.data.progress import progress
    from gan.metrics.extractors import describe
    from gan.networks.build import load_generator
    from gan.sampling import draw_latents, generate
    from gan.seeds import derive_seed

    summary = read_json(TRAINING_SUMMARY)
    files = {int(file.parent.name): file for file in (TRAINED / "kept").glob(f"*/{made['generator']}")}
    devices = list(extractors)
    with progress("course of training", count * len(files), "images") as advance:
        for step, file in sorted(files.items()):
            generator, architecture = load_generator(file, devices[0])
            latents = draw_latents(count, architecture["z_dim"], derive_seed(made["seed"], "trajectory"))
            batches = generate(generator, latents, GENERATED_TOGETHER, devices)
            features, _ = describe(extractors, batches, count, advance)
            distance = metrics.frechet_distance(*metrics.feature_statistics(features), real.mean, real.cov)
            kimg = metrics.significant(step * summary["kimg"] / summary["steps"])
            found.course.append((step, kimg, metrics.significant(distance)))
    _write_table(folder / "trajectory.csv", ("step", "kimg", "distance"), found.course)
    if found.course:
        step, kimg, distance = min(found.course, key=lambda point: point[2])
        found.values |= {"best_kimg": kimg, "best_distance": distance, "best_generator": str(files[step])}


def _diagnose(made: dict[str, Any], facts: dict[str, Any], found: Found, floor: dict[str, float]) -> "Diagnosis":
    import numpy as np

    from gan.diagnosis import NOT_TRAINED, Run, diagnose
    from gan.metrics import score_names

    if made["origin"] != "training":
        return NOT_TRAINED
    with CURVES.open(newline="") as file:
        header, *rows = csv.reader(file)
    # A term that has no value at a step is empty there.
    columns = np.array([[float(value or "nan") for value in row] for row in rows]).reshape(len(rows), len(header)).T
    summary = read_json(TRAINING_SUMMARY)
    distance = score_names(facts["label"])[0] if "label" in facts else None
    return diagnose(
        Run(
            curves=dict(zip(header, columns, strict=True)),
            initial_z_spread=summary["z_spread_initial"],
            initial_grad_norm_g_first=summary["grad_norm_g_first_initial"],
            trajectory=[(kimg, point) for _, kimg, point in found.course],
            distance=found.values[distance] if distance else None,
            floor=floor.get(distance) if distance else None,
            diversity=found.values["feature_diversity"] if distance else None,
            real_variance=found.real_variance,
            equal_counts=found.values.get(f"{distance}_equal_counts"),
        )
    )


def _show_beside_real(split: str, samples: "Images", folder: Path) -> None:
    import numpy as np

    from gan.data.packed import read_images
    from gan.figures.grid import draw_side_by_side

    real = read_images(PREPARED, split)
    count = min(SIDE_BY_SIDE_ROWS * SIDE_BY_SIDE_COLUMNS, len(real), len(samples))
    draw_side_by_side(folder / "real.png", np.array(real[:count]), np.array(samples[:count]), SIDE_BY_SIDE_COLUMNS)


def _write_table(path: Path, header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    run_stage("evaluate", evaluate)
