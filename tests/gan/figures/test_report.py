import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan.data.packed import Manifest, Split
from gan.diagnosis import Diagnosis
from gan.figures.grid import save_animation, save_png
from gan.figures.report import ClassShare, Figure, Figures, Provenance, render_report, score_rows

VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = "<script>alert('$x')</script>\"&{{ 7*7 }}"


class Page(HTMLParser):
    """Every tag and its attributes; complains about tags that do not close each other in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def figure(folder: Path, name: str, command: str) -> Figure:
    path = folder / f"{name}.png"
    frames = list(np.random.default_rng(len(name)).integers(0, 256, (3, 20, 30, 1), np.uint8))
    if name == "training":
        save_animation(path, frames, 0.2)
    else:
        save_png(path, frames[0])
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    return Figure(path, Provenance(f"results/{name}.png", md5, command, {f"data/{name}.npy": "1" * 32}))


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    return {
        "figures": Figures(
            samples=figure(tmp_path, "samples", "dvc repro sample"),
            classes=figure(tmp_path, "classes", "dvc repro report"),
            interpolation=figure(tmp_path, "interpolation", "dvc repro sample"),
            training=figure(tmp_path, "training", "dvc repro sample"),
            distance=figure(tmp_path, "distance", "dvc repro report"),
            curves=figure(tmp_path, "curves", "dvc repro report"),
            neighbours=figure(tmp_path, "neighbours", "dvc repro evaluate"),
        ),
        "diagnosis": Diagnosis(
            "mode collapse",
            "Feature diversity is below 0.6.",
            ("feature diversity 0.31", "distance 84"),
            "Few kinds are drawn.",
            "train.augment=[translation,cutout], then a lower train.lr_g.",
        ),
        "diagnosis_provenance": Provenance("results/d.json", "6" * 32, "dvc repro evaluate", {"results/c": "7" * 32}),
        "scores": {
            "verdict": "mode collapse",
            "inception_score": 8.314,
            "inception_score_std": 0.1234,
            "classifier-FD": 12.34,
            "rarest_class": 0.05,
            "class_shares": [0.5, 0.5],
            "protocol": [{"extractor": "classifier", "generated_count": 10000, "resize": None}],
        },
        "reference_scores": {"test_accuracy": 0.98, "real_inception_score": 9.5, "floor_classifier-FD": 0.84},
        "scores_provenance": Provenance("results/scores.json", "2" * 32, "dvc repro evaluate", {"data/x": "3" * 32}),
        "classes": [ClassShare("zero", 0.05, 0.1), ClassShare("one", 0.95, 0.9)],
        "training": {"kimg": 180.0, "loss_d": 0.61},
        "params": {
            "seed": 0,
            "generator": {"name": "dcgan", "hidden": [256, 512]},
            "train": {"log_every": 25, "epochs": 40, "fresh_latents": True, "loss": "non-saturating"},
            "evaluate": {"trajectory": 1000},
            "data": {"path": None},
        },
        "data": Manifest(
            source="mnist-5k",
            source_md5={"mnist_5k.csv.gz": "4" * 32},
            image_size=32,
            channels=1,
            crop=None,
            resize="lanczos",
            classes=["zero", "one"],
            splits={"train": Split(4250, "5" * 32, None, None), "test": Split(500, "8" * 32, None, None)},
        ),
        "samples": {"count": 10000, "seed": 7, "ema": True},
        "real_images": 500,
        "last_distance": 30.0,
    }


def words(page: str) -> str:
    return " ".join(" ".join(Page(page).text).split())


def test_the_page_is_well_formed_and_its_links_lead_somewhere(arguments: dict[str, Any]) -> None:
    page = Page(render_report(**arguments))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for attributes in page.all("a")]
    assert len(links) > 10
    assert all(link and link.startswith("#") and link[1:] in ids for link in links)
    assert [tag for tag, _ in page.tags].count("h1") == 1
    assert all("scope" in attributes for attributes in page.all("th"))
    assert page.all("html") == [{"lang": "en"}]


def test_the_page_loads_nothing_and_runs_nothing(arguments: dict[str, Any]) -> None:
    text = render_report(**arguments)
    page = Page(text)
    assert "://" not in text
    assert not page.all("script") + page.all("link") + page.all("iframe") + page.all("base")
    assert all((attributes["src"] or "").startswith("data:image/png;base64,") for attributes in page.all("img"))
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import", text)


def test_every_figure_has_words_for_the_blind_its_command_and_its_digests(arguments: dict[str, Any]) -> None:
    text = render_report(**arguments)
    figures = re.findall(r"<figure.*?</figure>", text, re.DOTALL)
    assert len(figures) == 7
    names = ("samples", "classes", "interpolation", "training", "distance", "curves", "neighbours")
    for name, markup in zip(names, figures, strict=True):
        item: Figure = getattr(arguments["figures"], name)
        images = Page(markup).all("img")
        assert all(len(image["alt"] or "") > 20 for image in images)
        assert base64.b64decode((images[0]["src"] or "").split(",")[1]) == item.path.read_bytes()
        assert f"<code>{item.provenance.command}</code>" in markup
        origin = re.search(rf'<article id="made-{name}".*?</article>', text, re.DOTALL)
        assert origin
        assert item.provenance.command in origin[0]
        assert f"{item.provenance.md5}  results/{name}.png\n{'1' * 32}  data/{name}.npy" in origin[0]
    assert f"{'2' * 32}  results/scores.json\n{'3' * 32}  data/x" in text


def test_an_animation_has_its_last_frame_for_print_and_for_those_who_want_no_motion(arguments: dict[str, Any]) -> None:
    images = Page(render_report(**arguments)).all("img")
    moving = [image for image in images if image.get("class") == "moving"]
    still = [image for image in images if image.get("class") == "still"]
    assert len(moving) == len(still) == 1
    assert moving[0]["width"] == still[0]["width"] == "720"


def test_the_first_sentence_has_the_main_scores(arguments: dict[str, Any]) -> None:
    expected = (
        "After 40 epochs (180 thousand images shown), the generator draws 32×32 grey images with an Inception Score "
        "of 8.31 ± 0.12 (real images: 9.50) and a classifier-FD of 12.3 (real images: 0.84)."
    )
    assert expected in words(render_report(**arguments))


def test_the_verdict_stands_above_all_figures(arguments: dict[str, Any]) -> None:
    page = render_report(**arguments)
    text = words(page)
    expected = (
        "mode collapse Few kinds are drawn. Next: train.augment=[translation,cutout] , then a lower train.lr_g . "
        "Measured: feature diversity 0.31 distance 84 kimg: thousands of real images shown in training. "
        "The rule: Feature diversity is below 0.6."
    )
    assert expected in text
    assert text.index(expected) < text.index("Samples Scores")
    assert "<code>train.augment=[translation,cutout]</code>, then a lower <code>train.lr_g</code>." in page
    assert f"{'6' * 32}  results/d.json\n{'7' * 32}  results/c" in page


@pytest.mark.parametrize(
    ("verdict", "tone"),
    [
        ("converged", "good"),
        ("still improving", "wait"),
        ("stopped too early", "wait"),
        ("diverged", "bad"),
        ("discriminator wins", "bad"),
        ("one that nobody knows", "bad"),
    ],
)
def test_a_verdict_has_its_colour(arguments: dict[str, Any], verdict: str, tone: str) -> None:
    arguments["diagnosis"] = replace(arguments["diagnosis"], verdict=verdict)
    text = render_report(**arguments)
    (section,) = [each for each in Page(text).all("section") if each.get("id") == "verdict"]
    assert section["class"] == f"verdict {tone}"
    assert f"<h2>{verdict}</h2>" in text


@pytest.mark.parametrize(
    ("advice", "marked"),
    [
        ("Set generator.init=fan-in.", ["generator.init=fan-in"]),
        ("train.loss=non-saturating, then", ["train.loss=non-saturating"]),
        ("train.augment=[translation,cutout].", ["train.augment=[translation,cutout]"]),
        ("train.real_label=[0.8, 1.0], or", ["train.real_label=[0.8, 1.0]"]),
        ("train.lr_g=0.0005. Then", ["train.lr_g=0.0005"]),
        ("train.lr_g=1e-4; (train.lr_d=2e-4)", ["train.lr_g=1e-4", "train.lr_d=2e-4"]),
        ("A lower train.lr_g, or reference.images.", ["train.lr_g", "reference.images"]),
        ("data.path=data/my-images - as it is", ["data.path=data/my-images"]),
    ],
)
def test_the_parameters_of_the_advice_are_set_as_code_to_their_ends(
    arguments: dict[str, Any], advice: str, marked: list[str]
) -> None:
    arguments["diagnosis"] = replace(arguments["diagnosis"], advice=advice)
    found = re.search(r"<b>Next:</b>.*?</p>", render_report(**arguments))
    assert found
    assert re.findall("<code>(.*?)</code>", found[0]) == marked


def test_the_units_of_the_verdict_are_explained_once(arguments: dict[str, Any]) -> None:
    unit = "the standard deviation over latents z, averaged over pixels, of values in [-1, 1]"
    text = words(render_report(**arguments))
    assert text.count("kimg: thousands of real images shown in training.") == 1
    assert unit not in text
    evidence = ("output spread across z 0.0031 at initialisation (alarm below 0.02)", "output spread across z 0.01")
    arguments["diagnosis"] = replace(arguments["diagnosis"], evidence=evidence)
    assert words(render_report(**arguments)).count(unit) == 1


@pytest.mark.parametrize(
    ("real_images", "said"),
    [
        (500, "real images (Inception Score and classifier-FD: the 500 of the test split): a yardstick"),
        (300, "real images (Inception Score and classifier-FD: the first 300 of the 500 of the test split): a"),
        (None, "Beside a score stands that of real images: a yardstick"),
    ],
)
def test_the_real_images_are_as_many_as_were_measured(
    arguments: dict[str, Any], real_images: int | None, said: str
) -> None:
    assert said in words(render_report(**arguments | {"real_images": real_images}))


def test_where_no_real_images_were_measured_none_are_spoken_of(arguments: dict[str, Any]) -> None:
    scores = {"scores": {"neighbour_distance": 38.2}, "reference_scores": {}, "classes": []}
    text = words(render_report(**arguments | scores))
    assert "Measured on 10,000 samples. Score Samples" in text
    assert "Beside a score" not in text


@pytest.mark.parametrize(
    ("verdict", "last", "shown"),
    [
        ("diverged", 30.0, True),
        ("converged", 10.2, True),
        ("converged", 10.0, False),
        ("converged", 9.0, False),
        ("generator collapsed", 30.0, False),
        ("converged", float("nan"), False),
        ("converged", None, False),
    ],
)
def test_the_best_kept_generator_is_shown_where_training_went_on_too_long(
    arguments: dict[str, Any], verdict: str, last: float | None, shown: bool
) -> None:
    arguments["diagnosis"] = replace(arguments["diagnosis"], verdict=verdict)
    arguments["scores"] |= {"best_kimg": 12.5, "best_distance": 9.1}
    text = words(render_report(**arguments | {"last_distance": last}))
    assert ("Best kept generator 12.5 –" in text) == shown
    assert ("training went on too long" in text) == shown
    assert ("Its distance ↓ lower is better 9.1 –" in text) == shown
    assert ("fewer samples, so not comparable with the score above" in text) == shown


@pytest.mark.parametrize(
    ("score", "count", "warned"),
    [
        ("classifier-FD", 2047, True),
        ("classifier-FD", 2048, False),
        ("squeezenet-FD", 5119, True),
        ("squeezenet-FD", 5120, False),
        ("neighbour_distance", 64, False),
    ],
)
def test_a_distance_from_few_samples_comes_with_a_warning(
    arguments: dict[str, Any], score: str, count: int, warned: bool
) -> None:
    arguments |= {"scores": {score: 12.0}, "reference_scores": {}}
    arguments["samples"]["count"] = count
    text = words(render_report(**arguments))
    assert (f"So few samples ({count:,}, in " in text) == warned
    assert ("make the Fréchet distance larger and uncertain: compare it only at the same counts" in text) == warned


def test_images_of_faces_come_with_a_warning(arguments: dict[str, Any]) -> None:
    warning = "images may not be passed on; leave this figure out of what you publish."
    assert warning not in words(render_report(**arguments))
    arguments["data"] = replace(arguments["data"], source="celeba", classes=None)
    text = words(render_report(**arguments))
    assert text.count(warning) == 1
    assert "send it, print it" not in text


def test_outputs_that_are_no_log_odds_are_not_called_so(arguments: dict[str, Any]) -> None:
    assert "no log-odds" not in words(render_report(**arguments))
    arguments["params"]["train"]["loss"] = "hinge"
    text = words(render_report(**arguments))
    assert "Under the loss hinge" in text
    assert "a discriminator that cannot tell" not in text


def test_photographs_are_scored_without_classes(arguments: dict[str, Any]) -> None:
    arguments["figures"] = replace(arguments["figures"], classes=None)
    arguments |= {
        "classes": [],
        "scores": {
            "verdict": "converged",
            "squeezenet-FD": 21.34,
            "feature_diversity": 0.873,
            "best_kimg": 1280,
            "best_distance": 19,
        },
        "reference_scores": {"floor_squeezenet-FD": 0.52},
    }
    text = words(render_report(**arguments))
    assert "grey images with a squeezenet-FD of 21.3 (real images: 0.52)." in text
    assert "squeezenet-FD ↓ lower is better 21.3 0.52" in text
    assert "Feature diversity 0.87 1 " in text
    assert "Best kept generator 1,280 –" in text
    assert "Inception Score" not in text


def test_scores_stand_beside_those_of_real_images_and_their_protocol(arguments: dict[str, Any]) -> None:
    text = words(render_report(**arguments))
    assert "Rarest class ↑ higher is better 5.0 % 10.0 %" in text
    for value in ("extractor classifier", "generated count 10000", "resize null", "test accuracy 0.98"):
        assert value in text


def test_the_protocol_holds_what_the_scores_depend_on_in_words(arguments: dict[str, Any]) -> None:
    versions = {"torch": "2.15.0", "scipy": "1.17.1"}
    arguments["scores"]["protocol"] = [{"inception_score_splits": 10, "versions": versions}]
    text = words(render_report(**arguments))
    assert "inception score splits 10 versions torch 2.15.0, scipy 1.17.1" in text
    del arguments["scores"]["inception_score"]
    text = words(render_report(**arguments))
    assert "inception score splits" not in text
    assert "versions torch 2.15.0, scipy 1.17.1" in text


def test_parameters_are_shown_as_in_yaml_and_by_section(arguments: dict[str, Any]) -> None:
    text = words(render_report(**arguments))
    for value in ("general seed 0", "generator name dcgan hidden [256, 512]", "fresh_latents true", "data path null"):
        assert value in text


def test_unlabelled_images_without_scores_make_a_shorter_page(arguments: dict[str, Any]) -> None:
    figures = arguments["figures"]
    arguments["figures"] = Figures(
        figures.samples, None, figures.interpolation, figures.training, None, figures.curves, figures.neighbours
    )
    text = render_report(**arguments | {"scores": {}, "reference_scores": {}, "classes": [], "training": {}})
    assert len(Page(text).all("figure")) == 5
    assert "No scores were measured" in text
    assert "Class shares" not in text
    assert "Distance over training" not in text
    assert "After 40 epochs, the generator draws 32×32 grey images." in words(text)


def test_a_score_without_words_is_shown_by_its_name() -> None:
    rows = score_rows({"kid": 0.00123, "count": 12345, "kid_std": 0.1, "why": "text", "flag": True}, {"real_kid": 2000})
    assert [(row.label, row.value, row.real) for row in rows] == [
        ("kid", "0.00123 ± 0.1", "2,000"),
        ("count", "12,345", None),
    ]


def test_hostile_text_stays_text(arguments: dict[str, Any]) -> None:
    arguments["params"]["data"]["path"] = HOSTILE
    arguments["params"][HOSTILE] = {HOSTILE: [HOSTILE]}
    arguments["diagnosis"] = Diagnosis(HOSTILE, HOSTILE, (HOSTILE,), HOSTILE, HOSTILE)
    arguments["classes"] = [ClassShare(HOSTILE, 1.0, 1.0)]
    arguments["scores"][HOSTILE] = 1.0
    arguments["scores"]["protocol"] = [{HOSTILE: HOSTILE}]
    text = render_report(**arguments)
    page = Page(text)
    assert not page.all("script")
    assert "".join(page.text).count(HOSTILE) >= 11
    assert "49" not in re.findall(r"alert.{30}", text)


def test_equal_arguments_equal_text(arguments: dict[str, Any]) -> None:
    assert render_report(**arguments) == render_report(**arguments)


def test_a_missing_fact_is_an_error_and_not_a_blank(arguments: dict[str, Any]) -> None:
    del arguments["samples"]["seed"]
    with pytest.raises(Exception, match="seed"):
        render_report(**arguments)
