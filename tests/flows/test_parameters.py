"""What the command lines and Prefect's form give the flows: taken as it is, or refused in one line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.exceptions import ParameterTypeError

from flows.experiment import (
    EXPERIMENTS,
    NAME,
    ExperimentError,
    check_values,
    default_name,
    experiment_command,
    read_experiments,
    read_keys,
    settings_of,
)
from flows.parameters import plain_word, read_overrides
from flows.pipeline import pipeline
from tests.hostile import FILES, LEAVES, SNIPPETS, billion_laughs, merging_bomb
from tests.project import ROOT

LONGEST = 1000


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def fault(said: str) -> str:
    if len(said.splitlines()) != 1 or not said.isprintable() or len(said) > LONGEST:
        return f"not one short printable line: {said[:300]!r}"
    return ""


@pytest.mark.parametrize("snippet", SNIPPETS[::6])
def test_an_override_is_a_plain_value_or_refused(snippet: str) -> None:
    said = ""
    try:
        found = read_overrides([f"data.path={snippet}"])
        check_values(found)
        assert set(found) == {"data.path"}
        assert default_name("mnist-quick", found).isprintable()
    except ExperimentError as error:
        said = str(error)
    assert not said or not fault(said)


def test_overrides_are_read_as_yaml() -> None:
    words = ["train.epochs=20", "train.lr_d=1e-4", "train.augment=[colour, cutout]", "data.path=a=b", "data.crop=null"]
    assert read_overrides(words) == {
        "train.epochs": 20,
        "train.lr_d": 1e-4,
        "train.augment": ["colour", "cutout"],
        "data.path": "a=b",
        "data.crop": None,
    }


@pytest.mark.parametrize(
    "value", [None, True, 0, -0.0, 1e-300, "", "x", "a\0b", "\u202e", "$(id)", [], [1, "x"], ["colour"], "x" * 4096]
)
def test_a_value_of_the_form_is_taken_as_it_is(value: Any) -> None:
    found = pipeline.validate_parameters({"experiment": "mnist-quick", "overrides": {"data.path": value}})
    assert found["overrides"] == {"data.path": value}
    assert experiment_command("x", {"x": {"set": {"data.path": value}}}, [])[-1].startswith("data.path=")


@pytest.mark.parametrize("value", [{}, {"a": 1}, [[]], 10**400, float("nan"), float("inf"), "x" * 4097, [0] * 101])
def test_a_value_of_the_form_that_no_parameter_can_have_is_refused(value: Any) -> None:
    with pytest.raises(ParameterTypeError, match=r"data\.path: .* is no value of a parameter"):
        pipeline.validate_parameters({"experiment": "mnist-quick", "overrides": {"data.path": value}})


def test_what_no_parameter_can_be_is_refused_by_its_name() -> None:
    for value in ({"a": 1}, [[1]], float("nan"), float("inf"), 10**5000, 2**63, "x" * 5000, [1] * 101, b"x", {1}):
        with pytest.raises(
            ExperimentError, match=r"^train\.lr_d: .* is no value of a parameter, which is a number,"
        ) as error:
            check_values({"train.lr_d": value})
        assert not fault(str(error.value))
    check_values({"a": None, "b": True, "c": 1, "d": 0.5, "e": "x", "f": [1, 2.5, "x", None, False], "g": []})


@pytest.mark.parametrize("word", ["", "-x", "--upload-pack=x", "a::b", "a\0", "a\n", "\x1b[31m", "\ud800", "x" * 1001])
def test_words_that_git_would_misread_are_refused(word: str) -> None:
    with pytest.raises(ExperimentError, match="give at most 1000 printable characters") as error:
        plain_word(word)
    assert not fault(str(error.value))


@pytest.mark.parametrize(
    "name", ["empty", "a list", "binary", "UTF-16", "laughs", "merged laughs", "nested lists", "too long"]
)
def test_a_damaged_experiments_yaml_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / EXPERIMENTS).write_bytes(FILES[name])
    with pytest.raises(ExperimentError, match=EXPERIMENTS.name) as error:
        read_experiments(tmp_path / EXPERIMENTS)
    assert not fault(str(error.value).replace(str(tmp_path), ""))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("--help: {about: x, set: {}}", "'--help' cannot name an experiment"),
        ("../x: {about: x, set: {}}", "'../x' cannot name an experiment"),
        ('"a\\nb": {about: x, set: {}}', "'a\\\\nb' cannot name an experiment"),
        ("1: {about: x, set: {}}", "1 cannot name an experiment"),
        ("x: {about: 1, set: {}}", "x: an experiment has `about`, a text, and `set`"),
        ("x: {about: x, set: {seed: {a: 1}}}", "x: seed: {'a': 1} is no value of a parameter"),
        ("x: {about: x, set: {seed: 2026-01-01}}", "x: seed: datetime.date"),
        ("x: {about: x, set: {seed: .nan}}", "x: seed: nan is no value of a parameter"),
        (merging_bomb(), "more than 20,000 keys and values"),
        (billion_laughs(), "more than 20,000 keys and values"),
        (
            "x: !!python/object/apply:os.getcwd []",
            "the tag 'tag:yaml.org,2002:python/object/apply:os.getcwd",
        ),
    ],
)
def test_what_is_no_experiment_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / EXPERIMENTS).write_text(text)
    with pytest.raises(ExperimentError) as error:
        read_experiments(tmp_path / EXPERIMENTS)
    assert said.replace("\\\\", "\\") in str(error.value)
    assert not fault(str(error.value).replace(str(tmp_path), ""))


def test_the_projects_own_experiments_are_read() -> None:
    experiments, keys = read_experiments(ROOT / EXPERIMENTS), read_keys(ROOT / "params.yaml")
    assert sorted(keys) == sorted(LEAVES)
    for name in experiments:
        assert NAME.fullmatch(name)
        assert set(settings_of(name, experiments)) <= set(keys)


@given(st.text(st.characters(codec=None, categories=None), max_size=200).filter(lambda name: name not in read_names()))
def test_any_name_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ExperimentError) as error:
        settings_of(name, read_names())
    assert not fault(str(error.value))


def read_names() -> dict[str, dict[str, Any]]:
    return {"mnist-quick": {"about": "x", "set": {}}}


@pytest.mark.parametrize("name", ["nested lists"])
def test_a_damaged_params_yaml_is_told_in_one_line_by_a_flow(name: str, tmp_path: Path) -> None:
    """The flows read it for their forms when they are imported."""
    (tmp_path / "params.yaml").write_bytes(FILES[name])
    (tmp_path / EXPERIMENTS).write_bytes((ROOT / EXPERIMENTS).read_bytes())
    for package in ("flows", "gan"):
        (tmp_path / package).symlink_to(ROOT / package)
    command = [sys.executable, "-m", "flows.pipeline", "mnist-quick", "seed=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("pipeline: params.yaml: ")
    assert not fault(done.stderr.rstrip("\n"))
