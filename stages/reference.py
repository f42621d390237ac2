"""reference: the packed images in; the feature extractor and the real images' features and statistics out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan.errors import InputError
from gan.params import Params
from stages.layout import DOWNLOADS, PREPARED, REFERENCE, REFERENCE_SCORES, own_file
from stages.stage import count_taken, new_folder, run_stage, write_metrics

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from gan.data.packed import Manifest
    from gan.metrics.scores import Real

SPLITS = ("train", "test")


def reference(params: Params) -> None:
    """Make the extractor, describe the real images by it, and score held-out ones as if they were samples.

    With `evaluate.extractor: none` they are compared with the training images pixel by pixel, and that is all.

    `evaluate.weights` is relative to the main repository, even in the temporary copy of an experiment. DVC knows its
    name and not its content: after another file has taken its place, run `dvc repro --single-item --force reference`
    and `dvc repro`.
    """
    from gan.data.packed import read_manifest
    from gan.device import open_device

    manifest = read_manifest(PREPARED)
    extractor = params.evaluate.extractor
    if extractor == "classifier":
        _check_labelled(manifest)
    if extractor != "none":
        _check_splits(extractor, manifest)
    with new_folder(REFERENCE) as folder:
        if extractor == "none":
            facts: dict[str, Any] = {"extractor": extractor}
            scores = _compare_pixels(manifest)
        else:
            device = open_device(params.hardware.device, params.hardware.threads, params.hardware.deterministic)
            if extractor == "classifier":
                _train_classifier(params, manifest, folder, device)
                facts = {"extractor": extractor, "label": "classifier"}
            else:
                facts = _take_weights(params, folder)
            scores = _describe_real_images(params, facts["label"], folder, device)
        (folder / "extractor.json").write_text(json.dumps(facts) + "\n")
    write_metrics(REFERENCE_SCORES, scores)


def _check_labelled(manifest: "Manifest") -> None:
    if manifest.classes is None or len(manifest.classes) < 2:
        found = "unlabelled" if manifest.classes is None else "all of one class"
        raise InputError(
            f"evaluate.extractor: classifier, but the images are {found}; set evaluate.extractor to inception_v3, "
            "squeezenet1_1 or none, or put the images in one folder a class"
        )


def _check_splits(extractor: str, manifest: "Manifest") -> None:
    from gan.metrics.scores import NEIGHBOURS

    for name in SPLITS:
        count = manifest.splits[name].count if name in manifest.splits else 0
        if count <= NEIGHBOURS:
            raise InputError(
                f"evaluate.extractor: {extractor}, but the {name} split has {count} images and it takes at least "
                f"{NEIGHBOURS + 1}; change data.validation_fraction or data.test_fraction, or set "
                "evaluate.extractor=none"
            )


def _train_classifier(params: Params, manifest: "Manifest", folder: Path, device: "torch.device") -> None:
    from gan.data.packed import read_images, read_labels
    from gan.metrics.classifier import LabelledImages, save_classifier, train_classifier
    from gan.metrics.extractors import weights_name

    def labelled(split: str) -> LabelledImages:
        return LabelledImages(read_images(PREPARED, split), read_labels(PREPARED, split))

    assert manifest.classes is not None
    classifier = train_classifier(
        labelled("train"),
        labelled("validation") if "validation" in manifest.splits else None,
        len(manifest.classes),
        epochs=params.reference.epochs,
        batch_size=params.reference.batch_size,
        lr=params.reference.lr,
        seed=params.seed,
        device=device,
    )
    save_classifier(folder / weights_name("classifier"), classifier)


def _take_weights(params: Params, folder: Path) -> dict[str, Any]:
    """Write the extractor's weights into `folder`; return what is known of the file that they come from."""
    from gan.metrics.extractors import weights_name
    from gan.metrics.inception_v3 import read_inception_weights, save_inception_weights
    from gan.metrics.pretrained import file_sha256, find_weights, weights_label
    from gan.metrics.squeezenet import read_weights, save_weights

    extractor = params.evaluate.extractor
    file = find_weights(extractor, params.evaluate.weights, own_file, DOWNLOADS)
    path = folder / weights_name(extractor)
    kind = None
    if extractor == "squeezenet1_1":
        save_weights(path, read_weights(file))
    else:
        kind, weights = read_inception_weights(file)
        save_inception_weights(path, kind, weights)
    sha256 = file_sha256(file)
    return {
        "extractor": extractor,
        "label": weights_label(extractor, kind, sha256),
        "weights": file.name,
        "weights_sha256": sha256,
    }


