"""report: the run's results in; one page with every figure beside what made it, out."""

import csv
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan.params import Params
from stages.layout import (
    CURVES,
    EVALUATION_FIGURES,
    PREPARED,
    REFERENCE_SCORES,
    REPORT,
    SAMPLE_FIGURES,
    SAMPLES,
    SCORES,
    TRAINED,
    TRAINING_SUMMARY,
)
from stages.record import read_record
from stages.stage import new_folder, read_json, run_stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gan.figures.page import Figure, Provenance
    from gan.figures.report import ClassShare

DIAGNOSIS = EVALUATION_FIGURES / "diagnosis.json"
TRAJECTORY = EVALUATION_FIGURES / "trajectory.csv"
CLASSES = EVALUATION_FIGURES / "classes.csv"
NEIGHBOURS = EVALUATION_FIGURES / "neighbours.csv"
RECORDED = ("fetch", "prepare", "reference", "train", "sample", "evaluate")
"""The stages before this one that make something, in their order."""
log = logging.getLogger(__name__)

Digests = dict[Path, str]
"""MD5 of each file that something was made from."""


def report(params: Params) -> None:
    """Draw the charts, and write the page that shows them with the verdict and everything else.

    Where images or a generator from elsewhere were scored, there is no training to show.
    """
    from gan.data.packed import read_manifest
    from gan.diagnosis import Diagnosis
    from gan.figures.report import ClassShare, Figures, Source, render_report
    from gan.figures.scores import headline, score_rows

    data = read_manifest(PREPARED)
    samples, scores = read_json(SAMPLES / "manifest.json"), read_json(SCORES)
    verdict = read_json(DIAGNOSIS)
    diagnosis = Diagnosis(**verdict | {"evidence": tuple(verdict["evidence"])})
    course = _columns(TRAJECTORY)
    classes = [
        ClassShare(row["class"], float(row["share_samples"]), float(row["share_real"])) for row in _read_csv(CLASSES)
    ]

    images: Digests = {SAMPLES / "images.npy": samples["images_md5"]}
    drawn_by: Digests = images
    if samples["origin"] != "given images":
        file = Path(samples["generator"])
        drawn_by = {TRAINED / file if samples["origin"] == "training" else file: samples["generator_md5"]}
    kept: Digests = {TRAINED / name: md5 for name, md5 in samples.get("kept_md5", {}).items()} or drawn_by
    real = {name: {PREPARED / f"{name}.npy": split.md5} for name, split in data.splits.items()}
    beside = images | real[params.evaluate.split]
    looked_up = images | real["train"]
    scored_with = looked_up if params.evaluate.extractor == "none" else looked_up | beside

    with new_folder(REPORT) as folder:
        page = render_report(
            figures=Figures(
                samples=_figure(SAMPLE_FIGURES / "grid.png", "sample", drawn_by),
                real=_figure(EVALUATION_FIGURES / "real.png", "evaluate", beside),
                neighbours=_figure(EVALUATION_FIGURES / "neighbours.png", "evaluate", looked_up, NEIGHBOURS),
                interpolation=_if_there(SAMPLE_FIGURES / "interpolation.png", drawn_by),
                training=_if_there(SAMPLE_FIGURES / "training.png", kept),
                filmstrip=_if_there(SAMPLE_FIGURES / "filmstrip.png", kept),
                **_draw_charts(folder, scores, course, classes),
            ),
            diagnosis=diagnosis,
            diagnosis_source=Source(
                DIAGNOSIS,
                _provenance(
                    DIAGNOSIS, "evaluate", _digests(CURVES, TRAINING_SUMMARY, TRAJECTORY, SCORES, REFERENCE_SCORES)
                ),
            ),
            scores=scores,
            scores_source=Source(SCORES, _provenance(SCORES, "evaluate", scored_with)),
            test_accuracy=read_json(REFERENCE_SCORES).get("test_accuracy"),
            classes=classes,
            training=read_json(TRAINING_SUMMARY) if TRAINING_SUMMARY.exists() else {},
            params=params.model_dump(),
            data=data,
            samples=samples,
            records=[read_record(stage) for stage in RECORDED],
            last_distance=float(course["distance"][-1]) if course else None,
        )
        (folder / "index.html").write_text(page, encoding="utf-8")

        summary = f"report: {REPORT / 'index.html'}"
        for row in headline(score_rows(scores)):
            summary += f"  {row.label} {row.value}" + (f" (real {row.real})" if row.real else "")
        summary += f"\nverdict: {diagnosis.verdict}" + (f". Next: {diagnosis.advice}" if diagnosis.advice else "")
        summary += "".join(f"\nwarning: {warning}" for warning in scores.get("warnings", []))
        (folder / "summary.txt").write_text(summary + "\n", encoding="utf-8")
    log.info(summary)


