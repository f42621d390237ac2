from pathlib import Path

import pytest

from stages.layout import own_file


def test_a_file_of_ones_own_lies_in_the_main_repository_at_home_or_where_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.layout.MAIN_REPOSITORY", tmp_path / "main")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert own_file("mine.pth") == tmp_path / "main/mine.pth"
    assert own_file("~/mine.pth") == tmp_path / "home/mine.pth"
    assert own_file("/somewhere/mine.pth") == Path("/somewhere/mine.pth")
    assert own_file("~nobody-of-this-name/mine.pth") == tmp_path / "main/~nobody-of-this-name/mine.pth"
