"""What bad days need: full disks, limits, damaged caches. Each skips the test where this machine does not allow it."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.project import Project


def run_stage(project: Project, name: str, *before: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a stage by itself, behind the command `before`."""
    return subprocess.run(
        [*before, "python", "-m", f"stages.{name}"],
        cwd=project.path,
        env=project.environment | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def one_line(result: subprocess.CompletedProcess[str], name: str) -> str:
    """What a stage that failed says at its end, less its name; there must be nothing else of an error."""
    said = result.stdout + result.stderr
    assert result.returncode == 1, said
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith(f"{name}: ")]
    assert len(lines) == 1, said
    assert said.splitlines()[-1] == lines[0]
    return lines[0].removeprefix(f"{name}: ")


def half_written(project: Project) -> list[Path]:
    return [path for folder in ("data", "results") for path in (project.path / folder).rglob("*.partial")]


def needs(*command: str) -> None:
    """Skip unless this command, which changes nothing, works here."""
    try:
        works = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        works = False
    if not works:
        pytest.skip(f"`{' '.join(command)}` does not work here")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own, of `size`, in the place of `folder`, with what was in that."""
    before = folder.with_name(f"{folder.name}-before")
    if folder.exists():
        folder.rename(before)
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        if before.exists():
            shutil.copytree(before, folder, symlinks=True, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def room(disk: Path, kilobytes: int) -> Iterator[None]:
    """No more room than that on the disk."""
    filler = disk / "filler"
    state = os.statvfs(disk)
    filler.write_bytes(b"0" * max(0, state.f_bavail * state.f_frsize - kilobytes * 1024))
    try:
        yield
    finally:
        filler.unlink()


def cached(project: Project, name: str) -> Path:
    """The entry of DVC's cache with a file of an output, or with the list of an output's files."""
    cache = project.path / ".dvc/cache/files/md5"
    for entry in project.lock().values():
        for out in entry.get("outs", []):
            file: Path = cache / out["md5"][:2] / out["md5"][2:]
            if out["path"] == name:
                return file
            if name.startswith(f"{out['path']}/"):
                (md5,) = [
                    each["md5"] for each in json.loads(file.read_text()) if f"{out['path']}/{each['relpath']}" == name
                ]
                return cache / str(md5[:2]) / str(md5[2:])
    raise KeyError(name)


def damage(file: Path, how: str) -> None:
    """Change or cut a file's bytes, as a bad disk or a power cut does: its size, if it can be, and mode stay."""
    mode = file.stat().st_mode
    content = file.read_bytes()
    file.chmod(0o644)
    middle = len(content) // 2
    file.write_bytes(
        content[:middle] + (bytes([content[middle] ^ 1]) + content[middle + 1 :] if how == "flip" else b"")
    )
    file.chmod(mode)


def doctor(project: Project, *words: str) -> str:
    """What the doctor says, without a server."""
    return project.run("python", "-m", "flows.doctor", *words, PREFECT_API_URL="", PREFECT_HOME=str(project.path / "p"))
