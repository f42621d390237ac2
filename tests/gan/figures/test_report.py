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
from gan.diagnosis import NOT_TRAINED, Diagnosis
from gan.figures.curves import draw_class_shares
from gan.figures.grid import save_animation, save_png
from gan.figures.page import Figure, Provenance
from gan.figures.report import TITLES, ClassShare, Figures, Source, render_report

VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = "<script>alert('$x')</script>\"&{{ 7*7 }}"
CHARTS = ("classes", "precision_recall", "distance", "curves")


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


def figure(folder: Path, name: str) -> Figure:
    chart = name in CHARTS
    path = folder / f"{name}.{'svg' if chart else 'png'}"
    frames = list(np.random.default_rng(len(name)).integers(0, 256, (3, 20, 30, 1), np.uint8))
    if chart:
        draw_class_shares(path, ["a"], np.ones(1), np.ones(1))
    elif name == "training":
        save_animation(path, frames, 0.2)
    else:
        save_png(path, frames[0])
    numbers = None
    if chart or name == "neighbours":
        numbers = folder / f"{name}.csv"
        numbers.write_text(f"{name},of\n1,2\n")
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    made_from = {f"data/{name}.npy": "1" * 32}
    return Figure(path, Provenance(f"results/{path.name}", md5, f"dvc repro {name}", made_from), numbers)


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    numbers = tmp_path / "numbers.json"
    numbers.write_text("{}")
    return {
        "figures": Figures(**{name: figure(tmp_path, name) for name in TITLES}),
        "diagnosis": Diagnosis(
            "mode collapse",
            "Feature diversity is below 0.6.",
            ("feature diversity 0.31", "distance 84"),
            "Few kinds are drawn. The others are lost.",
            "train.augment=[translation,cutout], then a lower train.lr_g.",
        ),
        "diagnosis_source": Source(
            numbers, Provenance("results/d.json", "6" * 32, "dvc repro evaluate", {"results/c": "7" * 32})
        ),
        "scores": {
            "verdict": "mode collapse",
            "inception_score": 8.314,
            "classifier-FD": 12.34,
            "precision": 0.9,
            "recall": 0.2,
            "near_copies": 0.012,
            "details": [{"inception_score_std": 0.1234, "rarest_class": 0.05}],
            "intervals": [{"inception_score": [8.21, 8.44]}],
            "floor": [{"inception_score": 9.5, "classifier-FD": 0.84, "near_copies": 0.001}],
            "warnings": ["2,000 samples are few.", "The classifier is weak."],
            "class_shares": [0.5, 0.5],
            "protocol": [{"extractor": "classifier", "generated_count": 10000, "resize": None}],
        },
        "scores_source": Source(
            numbers, Provenance("results/scores.json", "2" * 32, "dvc repro evaluate", {"data/x": "3" * 32})
        ),
        "test_accuracy": 0.98,
        "classes": [ClassShare("zero", 0.05, 0.1), ClassShare("one", 0.95, 0.9)],
        "training": {"kimg": 180.0, "loss_d": 0.61},
        "params": {
            "seed": 0,
            "generator": {"name": "dcgan", "hidden": [256, 512]},
            "train": {"log_every": 25, "epochs": 40, "fresh_latents": True, "loss": "non-saturating"},
            "evaluate": {"trajectory": 1000, "extractor": "classifier", "split": "train"},
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
        "samples": {"origin": "training", "count": 10000, "seed": 7, "ema": True},
        "records": [record("prepare", "cpu"), record("train", "cpu")],
        "last_distance": 30.0,
    }


def record(stage: str, device: str) -> dict[str, Any]:
    return {
        "stage": stage,
        "machine": {"device": device, "threads": 2, "versions": {"numpy": "2.4.6", "torch": "2.15.0"}},
        "inputs": {"data/raw": "b" * 32 + ".dir"},
        "params": {f"{stage}.lr": 0.001, "seed": 0},
        "code": {f"stages/{stage}.py": "c" * 64, "gan/seeds.py": "d" * 64},
    }


def words(page: str) -> str:
    return " ".join(" ".join(Page(page).text).split())


def section(page: str, name: str) -> str:
    found = re.search(rf'<section id="{name}".*?</section>', page, re.DOTALL)
    assert found
    return found[0]


def test_the_page_is_well_formed_and_its_links_lead_somewhere(arguments: dict[str, Any]) -> None:
    page = Page(render_report(**arguments))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] or "" for attributes in page.all("a")]
    inside = [link for link in links if link.startswith("#")]
    assert len(inside) > 20
    assert all(link[1:] in ids for link in inside)
    assert all(link.startswith("data:") for link in links if link not in inside)
    assert [tag for tag, _ in page.tags].count("h1") == 1
    assert all("scope" in attributes for attributes in page.all("th"))
    assert page.all("html") == [{"lang": "en"}]


