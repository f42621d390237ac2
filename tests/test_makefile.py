"""What a user gives to make reaches Python as it was given: neither make nor the shell runs any of it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT

HOSTILE = [
    '"; touch pwned; "',
    "'; touch pwned; '",
    "; touch pwned",
    "$(shell touch pwned)",
    "$(touch pwned)",
    "$$(touch pwned)",
    "`touch pwned`",
    "| touch pwned",
    "$(",
    "$HOME",
    "*",
    "[a-z]*",
    "\\",
    "--help",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The Makefile in a folder that is set up, with a `python` that writes down what it is given."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "constraints.txt").touch()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/ready").touch()
    script = f"#!{sys.executable}\nimport json, sys\nopen('given', 'w').write(json.dumps(sys.argv[1:]))\n"
    (tmp_path / ".venv/bin/python").write_text(script)
    (tmp_path / ".venv/bin/python").chmod(0o755)
    return tmp_path


def given(folder: Path, *arguments: str, **environment: str) -> list[str]:
    """What Python was given by make."""
    subprocess.run(["make", *arguments], cwd=folder, env=os.environ | environment, check=True, capture_output=True)
    words: list[str] = json.loads((folder / "given").read_text())
    assert not (folder / "pwned").exists()
    return words


@pytest.mark.parametrize("word", HOSTILE)
def test_nothing_that_is_given_is_run(word: str, folder: Path) -> None:
    assert given(folder, "experiment", f"NAME={word}") == ["-m", "flows.experiment", word]
    assert given(folder, "experiment", NAME=word) == ["-m", "flows.experiment", word]
    assert given(folder, "experiment", "NAME=x", f"SET=a={word} b")[2:] == ["x", *f"a={word} b".split()]
    assert given(folder, "compare", f"NAMES=a {word}") == ["-m", "flows.comparison", "a", *word.split()]
    assert given(folder, "verify", f"REVISION={word}") == ["-m", "flows.verify", *word.split()]


def test_what_is_not_given_is_not_there(folder: Path) -> None:
    assert given(folder, "experiment") == ["-m", "flows.experiment", ""]
    assert given(folder, "compare") == ["-m", "flows.comparison"]
    assert given(folder, "verify") == ["-m", "flows.verify"]
