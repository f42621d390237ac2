"""A real Prefect server for the tests of this folder."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.project import ROOT


@dataclass(frozen=True)
class Server:
    """A server of its own folder, on loopback."""

    url: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a flow, a worker or a command needs to talk to it."""
        return {
            "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_server(home: Path, port: int, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """`prefect server start`, once it answers; killed at the end."""
    command = [
        str(Path(sys.executable).parent / "prefect"),
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    settings = Server(f"http://127.0.0.1:{port}", home).environment | environment
    home.mkdir(exist_ok=True)
    shutil.copy(ROOT / "prefect.toml", home)  # where `make prefect` starts it, it finds these settings too
    with (home / "server.log").open("ab") as log:
        process = subprocess.Popen(command, env=os.environ | settings, cwd=home, stdout=log, stderr=log)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/api/health"), 120)
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, by force if it takes longer than half a minute."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def wait_for(condition: Any, seconds: float, every: float = 0.1) -> None:
    """Wait until `condition()` holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {seconds:g} s"
        time.sleep(every)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    with running_server(home, port):
        yield Server(f"http://127.0.0.1:{port}", home)
