"""The report: one self-contained HTML page that shows a run's figures and scores beside what made them."""

import base64
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from gan.data.packed import Manifest
from gan.diagnosis import Diagnosis

TEMPLATE = "report.html.j2"
DISPLAY_WIDTH = 720
"""Width in CSS pixels that a picture is enlarged to, as far as a whole factor goes."""


@dataclass(frozen=True)
class Provenance:
    """What a file was made from, and how to make it again."""

    name: str
    """The file, as `md5sum` run beside dvc.yaml would name it."""
    md5: str
    command: str
    made_from: Mapping[str, str]
    """Name and MD5 of each file that it was drawn from."""


@dataclass(frozen=True)
class Figure:
    """A PNG, animated or not, and its provenance."""

    path: Path
    provenance: Provenance


@dataclass(frozen=True)
class Figures:
    """The figures of the page, in its order.

    The class shares are missing for unlabelled images, the distance over training where none was measured.
    """

    samples: Figure
    classes: Figure | None
    interpolation: Figure
    training: Figure
    distance: Figure | None
    curves: Figure
    neighbours: Figure


@dataclass(frozen=True)
class ClassShare:
    """A class's share of the samples and of the real images, 0 to 1."""

    name: str
    samples: float
    real: float


@dataclass(frozen=True)
class ScoreRow:
    """A score in words and as it is printed."""

    key: str
    label: str
    meaning: str
    better: str
    """`higher`, `lower`, or nothing where neither is better."""
    value: str
    real: str | None
    """The same measure of real images."""


@dataclass(frozen=True)
class _Known:
    label: str
    meaning: str
    better: str
    spec: str | None = None
    real: str | None = None
    """What real images have by definition."""


KNOWN_SCORES = {
    "inception_score": _Known(
        "Inception Score",
        "How certainly the classifier names each sample and how evenly it names all classes: 1 at worst, the number "
        "of classes at best.",
        "higher",
        ".2f",
    ),
    "classifier-FD": _Known(
        "classifier-FD",
        "Fréchet distance of the samples from the real images, in the features of a classifier trained on real images.",
        "lower",
    ),
    "squeezenet-FD": _Known(
        "squeezenet-FD",
        "Fréchet distance of the samples from the real images, in the features of SqueezeNet 1.1, which was trained on "
        "photographs (ImageNet).",
        "lower",
    ),
    "feature_diversity": _Known(
        "Feature diversity",
        "How widely the samples differ from each other in those features, against how widely real images do: 1 is as "
        "much, near 0 all samples are alike.",
        "",
        ".2f",
        real="1",
    ),
    "best_kimg": _Known(
        "Best kept generator",
        "Thousands of real images shown (kimg) when the kept generator of the smallest Fréchet distance was saved; "
        "well before the end, training went on too long.",
        "",
        ",.4g",
    ),
    "best_distance": _Known(
        "Its distance",
        "Fréchet distance of that generator, from other and usually fewer samples, so not comparable with the score "
        "above.",
        "lower",
    ),
    "rarest_class": _Known(
        "Rarest class",
        "Share of the samples in the class drawn least often; near 0 %, the generator has dropped a class.",
        "higher",
        ".1%",
    ),
    "class_divergence": _Known(
        "Class divergence",
        "Kullback-Leibler divergence of the samples' class shares from the real ones, in nats; 0 if they are equal.",
        "lower",
    ),
    "neighbour_distance": _Known(
        "Distance to the nearest training image",
        "Root mean square difference in grey levels, 0 to 255; near 0, the generator repeats what it was shown.",
        "",
        ".1f",
    ),
}
TONES = {"converged": "good", "still improving": "wait", "stopped too early": "wait", "stalled": "wait"}
"""How a verdict is coloured; any other is bad."""
PARAMETER = re.compile(
    r"\b(?:data|generator|discriminator|train|reference|sample|evaluate|hardware)\.\w+"
    r"(?:=(?:\[[\w., -]*\]|[\w./+-]*\w))?"
)
"""A parameter by its section and name, with a value or without; the sentence's comma or full stop is not of it."""
HEADLINE = ("inception_score", "classifier-FD", "squeezenet-FD")
FEATURES = {"classifier-FD": 128, "squeezenet-FD": 512}
"""How many features each Fréchet distance is measured in."""
SAMPLES_PER_FEATURE = 10
ENOUGH_SAMPLES = 2048
"""Samples below which a Fréchet distance is shown with a warning, as below `SAMPLES_PER_FEATURE`."""
BETTER_BEFORE = 0.9
"""Best distance of the kept generators, as a share of the last one's, that is no chance: 1,000 samples scatter 5 %."""


def score_rows(
    scores: Mapping[str, Any], reference_scores: Mapping[str, Any], classes: Sequence[ClassShare] = ()
) -> list[ScoreRow]:
    """Every single number among `scores`, in their order, with words, its spread and the real images' own number.

    The spread of KEY is `KEY_std`; the real images' number is `real_KEY` or `floor_KEY` of `reference_scores`. A
    score without words here is shown under its own name.
    """
    real: dict[str, float] = {"rarest_class": min(row.real for row in classes)} if classes else {}
    for key, value in reference_scores.items():
        if _is_number(value):
            real[key.removeprefix("real_").removeprefix("floor_")] = value
    rows = []
    for key, value in scores.items():
        if not _is_number(value) or key.removesuffix("_std") in scores.keys() - {key}:
            continue
        known = KNOWN_SCORES.get(key, _Known(key, "", ""))
        text = _number(value, known.spec)
        if _is_number(scores.get(f"{key}_std")):
            text += f" ± {_number(scores[f'{key}_std'], known.spec)}"
        yardstick = _number(real[key], known.spec) if key in real else known.real
        rows.append(ScoreRow(key, known.label, known.meaning, known.better, text, yardstick))
    return rows


