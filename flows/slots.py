"""Compute slots of a host as Prefect sees them: how many runs may compute at once, and who waits.

The limit says so on the server's page and keeps the queue; what holds each device for good is the lock that every stage
takes by itself (`python -m stages.slots` shows it), so that a `dvc repro` by hand and a flow respect each other too.
"""

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from flows.experiment import ExperimentError
from flows.processes import run
from flows.server import patiently

LEASE = 60.0
"""Seconds after which the server takes back the slot of a holder that no longer renews it."""


def limit_name() -> str:
    """The name of this host's limit on the server."""
    return f"slots-{socket.gethostname()}"


def count_slots(home: Path) -> int:
    """How many runs of a device each this host can compute at once: one a GPU, or one without."""
    return len(_list_slots(home))


def _list_slots(home: Path) -> list[str]:
    return [slot["slot"] for slot in json.loads(run("python", "-m", "stages.slots", "--json", folder=home))]


def count_wanted(home: Path, hardware: Mapping[str, Any], hosts: int) -> int:
    """How many of this host's slots a run on `hosts` hosts takes: processes on the CPU share the one of the CPU."""
    here = _list_slots(home)
    if hardware["device"] == "cpu" or here == ["cpu"]:
        return 1
    devices = hardware.get("devices", 1)  # commits of before have none
    return len(here) if devices == "auto" else max(1, int(devices) // hosts)


def ensure_limit(home: Path) -> int:
    """The limit on the server for this host, made if it is not there; a number that a person has set there stays."""
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(limit_name()).limit
        except ObjectNotFound:
            limit = count_slots(home)
            try:
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=limit_name(), limit=limit))
            except ObjectAlreadyExists:
                limit = client.read_global_concurrency_limit_by_name(limit_name()).limit
    return limit


def _say_if_waiting(count: int) -> None:
    """Log that this run has to wait, which Prefect does without a word."""
    with get_client(sync_client=True) as client:
        limit = client.read_global_concurrency_limit_by_name(limit_name())
    if limit.active_slots + count > limit.limit:
        get_run_logger().info(
            "waiting: %d of %d slots of this host are taken; `python -m stages.slots` says by whom",
            limit.active_slots,
            limit.limit,
        )


@contextmanager
def slots(home: Path, hardware: Mapping[str, Any], hosts: int = 1) -> Iterator[None]:
    """Hold as many of this host's slots as the section `hardware` asks for, all at once, after waiting for them.

    hosts: how many share what it asks for.

    Raises ExperimentError where the host has fewer.
    """
    count = count_wanted(home, hardware, hosts)
    limit = patiently(lambda: ensure_limit(home))
    if count > limit:
        raise ExperimentError(f"hardware.devices: {count}, but {socket.gethostname()} has {limit}")
    patiently(lambda: _say_if_waiting(count))
    with ExitStack() as held:
        # A server that is away for longer than the lease costs the place in its books, not the run: the stage's own
        # lock still holds the device.
        patiently(
            lambda: held.enter_context(
                concurrency(
                    limit_name(),
                    occupy=count,
                    lease_duration=LEASE,
                    strict=True,
                    raise_on_lease_renewal_failure=False,
                )
            )
        )
        yield
        try:
            held.close()
        except httpx.HTTPError as error:
            get_run_logger().warning("the server takes the slot back by itself when its lease ends (%s)", error)