def test_the_page_loads_nothing_and_runs_nothing(arguments: dict[str, Any]) -> None:
    text = render_report(**arguments)
    page = Page(text)
    assert "://" not in text
    assert not page.all("script") + page.all("link") + page.all("iframe") + page.all("base")
    assert all(re.match(r"data:image/(png|svg\+xml);base64,", image["src"] or "") for image in page.all("img"))
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import", text)


def test_every_figure_has_words_for_the_blind_its_command_its_digests_and_its_numbers(
    arguments: dict[str, Any],
) -> None:
    text = render_report(**arguments)
    figures = re.findall(r"<figure.*?</figure>", text, re.DOTALL)
    assert len(figures) == len(TITLES)
    for name, markup in zip(TITLES, figures, strict=True):
        item: Figure = getattr(arguments["figures"], name)
        page = Page(markup)
        images = page.all("img")
        assert all(len(image["alt"] or "") > 20 for image in images)
        assert base64.b64decode((images[0]["src"] or "").split(",")[1]) == item.path.read_bytes()
        assert (
            f"<code>{item.provenance.command}</code> from <code>data/{name}.npy</code>, MD5 <code>{'1' * 32}" in markup
        )
        assert f"#made-{name}" in [link["href"] for link in page.all("a")]
        downloads = [link for link in page.all("a") if "download" in link]
        if item.numbers:
            assert [link["download"] for link in downloads] == [item.numbers.name]
            kind, content = (downloads[0]["href"] or "").split(";base64,")
            assert kind == "data:text/csv"
            assert base64.b64decode(content) == item.numbers.read_bytes()
        else:
            assert not downloads
        origin = re.search(rf'<article id="made-{name}".*?</article>', text, re.DOTALL)
        assert origin
        assert item.provenance.command in origin[0]
        assert f"{item.provenance.md5}  {item.provenance.name}\n{'1' * 32}  data/{name}.npy" in origin[0]
    assert f"{'2' * 32}  results/scores.json\n{'3' * 32}  data/x" in text
    assert text.count('download="numbers.json"') == 2


def test_a_figure_of_many_files_counts_them_and_lists_them_in_the_digests(arguments: dict[str, Any]) -> None:
    training = arguments["figures"].training
    kept = {f"kept/{step}": f"{step}" * 32 for step in range(1, 5)}
    training = replace(training, provenance=replace(training.provenance, made_from=kept))
    arguments["figures"] = replace(arguments["figures"], training=training)
    text = render_report(**arguments)
    assert "from 4 files" in words(section(text, "training"))
    assert all(text.count(name) == 1 for name in kept)


def test_each_stage_has_its_machine_inputs_parameters_and_code(arguments: dict[str, Any]) -> None:
    text = section(render_report(**arguments), "provenance")
    assert words(text).count("device cpu threads 2 versions numpy 2.4.6, torch 2.15.0") == 1  # of both stages
    assert "train : 1 input, 2 parameters, 2 files of code" in words(text)
    assert "data/raw " + "b" * 32 + ".dir" in words(text)
    assert "train.lr 0.001 seed 0" in words(text)
    assert f"{'c' * 64}  stages/train.py\n{'d' * 64}  gan/seeds.py</code>" in text
    arguments["records"] = [record("prepare", "cpu"), record("train", "NVIDIA H100")]
    text = words(section(render_report(**arguments), "provenance"))
    assert text.index("device cpu") < text.index("train :") < text.index("device NVIDIA H100")


def test_an_animation_has_its_last_frame_for_print_and_for_those_who_want_no_motion(arguments: dict[str, Any]) -> None:
    images = Page(render_report(**arguments)).all("img")
    moving = [image for image in images if "moving" in (image["class"] or "").split()]
    still = [image for image in images if "still" in (image["class"] or "").split()]
    assert len(moving) == len(still) == 1
    assert moving[0]["width"] == still[0]["width"] == "720"


def test_the_first_screen_tells_what_was_trained_the_verdict_and_the_headline_scores(arguments: dict[str, Any]) -> None:
    text = render_report(**arguments)
    header = re.search(r'<header class="hero">.*?</header>', text, re.DOTALL)
    assert header
    assert (
        "DCGAN on MNIST-5k After 40 epochs (180 thousand images shown) on 4,250 images, the generator draws 32×32 grey "
        "images. mode collapse Few kinds are drawn. The verdict in full Inception Score ↑ higher is better 8.31 "
        "95 %: 8.21 to 8.44 real images: 9.50 classifier-FD ↓ lower is better 12.3 real images: 0.84 2,000 samples are "
        "few. The classifier is weak."
    ) in words(header[0])
    assert "#verdict" in [link["href"] for link in Page(header[0]).all("a")]
    assert 'id="samples"' in header[0]


