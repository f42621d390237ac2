"""reference: the packed images in; the feature extractor and the real images' statistics in its features out."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan.errors import InputError
from gan.params import Params
from stages.layout import DOWNLOADS, MAIN_REPOSITORY, PREPARED, REFERENCE, REFERENCE_SCORES
from stages.stage import new_folder, run_stage, write_metrics

if TYPE_CHECKING:
    import torch

    from gan.data.packed import Manifest


def reference(params: Params) -> None:
    """Make the extractor and describe the real images by it; nothing to do for `evaluate.extractor: none`.

    `evaluate.weights` is relative to the main repository, even in the temporary copy of an experiment. DVC knows its
    name and not its content: after another file has taken its place, run `dvc repro --force reference`.
    """
    from gan.data.packed import read_manifest
    from gan.device import open_device

    manifest = read_manifest(PREPARED)
    extractor = params.evaluate.extractor
    if extractor == "classifier":
        _check_labelled(manifest)
    if extractor != "none":
        _check_splits(extractor, manifest)
    facts: dict[str, Any] = {"extractor": extractor}
    with new_folder(REFERENCE) as folder:
        if extractor == "none":
            scores = {"images": sum(split.count for split in manifest.splits.values())}
        else:
            device = open_device(params.hardware.device, params.hardware.threads, params.hardware.deterministic)
            if extractor == "classifier":
                _train_classifier(params, manifest, folder, device)
            else:
                facts["weights_sha256"] = _take_weights(params, folder)
            scores = _describe_real_images(params, folder, device)
        (folder / "extractor.json").write_text(json.dumps(facts) + "\n")
    write_metrics(REFERENCE_SCORES, scores)


def _check_labelled(manifest: "Manifest") -> None:
    if manifest.classes is None or len(manifest.classes) < 2:
        found = "unlabelled" if manifest.classes is None else "all of one class"
        raise InputError(
            f"evaluate.extractor: classifier, but the images are {found}; set evaluate.extractor to squeezenet1_1 or "
            "none, or put the images in one folder a class"
        )


def _check_splits(extractor: str, manifest: "Manifest") -> None:
    for name in ("train", "test"):
        count = manifest.splits[name].count if name in manifest.splits else 0
        if count < 2:
            raise InputError(
                f"evaluate.extractor: {extractor}, but the {name} split has {count} images and it takes at least 2; "
                "change data.validation_fraction or data.test_fraction, or set evaluate.extractor=none"
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


def _take_weights(params: Params, folder: Path) -> str:
    """Write SqueezeNet's weights into `folder`; return the SHA-256 of the file that they come from."""
    from gan.metrics.extractors import weights_name
    from gan.metrics.pretrained import file_sha256, find_weights
    from gan.metrics.squeezenet import read_weights, save_weights

    given = params.evaluate.weights
    # Unlike Path.expanduser, os.path's leaves the name of an unknown user as it stands.
    path = None if given is None else MAIN_REPOSITORY / os.path.expanduser(given)  # noqa: PTH111
    file = find_weights(path, DOWNLOADS)
    save_weights(folder / weights_name("squeezenet1_1"), read_weights(file))
    return file_sha256(file)


def _describe_real_images(params: Params, folder: Path, device: "torch.device") -> dict[str, Any]:
    """Write each split's mean, covariance and count of features; return what real images reach.

    Of a split with more than `reference.images`, the first ones are taken.
    """
    import numpy as np

    from gan import metrics
    from gan.data.packed import read_images, read_labels
    from gan.metrics.extractors import SHORT_NAMES, describe, load_extractor

    extractor = load_extractor(params.evaluate.extractor, folder, device)
    statistics = {}
    for split in ("train", "test"):
        images = read_images(PREPARED, split)[: params.reference.images]
        features, probabilities = describe(extractor, images, f"features of {split}")
        mean, cov = statistics[split] = metrics.feature_statistics(features)
        if not np.trace(cov) > 0:
            raise InputError(f"the images of the {split} split are all the same; there is nothing to compare with")
        np.savez(folder / f"{split}_statistics.npz", mean=mean, cov=cov, count=len(features))
    scores = {}
    if probabilities is not None:  # of the test split, which comes last
        labels = read_labels(PREPARED, "test")[: len(probabilities)]
        score, _ = metrics.inception_score(probabilities, splits=1)
        scores["test_accuracy"] = metrics.significant(metrics.accuracy(probabilities, labels))
        scores["real_inception_score"] = metrics.significant(score)
    floor = metrics.frechet_distance(*statistics["train"], *statistics["test"])
    return scores | {f"floor_{SHORT_NAMES[params.evaluate.extractor]}-FD": metrics.significant(floor)}


if __name__ == "__main__":
    run_stage("reference", reference)
