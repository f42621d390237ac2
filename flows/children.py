"""Runs of the pipeline that another flow starts and waits for."""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from multiprocessing.pool import ThreadPool
from threading import Event
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.runtime import deployment
from prefect.states import Completed, Failed

from flows.processes import end_all, environment, started
from flows.server import patiently
from flows.workspace import find_home

Item = TypeVar("Item")
Result = TypeVar("Result")


ENDED = re.compile(r"(Completed|Failed|StoppedEarly|Crashed|Cancelled): (.*)")
"""The line in which a flow run by hand says how it ended."""
POLL = 5.0
"""Seconds between looks at a run that a worker has."""

_stopping = Event()
_deployed: set[UUID] = set()
"""Children that workers have, and that have not ended."""


def run_pipeline(parameters: Mapping[str, Any]) -> State[Any]:
    """Run the pipeline flow with `parameters`, and wait; the state that it ends in.

    A deployed flow leaves it to the workers, on whatever host; one started by hand runs it in a process of its own.
    """
    return _run_by_worker(parameters) if deployment.id else _run_here(parameters)


def _run_by_worker(parameters: Mapping[str, Any]) -> State[Any]:
    child = patiently(
        lambda: run_deployment("pipeline/pipeline", parameters=dict(parameters), timeout=0, as_subflow=True)
    )
    assert isinstance(child, FlowRun)
    _deployed.add(child.id)
    if _stopping.is_set():
        cancel_deployed()
    while not (child.state and child.state.is_final()):
        time.sleep(POLL)
        with get_client(sync_client=True) as client:
            child = patiently(partial(client.read_flow_run, child.id))
    _deployed.discard(child.id)
    return child.state


def cancel_deployed() -> None:
    """Cancel the runs that workers have for this flow: nobody waits for them any more."""
    with get_client(sync_client=True) as client:
        for child in list(_deployed):
            client.set_flow_run_state(child, State(type=StateType.CANCELLING))


def _run_here(parameters: Mapping[str, Any]) -> State[Any]:
    with get_client(sync_client=True) as client:
        server = str(client.api_url)
    ended = None
    with started(_command(parameters), find_home(), environment(PREFECT_API_URL=server)) as process:
        assert process.stdout is not None
        for line in process.stdout:
            ended = ENDED.match(line.rstrip()) or ended
            print(f"[{parameters['name']}] {line}", end="", flush=True)
        succeeded = process.wait() == 0
    if ended is None:
        return Failed(message="its process was killed")
    return Completed(message=ended[2]) if succeeded else Failed(name=ended[1], message=ended[2])


def _command(parameters: Mapping[str, Any]) -> list[str]:
    """The command line that stands for the pipeline's `parameters`."""
    command = ["python", "-m", "flows.pipeline", parameters["experiment"]]
    command += [
        f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in parameters.get("overrides", {}).items()
    ]
    for name, value in parameters.items():
        if name in ("experiment", "overrides") or value in (None, False):
            continue
        command += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return command


def at_once(function: Callable[[Item], Result], items: Sequence[Item], parallel: int) -> list[Result]:
    """`function` of each item, in threads that see this flow's context, at most `parallel` at once.

    Where this thread is interrupted, no other item begins, child processes are ended, and what workers run for this
    flow is cancelled. The threads are daemons, and keep nobody waiting.
    """

    def unless_stopping(item: Item) -> Result:
        if _stopping.is_set():
            raise RuntimeError("interrupted")
        return function(item)

    with ThreadPool(parallel) as pool:
        results = [pool.apply_async(copy_context().run, (unless_stopping, item)) for item in items]
        try:
            for result in results:
                result.wait()
        except BaseException:
            _stopping.set()
            end_all()
            cancel_deployed()
            raise
        return [result.get() for result in results]
