"""Where the stages' inputs and outputs lie, relative to the folder that holds dvc.yaml."""

from pathlib import Path

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
