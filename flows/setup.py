"""Brings up what runs experiments on this machine: a Prefect server, deployments, workers, a server of the reports.

`make prefect`, which is `python -m flows.setup`, changes nothing that is there already; `make prefect-stop` ends what
it started, and no more.
"""

import argparse
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from prefect.workers.process import ProcessWorker
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.artifacts import REPORTS
from flows.experiment import ExperimentError
from flows.hosts import queue_of
from flows.processes import CommandError, environment
from flows.slots import ensure_limit
from flows.workspace import find_home

STATE = Path(".atelier/prefect")
"""Logs, and a note of each process that was started: its number and command."""
DEPLOYMENTS = Path("prefect.yaml")
POOL = "atelier"
WORKERS = ("computing", "coordinating")
AUTOMATION = "runs of the atelier without a heartbeat crashed"
SILENCE = 90.0
"""Seconds without a heartbeat after which a run is said to have crashed; prefect.toml asks for one every 30."""
PATIENCE = 120.0
"""Seconds that a process has to come up, or to end."""


def set_up(home: Path) -> None:
    """Bring up what does not run yet, deploy, and say what there is.

    Raises ExperimentError or CommandError where that fails.
    """
    with _alone(home):
        api = ensure_server(home)
        with temporary_settings({PREFECT_API_URL: api}):
            ensure_pool()
            limit = ensure_limit(home)
            ensure_automation(flow_names(home))
            deploy(home, api)
            reports = ensure_reports(home, api)
            for worker in WORKERS:
                ensure_worker(home, worker, limit, api, reports)
            switches = schedule_commands()
    lines = [
        f"{api.removesuffix('/api')}  the runs, their logs and results; what may run, and when",
        f"{reports}  the reports",
        "",
        "In an activated shell (. .venv/bin/activate):",
        f"  export PREFECT_API_URL={api}",
        "  prefect deployment run 'pipeline/pipeline' -p experiment=mnist-quick",
        *(f"  {switch}" for switch in switches),
        "",
        f"`make prefect-stop` ends it all. Logs: {STATE}",
    ]
    print("\n".join(lines))


def ensure_server(home: Path) -> str:
    """The address of the API of a server that answers: the one that PREFECT_API_URL names, or this machine's.

    Raises ExperimentError where a server elsewhere does not answer, or one cannot be started here.
    """
    settings = get_current_settings()
    host, port = settings.server.api.host, settings.server.api.port
    api = (settings.api.url or f"http://{_name(host)}:{port}/api").rstrip("/")
    if answers(api):
        if not find(home, "server"):
            print(f"uses the server that runs at {api}")
        return api
    address = urlsplit(api)
    if address.hostname not in {"localhost", "127.0.0.1", "::1", host, socket.gethostname(), socket.getfqdn()}:
        raise ExperimentError(f"PREFECT_API_URL: no Prefect server answers at {api}")
    port = address.port or 80
    if not find(home, "server"):
        _check_free(host, port, "PREFECT_SERVER_API_PORT")
    command = ["-m", "prefect", "server", "start", "--host", host, "--port", str(port)]
    start(home, "server", command, api, lambda _: answers(api))
    return api


def ensure_pool() -> None:
    """The work pool that the deployments name, made if it is not there."""
    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template))


def ensure_queues(names: Sequence[str]) -> None:
    """These work queues of the pool, made if they are not there: a worker that names one too many is given no run."""
    with get_client(sync_client=True) as client:
        for name in names:
            with suppress(ObjectAlreadyExists):
                client.create_work_queue(name, work_pool_name=POOL)


def flow_names(home: Path) -> list[str]:
    """The names of the flows that are deployed.

    Raises ExperimentError if prefect.yaml does not say.
    """
    try:
        document = YAML(typ="safe", pure=True).load(home / DEPLOYMENTS)
        entrypoints = [deployment["entrypoint"] for deployment in document["deployments"]]
    except (OSError, YAMLError) as error:
        raise ExperimentError(f"{DEPLOYMENTS}: {' '.join(str(error).split())}") from None
    except (TypeError, KeyError):
        raise ExperimentError(f"{DEPLOYMENTS}: each of its `deployments` needs an `entrypoint`") from None
    return sorted({entrypoint.rpartition(":")[2].replace("_", "-") for entrypoint in entrypoints})


