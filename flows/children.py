"""Runs of the pipeline that another flow starts and waits for."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from multiprocessing.pool import ThreadPool
from typing import Any, TypeVar

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.runtime import deployment
from prefect.states import Completed, Failed

from flows.processes import end_all, environment, started
from flows.workspace import find_home

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_pipeline(parameters: Mapping[str, Any]) -> State[Any]:
    """Run the pipeline flow with `parameters`, and wait; the state that it ends in.

    A deployed flow leaves it to the workers, on whatever host; one started by hand runs it in a process of its own.
    """
    if deployment.id:
        run = run_deployment("pipeline/pipeline", parameters=dict(parameters), timeout=None, as_subflow=True)
        assert isinstance(run, FlowRun)
        return run.state or Failed(message="its state is not known")
    with get_client(sync_client=True) as client:
        server = str(client.api_url)
    with started(_command(parameters), find_home(), environment(PREFECT_API_URL=server)) as process:
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            last = line.rstrip() or last
            print(f"[{parameters['name']}] {last}", flush=True)
        succeeded = process.wait() == 0
    name, _, message = last.partition(": ")
    return Completed(message=message) if succeeded else Failed(name=name, message=message or "its process was killed")


def _command(parameters: Mapping[str, Any]) -> list[str]:
    """The command line that stands for the pipeline's `parameters`."""
    command = ["python", "-m", "flows.pipeline", parameters["experiment"]]
    command += [f"{key}={json.dumps(value)}" for key, value in parameters.get("overrides", {}).items()]
    for name, value in parameters.items():
        if name in ("experiment", "overrides") or value in (None, False):
            continue
        command += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return command


def at_once(function: Callable[[Item], Result], items: Sequence[Item], parallel: int) -> list[Result]:
    """`function` of each item, in threads that see this flow's context, at most `parallel` at once.

    Where this thread is interrupted, all child processes are ended; the threads are daemons, and keep nobody waiting.
    """
    with ThreadPool(parallel) as pool:
        results = [pool.apply_async(copy_context().run, (function, item)) for item in items]
        try:
            for result in results:
                result.wait()
        except BaseException:
            end_all()
            raise
        return [result.get() for result in results]
