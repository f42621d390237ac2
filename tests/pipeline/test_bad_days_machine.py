"""Clocks, locales, time zones, hash seeds, file modes, homes, odd paths: the same bytes everywhere."""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.accidents import needs
from tests.project import Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ODD = "a b/ünï'c\"ode $x;&"
REALTIME = {"DONT_FAKE_MONOTONIC": "1"}
"""Only the wall clock jumps, as on a machine whose clock is set."""


def everything(project: Project) -> dict[str, bytes]:
    return project.contents("data", "results") | {"dvc.lock": (project.path / "dvc.lock").read_bytes()}


def again(
    project: Project, *before: str, umask: int = -1, folder: str = ".", arguments: tuple[str, ...] = (), **env: str
) -> str:
    """Run all stages again, with nothing from a cache."""
    for name in (".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(project.path / name, ignore_errors=True)
    result = subprocess.run(
        [*before, "dvc", "repro", "--force", *arguments],
        cwd=project.path / folder,
        env=project.environment | env,
        umask=umask,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("> exec python -m stages.") == 8
    return result.stdout


def has_locale(name: str) -> bool:
    listed = subprocess.run(["locale", "-a"], capture_output=True, text=True, errors="replace", check=False).stdout
    return name.lower().replace("-", "") in listed.lower().replace("-", "").split()


@pytest.mark.parametrize(
    ("clock", "where"),
    [
        (
            "+10y",
            {"LC_ALL": "tr_TR.UTF-8", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "77"},
        ),
        ("-20y", {"LC_ALL": "de_DE.ISO-8859-1", "TZ": "Etc/GMT+12", "PYTHONHASHSEED": "0"}),
        (None, {"LC_ALL": "POSIX", "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "4294967295"}),
    ],
)
def test_clock_locale_zone_hash_seed_modes_home_and_path_change_no_byte(
    clock: str | None, where: Mapping[str, str], project: Project, tmp_path: Path
) -> None:
    if where["LC_ALL"] != "POSIX" and not has_locale(where["LC_ALL"]):
        pytest.skip(f"needs the locale {where['LC_ALL']}")
    faked = ("faketime", "-f", clock) if clock else ()
    needs(*faked, "true")
    before = everything(project)
    moved = tmp_path / ODD / "atelier"
    moved.parent.mkdir(parents=True)
    project.path.rename(moved)
    (tmp_path / "home").mkdir()
    there = Project(moved)
    again(
        there,
        *faked,
        umask=0o077,
        folder="digits",
        arguments=("../dvc.yaml",),
        HOME=str(tmp_path / "home"),
        **where,
        **REALTIME,
    )
    assert everything(there) == before
    # DVC in this process's own circumstances takes it all for up to date.
    assert there.repro() == []


@pytest.mark.parametrize("argument", ["dvc.yaml", "{path}/dvc.yaml"])
def test_a_pipeline_named_by_its_file_is_the_same_one(argument: str, project: Project) -> None:
    before = everything(project)
    output = project.run("dvc", "repro", argument.format(path=project.path))
    assert "up to date" in output
    assert everything(project) == before


def test_a_clock_that_jumps_during_training_changes_no_byte(project: Project, tmp_path: Path) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("needs libfaketime")
    project.set({"train.epochs": 20, "train.checkpoint_seconds": 1})
    project.run("dvc", "repro", "train")
    before = project.contents("data/train", "results/curves.csv")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    process = subprocess.Popen(
        ["dvc", "repro", "--force", "--single-item", "train"],
        cwd=project.path,
        env=project.environment
        | REALTIME
        | {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    jumps = 0
    while process.poll() is None:
        jumps += 1
        new = tmp_path / "next"
        new.write_text(f"{(-1) ** jumps * jumps * 1000000}")
        new.replace(clock)
        time.sleep(0.3)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert jumps > 5
    assert project.contents("data/train", "results/curves.csv") == before


def test_names_that_are_not_ascii_are_the_same_in_any_locale(project: Project) -> None:
    rng = np.random.default_rng(0)
    for index in range(120):
        folder = project.path / "pictures" / ("ğül", "ärger", "猫")[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(rng.integers(0, 80 * (1 + index % 3), (32, 32), dtype=np.uint8))
        image.save(folder / f"ü{index}.png")
    project.set({"data.source": "folder", "data.path": "pictures"})
    again(project, LC_ALL="C.UTF-8")
    before = everything(project)
    for locale in ("POSIX", "de_DE.ISO-8859-1"):
        again(project, LC_ALL=locale)
        assert everything(project) == before
    assert "ğül" in (project.path / "results/report/index.html").read_text(encoding="utf-8")


def test_a_umask_that_lets_all_read_changes_nothing_in_a_cache_that_lets_none(project: Project) -> None:
    before = everything(project)
    for file in (project.path / ".dvc/cache").rglob("*"):
        file.chmod(0o700 if file.is_dir() else 0o400)
    shutil.rmtree(project.path / "data")
    project.run("dvc", "repro")
    assert everything(project) == before
    assert os.access(project.path / "data/samples/images.npy", os.R_OK)
