"""report: the run's results in; one page with every figure beside what made it, out."""

import csv
import json
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
from stages.stage import new_folder, run_stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIAGNOSIS = EVALUATION_FIGURES / "diagnosis.json"
TRAJECTORY = EVALUATION_FIGURES / "trajectory.csv"
log = logging.getLogger(__name__)


def report(params: Params) -> None:
    """Draw the curves and the class shares, and write the page that shows them with the verdict and everything else."""
    import numpy as np

    from gan.data.packed import file_md5, read_manifest
    from gan.diagnosis import Diagnosis
    from gan.figures.curves import draw_class_shares, draw_curves, draw_distance
    from gan.figures.report import HEADLINE, ClassShare, Figure, Figures, Provenance, render_report, score_rows

    def figure(path: Path, name: Path, command: str, made_from: dict[Path, str]) -> Figure:
        return Figure(path, provenance(path, name, command, made_from))

    def provenance(path: Path, name: Path, command: str, made_from: dict[Path, str]) -> Provenance:
        return Provenance(str(name), file_md5(path), command, {str(file): md5 for file, md5 in made_from.items()})

    data = read_manifest(PREPARED)
    samples = _read_json(SAMPLES / "manifest.json")
    scores, reference_scores = _read_json(SCORES), _read_json(REFERENCE_SCORES)
    verdict = _read_json(DIAGNOSIS)
    diagnosis = Diagnosis(**verdict | {"evidence": tuple(verdict["evidence"])})
    measured = (CURVES, TRAINING_SUMMARY, TRAJECTORY, SCORES, REFERENCE_SCORES)
    weights = TRAINED / ("generator_ema.safetensors" if samples["ema"] else "generator.safetensors")
    generator = {weights: samples["generator_md5"]}
    kept = {TRAINED / name: md5 for name, md5 in samples.get("kept_md5", {}).items()}
    image_set = {SAMPLES / "images.npy": samples["images_md5"]}
    split = params.evaluate.split
    scored_with = dict(image_set)
    if params.evaluate.extractor != "none":
        scored_with[PREPARED / f"{split}.npy"] = data.splits[split].md5
    compared_with = image_set | {PREPARED / "train.npy": data.splits["train"].md5}
    class_table = EVALUATION_FIGURES / "classes.csv"
    classes = [
        ClassShare(row["class"], float(row["share_samples"]), float(row["share_real"]))
        for row in (_read_csv(class_table) if class_table.exists() else [])
    ]

    def sample_figure(name: str, made_from: dict[Path, str]) -> Figure:
        return figure(SAMPLE_FIGURES / name, SAMPLE_FIGURES / name, "dvc repro sample", made_from)

    with new_folder(REPORT) as folder:

        def own_figure(name: str, *tables: Path) -> Figure:
            return figure(
                folder / name, REPORT / name, "dvc repro report", {table: file_md5(table) for table in tables}
            )

        draw_curves(folder / "curves.png", _columns(CURVES))
        course = _columns(TRAJECTORY) if TRAJECTORY.exists() else {}
        if course:
            name = next(key for key in scores if key.endswith("-FD"))
            floor = reference_scores.get(f"floor_{name}")
            draw_distance(folder / "distance.png", course["kimg"], course["distance"], name, floor)
        if classes:
            draw_class_shares(
                folder / "classes.png",
                [row.name for row in classes],
                np.array([row.samples for row in classes]),
                np.array([row.real for row in classes]),
            )
        neighbours = EVALUATION_FIGURES / "neighbours.png"
        page = render_report(
            figures=Figures(
                samples=sample_figure("grid.png", generator),
                classes=own_figure("classes.png", class_table) if classes else None,
                interpolation=sample_figure("interpolation.png", generator),
                training=sample_figure("training.png", kept or generator),
                distance=own_figure("distance.png", TRAJECTORY, REFERENCE_SCORES) if course else None,
                curves=own_figure("curves.png", CURVES),
                neighbours=figure(neighbours, neighbours, "dvc repro evaluate", compared_with),
            ),
            diagnosis=diagnosis,
            diagnosis_provenance=provenance(
                DIAGNOSIS,
                DIAGNOSIS,
                "dvc repro evaluate",
                {file: file_md5(file) for file in measured if file.exists()},
            ),
            scores=scores,
            reference_scores=reference_scores,
            scores_provenance=provenance(SCORES, SCORES, "dvc repro evaluate", scored_with),
            classes=classes,
            training=_read_json(TRAINING_SUMMARY),
            params=params.model_dump(),
            data=data,
            samples=samples,
            real_images=min(data.splits["test"].count, params.reference.images) if "test" in data.splits else None,
            last_distance=float(course["distance"][-1]) if course else None,
        )
        (folder / "index.html").write_text(page, encoding="utf-8")

        rows = score_rows(scores, reference_scores, classes)
        summary = f"report: {REPORT / 'index.html'}"
        for row in [row for row in rows if row.key in HEADLINE] or rows[:1]:
            summary += f"  {row.label} {row.value}" + (f" (real {row.real})" if row.real else "")
        summary += f"\nverdict: {diagnosis.verdict}. Next: {diagnosis.advice}"
        (folder / "summary.txt").write_text(summary + "\n", encoding="utf-8")
    log.info(summary)


def _read_json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _columns(path: Path) -> "dict[str, NDArray[np.float64]]":
    """A table of numbers by column, NaN where empty; no columns if there are no rows."""
    import numpy as np

    rows = _read_csv(path)
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in (rows[0] if rows else ())}


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    run_stage("report", report)