def _draw_charts(
    folder: Path, scores: dict[str, Any], course: "dict[str, NDArray[np.float64]]", classes: "list[ClassShare]"
) -> "dict[str, Figure]":
    """Draw the charts for which there are numbers into `folder`; each by its name."""
    import numpy as np

    from gan.figures.curves import draw_class_shares, draw_curves, draw_distance, draw_precision_recall
    from gan.figures.scores import first, is_frechet

    intervals, floor = first(scores, "intervals"), first(scores, "floor")
    charts: dict[str, tuple[Path, ...]] = {}
    curves = _columns(CURVES)
    if curves:
        draw_curves(folder / "curves.svg", curves)
        charts["curves"] = (CURVES,)
    if course:
        name = next(key for key in scores if is_frechet(key))
        draw_distance(folder / "distance.svg", course["kimg"], course["distance"], name, floor.get(name))
        charts["distance"] = (TRAJECTORY, SCORES)
    if classes:
        samples, real = (np.array([getattr(row, column) for row in classes]) for column in ("samples", "real"))
        draw_class_shares(folder / "classes.svg", [row.name for row in classes], samples, real)
        charts["classes"] = (CLASSES,)
    if {"precision", "recall"} <= scores.keys():
        draw_precision_recall(
            folder / "precision_recall.svg",
            scores["precision"],
            scores["recall"],
            precision_interval=intervals.get("precision"),
            recall_interval=intervals.get("recall"),
            floor=(floor["precision"], floor["recall"]) if {"precision", "recall"} <= floor.keys() else None,
        )
        charts["precision_recall"] = (SCORES,)
    return {
        name: _figure(folder / f"{name}.svg", "report", _digests(*tables), tables[0]) for name, tables in charts.items()
    }


def _figure(path: Path, stage: str, made_from: Digests, numbers: Path | None = None) -> "Figure":
    from gan.figures.page import Figure

    return Figure(path, _provenance(path, stage, made_from), numbers)


def _if_there(path: Path, made_from: Digests) -> "Figure | None":
    return _figure(path, "sample", made_from) if path.exists() else None


def _provenance(path: Path, stage: str, made_from: Digests) -> "Provenance":
    """Of a file as it will be named; the report's own still lie in its temporary folder."""
    from gan.data.packed import file_md5
    from gan.figures.page import Provenance

    name = REPORT / path.name if stage == "report" else path
    digests = {str(file): md5 for file, md5 in made_from.items()}
    return Provenance(str(name), file_md5(path), f"dvc repro {stage}", digests)


def _digests(*files: Path) -> Digests:
    """Of those that are there."""
    from gan.data.packed import file_md5

    return {file: file_md5(file) for file in files if file.exists()}


def _columns(path: Path) -> "dict[str, NDArray[np.float64]]":
    """A table of numbers by column, NaN where empty; no columns if there are no rows."""
    import numpy as np

    rows = _read_csv(path)
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in (rows[0] if rows else ())}


def _read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table; none if it is not there."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    run_stage("report", report)
