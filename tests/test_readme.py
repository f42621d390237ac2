"""The README's commands and figures are the project's own."""

import json
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
GRID = ROOT / "results/samples/grid.png"
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL) for line in block.splitlines()]


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    used = {match for line in COMMANDS for match in re.findall(r"^make (\w+)", line)}
    assert used
    assert used <= targets


def test_every_parameter_that_the_readme_sets_exists() -> None:
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    set_in_commands = re.findall(r"-S (\w+)\.(\w+)=", README)
    assert set_in_commands
    mentioned = [(section, key) for section, key in re.findall(r"`(\w+)\.(\w+)[=:`]", README) if section in params]
    assert mentioned
    for section, key in set_in_commands + mentioned:
        assert key in params[section], f"{section}.{key}"


def test_every_experiment_of_the_readme_exists_and_none_is_left_out() -> None:
    experiments = set(YAML(typ="safe").load(ROOT / "experiments.yaml"))
    section = README[README.index("## Experiments by name") : README.index("## Apart from your checkout")]
    rows = set(re.findall(r"^\| `([a-z0-9-]+)`", section, flags=re.MULTILINE))
    assert rows | {f"{name}-small" for name in rows if name.startswith("celeba-")} == experiments
    assert set(re.findall(r"NAME=(\S+)", README)) <= experiments


def test_the_page_on_celeba_shows_every_small_experiment_and_pictures_that_are_there() -> None:
    page = (ROOT / "results/celeba.md").read_text()
    small = {name for name in YAML(typ="safe").load(ROOT / "experiments.yaml") if re.match(r"celeba-.*-small$", name)}
    assert set(re.findall(r"^\| `(\S+)` \|", page, flags=re.MULTILINE)) == small
    assert set(re.findall(r"NAME=(\S+)", page)) == small
    pictures = re.findall(r"\]\(\.\./(docs/celeba/\S+\.png)\)", page)
    assert {Path(picture).stem for picture in pictures} == small
    assert all((ROOT / picture).is_file() for picture in pictures)


@pytest.mark.skipif(not GRID.exists(), reason="needs the default experiment's results: make repro, or dvc pull")
def test_the_picture_is_the_one_that_the_default_experiment_makes() -> None:
    assert (ROOT / "docs/mnist-quick.png").read_bytes() == GRID.read_bytes()


def test_the_scores_are_those_of_the_default_experiment() -> None:
    scores = json.loads((ROOT / "results/scores.json").read_text())
    ((intervals,), (floor,)) = scores["intervals"], scores["floor"]

    def row(name: str, spec: str) -> str:
        low, high = (format(bound, spec) for bound in intervals[name])
        fair = scores["details"][0].get(f"{name}_equal_counts")
        beside = f"; of 500 samples {fair:{spec}}" if fair is not None else ""
        return f"| {scores[name]:{spec}} [{low}, {high}]{beside} | {floor[name]:{spec}} |"

    assert row("inception_score", ".2f") in README
    for name in ("classifier-FD", "classifier-KD", "precision", "recall"):
        assert row(name, ".3g") in README
    assert f"-S sample.generator=$PWD/{scores['details'][0]['best_generator']}" in README
    accuracy = json.loads((ROOT / "results/reference.json").read_text())["test_accuracy"]
    assert f"test accuracy {accuracy}" in README
