"""Several experiments' results in; one page that puts them side by side out. No stage of dvc.yaml: flows run it.

`python -m stages.comparison FOLDER`, where FOLDER holds comparison.json and, for each of its experiments, a folder by
its number with the experiment's `results`.
"""

import csv
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan.errors import InputError
from stages.layout import CURVES, EVALUATION_FIGURES, RESULTS, SAMPLE_FIGURES, SCORES
from stages.stage import new_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gan.figures.comparison import Experiment
    from gan.figures.page import Figure

COMPARISON = RESULTS / "comparison"
DIAGNOSIS = EVALUATION_FIGURES / "diagnosis.json"
TRAJECTORY = EVALUATION_FIGURES / "trajectory.csv"
GRID = SAMPLE_FIGURES / "grid.png"


def comparison(folder: Path) -> None:
    """Draw the charts that the experiments' scores and curves allow, and write the page.

    Where `refusal` in comparison.json says why scores do not compare, no chart puts them side by side. Raises
    InputError if the folder is not of that form.
    """
    from gan.data.packed import file_md5
    from gan.figures import comparison as drawn
    from gan.figures.page import Figure, Provenance

    try:
        found = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
        experiments = [_read(folder / str(number), entry) for number, entry in enumerate(found["experiments"])]
        failed, refusal = dict(found["failed"]), str(found["refusal"])
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: no results to compare: {type(error).__name__}: {error}") from None
    if not experiments:
        raise InputError(f"{folder}: no results to compare: comparison.json lists no experiment")
    command = shlex.join(["python", "-m", "flows.comparison", *(experiment.name for experiment in experiments)])

    with new_folder(COMPARISON) as page:

        def figure(name: str, draw: Callable[[Path], None], rows: Iterable[Sequence[object]], *files: Path) -> "Figure":
            path, numbers = page / f"{name}.svg", page / f"{name}.csv"
            draw(path)
            with numbers.open("w", newline="", encoding="utf-8") as table:
                csv.writer(table, lineterminator="\n").writerows(rows)
            made_from = {str(COMPARISON / numbers.name): file_md5(numbers)} | {
                f"{experiment.name}: {file}": experiment.digests[str(file)]
                for experiment in experiments
                for file in files
                if str(file) in experiment.digests
            }
            return Figure(path, Provenance(str(COMPARISON / path.name), file_md5(path), command, made_from), numbers)

        comparable = experiments if not refusal else []
        distance = drawn.distance_score(comparable)
        floors = [floor for each in comparable if distance and (floor := drawn.floor_of(each, distance)) is not None]
        figures = drawn.Figures(
            scores=figure(
                "scores", lambda path: drawn.draw_scores(path, experiments), drawn.score_table(experiments), SCORES
            )
            if drawn.charted_scores(comparable)
            else None,
            distance=figure(
                "distance",
                lambda path: drawn.draw_distances(path, experiments, str(distance), floors[0] if floors else None),
                drawn.distance_table(experiments),
                TRAJECTORY,
            )
            if distance
            else None,
            precision_recall=figure(
                "precision_recall",
                lambda path: drawn.draw_precision_recall(path, experiments),
                drawn.score_table(experiments, ("precision", "recall")),
                SCORES,
            )
            if any(map(drawn.has_precision_recall, comparable))
            else None,
            losses=figure(
                "losses", lambda path: drawn.draw_losses(path, experiments), drawn.loss_table(experiments), CURVES
            )
            if any(each.losses for each in experiments)
            else None,
        )
        html = drawn.render_comparison(experiments, failed=failed, refusal=refusal, figures=figures, command=command)
        (page / "index.html").write_text(html, encoding="utf-8")


def _read(folder: Path, entry: dict[str, Any]) -> "Experiment":
    from gan.data.packed import file_md5
    from gan.figures.comparison import Experiment

    trajectory, curves = _columns(folder / TRAJECTORY), _columns(folder / CURVES)
    diagnosis = folder / DIAGNOSIS
    files = (SCORES, DIAGNOSIS, TRAJECTORY, CURVES, GRID)
    return Experiment(
        name=entry["name"],
        commit=entry["commit"],
        command=entry["command"],
        params=entry["params"],
        scores=entry["scores"],
        explanation=json.loads(diagnosis.read_text(encoding="utf-8"))["explanation"] if diagnosis.exists() else None,
        distances=(trajectory["kimg"], trajectory["distance"]) if trajectory else None,
        losses=(curves["kimg"], curves["loss_d"], curves["loss_g"]) if curves else None,
        samples=folder / GRID if (folder / GRID).exists() else None,
        digests={str(file): file_md5(folder / file) for file in files if (folder / file).exists()},
    )


def _columns(path: Path) -> "dict[str, NDArray[np.float64]]":
    """A table of numbers by column, NaN where empty; no columns where there is no row, or no file."""
    import numpy as np

    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in (rows[0] if rows else ())}


def main(arguments: Sequence[str]) -> int:
    """Write the page of the folder that the command line names; the exit status."""
    if len(arguments) != 1:
        print("comparison: give the one folder that holds comparison.json", file=sys.stderr)
        return 1
    try:
        comparison(Path(arguments[0]))
    except InputError as error:
        print(f"comparison: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"comparison: {error.filename or 'error'}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
