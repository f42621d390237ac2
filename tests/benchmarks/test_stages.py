import re

import pytest

from benchmarks import stages


@pytest.mark.slow
def test_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    stages.main(["--rounds=1", "--stages", "check", "train"])

    output = capsys.readouterr().out
    assert re.search(r"^\| check \|.*\| no \|", output, re.MULTILINE)
    assert re.search(r"^\| train \|.*\| yes \|.*torch", output, re.MULTILINE)
    assert re.search(r"^\| dvc repro, all up to date \| [0-9.]+", output, re.MULTILINE)
