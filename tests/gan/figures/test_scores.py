from typing import Any

import pytest

from gan.figures.scores import ScoreRow, headline, know, score_rows

SCORES: dict[str, Any] = {
    "verdict": "converged",
    "inception_score": 8.2414,
    "classifier-FD": 1.0225,
    "classifier-KD": 0.00121,
    "precision": 0.81,
    "recall": 0.74,
    "near_copies": 0.001,
    "details": [{"inception_score_std": 0.0967, "density": 0.8312, "feature_diversity": 0.955, "rarest_class": 0.0894}],
    "intervals": [{"inception_score": [8.17, 8.3149], "classifier-KD": [-0.0002, 0.0016], "near_copies": [0.0, 0.004]}],
    "floor": [{"inception_score": 9.69, "classifier-FD": 1.20721, "near_copies": 0.0}],
    "warnings": ["Few samples."],
    "class_shares": [0.5, 0.5],
    "protocol": [{"extractor": "classifier", "seed": 0}],
}


def by_key(rows: list[ScoreRow]) -> dict[str, tuple[str, str | None, str | None]]:
    return {row.key: (row.value, row.interval, row.real) for row in rows}


def test_each_score_stands_with_its_spread_its_interval_and_that_of_real_images() -> None:
    assert by_key(score_rows(SCORES, rarest_real_class=0.1)) == {
        "inception_score": ("8.24 ± 0.10", "8.17 to 8.31", "9.69"),
        "classifier-FD": ("1.02", None, "1.21"),
        "classifier-KD": ("0.00121", "-0.0002 to 0.0016", None),
        "precision": ("0.810", None, None),
        "recall": ("0.740", None, None),
        "near_copies": ("0.1 %", "0.0 % to 0.4 %", "0.0 %"),
        "density": ("0.831", None, None),
        "feature_diversity": ("0.95", None, "1"),
        "rarest_class": ("8.9 %", None, "10.0 %"),
    }


def test_fewer_real_images_stand_beside_as_many_samples() -> None:
    rows = by_key(score_rows(SCORES | {"details": [{"classifier-FD_equal_counts": 3.40047}]}))
    assert rows["classifier-FD"] == ("1.02", None, "1.21, as many samples 3.4")
    assert "classifier-FD_equal_counts" not in rows


def test_a_score_without_words_is_shown_by_its_name() -> None:
    scores = {
        "novelty": 0.00123, "count": 12345, "novelty_std": 0.1, "alone_std": 2.0, "why": "text", "flag": True,
        "floor": [{"novelty": 2000.4}], "details": [{"depth": 3}],
    }  # fmt: skip
    rows = score_rows(scores)
    assert [(row.label, row.value, row.real, row.meaning) for row in rows] == [
        ("novelty", "0.00123 ± 0.1", "2,000", ""),
        ("count", "12,345", None, ""),
        ("alone_std", "2", None, ""),
        ("depth", "3", None, ""),
    ]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("FID", "Fréchet distance of the samples from the real images, in the features of the Inception network"),
        ("KID", "squared MMD"),
        ("squeezenet-FD", "in the features of SqueezeNet 1.1"),
        ("inception_v3-KD", "in the features of torchvision's Inception v3"),
        ("clip-FD", "in the features of the extractor clip."),
    ],
)
def test_the_distances_are_explained_by_their_extractor(key: str, said: str) -> None:
    known = know(key)
    assert said in known.meaning
    assert (known.label, known.better) == (key, "lower")


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [
        (["inception_score", "FID", "KID", "precision", "near_copies"], ["inception_score", "FID", "KID"]),
        (["squeezenet-FD", "squeezenet-KD", "precision", "near_copies"], ["squeezenet-FD", "squeezenet-KD"]),
        (["neighbour_distance", "near_copies"], ["near_copies"]),
        (["novelty", "other"], ["novelty"]),
        ([], []),
    ],
)
def test_the_headline_has_three_scores_at_most(keys: list[str], chosen: list[str]) -> None:
    assert [row.key for row in headline(score_rows(dict.fromkeys(keys, 1.0)))] == chosen