def _describe_real_images(params: Params, label: str, folder: Path, device: "torch.device") -> dict[str, Any]:
    """Write each split's features and their statistics; return what real images reach in the samples' place.

    Of a split with more than `reference.images`, the first ones are taken.
    """
    import numpy as np

    from gan import metrics
    from gan.data.batches import packed_batches
    from gan.data.packed import read_images, read_labels
    from gan.data.progress import progress
    from gan.device import with_others
    from gan.metrics.extractors import describe, load_extractors
    from gan.metrics.scores import describe_real, write_real

    extractors = load_extractors(
        params.evaluate.extractor, folder, with_others(device, count_taken("reference", params.hardware))
    )
    real: dict[str, Real] = {}
    probabilities = {}
    for split in SPLITS:
        images = read_images(PREPARED, split)[: params.reference.images]
        batches = packed_batches(images, extractors[device].batch, device)
        with progress(f"features of {split}", len(images), "images") as advance:
            features, probabilities[split] = describe(extractors, batches, len(images), advance)
        real[split] = describe_real(features)
        # Equal images in unequal batches have features that differ by round-off.
        if np.trace(real[split].cov) <= 1e-10 * real[split].mean @ real[split].mean:
            raise InputError(f"the images of the {split} split are all the same; there is nothing to compare with")
        write_real(folder, split, real[split])

    scores: dict[str, Any] = {}
    classes = probabilities["test"]
    if classes is not None and params.evaluate.extractor == "classifier":
        labels = read_labels(PREPARED, "test")[: len(classes)]
        scores["test_accuracy"] = metrics.significant(metrics.accuracy(classes, labels))
    copied = _share_copies(real["test"].features, real["train"].features)
    frechet, _ = metrics.score_names(label)
    floors = {}
    for against, split in zip(SPLITS, reversed(SPLITS), strict=True):
        found = metrics.score(
            real[split].features, probabilities[split], real[against], label=label, splits=1, seed=params.seed
        )
        floors[against] = found.values | copied
        if len(real[split].features) < len(real[against].features):
            del floors[against]["coverage"]  # a few images cannot reach every neighbourhood, real as they may be
        if len(real[split].features) <= extractors[device].width:
            del floors[against][frechet]  # it would be nearly all bias
    return scores | {"floors": [_rounded(floors)]}


def _compare_pixels(manifest: "Manifest") -> dict[str, Any]:
    """How near held-out images come to the training images, pixel by pixel, where there are any."""
    from gan.data.packed import read_images

    if manifest.splits["train"].count < 2:
        raise InputError("the train split has one image, and copies are told from at least 2")
    if "test" not in manifest.splits:
        return {"floors": [{split: {} for split in SPLITS}]}
    copied = _share_copies(read_images(PREPARED, "test"), read_images(PREPARED, "train"))
    return {"floors": [_rounded(dict.fromkeys(SPLITS, copied))]}


def _share_copies(held_out: "NDArray[Any]", training: "NDArray[Any]") -> dict[str, Any]:
    """How many held-out images pass for copies of training images, by features, N×D, or pixels, N×H×W×C."""
    from gan import metrics
    from gan.metrics.scores import COPY_SAMPLES

    near = metrics.near_copies(held_out[:COPY_SAMPLES], training)
    return {"near_copies": near.copies.mean(), "neighbour_distance": near.distances.mean()}


def _rounded(floors: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    from gan import metrics

    left_out = "inception_score_std"  # of one part
    return {
        split: {name: metrics.significant(value) for name, value in scores.items() if name != left_out}
        for split, scores in floors.items()
    }


if __name__ == "__main__":
    run_stage("reference", reference)
