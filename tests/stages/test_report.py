import csv
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan.data.packed import Manifest, read_manifest, write_manifest
from gan.figures.grid import save_animation, save_png, tile
from gan.params import check_params, load_params
from stages import layout
from stages.report import report
from tests.gan.data.packed_split import write_split

ROOT = Path(__file__).parents[2]
CURVES = (
    "step", "kimg", "loss_d", "loss_g", "d_real", "d_fake_before", "d_fake_after", "saturated", "z_spread",
    "grad_norm_d", "grad_norm_g", "grad_norm_g_first",
)  # fmt: skip
DIAGNOSIS = {
    "verdict": "still improving",
    "rule": "The distance fell by more than 15 %.",
    "evidence": ["it fell by 30 %", "Fréchet distance 12.3"],
    "explanation": "It was too early.",
    "advice": "Double train.epochs.",
}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REPORT = layout.REPORT / "index.html"


def write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values))


def write_csv(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def make_run() -> None:
    """The inputs of the report stage, as the stages before it leave them, in the current folder."""
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    for path in (layout.PREPARED, layout.SAMPLES, layout.SAMPLE_FIGURES, layout.EVALUATION_FIGURES):
        path.mkdir(parents=True)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 32, 32, 1), np.uint8)
    labels = np.arange(40) % 10
    splits = {name: write_split(layout.PREPARED, name, images, labels, 10) for name in ("train", "test")}
    names = [str(digit) for digit in range(10)]
    write_manifest(layout.PREPARED, Manifest("mnist-5k", {"a.csv": "0" * 32}, 32, 1, None, "none", names, splits))
    write_json(
        layout.SAMPLES / "manifest.json",
        {
            "count": 10000,
            "seed": 0,
            "ema": True,
            "generator_md5": "a" * 32,
            "images_md5": "b" * 32,
            "kept_md5": {"kept/00000025/generator_ema.safetensors": "c" * 32},
        },
    )
    save_png(layout.SAMPLE_FIGURES / "grid.png", tile(images, 10))
    save_png(layout.SAMPLE_FIGURES / "interpolation.png", tile(images, 8))
    save_animation(layout.SAMPLE_FIGURES / "training.png", [tile(images[:9], 3), tile(images[9:18], 3)], 0.2)
    save_png(layout.EVALUATION_FIGURES / "neighbours.png", tile(images[:20], 10))
    curves = [(step, step / 10, *random.uniform(0.1, 1, 10)) for step in range(1, 101)]
    write_csv(layout.CURVES, CURVES, [*curves, (101, 10.1, *[""] * 10)])
    write_csv(
        layout.EVALUATION_FIGURES / "classes.csv",
        ("class", "share_samples", "share_real"),
        [(name, 0.1, 0.1) for name in names],
    )
    write_json(layout.EVALUATION_FIGURES / "diagnosis.json", DIAGNOSIS)
    write_csv(
        layout.EVALUATION_FIGURES / "trajectory.csv",
        ("step", "kimg", "distance"),
        [(25 * step, 2.5 * step, 50 / step) for step in range(1, 5)],
    )
    write_json(layout.TRAINING_SUMMARY, {"steps": 101, "kimg": 10.1, "loss_d": 0.6})
    write_json(
        layout.SCORES,
        {
            "verdict": "still improving",
            "inception_score": 8.31,
            "inception_score_std": 0.12,
            "classifier-FD": 12.3,
            "class_shares": [0.1] * 10,
            "protocol": [{"extractor": "classifier"}],
        },
    )
    write_json(layout.REFERENCE_SCORES, {"real_inception_score": 9.5, "floor_classifier-FD": 0.84})


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_run()
    return tmp_path


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_the_report_is_written_and_named(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    report(load_params(run / "params.yaml"))
    assert sorted(digests(layout.REPORT)) == ["classes.png", "curves.png", "distance.png", "index.html", "summary.txt"]
    assert (layout.REPORT / "summary.txt").read_text() == caplog.messages[-1] + "\n"
    assert caplog.messages[-1] == (
        "report: results/report/index.html  Inception Score 8.31 ± 0.12 (real 9.50)  classifier-FD 12.3 (real 0.84)\n"
        "verdict: still improving. Next: Double train.epochs."
    )


def test_digests_on_the_page_are_those_of_the_files(run: Path) -> None:
    report(load_params(run / "params.yaml"))
    listed = dict(re.findall(r"\b([0-9a-f]{32})  ([\w/.]+)", REPORT.read_text()))
    found = {md5: name for md5, name in listed.items() if Path(name).exists()}
    assert set(found.values()) == {
        "results/samples/grid.png",
        "results/samples/interpolation.png",
        "results/samples/training.png",
        "results/evaluation/neighbours.png",
        "results/evaluation/classes.csv",
        "results/evaluation/diagnosis.json",
        "results/evaluation/trajectory.csv",
        "results/reference.json",
        "results/report/curves.png",
        "results/report/distance.png",
        "results/report/classes.png",
        "results/curves.csv",
        "results/scores.json",
        "results/train.json",
        "data/prepared/train.npy",
    }
    for md5, name in found.items():
        assert hashlib.md5(Path(name).read_bytes()).hexdigest() == md5, name
    assert {name for name in listed.values() if name not in found.values()} == {
        "data/samples/images.npy",
        "data/train/generator_ema.safetensors",
        "data/train/kept/00000025/generator_ema.safetensors",
    }


def test_another_process_writes_the_same_bytes_without_torch(run: Path) -> None:
    report(load_params(run / "params.yaml"))
    first = digests(layout.REPORT)
    code = (
        "import sys; from pathlib import Path; from gan.params import load_params; from stages.report import report; "
        "report(load_params(Path('params.yaml'))); assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=environment, cwd=run)
    assert digests(layout.REPORT) == first
    assert str(run) not in REPORT.read_text()


def report_unlabelled(folder: Path, extractor: str, scores: dict[str, Any], reference: dict[str, Any]) -> None:
    """A run on unlabelled images, scored as given."""
    (layout.EVALUATION_FIGURES / "classes.csv").unlink()
    write_json(layout.SCORES, {"verdict": "still improving", **scores, "protocol": [{"extractor": extractor}]})
    write_json(layout.REFERENCE_SCORES, reference)
    manifest = read_manifest(layout.PREPARED)
    write_manifest(layout.PREPARED, replace(manifest, classes=None))
    document = load_params(folder / "params.yaml").model_dump()
    document["evaluate"]["extractor"] = extractor
    report(check_params(document))


@pytest.mark.parametrize("header_only", [True, False])
def test_a_run_without_an_extractor_is_reported_too(run: Path, header_only: bool) -> None:
    if header_only:
        write_csv(layout.EVALUATION_FIGURES / "trajectory.csv", ("step", "kimg", "distance"), [])
    else:
        (layout.EVALUATION_FIGURES / "trajectory.csv").unlink()
    report_unlabelled(run, "none", {"neighbour_distance": 38.2}, {})
    assert sorted(digests(layout.REPORT)) == ["curves.png", "index.html", "summary.txt"]
    line, _ = (layout.REPORT / "summary.txt").read_text().splitlines()
    assert line.endswith("Distance to the nearest training image 38.2")


def test_a_run_on_photographs_is_reported_with_its_own_distance(run: Path) -> None:
    scores = {"squeezenet-FD": 21.3, "feature_diversity": 0.87, "neighbour_distance": 38.2}
    report_unlabelled(run, "squeezenet1_1", scores, {"floor_squeezenet-FD": 0.52})
    assert sorted(digests(layout.REPORT)) == ["curves.png", "distance.png", "index.html", "summary.txt"]
    line, _ = (layout.REPORT / "summary.txt").read_text().splitlines()
    assert line == "report: results/report/index.html  squeezenet-FD 21.3 (real 0.52)"
    assert "Inception" not in REPORT.read_text()


@pytest.mark.parametrize(
    ("images", "said"), [(50000, "the 40 of the test"), (30, "the first 30 of the 40 of the test")]
)
def test_real_images_are_counted_as_the_reference_took_them(run: Path, images: int, said: str) -> None:
    document = load_params(run / "params.yaml").model_dump()
    document["reference"]["images"] = images
    report(check_params(document))
    assert f"(Inception Score and classifier-FD: {said} split)" in REPORT.read_text()


@pytest.mark.parametrize(("last", "shown"), [(12.5, False), (25.0, True)])
def test_the_best_kept_generator_is_compared_with_the_last(run: Path, last: float, shown: bool) -> None:
    scores = json.loads(layout.SCORES.read_text())
    write_json(layout.SCORES, scores | {"best_kimg": 7.5, "best_distance": 12.4})
    rows: list[tuple[object, ...]] = [(25, 2.5, 50), (75, 7.5, 12.4), (100, 10, last)]
    write_csv(layout.EVALUATION_FIGURES / "trajectory.csv", ("step", "kimg", "distance"), rows)
    report(load_params(run / "params.yaml"))
    assert ("Best kept generator" in REPORT.read_text()) == shown


def test_the_last_report_goes_with_its_figures(run: Path) -> None:
    layout.REPORT.mkdir()
    (layout.REPORT / "old.png").touch()
    report(load_params(run / "params.yaml"))
    assert "old.png" not in digests(layout.REPORT)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_every_image_and_nothing_sticks_out(run: Path, width: int) -> None:
    report(load_params(run / "params.yaml"))
    probe = (
        "<script>addEventListener('load', () => document.body.append(JSON.stringify({probe: true, "
        "widths: [...document.images].map(image => image.naturalWidth), "
        "sticksOut: document.documentElement.scrollWidth - innerWidth})))</script>"
    )
    page = REPORT.read_text().replace(
        "style-src 'unsafe-inline'", "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    )
    Path("probe.html").write_text(page.replace("</head>", probe + "</head>"))
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", f"--user-data-dir={run / 'profile'}",
        f"--window-size={width},900", "--dump-dom", (run / "probe.html").as_uri(),
    ]  # fmt: skip
    assert CHROMIUM
    shown = subprocess.run([CHROMIUM, *flags], check=True, capture_output=True, text=True, timeout=60).stdout
    found = re.search(r'\{"probe".*?\}', shown)
    assert found
    measured = json.loads(found[0])
    assert len(measured["widths"]) == 8
    assert min(measured["widths"]) > 0
    assert measured["sticksOut"] <= 0
