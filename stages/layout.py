"""Where the stages' inputs and outputs lie, relative to the folder that holds dvc.yaml."""

import os
from pathlib import Path

CHECKED = Path("data/checked.txt")
RAW = Path("data/raw")
PREPARED = Path("data/prepared")
REFERENCE = Path("data/reference")
TRAINED = Path("data/train")
SAMPLES = Path("data/samples")

RESULTS = Path("results")
REFERENCE_SCORES = RESULTS / "reference.json"
TRAINING_SUMMARY = RESULTS / "train.json"
CURVES = RESULTS / "curves.csv"
SAMPLE_FIGURES = RESULTS / "samples"
SCORES = RESULTS / "scores.json"
EVALUATION_FIGURES = RESULTS / "evaluation"
REPORT = RESULTS / "report"
RECORDS = RESULTS / "records"
"""What each stage's outputs were made from, a file a stage."""

MAIN_REPOSITORY = Path(os.environ.get("DVC_ROOT", "."))
"""DVC names it even inside the temporary copies of `dvc exp run --temp`."""
DOWNLOADS = MAIN_REPOSITORY / ".atelier/downloads"
RECOVERY = MAIN_REPOSITORY / ".atelier/runs"
TOGETHER = Path(".atelier/together")
"""What processes share on a host that only takes part in a training; those of the first host share its recovery's."""
EVENTS = MAIN_REPOSITORY / "runs"
"""TensorBoard's events, a folder a run."""


def own_file(given: str) -> Path:
    """Where a file of the user's own lies that a parameter names: relative to the main repository, or to their home."""
    # Unlike Path.expanduser, os.path's leaves the name of an unknown user as it stands.
    return MAIN_REPOSITORY / os.path.expanduser(given)  # noqa: PTH111
