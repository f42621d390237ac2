import base64
import hashlib
import logging
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gan.data.packed import read_manifest, write_manifest
from gan.params import check_params, load_params
from stages import layout
from stages.report import report
from tests.stages.reported_run import ROOT, SCORES, make_run, write_csv, write_json

REPORT = layout.REPORT / "index.html"
CHARTS = ["classes.svg", "curves.svg", "distance.svg", "precision_recall.svg"]
OTHERS = ["index.html", "summary.txt"]


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
    assert sorted(digests(layout.REPORT)) == sorted(CHARTS + OTHERS)
    assert (layout.REPORT / "summary.txt").read_text() == caplog.messages[-1] + "\n"
    assert caplog.messages[-1] == (
        "report: results/report/index.html  Inception Score 8.31 ± 0.12 (real 9.50)  classifier-FD 12.3 (real 0.84)  "
        "classifier-KD 0.0123\n"
        "verdict: still improving. Next: Double train.epochs.\n"
        "warning: 10,000 samples against 40 real images."
    )


def test_digests_on_the_page_are_those_of_the_files(run: Path) -> None:
    report(load_params(run / "params.yaml"))
    listed = dict(re.findall(r"\b([0-9a-f]{32})  ([\w/.]+)", REPORT.read_text()))
    found = {md5: name for md5, name in listed.items() if Path(name).exists()}
    assert set(found.values()) == {
        "results/samples/grid.png",
        "results/samples/interpolation.png",
        "results/samples/training.png",
        "results/samples/filmstrip.png",
        "results/evaluation/neighbours.png",
        "results/evaluation/real.png",
        "results/evaluation/classes.csv",
        "results/evaluation/diagnosis.json",
        "results/evaluation/trajectory.csv",
        "results/reference.json",
        "results/report/curves.svg",
        "results/report/distance.svg",
        "results/report/classes.svg",
        "results/report/precision_recall.svg",
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


def report_unlabelled(folder: Path, extractor: str, scores: dict[str, Any]) -> None:
    """A run on unlabelled images, scored as given."""
    (layout.EVALUATION_FIGURES / "classes.csv").unlink()
    write_json(layout.SCORES, {"verdict": "still improving", **scores, "protocol": [{"extractor": extractor}]})
    write_json(layout.REFERENCE_SCORES, {"floors": [{"train": {}, "test": {}}]})
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
    report_unlabelled(run, "none", {"near_copies": 0.012, "details": [{"neighbour_distance": 38.2}]})
    assert sorted(digests(layout.REPORT)) == ["curves.svg", *OTHERS]
    line, _ = (layout.REPORT / "summary.txt").read_text().splitlines()
    assert line == "report: results/report/index.html  Near copies 1.2 %"


def test_a_run_on_photographs_is_reported_with_its_own_distance(run: Path) -> None:
    scores = {"squeezenet-FD": 21.3, "details": [{"feature_diversity": 0.87}], "floor": [{"squeezenet-FD": 0.52}]}
    report_unlabelled(run, "squeezenet1_1", scores)
    assert sorted(digests(layout.REPORT)) == ["curves.svg", "distance.svg", *OTHERS]
    line, _ = (layout.REPORT / "summary.txt").read_text().splitlines()
    assert line == "report: results/report/index.html  squeezenet-FD 21.3 (real 0.52)"
    assert "Inception" not in REPORT.read_text()


@pytest.mark.parametrize("no_rows", ["step,kimg\n", ""])
def test_images_from_elsewhere_are_reported_without_training(run: Path, no_rows: str) -> None:
    layout.CURVES.write_text(no_rows)
    layout.TRAINING_SUMMARY.unlink()
    (layout.EVALUATION_FIGURES / "trajectory.csv").unlink()
    for name in ("interpolation.png", "training.png", "filmstrip.png"):
        (layout.SAMPLE_FIGURES / name).unlink()
    write_json(
        layout.SAMPLES / "manifest.json", {"origin": "given images", "count": 2000, "images_md5": "b" * 32, "seed": 0}
    )
    said = {"verdict": "not trained here", "rule": "", "evidence": [], "explanation": "", "advice": ""}
    write_json(layout.EVALUATION_FIGURES / "diagnosis.json", said)
    write_json(layout.SCORES, SCORES | {"verdict": "not trained here"})
    report(load_params(run / "params.yaml"))
    assert sorted(digests(layout.REPORT)) == ["classes.svg", "index.html", "precision_recall.svg", "summary.txt"]
    assert "\nverdict: not trained here\n" in (layout.REPORT / "summary.txt").read_text()
    page = REPORT.read_text()
    assert f"{'b' * 32}  data/samples/images.npy" in page
    assert "data/train" not in page


def test_a_given_generator_is_named_by_its_file(run: Path) -> None:
    manifest = {
        "origin": "given generator", "count": 2000, "ema": None, "generator": "best.safetensors",
        "generator_md5": "e" * 32, "images_md5": "b" * 32, "kept_md5": {}, "seed": 0,
    }  # fmt: skip
    write_json(layout.SAMPLES / "manifest.json", manifest)
    report(load_params(run / "params.yaml"))
    assert f"{'e' * 32}  best.safetensors" in REPORT.read_text()


def test_the_numbers_of_the_charts_are_the_tables_themselves(run: Path) -> None:
    report(load_params(run / "params.yaml"))
    found = dict(re.findall(r'<a download="([\w.]+)" href="data:[\w/]+;base64,([\w+/=]+)"', REPORT.read_text()))
    assert {name: base64.b64decode(content) for name, content in found.items()} == {
        path.name: path.read_bytes()
        for path in (
            layout.CURVES,
            layout.SCORES,
            layout.EVALUATION_FIGURES / "classes.csv",
            layout.EVALUATION_FIGURES / "diagnosis.json",
            layout.EVALUATION_FIGURES / "neighbours.csv",
            layout.EVALUATION_FIGURES / "trajectory.csv",
        )
    }


@pytest.mark.parametrize(("last", "shown"), [(12.5, False), (25.0, True)])
def test_the_best_kept_generator_is_compared_with_the_last(run: Path, last: float, shown: bool) -> None:
    write_json(layout.SCORES, SCORES | {"details": [{"best_kimg": 7.5, "best_distance": 12.4}]})
    rows: list[tuple[object, ...]] = [(25, 2.5, 50), (75, 7.5, 12.4), (100, 10, last)]
    write_csv(layout.EVALUATION_FIGURES / "trajectory.csv", ("step", "kimg", "distance"), rows)
    report(load_params(run / "params.yaml"))
    assert ("Best kept generator" in REPORT.read_text()) == shown


def test_the_last_report_goes_with_its_figures(run: Path) -> None:
    layout.REPORT.mkdir()
    (layout.REPORT / "old.png").touch()
    report(load_params(run / "params.yaml"))
    assert "old.png" not in digests(layout.REPORT)