def test_without_warnings_there_is_no_box_for_them(arguments: dict[str, Any]) -> None:
    arguments["scores"]["warnings"] = []
    assert not [each for each in Page(render_report(**arguments)).all("div") if each.get("class") == "warnings"]


def test_networks_and_sources_without_another_name_have_their_own(arguments: dict[str, Any]) -> None:
    arguments["params"]["generator"]["name"] = "tower"
    arguments["data"] = replace(arguments["data"], source="folder")
    assert "<h1>tower on folder</h1>" in render_report(**arguments)


def test_the_verdict_stands_in_full_before_the_scores(arguments: dict[str, Any]) -> None:
    page = render_report(**arguments)
    text = words(section(page, "verdict"))
    expected = (
        "mode collapse Few kinds are drawn. The others are lost. Next: train.augment=[translation,cutout] , then a "
        "lower train.lr_g . Measured: feature diversity 0.31 distance 84 kimg: thousands of real images shown in "
        "training. The rule: Feature diversity is below 0.6."
    )
    assert text.startswith(expected)
    assert page.index('<section id="verdict"') < page.index('<section id="scores"')
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
        (NOT_TRAINED.verdict, "plain"),
        ("one that nobody knows", "bad"),
    ],
)
def test_a_verdict_has_its_colour(arguments: dict[str, Any], verdict: str, tone: str) -> None:
    arguments["diagnosis"] = replace(arguments["diagnosis"], verdict=verdict)
    text = render_report(**arguments)
    (found,) = [each for each in Page(text).all("section") if each.get("id") == "verdict"]
    assert found["class"] == f"verdict {tone}"
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


def test_where_no_real_images_were_measured_none_are_spoken_of(arguments: dict[str, Any]) -> None:
    arguments |= {"scores": {"neighbour_distance": 38.2}, "classes": [], "test_accuracy": None}
    arguments["figures"] = replace(arguments["figures"], classes=None, precision_recall=None)
    text = words(section(render_report(**arguments), "scores"))
    assert "Measured on 10,000 samples. Score Samples" in text
    assert "held-out" not in text
    assert "bootstrap" not in text


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
    arguments["scores"]["details"] = [{"best_kimg": 12.5, "best_distance": 9.1}]
    text = words(render_report(**arguments | {"last_distance": last}))
    assert ("Best kept generator 12.5 – –" in text) == shown
    assert ("training went on too long" in text) == shown
    assert ("Its distance ↓ lower is better 9.1 – –" in text) == shown
    assert ("fewer samples, so not comparable with the score above" in text) == shown


def test_images_of_faces_come_with_a_warning(arguments: dict[str, Any]) -> None:
    warning = "images may not be passed on; leave this figure out of what you publish."
    assert warning not in words(render_report(**arguments))
    arguments["data"] = replace(arguments["data"], source="celeba", classes=None)
    text = words(render_report(**arguments))
    assert text.count(warning) == 2
    assert "send it, print it" not in text


def test_outputs_that_are_no_log_odds_are_not_called_so(arguments: dict[str, Any]) -> None:
    assert "no log-odds" not in words(render_report(**arguments))
    arguments["params"]["train"]["loss"] = "hinge"
    text = words(render_report(**arguments))
    assert "Under the loss hinge" in text
    assert "a discriminator that cannot tell" not in text


def test_photographs_are_scored_without_classes(arguments: dict[str, Any]) -> None:
    arguments["figures"] = replace(arguments["figures"], classes=None, precision_recall=None)
    arguments |= {
        "classes": [],
        "test_accuracy": None,
        "scores": {
            "verdict": "converged",
            "squeezenet-FD": 21.34,
            "details": [{"feature_diversity": 0.873, "best_kimg": 1280, "best_distance": 19}],
            "floor": [{"squeezenet-FD": 0.52}],
        },
    }
    text = words(render_report(**arguments))
    assert "squeezenet-FD ↓ lower is better 21.3 real images: 0.52" in text
    assert "squeezenet-FD ↓ lower is better 21.3 – 0.52" in text
    assert "Feature diversity 0.87 – 1 " in text
    assert "Best kept generator 1,280 –" in text
    assert "Inception Score" not in text
    assert "Class shares" not in text


def test_scores_stand_beside_those_of_real_images_and_their_protocol(arguments: dict[str, Any]) -> None:
    text = words(section(render_report(**arguments), "scores"))
    assert "Inception Score ↑ higher is better 8.31 ± 0.12 8.21 to 8.44 9.50" in text
    assert "Rarest class ↑ higher is better 5.0 % – 10.0 %" in text
    for value in ("extractor classifier", "generated count 10000", "resize null", "names 98.0 % of the test split"):
        assert value in text