def deploy(home: Path, api: str) -> None:
    """Deploy what prefect.yaml lists, by Prefect's own command.

    Raises ExperimentError if that fails.
    """
    log = home / STATE / "deploy.log"
    command = ["prefect", "--no-prompt", "deploy", "--all"]
    with log.open("wb") as out:
        environ = environment(PREFECT_API_URL=api)
        done = subprocess.run(
            command, cwd=home, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False
        )
    if done.returncode:
        raise ExperimentError(f"`{' '.join(command)}` failed; {_last_words(log)}")


def schedule_commands() -> list[str]:
    """A command a schedule, which pauses it if it is active, or else resumes it."""
    commands = []
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            flow = client.read_flow(deployment.flow_id).name
            for schedule in deployment.schedules if deployment.work_pool_name == POOL else []:
                switch = "pause" if schedule.active else "resume"
                commands.append(f"prefect deployment schedule {switch} {flow}/{deployment.name} {schedule.id}")
    return commands


def ensure_automation(flows: Sequence[str]) -> None:
    """The automation that marks a run of these flows crashed when its heartbeats end before it does.

    Where it is there and as it should be, it is left alone: a change would forget the heartbeats that it waits for. One
    that a person has disabled stays disabled.
    """
    ends = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Crashed", "Cancelled", "TimedOut")}
    wanted = AutomationCore(
        name=AUTOMATION,
        description=f"{', '.join(flows)}: killed with all that they started, they cannot say so themselves",
        enabled=True,
        trigger=EventTrigger(
            type="event",
            posture=Posture.Proactive,
            after={"prefect.flow-run.Running", "prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat"} | ends,
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(
                {"prefect.resource.role": "flow", "prefect.resource.name": list(flows)}
            ),
            for_each={"prefect.resource.id"},
            threshold=1,
            within=timedelta(seconds=SILENCE),
        ),
        actions=[
            ChangeFlowRunState(
                type="change-flow-run-state",
                state=StateType.CRASHED,
                name=None,
                message="its heartbeats ended: it was killed",
                force=False,
            )
        ],
    )
    with get_client(sync_client=True) as client:
        found = client.read_automations_by_name(AUTOMATION)
        if not found:
            client.create_automation(wanted)
        elif (found[0].trigger, found[0].actions) != (wanted.trigger, wanted.actions):
            wanted.enabled = found[0].enabled
            client.update_automation(found[0].id, wanted)


def ensure_reports(home: Path, api: str) -> str:
    """The address of a server of the reports: the one that ATELIER_REPORTS names, or one started here.

    Raises ExperimentError where its port is taken.
    """
    named = os.environ.get("ATELIER_REPORTS")
    host, port = get_current_settings().server.api.host, (urlsplit(api).port or 4200) + 1
    if named:
        host, port = urlsplit(named).hostname or "", urlsplit(named).port or 80
    address = named or f"http://{_name(host, outside=True)}:{port}"
    if not find(home, "reports"):
        if named and _listens(host, port):
            return address
        _check_free(host, port, "ATELIER_REPORTS, as http://127.0.0.1:5201,")
    folder = home / REPORTS
    folder.mkdir(parents=True, exist_ok=True)
    command = ["-m", "flows.reports", host, str(port), str(folder)]
    start(home, "reports", command, address, lambda _: _listens(host, port))
    return address


def ensure_worker(home: Path, worker: str, limit: int, api: str, reports: str) -> None:
    """A worker that runs what is deployed: in the order of the queue, at most `limit` at once of those that compute.

    Raises ExperimentError if it does not come up.
    """
    name = f"{socket.gethostname()}-{home.name}-{worker}"
    command = ["-m", "prefect", "worker", "start", "--pool", POOL, "--type", ProcessWorker.type, "--name", name]
    queues = ["default", queue_of(socket.gethostname())] if worker == "computing" else [worker]
    ensure_queues(queues)
    for queue in queues:
        command += ["--work-queue", queue]
    if worker == "computing":
        command += ["--limit", str(limit)]

    def online(since: datetime) -> bool:
        with get_client(sync_client=True) as client:
            found = client.read_workers_for_work_pool(POOL)
        return any(item.name == name and (item.last_heartbeat_time or since) > since for item in found)

    start(home, worker, command, api, online, PREFECT_API_URL=api, ATELIER_REPORTS=reports)


