"""The page of several experiments, made from their results."""

import base64
import csv
import hashlib
import io
import json
import re
import shutil
from pathlib import Path

import pytest

from stages.comparison import main
from tests.stages.comparison_runs import entry, scores_of, three, write_comparison

PAGE = Path("results/comparison/index.html")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_page(refusal: str = "") -> str:
    write_comparison(Path("in"), three(), failed={"mnist-dcgan": "fetch: no network"}, refusal=refusal)
    assert main(["in"]) == 0
    return PAGE.read_text()


def downloads(html: str) -> dict[str, bytes]:
    found = re.findall(r'download="([^"]+)" href="data:text/csv;base64,([^"]+)"', html)
    return {name: base64.b64decode(content) for name, content in found}


def test_every_chart_is_embedded_with_its_numbers_and_their_digests() -> None:
    html = make_page()
    assert html.count("data:image/svg+xml;base64,") == 4
    assert html.count("data:image/png;base64,") == 3
    numbers = downloads(html)
    assert sorted(numbers) == ["distance.csv", "losses.csv", "precision_recall.csv", "scores.csv"]
    recorded = {
        name: md5 for md5, name in re.findall(r"([0-9a-f]{32})  (results/comparison/\S+?\.(?:svg|csv))\b", html)
    }
    assert len(recorded) == 8
    for name, md5 in recorded.items():
        assert hashlib.md5(Path(name).read_bytes()).hexdigest() == md5
    for name, content in numbers.items():
        assert (PAGE.parent / name).read_bytes() == content
    scores = list(csv.DictReader(io.StringIO(numbers["scores.csv"].decode())))
    (row,) = [row for row in scores if row["experiment"] == "mnist-quick" and row["score"] == "classifier-FD"]
    assert (float(row["value"]), float(row["floor"])) == (1.022, 1.207)
    assert {row["score"] for row in csv.DictReader(io.StringIO(numbers["precision_recall.csv"].decode()))} == {
        "precision", "recall",
    }  # fmt: skip
    grid = hashlib.md5(Path("in/1/results/samples/grid.png").read_bytes()).hexdigest()
    assert html.count(grid) == 2  # below the picture, and among the digests


def test_the_same_results_give_the_same_page() -> None:
    before = make_page()
    shutil.rmtree("in")
    assert make_page() == before


def test_scores_that_do_not_compare_are_in_no_chart_and_no_table() -> None:
    html = make_page(refusal="the scores of a and b do not compare")
    assert html.count("data:image/svg+xml;base64,") == 1
    assert sorted(downloads(html)) == ["losses.csv"]
    assert html.count("data:image/png;base64,") == 3
    assert "9.34" not in html
    assert not list(PAGE.parent.glob("scores.*"))


def test_what_a_run_did_not_make_is_left_out() -> None:
    runs = [entry("given", {"verdict": "not trained here", "near_copies": 0.0}), entry("lost", scores_of(1.0, 0.1))]
    write_comparison(Path("in"), runs)
    Path("in/0/results/curves.csv").write_text("")
    Path("in/0/results/evaluation/trajectory.csv").unlink()
    shutil.rmtree("in/1/results")
    assert main(["in"]) == 0
    html = PAGE.read_text()
    assert "Its samples are not to be had here." in html
    assert sorted(downloads(html)) == ["precision_recall.csv", "scores.csv"]


@pytest.mark.parametrize("document", [None, "{", "{}", '{"experiments": [], "failed": {}, "refusal": ""}', "[]"])
def test_a_folder_that_is_not_of_that_form_is_refused_in_a_line(
    document: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in").mkdir()
    if document is not None:
        Path("in/comparison.json").write_text(document)
    assert main(["in"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("comparison: in: no results to compare: ")
    assert said.count("\n") == 1
    assert not PAGE.exists()
    assert main([]) == 1


def test_an_old_page_stays_where_a_new_one_fails() -> None:
    before = make_page()
    document = json.loads(Path("in/comparison.json").read_text())
    del document["experiments"][1]["command"]
    Path("in/comparison.json").write_text(json.dumps(document))
    assert main(["in"]) == 1
    assert PAGE.read_text() == before
