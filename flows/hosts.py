"""A training on several hosts: the one whose flow runs the pipeline, and others whose workers take part in `train`.

Each of the others runs the flow `join`, in a workspace of the same commit and parameters; its stages see by
ATELIER_HOSTS, ATELIER_HOST and ATELIER_RENDEZVOUS which of how many they are, and where all meet.
"""

import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import httpx
from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.states import Completed, Failed
from pydantic import AfterValidator, Field

from flows.experiment import ExperimentError
from flows.parameters import Remote, Revision, described
from flows.processes import CommandError, adapt_to_worker, started
from flows.reproduction import PREPARED, Reproduction, StageError
from flows.server import patiently
from flows.slots import slots
from flows.workspace import Workspace, find_commit, find_home, workspace
from gan.documents import shown

HOST = re.compile(r"[A-Za-z0-9][\w.-]{0,252}", re.ASCII)
MEETING = r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9_.-]{0,252}):[0-9]{1,5}$"


def _host(name: str) -> str:
    if not HOST.fullmatch(name):
        raise ExperimentError(f"{shown(name)} is no host's name: give what `hostname` says there")
    return name


def _others(hosts: list[str]) -> list[str]:
    if hosts and not get_current_settings().api.url:
        raise ExperimentError("they take part through a server that all reach, and PREFECT_API_URL names none")
    if len({*hosts, socket.gethostname()}) <= len(hosts):
        raise ExperimentError(f"{', '.join(hosts)}: name each of the others once, and not this one")
    return hosts


Hosts = Annotated[
    list[Annotated[str, AfterValidator(_host)]],
    Field(max_length=999),
    AfterValidator(_others),
    described("other hosts that take part in the training, by what `hostname` says there; each has a worker"),
]


def queue_of(host: str) -> str:
    """The work queue that the host's own worker listens to."""
    return f"host-{host}"


@dataclass(frozen=True)
class Together:
    """The others, as the first host sees them."""

    environment: dict[str, str]
    """For the first host's stages."""
    ask: Callable[[], None]
    """Have the others take part; to be called as the training begins."""
    lost: Callable[[], str]
    """Why the training cannot go on, once one of them has failed; empty before that."""


def check_spread(hosts: Sequence[str], params: Mapping[str, Any]) -> None:
    """Raise ExperimentError where this host and `hosts` cannot share the devices that the parameters ask for."""
    hardware, count = params.get("hardware"), 1 + len(hosts)
    devices = hardware.get("devices", 1) if isinstance(hardware, Mapping) else 1  # commits of before have none
    if isinstance(devices, int) and devices % count:
        raise ExperimentError(f"hardware.devices: {devices} cannot be spread evenly over {count} hosts")


@contextmanager
def joined(work: Workspace, hosts: Sequence[str], remote: str | None) -> Iterator[Together]:
    """Have the workers of `hosts` take part in the training of the block, once they are asked; at its end they stop.

    A host that has no worker keeps the training waiting.
    """
    if not hosts:
        yield Together({}, lambda: None, lambda: "")
        return
    count = 1 + len(hosts)
    meeting = f"{socket.gethostname()}:{_free_port()}"
    asked = {"params": work.params(), "revision": work.commit, "remote": remote, "hosts": count, "meeting": meeting}
    runs: dict[str, FlowRun] = {}

    def ask() -> None:
        for rank, host in enumerate(hosts, 1):
            runs[host] = patiently(partial(_ask, host, {**asked, "host": rank}))

    try:
        yield Together(_place(count, 0, meeting), ask, partial(_find_lost, runs))
    finally:
        _stop(runs)


def _ask(host: str, parameters: dict[str, Any]) -> FlowRun:
    try:
        run = run_deployment(
            "join/join",
            parameters=parameters,
            flow_run_name=f"{host} takes part",
            work_queue_name=queue_of(host),
            timeout=0,
            idempotency_key=f"{parameters['meeting']} {parameters['host']}",  # it may be asked again
        )
    except ObjectNotFound:
        raise ExperimentError("hosts: the server has no deployment join/join; `make prefect` deploys it") from None
    assert isinstance(run, FlowRun)
    return run


def _find_lost(runs: Mapping[str, FlowRun]) -> str:
    with suppress(httpx.HTTPError, ObjectNotFound), get_client(sync_client=True) as client:  # it is asked again soon
        for host, run in runs.items():
            state = client.read_flow_run(run.id).state
            if state is not None and state.is_final() and not state.is_completed():
                return f"{host} takes no part: {state.message or state.name}"
    return ""


def _stop(runs: Mapping[str, FlowRun]) -> None:
    """Cancel what has not ended: there was nothing to train, or it was broken off."""
    with get_client(sync_client=True) as client:
        for run in runs.values():
            state = patiently(partial(client.read_flow_run, run.id)).state
            if state is None or not state.is_final():
                client.set_flow_run_state(run.id, State(type=StateType.CANCELLING))


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        port: int = free.getsockname()[1]
    return port


def _place(hosts: int, host: int, meeting: str) -> dict[str, str]:
    return {"ATELIER_HOSTS": str(hosts), "ATELIER_HOST": str(host), "ATELIER_RENDEZVOUS": meeting}


@flow(flow_run_name="host {host} of {hosts} at {meeting}")
def join(
    params: Annotated[dict[str, Any], described("all of params.yaml")],
    revision: Revision,
    hosts: Annotated[int, Field(ge=2, le=1000), described("how many hosts train together")],
    host: Annotated[int, Field(ge=1, le=999), described("which of them this one is, from 0 for the first")],
    meeting: Annotated[str, Field(pattern=MEETING), described("the first host's address:port, where all meet")],
    remote: Remote = None,
) -> State[Any]:
    """Take part in a training that another host's pipeline leads; what comes of it is written there."""
    try:
        adapt_to_worker()
        log = get_run_logger()
        home = find_home()
        with workspace(home, find_commit(home, revision, remote)) as work:
            work.set_params(dict(_leaves(params)))
            work.link_given()
            environment = work.environment("join")
            with Reproduction(work.folder, [PREPARED], environment) as reproduction:
                for stage in reproduction:
                    reproduction.follow(stage, log.info)
            with slots(home, work.params()["hardware"], hosts):
                take_part(work, environment | _place(hosts, host, meeting), log.info)
    except (ExperimentError, CommandError, StageError) as error:
        get_run_logger().error("%s", error)
        return Failed(message=str(error))
    return Completed(message="trained")


def take_part(work: Workspace, environment: Mapping[str, str], log: Callable[[str], None]) -> None:
    """Run this host's processes of the training. Raises StageError where they fail."""
    said = ""
    with started(["python", "-m", "stages.train"], work.folder, environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said = line.rstrip() or said
            log(line.rstrip())
        if status := process.wait():
            raise StageError(said or f"train: ended with status {status}", killed=status < 0)


def _leaves(params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", inner) for key, inner in value.items())
        else:
            yield name, value
