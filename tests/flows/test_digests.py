"""Locks made by hand, and the files that they speak of."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.digests import Output, Place, compare_outputs, outputs, read_lock, stale, summary, table
from flows.experiment import ExperimentError


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def stage(outs: dict[str, str], deps: dict[str, str] | None = None, **params: Any) -> dict[str, Any]:
    """A stage's entry of dvc.lock."""
    return {
        "cmd": "python -m stages.x",
        "deps": [{"path": path, "hash": "md5", "md5": digest} for path, digest in (deps or {}).items()],
        "params": {"params.yaml": params},
        "outs": [{"path": path, "hash": "md5", "md5": digest} for path, digest in outs.items()],
    }


class Run:
    """A place that is filled as DVC would."""

    def __init__(self, path: Path) -> None:
        self.place = Place(path / "folder", path / "cache")
        self.place.folder.mkdir(parents=True)

    def in_cache(self, content: bytes) -> str:
        return self._cached(md5(content), content)

    def folder_in_cache(self, files: dict[str, bytes]) -> str:
        listed = [{"md5": self.in_cache(content), "relpath": name} for name, content in files.items()]
        content = json.dumps(listed).encode()
        return self._cached(f"{md5(content)}.dir", content)

    def write(self, path: str, content: bytes) -> str:
        file = self.place.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return md5(content)

    def _cached(self, digest: str, content: bytes) -> str:
        file = self.place.cache / "files/md5" / digest[:2] / digest[2:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return digest


@pytest.fixture
def before(tmp_path: Path) -> Run:
    return Run(tmp_path / "before")


@pytest.fixture
def after(tmp_path: Path) -> Run:
    return Run(tmp_path / "after")


def test_verdicts(before: Run, after: Run) -> None:
    committed = {
        "a": stage({"same": before.in_cache(b"1"), "gone": before.in_cache(b"2")}),
        "b": stage({"changed": before.in_cache(b"abcd")}),
    }
    reproduced = {
        "a": stage({"same": after.write("same", b"1"), "new": after.write("new", b"3")}),
        "b": stage({"changed": after.write("changed", b"abxd")}),
    }
    found = compare_outputs(committed, reproduced, before.place, after.place)
    assert found == [
        Output("same", "identical", []),
        Output("new", "unexpected", ["made, but not in dvc.lock"]),
        Output("changed", "different", ["4 bytes, the first 2 the same"]),
        Output("gone", "missing", ["in dvc.lock, but not made"]),
    ]
    assert summary(found) == "1 of 3 outputs differ: changed; 1 of 3 outputs missing: gone; 1 not in dvc.lock: new"
    assert table(found).splitlines()[:2] == ["same     identical", "new      unexpected"]


def test_all_identical(before: Run, after: Run) -> None:
    lock = {"a": stage({"x": after.write("x", b"1"), "y": after.write("y", b"2")})}
    found = compare_outputs(lock, lock, before.place, after.place)
    assert summary(found) == "identical: 2 outputs"


def test_files_of_a_folder(before: Run, after: Run, tmp_path: Path) -> None:
    images = np.full(100, 50, np.uint8)
    np.save(tmp_path / "x.npy", images)
    images[3] += 3
    np.save(tmp_path / "y.npy", images)
    x, y = ((tmp_path / name).read_bytes() for name in ("x.npy", "y.npy"))
    old = before.folder_in_cache({"images.npy": x, "deep/kept.txt": b"1", "gone.txt": b"2", "facts.json": b'{"n": 4}'})
    for name, content in (("images.npy", y), ("deep/kept.txt", b"1"), ("new.txt", b"3"), ("facts.json", b'{"n": 5}')):
        after.write(f"data/{name}", content)
    (found,) = compare_outputs(
        {"a": stage({"data": old})}, {"a": stage({"data": "0" * 32 + ".dir"})}, before.place, after.place
    )
    assert found.verdict == "different"
    assert found.how == [
        "4 of 5 files (80%) differ",
        "gone.txt: only in what was committed",
        "images.npy: 1 of 100 elements (1%) differ, by at most 3 (5.66% of the largest value)",
        "new.txt: only in what was reproduced",
        "facts.json: n: 4 → 5 (20%)",
    ]


def test_a_folder_of_many_files_is_read_in_part(before: Run, after: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.digests.FILES", 2)
    old = before.folder_in_cache({f"{number}": b"1" for number in range(5)})
    for number in range(5):
        after.write(f"data/{number}", b"2")
    (found,) = compare_outputs(
        {"a": stage({"data": old})}, {"a": stage({"data": "0" * 32 + ".dir"})}, before.place, after.place
    )
    same = "1 bytes, the first 0 the same"
    assert found.how == ["5 of 5 files (100%) differ", f"0: {same}", f"1: {same}", "and 3 more files"]


def test_many_findings_are_cut_short(before: Run, after: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.digests.FINDINGS", 3)
    old = before.in_cache(json.dumps(dict.fromkeys("abcdef", 1)).encode())
    new = after.write("x.json", json.dumps(dict.fromkeys("abcdef", 2)).encode())
    (found,) = compare_outputs({"a": stage({"x.json": old})}, {"a": stage({"x.json": new})}, before.place, after.place)
    assert found.how == [*(f"{key}: 1 → 2 (50%)" for key in "abc"), "and 3 more"]


@pytest.mark.parametrize("folder", [False, True])
def test_only_digests_where_the_cache_has_lost_the_bytes(before: Run, after: Run, folder: bool) -> None:
    old = "a" * 32 + (".dir" if folder else "")
    new = after.write("x/y" if folder else "x", b"1") + (".dir" if folder else "")
    (found,) = compare_outputs({"a": stage({"x": old})}, {"a": stage({"x": new})}, before.place, after.place)
    assert found.verdict == "different"
    assert found.how == [f"digest {old} → {new}; the committed bytes are not in DVC's cache to compare"]


def test_a_damaged_cache(before: Run, after: Run) -> None:
    old = before.in_cache(b"1")
    new = after.write("x", b"2")
    (before.place.cache / "files/md5" / old[:2] / old[2:]).write_bytes(b"2")
    (found,) = compare_outputs({"a": stage({"x": old})}, {"a": stage({"x": new})}, before.place, after.place)
    assert found.how == ["the committed bytes in DVC's cache are not those of their digest"]


def test_a_result_in_git_that_was_changed_by_hand(before: Run, after: Run) -> None:
    before.write("scores.json", b'{"score": 8.0}')
    lock = {"a": stage({"scores.json": after.write("scores.json", b'{"score": 4.0}')})}
    (found,) = compare_outputs(lock, lock, before.place, after.place)
    assert found.verdict == "different"
    assert found.how == [
        "score: 8.0 → 4.0 (50%)",
        "dvc.lock has the digest of what was reproduced, not of the committed file",
    ]


def test_a_lock_beside_another_result_in_git(before: Run, after: Run) -> None:
    before.write("scores.json", b"{}")
    new = after.write("scores.json", b"{}")
    (found,) = compare_outputs(
        {"a": stage({"scores.json": "a" * 32})}, {"a": stage({"scores.json": new})}, before.place, after.place
    )
    assert found.verdict == "different"
    assert found.how == ["what git holds is the same, but dvc.lock has another digest"]


def test_a_lock_of_this_commit_is_not_stale() -> None:
    lock = {"a": stage({"x": "1"}, {"code.py": "2"}, seed=0), "b": stage({"y": "3"}, {"x": "1"}, train={"lr": 0.1})}
    assert stale(lock, lock) == []


def test_other_outputs_alone_are_not_stale() -> None:
    committed = {"a": stage({"x": "1.dir"}), "b": stage({"y": "3"}, {"x": "1.dir", "x/part": "7"})}
    reproduced = {"a": stage({"x": "2.dir"}), "b": stage({"y": "3"}, {"x": "2.dir", "x/part": "8"})}
    assert stale(committed, reproduced) == []


def test_one_and_one_point_nought_are_the_same_parameter() -> None:
    assert stale({"a": stage({}, train={"decay": 1})}, {"a": stage({}, train={"decay": 1.0})}) == []


def test_why_a_lock_is_stale() -> None:
    committed = {
        "a": stage({"x": "1"}, {"code.py": "2", "old.py": "3"}, seed=0, train={"lr": 0.1, "betas": [0.5, 0.9]}),
        "b": stage({"y": "4"}, {"x": "0"}, seed=0) | {"cmd": "python b.py"},
    }
    reproduced = {
        "a": stage({"x": "1"}, {"code.py": "9", "new.py": "3"}, seed=5, train={"betas": [0.5, 0.8], "augment": []}),
        "b": stage({"y": "4"}, {"x": "1"}, seed=5) | {"cmd": "exec python b.py"},
    }
    assert stale(committed, reproduced) == [
        "seed: 0 recorded, 5 committed (a, b)",
        "train.augment: nothing recorded, [] committed (a)",
        "train.betas[1]: 0.9 recorded, 0.8 committed (a)",
        "train.lr: 0.1 recorded, nothing committed (a)",
        "other bytes of code.py (a)",
        "dependency new.py added (a)",
        "dependency old.py removed (a)",
        "command: 'python b.py' recorded, 'exec python b.py' committed (b)",
        "x of another run (b)",
    ]


def test_a_stale_lock_is_no_output_but_is_told() -> None:
    found = [Output("dvc.lock", "stale", ["seed: 0 recorded, 5 committed (a)"]), Output("x", "identical")]
    assert summary(found) == "dvc.lock is stale: seed: 0 recorded, 5 committed (a)"
    found.append(Output("y", "different", ["1 bytes, the first 0 the same"]))
    assert summary(found) == "1 of 2 outputs differ: y; dvc.lock is stale: seed: 0 recorded, 5 committed (a)"


def test_many_outputs_in_one_line() -> None:
    found = [Output(str(number), "different") for number in range(7)]
    assert summary(found) == "7 of 7 outputs differ: 0, 1, 2, 3, 4, and 2 more"


def test_reading_a_lock() -> None:
    lock = read_lock("schema: '2.0'\nstages:\n  a:\n    cmd: c\n    outs:\n    - path: x\n      md5: '1'\n")
    assert outputs(lock) == {"x": "1"}


@pytest.mark.parametrize("text", ["", "[", "stages: 3", "a: 1", "stages: {a: 1}"])
def test_no_lock(text: str) -> None:
    with pytest.raises(ExperimentError, match=r"^dvc\.lock: not what DVC writes"):
        read_lock(text)
