"""The report: one self-contained HTML page that shows a run's figures and scores beside what made them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gan.data.packed import Manifest
from gan.diagnosis import NOT_TRAINED, Diagnosis
from gan.figures.page import Figure, Provenance, page_environment
from gan.figures.scores import first, headline, is_number, score_rows

TEMPLATE = "report.html.j2"
NAMES = {
    "dcgan": "DCGAN",
    "vanilla": "Vanilla GAN",
    "cspup": "CSPup",
    "mnist-5k": "MNIST-5k",
    "mnist": "MNIST",
    "celeba": "CelebA",
}
"""Networks and sources as papers write them; others are named as in params.yaml."""
TONES = {
    "converged": "good",
    "still improving": "wait",
    "stopped too early": "wait",
    "stalled": "wait",
    NOT_TRAINED.verdict: "plain",
}
"""How a verdict is coloured; any other is bad."""
TITLES = {
    "samples": "Samples",
    "real": "Beside real images",
    "classes": "Class shares",
    "precision_recall": "Precision and recall",
    "interpolation": "Interpolation",
    "training": "The same latents through training",
    "filmstrip": "The same latents, for print",
    "distance": "Distance over training",
    "curves": "Training curves",
    "neighbours": "Nearest training images",
}
"""What each figure is called."""
BETTER_BEFORE = 0.9
"""Best distance of the kept generators, as a share of the last one's, that is no chance: 1,000 samples scatter 5 %."""


@dataclass(frozen=True)
class Figures:
    """The figures of the page, in its order; None for those that a run does not have.

    Without training there are no curves, no distance, and no latents to follow; the class shares are missing for
    unlabelled images, precision and recall without an extractor.
    """

    samples: Figure
    real: Figure
    neighbours: Figure
    classes: Figure | None = None
    precision_recall: Figure | None = None
    interpolation: Figure | None = None
    training: Figure | None = None
    filmstrip: Figure | None = None
    distance: Figure | None = None
    curves: Figure | None = None


@dataclass(frozen=True)
class Source:
    """A file of numbers that the page tells in words, and its provenance."""

    numbers: Path
    provenance: Provenance


@dataclass(frozen=True)
class ClassShare:
    """A class's share of the samples and of the real images, 0 to 1."""

    name: str
    samples: float
    real: float


def render_report(
    *,
    figures: Figures,
    diagnosis: Diagnosis,
    diagnosis_source: Source,
    scores: Mapping[str, Any],
    scores_source: Source,
    test_accuracy: float | None,
    classes: Sequence[ClassShare],
    training: Mapping[str, Any],
    params: Mapping[str, Any],
    data: Manifest,
    samples: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    last_distance: float | None,
) -> str:
    """The whole page as HTML that loads nothing from anywhere and runs no script. Equal arguments, equal text.

    scores: as scores.json: numbers by name, `warnings`, and lists of one mapping; see `score_rows`. `protocol` says how
        they were measured.
    test_accuracy: share of the test split that the classifier names rightly, 0 to 1; None where there is none.
    classes: empty for unlabelled images.
    training: numbers at the end of training.
    params: the resolved parameters, a mapping of sections and single values.
    samples: what is known of the sample set: `count`, and `origin`, which is `training`, `given generator` or `given
        images`; of generated ones `generator`, the name of its file, and `seed`, and after training `ema`.
    records: of each stage, in the order of the pipeline, its `stage`, the `machine` that it ran on (facts by name), and
        the digests of its `inputs` and `code` and its `params`, by name.
    last_distance: Fréchet distance of the last kept generator, comparable with `best_distance` of `scores`.
    """
    hidden = set() if _was_better_before(scores, last_distance, diagnosis) else {"best_kimg", "best_distance"}
    rarest = min((row.real for row in classes), default=None)
    rows = [row for row in score_rows(scores, rarest) if row.key not in hidden]
    single = {key: value for key, value in params.items() if not isinstance(value, Mapping)}
    sections = {"general": single} | {key: value for key, value in params.items() if key not in single}
    shown = {field.name: getattr(figures, field.name) for field in fields(figures)}
    return (
        page_environment()
        .get_template(TEMPLATE)
        .render(
            figures=figures,
            present=[(name, title, shown[name]) for name, title in TITLES.items() if shown[name]],
            titles=TITLES,
            names=NAMES,
            trained=samples["origin"] == "training",
            best_generator=first(scores, "details").get("best_generator"),
            diagnosis=diagnosis,
            diagnosis_source=diagnosis_source,
            tone=TONES.get(diagnosis.verdict, "bad"),
            rows=rows,
            by_key={row.key: row for row in rows},
            headline=headline(rows),
            warnings=scores.get("warnings", []),
            protocol=_protocol(scores),
            scores_source=scores_source,
            test_accuracy=test_accuracy,
            classes=classes,
            training={key: value for key, value in training.items() if is_number(value)},
            params=params,
            sections=sections,
            data=data,
            samples=samples,
            records=records,
            machines=_distinct([record["machine"] for record in records]),
        )
    )


def _distinct(items: Sequence[Any]) -> list[Any]:
    return [item for index, item in enumerate(items) if item not in items[:index]]


def _was_better_before(scores: Mapping[str, Any], last_distance: float | None, diagnosis: Diagnosis) -> bool:
    """Whether the best kept generator says that training went on too long.

    A generator that has collapsed is no better where its one image happens to lie nearer to the real ones.
    """
    best: float = first(scores, "details").get("best_distance", math.nan)
    if last_distance is None or diagnosis.verdict == "generator collapsed":
        return False
    return best < BETTER_BEFORE * last_distance


def _protocol(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The protocol of `scores`, without what only a score that was not measured depends on."""
    unused = set() if "inception_score" in scores else {"inception_score_splits"}
    return {key.replace("_", " "): value for key, value in first(scores, "protocol").items() if key not in unused}
