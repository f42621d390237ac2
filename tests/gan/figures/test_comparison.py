"""What the comparison says of several experiments' scores, and that its page and charts hold to it."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan.figures.comparison import (
    Experiment,
    Figures,
    best_of,
    charted_scores,
    differing_params,
    distance_score,
    distance_table,
    draw_distances,
    draw_losses,
    draw_precision_recall,
    draw_scores,
    finding,
    loss_table,
    main_score,
    mark,
    protocol_table,
    render_comparison,
    score_columns,
    score_table,
    tone,
)

NO_FIGURES = Figures(None, None, None, None)
SCRIPT = "<script>alert('x')</script>"


def experiment(name: str, scores: Mapping[str, Any] | None = None, **changes: Any) -> Experiment:
    kimg = np.arange(1.0, 61.0)
    values: dict[str, Any] = {
        "commit": "c0ffee" * 6 + "cafe",
        "command": f"dvc exp run --name {name}",
        "params": {"train.lr_d": 0.001},
        "scores": {"verdict": "converged"} | dict(scores or {}),
        "explanation": None,
        "distances": (kimg[::20], np.array([9.0, 3.0, 0.0])),
        "losses": (kimg, np.cos(kimg), np.full(60, np.nan)),
        "samples": None,
        "digests": {},
    }
    return Experiment(name=name, **values | changes)


def scored(name: str, low: float, value: float, high: float, key: str = "FID", **changes: Any) -> Experiment:
    scores = {key: value, "intervals": [{key: [low, high]}], "floor": [{key: 1.0}]}
    return experiment(name, scores, **changes)


def render(*experiments: Experiment, failed: Mapping[str, str] | None = None, refusal: str = "") -> str:
    return render_comparison(
        experiments, failed=failed or {}, refusal=refusal, figures=NO_FIGURES, command="python -m flows.comparison a b"
    )


def words(html: str) -> str:
    """What a reader sees."""
    text = re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL)
    return " ".join(text.replace("&nbsp;", " ").replace("\N{NO-BREAK SPACE}", " ").split())


# Which is best


@pytest.mark.parametrize(
    ("intervals", "best"),
    [
        ([(1.0, 1.1, 1.2), (1.3, 1.4, 1.5)], 0),
        ([(1.3, 1.4, 1.5), (1.0, 1.1, 1.2)], 1),
        ([(1.0, 1.1, 1.3), (1.3, 1.4, 1.5)], None),
        # The second does not reach the best, but the third may be as good.
        ([(1.0, 1.1, 1.2), (1.3, 1.4, 1.5), (1.1, 2.0, 2.9)], None),
        ([(1.0, 1.1, 1.2)], None),
    ],
)
def test_the_best_is_marked_where_its_interval_overlaps_no_other(
    intervals: list[tuple[float, float, float]], best: int | None
) -> None:
    experiments = [scored(str(number), *values) for number, values in enumerate(intervals)]
    assert best_of(experiments, "FID") == best
    mirrored = [
        scored(str(number), -high, -value, -low, "precision") for number, (low, value, high) in enumerate(intervals)
    ]
    assert best_of(mirrored, "precision") == best, "of this score, more is better"


def test_nothing_is_best_without_intervals_or_where_no_direction_is_better() -> None:
    assert best_of([experiment("a", {"FID": 1}), experiment("b", {"FID": 100})], "FID") is None
    assert best_of([scored("a", 1, 2, 3, "feature_diversity"), scored("b", 7, 8, 9, "feature_diversity")], "x") is None
    one_alone = [scored("a", 1, 2, 3), experiment("b")]
    assert best_of(one_alone, "FID") is None
    assert best_of([*one_alone, scored("c", 7, 8, 9)], "FID") == 0, "what has no score does not compete"


def test_the_columns_hold_every_score_of_any_experiment_with_interval_and_floor() -> None:
    a = scored("a", 1.0, 1.1, 1.2)
    b = experiment("b", {"FID": 2.5, "recall": 0.5, "class_shares": [1.0], "intervals": [{"FID": [2.0, 3.0]}]})
    fid, recall = score_columns([a, b])
    assert [(cell.value, cell.interval, cell.best) for cell in fid.cells if cell] == [
        ("1.1", "1 to 1.2", True),
        ("2.5", "2 to 3", False),
    ]
    assert (fid.label, fid.better, fid.floor) == ("FID", "lower", "1")
    assert recall.cells[0] is None
    assert recall.cells[1] is not None
    assert (recall.cells[1].value, recall.cells[1].interval, recall.floor) == ("0.500", None, None)
    details = experiment("d", {"details": [{"density": 0.9, "FID_std": 0.1}]})
    assert [column.label for column in score_columns([details], of="details")] == ["Density"]


def test_a_floor_that_experiments_do_not_share_is_not_shown() -> None:
    other = experiment("b", {"FID": 2.0, "floor": [{"FID": 1.5}]})
    assert [column.floor for column in score_columns([scored("a", 1, 1, 1), other])] == [None]


def test_the_finding_says_no_more_than_the_intervals() -> None:
    best, second, third = scored("a", 1.0, 1.1, 1.2), scored("b", 1.3, 1.4, 1.5), scored("c", 1.15, 1.3, 1.4)

    def said(*experiments: Experiment) -> str:
        return finding(experiments).replace("\N{NO-BREAK SPACE}", " ")

    assert said(second, best) == (
        "a has the smallest FID, 1.1, 95 % interval 1 to 1.2; b comes next with 1.4, 95 % interval 1.3 to 1.5. "
        "Held-out real images reach 1."
    )
    assert said(second, third, best) == (
        "By the FID, a (1.1, 95 % interval 1 to 1.2) and c (1.3, 95 % interval 1.15 to 1.4) cannot be told apart. "
        "Held-out real images reach 1."
    )
    details = [{"FID_equal_counts": 4.5}]
    fewer = Experiment(**vars(best) | {"scores": {**best.scores, "details": details}})
    assert said(second, fewer).endswith("Held-out real images reach 1, as many samples of a 4.5.")
    assert "a (1, 95 % interval 0 to 2), b (1, 95 % interval 0 to 2) and 3 more cannot" in said(
        *(scored(name, 0.0, 1.0, 2.0) for name in "abcde")
    )
    assert said(experiment("a", {"FID": 1.0}), experiment("b", {"FID": 2.0})) == (
        "a has the smallest FID, 1; b has 2. Without intervals, it may be chance."
    )
    assert said(best, experiment("b")) == said(best) == said() == ""


def test_a_difference_that_three_digits_do_not_show_makes_none_the_best() -> None:
    a, b = scored("a", 12.5581, 12.5582, 12.5583), scored("b", 12.5591, 12.5592, 12.5593)
    assert best_of([a, b], "FID") is None
    assert "a (12.6, 95" in finding([a, b])
    assert "cannot be told apart" in finding([a, b])
    assert "cannot be told apart" in finding([experiment("a", {"FID": 202.96}), experiment("b", {"FID": 202.97})])


def test_experiments_are_ranked_by_a_score_that_all_have() -> None:
    both, one = {"inception_score": 2.0, "classifier-FD": 1.0}, {"inception_score": 2.0, "FID": 1.0}
    assert main_score([experiment("a", both), experiment("b", both)]) == "classifier-FD"
    assert main_score([experiment("a", both), experiment("b", one)]) == "inception_score"
    assert main_score([experiment("a", both), experiment("b")]) is None
    # A Fréchet distance of too few samples has no interval.
    sure = {"FID": 1.0, "KID": 2.0, "intervals": [{"KID": [1.0, 3.0]}]}
    assert main_score([experiment("a", sure), experiment("b", sure)]) == "KID"
    assert finding([experiment("a", both), experiment("b", both | {"classifier-FD": 3.0}), experiment("c")]) != ""


def test_the_course_over_training_is_of_the_distance_that_was_followed() -> None:
    scores = {"inception_score": 2.0, "classifier-FD": 1.0}
    followed, other = experiment("a", scores), experiment("b", {"inception_score": 3.0}, distances=None)
    assert distance_score([other, followed]) == "classifier-FD"
    assert distance_score([other]) is None


# What differs


def test_parameters_that_differ_are_listed_with_those_that_one_lacks() -> None:
    a = experiment("a", params={"seed": 0, "train.lr_d": 0.1, "data.crop": None})
    b = experiment("b", params={"seed": 0, "train.lr_d": 0.2, "data.crop": None, "train.new": [1]})
    assert differing_params([a, b]) == {"train.lr_d": [0.1, 0.2], "train.new": [None, [1]]}


def test_the_protocol_is_told_once_but_for_what_differs() -> None:
    a = experiment("a", {"protocol": [{"extractor": "fid", "seed": 0}]})
    b = experiment("b", {"protocol": [{"extractor": "fid", "seed": 1}]})
    assert protocol_table([a, b]) == {"extractor": ["fid"], "seed": [0, 1]}


def test_49_experiments_have_marks_of_their_own() -> None:
    assert len({mark(index) for index in range(49)}) == 49
    assert len({mark(index)[1] for index in range(7)}) == len({mark(index)[0] for index in range(7)}) == 7


def test_verdicts_have_their_tones() -> None:
    verdicts = ("converged", "stalled", "diverged", "not trained here")
    assert [tone(verdict) for verdict in verdicts] == ["good", "wait", "bad", "plain"]


# The page


def test_the_page_names_verdicts_scores_failures_and_commands() -> None:
    a = scored("a", 1.0, 1.1, 1.2, explanation="It has settled.")
    html = render(a, scored("b", 3.0, 4.0, 5.0, params={"train.lr_d": 0.002}), failed={"c": "fetch: no network"})
    text = words(html)
    for expected in (
        "Two experiments side by side",
        "a has the smallest FID",
        "a converged It has settled.",
        "c failed fetch: no network",
        "train.lr_d 0.001 0.002",
        "1.1 best 1 to 1.2",
        "held-out real images 1",
        "dvc exp run --name b",
        "python -m flows.comparison a b",
        "c0ffeec0ffee",
    ):
        assert expected in text
    assert html.count('class="best"') == 1


def test_where_scores_do_not_compare_the_page_says_why_and_shows_none() -> None:
    protocols = [[{"generated_images": 100, "seed": 0}], [{"generated_images": 5, "seed": 0}]]
    a, b = (scored(name, 1.0, 1.1125, 1.2, explanation=None) for name in ("a", "b"))
    a, b = (
        Experiment(**vars(each) | {"scores": {**each.scores, "protocol": protocol}})
        for each, protocol in zip((a, b), protocols, strict=True)
    )
    text = words(render(a, b, refusal="the scores of a and b do not compare: protocols differ"))
    assert "No scores are shown: the scores of a and b do not compare: protocols differ" in text
    assert "FID" not in text
    assert "1.11" not in text
    assert "generated images 100 5" in text
    assert "seed 0 0" in text
    assert "a converged" in text
    assert "1.11" in words(render(a, b)), "otherwise it is shown"


def test_everything_given_is_escaped() -> None:
    scores = {
        "verdict": SCRIPT, SCRIPT: 1.0, "warnings": [SCRIPT], "protocol": [{SCRIPT: SCRIPT}], "details": [{SCRIPT: 1}],
    }  # fmt: skip
    evil = experiment(SCRIPT, scores, params={SCRIPT: SCRIPT}, commit=SCRIPT, command=SCRIPT, explanation=SCRIPT,
                      digests={SCRIPT: SCRIPT})  # fmt: skip
    for refusal in ("", SCRIPT):
        html = render(evil, experiment("b"), failed={SCRIPT: SCRIPT}, refusal=refusal)
        assert "<script" not in html
        assert html.count("&lt;script&gt;") > 15


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    html = render(scored("a", 1, 2, 3), scored("b", 1, 2, 3))
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in html
    assert not re.search(r"(?:src|href)=\"(?!data:|#)|url\(|@import|<link|<iframe|\son\w+=", html)


def test_equal_experiments_give_equal_pages() -> None:
    assert render(scored("a", 1, 2, 3), experiment("b")) == render(scored("a", 1, 2, 3), experiment("b"))


def test_one_experiment_alone_is_a_page_too() -> None:
    text = words(render(scored("a", 1, 2, 3), failed={"b": "no memory"}))
    assert "One experiment" in text
    assert "there is one experiment alone" in text


# The charts


def test_the_charts_are_svg_of_equal_bytes(tmp_path: Path) -> None:
    names = ("_hidden?", "$x$ & <b>", "n" * 200)
    scores = {"precision": 0.5, "recall": 0.4, "FID": 2.0, "KID": -0.001, "inception_score": 3.0}
    intervals = {key: [value - 0.1, value + 0.1] for key, value in scores.items()}
    full = scores | {"intervals": [intervals], "floor": [{"FID": 1.0, "precision": 0.9, "recall": 0.9}]}
    experiments = [experiment(name, full) for name in names] + [experiment("bare", distances=None, losses=None)]
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        draw_scores(folder / "scores.svg", experiments)
        draw_distances(folder / "distance.svg", experiments, "FID", 1.0)
        draw_precision_recall(folder / "pr.svg", experiments)
        draw_losses(folder / "losses.svg", experiments)
    for path in sorted((tmp_path / "1").iterdir()):
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes()
        assert ET.parse(path).getroot().tag.endswith("svg")


def test_the_charts_manage_with_little(tmp_path: Path) -> None:
    zeros = (np.array([1.0]), np.array([0.0]))
    nothing = (np.array([1.0]), np.array([np.nan]), np.array([np.nan]))
    bare = experiment("a", {"precision": 0.0, "recall": 1.0, "FID": 1.0, "floor": [{"FID": 0.5}]}, distances=zeros)
    unmeasured = experiment("b", losses=nothing, distances=None)
    draw_scores(tmp_path / "scores.svg", [bare, unmeasured])
    draw_distances(tmp_path / "distance.svg", [bare, unmeasured], "FID", None)
    draw_precision_recall(tmp_path / "pr.svg", [unmeasured, bare])
    draw_losses(tmp_path / "losses.svg", [unmeasured])
    assert len(list(tmp_path.iterdir())) == 4


def test_scores_are_charted_where_something_tells_how_to_read_them() -> None:
    scores = {
        "FID": 1.0,
        "recall": 0.5,
        "precision": 0.5,
        "intervals": [{"FID": [0.9, 1.1]}],
        "floor": [{"recall": 0.9}],
    }
    assert charted_scores([experiment("a", scores)]) == ["FID", "recall"]


def test_the_numbers_of_the_figures_are_rows() -> None:
    a = scored("a", 1.0, 1.1, 1.2, distances=None)
    b = experiment("b", {"details": [{"density": 0.9}]}, losses=None)
    assert list(score_table([a, b])) == [
        ("experiment", "score", "value", "low", "high", "floor"),
        ("a", "FID", 1.1, 1.0, 1.2, 1.0),
        ("b", "density", 0.9, "", "", ""),
    ]
    assert list(score_table([a, b], ("density",)))[1:] == [("b", "density", 0.9, "", "", "")]
    assert list(distance_table([a, b])) == [
        ("experiment", "kimg", "distance"), ("b", 1.0, 9.0), ("b", 21.0, 3.0), ("b", 41.0, 0.0),
    ]  # fmt: skip
    rows = list(loss_table([a, b]))
    assert len(rows) == 61
    assert rows[1] == ("a", 1.0, float(np.cos(1.0)), "")
