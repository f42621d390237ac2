"""A sample of the damaged and hostile files; `python -m tests.torture.mutations` tries many more."""

import time
from pathlib import Path

import pytest

from gan.errors import InputError
from tests.torture import feeding, hostile, mutations, valid

HEAVY = ("safetensors", "weights")
QUICK = [
    name
    for name in hostile.CASES
    if name.startswith(("zip: name", "zip: two", "zip: a s", "zip: enc", "zip: zip64", "records", "folder: a pipe"))
    or "device" in name
]


def failures(names: list[str], seed: int) -> list[str]:
    rows = mutations.try_all(names, seed, time.monotonic() + 10**6)
    assert sum(row.tried for row in rows.values()) == len(names)
    return [f"{failure.name}: {failure.faults}" for row in rows.values() for failure in row.failures]


def test_damaged_files_are_accepted_or_refused_in_one_line() -> None:
    light = [str(number) for number in range(250) if mutations.label_of(str(number)) not in HEAVY]
    assert failures(light[:200], seed=1) == []


def test_hostile_files_are_accepted_or_refused_in_one_line() -> None:
    assert len(QUICK) > 50
    assert failures(QUICK, seed=1) == []


@pytest.mark.slow
def test_damaged_files_by_thousands() -> None:
    assert failures([str(number) for number in range(3000)], seed=2) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_hostile_file() -> None:
    assert failures([*hostile.CASES], seed=2) == []


@pytest.mark.parametrize("name", sorted(valid.seeds()))
def test_what_is_damaged_was_valid(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise damage would prove little."""
    (tmp_path / "input").mkdir()
    monkeypatch.chdir(tmp_path)
    seed = valid.seeds()[name]
    kind = seed.write(tmp_path / "input", seed.content)
    outcome = feeding.feed(name, kind, tmp_path)
    assert outcome.faults == []
    refusals = {
        "weights zip": "holds no weights of SqueezeNet",
        "weights legacy": "holds no weights of SqueezeNet",
    }
    assert outcome.accepted or refusals.get(name, "nothing") in outcome.message, outcome.message


def test_faults_are_noticed(tmp_path: Path) -> None:
    assert feeding.wrong_with(InputError("one line")) == []
    [fault] = feeding.wrong_with(KeyError("x"))
    assert fault.startswith("KeyError instead of InputError: ")

    class LoudError(InputError):
        def __str__(self) -> str:
            return "two\nlines" * 1000

    assert len(feeding.wrong_with(LoudError(""))) == 2
    reader = mutations.Reader(tmp_path / "place")
    try:
        (tmp_path / "given").mkdir()
        assert reader.try_case("x", tmp_path / "given", "no such kind").faults == ["the process died, with 1"]
    finally:
        reader.end()
