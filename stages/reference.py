"""reference: the packed images in; the classifier and the real images' statistics in its features out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan.errors import InputError
from gan.params import Params
from stages.layout import PREPARED, REFERENCE, REFERENCE_SCORES
from stages.stage import new_folder, run_stage, write_metrics

if TYPE_CHECKING:
    from gan.data.packed import Manifest


def reference(params: Params) -> None:
    """Train the classifier and describe the real images by it; nothing to do for `evaluate.extractor: none`."""
    from gan.data.packed import read_manifest

    manifest = read_manifest(PREPARED)
    extractor = params.evaluate.extractor
    if extractor == "classifier":
        _check_labelled(manifest)
    with new_folder(REFERENCE) as folder:
        (folder / "extractor.json").write_text(json.dumps({"extractor": extractor}) + "\n")
        if extractor == "classifier":
            scores = _describe_by_classifier(params, manifest, folder)
        else:
            scores = {"images": sum(split.count for split in manifest.splits.values())}
    write_metrics(REFERENCE_SCORES, scores)


def _check_labelled(manifest: "Manifest") -> None:
    if manifest.classes is None or len(manifest.classes) < 2:
        found = "unlabelled" if manifest.classes is None else "all of one class"
        raise InputError(
            f"evaluate.extractor: classifier, but the images are {found}; set evaluate.extractor=none, or put the "
            "images in one folder a class"
        )
    for name in ("train", "test"):
        count = manifest.splits[name].count if name in manifest.splits else 0
        if count < 2:
            raise InputError(
                f"evaluate.extractor: classifier, but the {name} split has {count} images and it takes at least 2; "
                "change data.validation_fraction or data.test_fraction, or set evaluate.extractor=none"
            )


def _describe_by_classifier(params: Params, manifest: "Manifest", folder: Path) -> dict[str, Any]:
    import numpy as np

    from gan import metrics
    from gan.data.packed import read_images, read_labels
    from gan.device import open_device
    from gan.metrics.classifier import LabelledImages, save_classifier, train_classifier

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
        device=open_device(params.hardware.device, params.hardware.threads, params.hardware.deterministic),
    )
    save_classifier(folder / "classifier.safetensors", classifier)

    test = labelled("test")
    train_features, _ = classifier.features_and_probabilities(read_images(PREPARED, "train"))
    test_features, test_probabilities = classifier.features_and_probabilities(test.images)
    statistics = {}
    for split, features in (("train", train_features), ("test", test_features)):
        mean, cov = statistics[split] = metrics.feature_statistics(features)
        np.savez(folder / f"{split}_statistics.npz", mean=mean, cov=cov, count=len(features))
    test_score, _ = metrics.inception_score(test_probabilities, splits=1)
    floor = metrics.frechet_distance(*statistics["train"], *statistics["test"])
    return {
        "test_accuracy": metrics.significant(metrics.accuracy(test_probabilities, test.labels)),
        "real_inception_score": metrics.significant(test_score),
        "floor_classifier-FD": metrics.significant(floor),
    }


if __name__ == "__main__":
    run_stage("reference", reference)