def answers(api: str) -> bool:
    """Whether a Prefect server answers at this address of its API."""
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=5) as response:  # noqa: S310 (the user's own address)
            return bool(response.read() == b"true")
    except (OSError, ValueError):
        return False


def start(
    home: Path, name: str, arguments: Sequence[str], serves: str, ready: Callable[[datetime], bool], **values: str
) -> None:
    """Start Python with these `arguments`, apart from this terminal, unless it runs already; wait until it is `ready`.

    `serves` is the address that it is of. Raises ExperimentError if it does not get ready, or runs for another address.
    """
    since = datetime.now(UTC)
    process = find(home, name)
    if process:
        before = _read_note(home, name)["serves"]
        if before != serves:
            raise ExperimentError(f"{name}: runs for {before} and not for {serves}; `make prefect-stop` first")
        if name in WORKERS:
            return
    else:
        print(f"{name} starts")
        process = _spawn(home, name, [sys.executable, *arguments], serves, environment(**values))
    deadline = time.monotonic() + PATIENCE
    while not ready(since):
        if not _lives(process) or time.monotonic() > deadline:
            stop(home, name)
            raise ExperimentError(f"{name} did not come up; {_last_words(home / STATE / f'{name}.log')}")
        time.sleep(0.2)


def find(home: Path, name: str) -> psutil.Process | None:
    """The process that was started as `name`, if it still runs; its number alone may be another program's by now."""
    try:
        note = _read_note(home, name)
        process = psutil.Process(note["pid"])
        return process if process.cmdline() == note["command"] else None
    except (OSError, ValueError, KeyError, psutil.Error):
        return None


def stop(home: Path, name: str) -> bool:
    """End what was started as `name` and wait until it is gone; whether it ran."""
    process = find(home, name)
    if process:
        # A worker that ends kills its runs at once; asked first, they clean up and say themselves that they were ended.
        end_all(process.children() if name in WORKERS else [])
        end_all([process])
    _note(home, name).unlink(missing_ok=True)
    return process is not None


def end_all(processes: Sequence[psutil.Process]) -> None:
    """Ask processes to end, wait until they are gone, and kill those that take too long."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def stop_all(home: Path) -> None:
    """End what `set_up` started, the workers first, and say so."""
    with _alone(home):
        for name in (*reversed(WORKERS), "reports", "server"):
            print(f"{name} stopped" if stop(home, name) else f"{name} did not run")


def _spawn(home: Path, name: str, command: Sequence[str], serves: str, env: Mapping[str, str]) -> psutil.Process:
    log = home / STATE / f"{name}.log"
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=home, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    process.returncode = 0  # it is to outlive this process, which waits for it no more
    _note(home, name).write_text(json.dumps({"pid": process.pid, "command": list(command), "serves": serves}))
    return psutil.Process(process.pid)


def _last_words(log: Path) -> str:
    said = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{log} ends: {' / '.join(said[-3:])}"


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _note(home: Path, name: str) -> Path:
    return home / STATE / f"{name}.json"


def _read_note(home: Path, name: str) -> dict[str, Any]:
    note = json.loads(_note(home, name).read_text())
    assert isinstance(note, dict)
    return note


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Keep another set-up of this checkout waiting."""
    (home / STATE).mkdir(parents=True, exist_ok=True)
    with (home / STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _name(host: str, *, outside: bool = False) -> str:
    """How `host`, to which a server is bound, is called from here, or from outside."""
    if host in {"0.0.0.0", "::"}:  # noqa: S104 (asked for, not bound to)
        return socket.gethostname() if outside else "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def _check_free(host: str, port: int, setting: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ExperimentError(f"{host}:{port}: {error.strerror}; {setting} names another address") from None


def main(arguments: Sequence[str]) -> int:
    """Set up, or stop; the exit status."""
    parser = argparse.ArgumentParser("python -m flows.setup", description=__doc__)
    parser.add_argument("--stop", action="store_true", help="end what was started")
    options = parser.parse_args(arguments)
    try:
        home = find_home()
        if options.stop:
            stop_all(home)
        else:
            set_up(home)
    except (ExperimentError, CommandError, httpx.HTTPError) as error:
        print(f"prefect: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
