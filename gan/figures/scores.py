"""The scores in words: what each means, and how it is printed with its interval and its yardstick."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ScoreRow:
    """A score in words and as it is printed."""

    key: str
    label: str
    meaning: str
    better: str
    """`higher`, `lower`, or nothing where neither is better."""
    value: str
    interval: str | None
    """Where the score lies with 95 % confidence."""
    real: str | None
    """The same measure of held-out real images in the samples' place."""


@dataclass(frozen=True)
class Known:
    """What is known of a score whatever its value."""

    label: str
    meaning: str
    better: str
    spec: str | None = None
    """How it is formatted; None: to three digits."""
    real: str | None = None
    """What real images have by definition."""


EQUAL = "_equal_counts"
"""Ends the name of a score of as many samples as there are held-out real images."""
FEATURES = {
    "classifier": "a classifier trained on the real images",
    "squeezenet": "SqueezeNet 1.1, which was trained on photographs (ImageNet)",
    "inception_v3": "torchvision's Inception v3, which was trained on photographs (ImageNet)",
}
"""Whose features a distance is measured in, by the label before its name."""
FID_FEATURES = "the Inception network with the weights of the FID's authors"
KNOWN_SCORES = {
    "inception_score": Known(
        "Inception Score",
        "How certainly the extractor names each sample's class and how evenly it names all classes: 1 at worst, the "
        "number of classes that it knows at best. After ±: the spread over the parts that the samples are cut into.",
        "higher",
        ".2f",
    ),
    "precision": Known(
        "Precision",
        "Share of the samples that lie among the real images, in the extractor's features: how good single samples "
        "are.",
        "higher",
        ".3f",
    ),
    "recall": Known(
        "Recall",
        "Share of the real images that lie among the samples, in the extractor's features: how much of their variety "
        "is drawn.",
        "higher",
        ".3f",
    ),
    "density": Known(
        "Density",
        "How many real neighbourhoods a sample lies in, against how many are expected; like precision, but outliers "
        "among the real images count little, and it may exceed 1.",
        "higher",
        ".3f",
    ),
    "coverage": Known(
        "Coverage",
        "Share of the real images with a sample in their neighbourhood; like recall, but outliers among the samples "
        "count little.",
        "higher",
        ".3f",
    ),
    "near_copies": Known(
        "Near copies",
        "Share of the first 1,000 samples that lie at most half as far from their nearest training image as that one "
        "lies from any other.",
        "lower",
        ".1%",
    ),
    "feature_diversity": Known(
        "Feature diversity",
        "How widely the samples differ from each other in the extractor's features, against how widely real images do: "
        "1 is as much, near 0 all samples are alike.",
        "",
        ".2f",
        real="1",
    ),
    "best_kimg": Known(
        "Best kept generator",
        "Thousands of real images shown (kimg) when the kept generator of the smallest Fréchet distance was saved; "
        "well before the end, training went on too long.",
        "",
        ",.4g",
    ),
    "best_distance": Known(
        "Its distance",
        "Fréchet distance of that generator, from other and usually fewer samples, so not comparable with the score "
        "above.",
        "lower",
    ),
    "rarest_class": Known(
        "Rarest class",
        "Share of the samples in the class drawn least often; near 0 %, the generator has dropped a class.",
        "higher",
        ".1%",
    ),
    "class_divergence": Known(
        "Class divergence",
        "Kullback-Leibler divergence of the samples' class shares from the real ones, in nats; 0 if they are equal.",
        "lower",
    ),
    "neighbour_distance": Known(
        "Distance to the nearest training image",
        "Euclidean, in the extractor's features, without one in the pixels; mean over the first 1,000 samples. Near 0, "
        "the generator repeats what it was shown.",
        "",
    ),
}


def know(key: str) -> Known:
    """What is known of the score `key`; a score without words has its key for a label."""
    if key in KNOWN_SCORES:
        return KNOWN_SCORES[key]
    features = FID_FEATURES if key in ("FID", "KID") else FEATURES.get(key[:-3], f"the extractor {key[:-3]}")
    if is_frechet(key):
        return Known(
            key, f"Fréchet distance of the samples from the real images, in the features of {features}.", "lower"
        )
    if is_kernel(key):
        return Known(
            key,
            f"Kernel distance (squared MMD) of the samples from the real images, in the features of {features}; unlike "
            "the Fréchet distance it does not grow where images are few, and by chance it may lie below 0. After ±: "
            "the spread over the subsets that it is the mean of.",
            "lower",
        )
    return Known(key, "", "")


def is_frechet(key: str) -> bool:
    """Whether the score is a Fréchet distance: `FID`, or `{extractor}-FD`."""
    return key == "FID" or key.endswith("-FD")


def is_kernel(key: str) -> bool:
    """Whether the score is a kernel distance: `KID`, or `{extractor}-KD`."""
    return key == "KID" or key.endswith("-KD")


def score_rows(scores: Mapping[str, Any], rarest_real_class: float | None = None) -> list[ScoreRow]:
    """Every single number of a scores.json, in its order and then that of its `details`, in words.

    The spread of KEY is `KEY_std`; its 95 % interval stands in `intervals`, the real images' number in `floor`, and
    each of the three is a list of one mapping. `KEY_equal_counts` is the score of as many samples as real images gave
    that. `rarest_real_class` is the real images' share of their rarest class. A score without words here is shown
    under its own name.
    """
    details, intervals, floor = (first(scores, key) for key in ("details", "intervals", "floor"))
    values = {key: value for key, value in {**scores, **details}.items() if is_number(value)}
    real = {key: value for key, value in floor.items() if is_number(value)}
    if rarest_real_class is not None:
        real = {"rarest_class": rarest_real_class} | real
    rows = []
    for key, value in values.items():
        if {key.removesuffix("_std"), key.removesuffix(EQUAL)} & (values.keys() - {key}):
            continue
        known = know(key)
        text = number(value, known.spec)
        if f"{key}_std" in values:
            text += f" ± {number(values[f'{key}_std'], known.spec)}"
        interval = " to ".join(number(end, known.spec) for end in intervals[key]) if key in intervals else None
        yardstick = number(real[key], known.spec) if key in real else known.real
        if yardstick is not None and f"{key}{EQUAL}" in values:
            yardstick += f", as many samples {number(values[f'{key}{EQUAL}'], known.spec)}"
        rows.append(ScoreRow(key, known.label, known.meaning, known.better, text, interval, yardstick))
    return rows


def headline(rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """The scores to name first, at most three: the Inception Score and both distances; without them, what there is."""
    chosen = [row for row in rows if row.key == "inception_score" or is_frechet(row.key) or is_kernel(row.key)]
    return chosen[:3] or [row for row in rows if row.key == "near_copies"] or list(rows[:1])


def first(scores: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The mapping that `scores` holds under `key` as a list of one, which DVC does not make columns of; else none."""
    found: list[dict[str, Any]] = scores.get(key) or [{}]
    return found[0]


def is_number(value: object) -> bool:
    """Whether a value is a number, and not true or false."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(value: float, spec: str | None = None) -> str:
    """A number as it is printed, by default to three digits."""
    if spec is None:
        spec = "," if isinstance(value, int) else ",.0f" if abs(value) >= 1000 else ".3g"
    return format(value, spec).replace("%", " %")