def test_near_copies_are_compared_with_those_among_real_images(arguments: dict[str, Any]) -> None:
    said = "Near copies of training images are 1.2 % of the samples"
    text = words(section(render_report(**arguments), "neighbours"))
    assert f"{said}, and 0.1 % of held-out real images" in text
    del arguments["scores"]["floor"]
    assert f"{said}." in words(section(render_report(**arguments), "neighbours"))


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
    arguments["figures"] = replace(arguments["figures"], classes=None, precision_recall=None, distance=None)
    text = render_report(**arguments | {"scores": {}, "classes": [], "training": {}, "test_accuracy": None})
    assert len(Page(text).all("figure")) == 7
    assert "No scores were measured" in text
    for absent in ("Class shares", "Precision and recall", "Distance over training", 'class="headline"'):
        assert absent not in text
    assert "After 40 epochs on 4,250 images, the generator draws 32×32 grey images." in words(text)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (
            {"origin": "given images", "count": 2000, "seed": 0},
            "Given images beside MNIST-5k 2,000 grey images of 32×32 pixels, given as they are, beside 4,250 real",
        ),
        (
            {"origin": "given generator", "count": 2000, "seed": 3, "generator": "b.safe", "ema": None},
            "A given generator beside MNIST-5k 2,000 grey images of 32×32 pixels, drawn by the generator of b.safe",
        ),
    ],
)
def test_what_comes_from_elsewhere_is_shown_without_training(
    arguments: dict[str, Any], samples: dict[str, Any], said: str
) -> None:
    figures = arguments["figures"]
    arguments["figures"] = Figures(figures.samples, figures.real, figures.neighbours, figures.classes)
    arguments |= {"diagnosis": NOT_TRAINED, "samples": samples, "training": {}, "last_distance": None}
    text = render_report(**arguments)
    page = Page(text)
    assert len(page.all("figure")) == 4
    assert said in words(text)
    verdict = words(section(text, "verdict"))
    assert verdict.startswith("not trained here")
    assert "Measured:" not in verdict
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert not ids & {"interpolation", "training", "distance", "curves", "precision_recall"}
    assert "epochs (" not in text
    assert ("seed 3" in words(section(text, "samples"))) == (samples["origin"] == "given generator")


def test_the_best_kept_generator_is_named_by_its_file(arguments: dict[str, Any]) -> None:
    assert "ringed, is" not in render_report(**arguments)
    arguments["scores"]["details"] = [{"best_generator": "data/train/kept/7/generator.safetensors"}]
    assert "is data/train/kept/7/generator.safetensors ." in words(section(render_report(**arguments), "distance"))


@pytest.mark.parametrize(("extractor", "where"), [("none", ", pixel by pixel"), ("fid", " in the extractor")])
def test_neighbours_are_near_where_they_were_looked_up(arguments: dict[str, Any], extractor: str, where: str) -> None:
    arguments["params"]["evaluate"]["extractor"] = extractor
    assert f"the training image nearest to it{where}" in words(section(render_report(**arguments), "neighbours"))


def test_hostile_text_stays_text(arguments: dict[str, Any]) -> None:
    arguments["params"]["data"]["path"] = HOSTILE
    arguments["params"][HOSTILE] = {HOSTILE: [HOSTILE]}
    arguments["diagnosis"] = Diagnosis(HOSTILE, HOSTILE, (HOSTILE,), HOSTILE, HOSTILE)
    arguments["classes"] = [ClassShare(HOSTILE, 1.0, 1.0)]
    arguments["scores"][HOSTILE] = 1.0
    arguments["scores"]["warnings"] = [HOSTILE]
    arguments["scores"]["details"] = [{f"{HOSTILE}-FD": 1.0}]
    arguments["data"] = replace(arguments["data"], source=HOSTILE, source_md5={HOSTILE: HOSTILE})
    arguments["scores"]["protocol"] = [{HOSTILE: HOSTILE}]
    hostile = {HOSTILE: HOSTILE}
    arguments["records"] = [
        {"stage": HOSTILE, "machine": {HOSTILE: each}, "inputs": hostile, "params": hostile, "code": hostile}
        for each in (HOSTILE, 1)
    ]
    text = render_report(**arguments)
    page = Page(text)
    assert not page.all("script")
    assert "".join(page.text).count(HOSTILE) >= 18
    assert [tag for tag, _ in page.tags].count("img") == len(TITLES) + 1
    assert "49" not in re.findall(r"alert.{30}", text)


def test_equal_arguments_equal_text(arguments: dict[str, Any]) -> None:
    assert render_report(**arguments) == render_report(**arguments)


def test_a_missing_fact_is_an_error_and_not_a_blank(arguments: dict[str, Any]) -> None:
    del arguments["samples"]["seed"]
    with pytest.raises(Exception, match="seed"):
        render_report(**arguments)