def render_report(
    *,
    figures: Figures,
    diagnosis: Diagnosis,
    diagnosis_provenance: Provenance,
    scores: Mapping[str, Any],
    reference_scores: Mapping[str, Any],
    scores_provenance: Provenance,
    classes: Sequence[ClassShare],
    training: Mapping[str, Any],
    params: Mapping[str, Any],
    data: Manifest,
    samples: Mapping[str, Any],
    real_images: int | None,
    last_distance: float | None,
) -> str:
    """The whole page as HTML that loads nothing from anywhere and runs no script. Equal arguments, equal text.

    scores: numbers by name, and under `protocol` a list of mappings that say how they were measured.
    reference_scores: numbers of the real images; see `score_rows`.
    classes: empty for unlabelled images.
    training: numbers at the end of training.
    params: the resolved parameters, a mapping of sections and single values.
    samples: what is known of the sample set; `count`, `seed` and `ema` are shown.
    real_images: how many of the test split, the first ones, `reference_scores` were measured on.
    last_distance: Fréchet distance of the last kept generator, comparable with `best_distance` of `scores`.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["yaml"] = _yaml
    environment.filters["number"] = _number
    environment.filters["code"] = _code
    environment.filters["fact"] = _fact
    hidden = set() if _was_better_before(scores, last_distance, diagnosis) else {"best_kimg", "best_distance"}
    rows = [row for row in score_rows(scores, reference_scores, classes) if row.key not in hidden]
    features = max((FEATURES[row.key] for row in rows if row.key in FEATURES), default=0)
    shown = {key for row in rows for key in (f"real_{row.key}", f"floor_{row.key}")}
    single = {key: value for key, value in params.items() if not isinstance(value, Mapping)}
    sections = {"general": single} | {key: value for key, value in params.items() if key not in single}
    return environment.get_template(TEMPLATE).render(
        figures=figures,
        picture=_picture,
        diagnosis=diagnosis,
        diagnosis_provenance=diagnosis_provenance,
        tone=TONES.get(diagnosis.verdict, "bad"),
        rows=rows,
        headline=[row for row in rows if row.key in HEADLINE],
        protocol=_protocol(scores),
        more_reference={key: value for key, value in reference_scores.items() if key not in shown},
        scores_provenance=scores_provenance,
        classes=classes,
        training={key: value for key, value in training.items() if _is_number(value)},
        params=params,
        sections=sections,
        data=data,
        samples=samples,
        real_images=real_images,
        measured_on_test=[]
        if real_images is None
        else [row.label for row in rows if row.key in HEADLINE and row.real is not None],
        features=features,
        few_samples=features > 0 and samples["count"] < max(SAMPLES_PER_FEATURE * features, ENOUGH_SAMPLES),
    )


def _was_better_before(scores: Mapping[str, Any], last_distance: float | None, diagnosis: Diagnosis) -> bool:
    """Whether the best kept generator says that training went on too long.

    A generator that has collapsed is no better where its one image happens to lie nearer to the real ones.
    """
    best: float = scores.get("best_distance", math.nan)
    if last_distance is None or diagnosis.verdict == "generator collapsed":
        return False
    return best < BETTER_BEFORE * last_distance


def _protocol(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The protocol of `scores`, without what only a score that was not measured depends on."""
    unused = set() if "inception_score" in scores else {"inception_score_splits"}
    return [{key: value for key, value in entry.items() if key not in unused} for entry in scores.get("protocol", [])]


def _picture(path: Path) -> dict[str, Any]:
    """A PNG as the template needs it: data, size as displayed, and the last frame of an animation."""
    with Image.open(path) as image:
        factor = max(1, DISPLAY_WIDTH // image.width)
        picture = {
            "uri": _uri(path.read_bytes()),
            "width": factor * image.width,
            "height": factor * image.height,
            "still": None,
        }
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            image.seek(frames - 1)
            buffer = io.BytesIO()
            image.save(buffer, format="PNG", optimize=True)
            picture["still"] = _uri(buffer.getvalue())
    return picture


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: float, spec: str | None = None) -> str:
    if spec is None:
        spec = "," if isinstance(value, int) else ",.0f" if abs(value) >= 1000 else ".3g"
    return format(value, spec).replace("%", " %")


def _yaml(value: object) -> str:
    """A value as params.yaml would have it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _fact(value: object) -> str:
    """A value of the protocol: names with values as words, all else as params.yaml would have it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_yaml(each)}" for name, each in value.items())
    return _yaml(value)


def _code(text: str) -> Markup:
    """Text with the parameters that it names set as code."""
    return Markup(PARAMETER.sub(r"<code>\g<0></code>", str(escape(text))))  # noqa: S704 - escaped before
