"""Set-up: against a real server, with real processes, and as a whole in a checkout of its own."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, State
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_API_PORT, Settings, temporary_settings
from pydantic import BaseModel
from ruamel.yaml import YAML

from flows import setup
from flows.experiment import ExperimentError
from flows.processes import run
from tests.flows.conftest import Server, answers, free_port, wait_for
from tests.project import ROOT, Project


@pytest.fixture
def client(server: Server) -> Iterator[SyncPrefectClient]:
    with temporary_settings({PREFECT_API_URL: f"{server.url}/api"}), get_client(sync_client=True) as client:
        yield client


def read_deployments() -> list[dict[str, Any]]:
    document = YAML(typ="safe").load(ROOT / "prefect.yaml")
    assert isinstance(document["deployments"], list)
    return document["deployments"]


def test_prefects_settings_exist() -> None:
    """A misspelt one is passed over without a word."""

    def check(values: Mapping[str, Any], model: type[BaseModel]) -> None:
        for name, value in values.items():
            assert name in model.model_fields, name
            if isinstance(value, dict):
                section = model.model_fields[name].annotation
                assert isinstance(section, type)
                check(value, section)

    check(tomllib.loads((ROOT / "prefect.toml").read_text()), Settings)


def test_heartbeats_come_often_enough_for_one_to_be_lost() -> None:
    heartbeat = tomllib.loads((ROOT / "prefect.toml").read_text())["flows"]["heartbeat_frequency"]
    assert 2 * heartbeat < setup.SILENCE < 120


def test_what_is_deployed_exists_and_accepts_its_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for deployment in read_deployments():
        flow: Flow[..., Any] = load_flow_from_entrypoint(deployment["entrypoint"])
        assert flow.name in setup.flow_names(ROOT)
        if deployment.get("schedules"):  # nobody is there then to fill in the rest
            flow.validate_parameters(deployment.get("parameters", {}))


@pytest.mark.slow
def test_deploying_again_leaves_a_paused_schedule_paused_and_schedules_the_others(
    client: SyncPrefectClient, server: Server
) -> None:
    def deploy(*names: str) -> None:
        command = ["prefect", "--no-prompt", "deploy", *names]
        run(*command, folder=ROOT, **server.environment)

    setup.ensure_pool()
    setup.ensure_pool()
    deploy("--all")
    nightly, weekly = (client.read_deployment_by_name(name) for name in ("compare/nightly", "verify/weekly"))
    assert {found.name for found in client.read_deployments()} >= {entry["name"] for entry in read_deployments()}
    for found in (nightly, weekly):
        (schedule,) = found.schedules
        assert isinstance(schedule.schedule, CronSchedule)
        assert schedule.schedule.timezone
        assert schedule.active
        assert found.global_concurrency_limit is not None
        assert found.global_concurrency_limit.limit == 1
        assert found.concurrency_options is not None
        assert found.concurrency_options.collision_strategy == ConcurrencyLimitStrategy.ENQUEUE
        assert found.pull_steps == [{"prefect.deployments.steps.set_working_directory": {"directory": "."}}]

    client.update_deployment_schedule(nightly.id, nightly.schedules[0].id, active=False)
    deploy("--name", "nightly", "--name", "weekly")
    again = client.read_deployment_by_name("compare/nightly")
    assert again.id == nightly.id
    assert [schedule.active for schedule in again.schedules] == [False]
    assert [schedule.active for schedule in client.read_deployment_by_name("verify/weekly").schedules] == [True]

    def upcoming(deployment: UUID) -> int:
        wanted = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
        return len(client.read_flow_runs(deployment_filter=wanted))

    wait_for(lambda: upcoming(weekly.id) > 0, 60)  # the server's scheduler does it
    assert upcoming(nightly.id) == 0


def test_a_worker_is_given_runs_once_all_its_queues_are_there(client: SyncPrefectClient) -> None:
    setup.ensure_pool()
    names = ["default", "host-of-a-test"]
    with pytest.raises(ObjectNotFound):  # for the one that is there, too
        client.get_scheduled_flow_runs_for_work_pool(setup.POOL, names)
    setup.ensure_queues(names)
    setup.ensure_queues(names)
    client.get_scheduled_flow_runs_for_work_pool(setup.POOL, names)  # and it is refused no more


def test_the_automation_is_made_once_follows_the_flows_and_stays_disabled(client: SyncPrefectClient) -> None:
    def read() -> Any:
        (found,) = client.read_automations_by_name(setup.AUTOMATION)
        return found

    setup.ensure_automation(["pipeline"])
    first = read()
    setup.ensure_automation(["pipeline"])
    assert read() == first
    client.pause_automation(first.id)
    setup.ensure_automation(["compare", "pipeline"])
    assert read().id == first.id
    assert not read().enabled
    assert "compare" in str(read().trigger.match_related)
    client.resume_automation(first.id)


def test_a_server_that_answers_is_used_and_none_is_started(server: Server, tmp_path: Path) -> None:
    api = f"{server.url}/api"
    with temporary_settings({PREFECT_API_URL: api}):
        assert setup.ensure_server(tmp_path) == api
    assert not (tmp_path / setup.STATE).exists()


def test_a_server_elsewhere_that_does_not_answer_is_said(tmp_path: Path) -> None:
    api = f"http://nowhere.invalid:{free_port()}/api"
    with (
        temporary_settings({PREFECT_API_URL: api}),
        pytest.raises(ExperimentError, match=f"^PREFECT_API_URL: no Prefect server answers at {api}$"),
    ):
        setup.ensure_server(tmp_path)


def test_a_port_that_another_program_has_is_said(tmp_path: Path) -> None:
    with program("-m", "http.server", "0", "--bind", "127.0.0.1") as stranger:
        wait_for(lambda: stranger.net_connections("tcp4"), 20)
        port = stranger.net_connections("tcp4")[0].laddr.port
        said = f"^127.0.0.1:{port}: Address already in use; PREFECT_SERVER_API_PORT names another address$"
        with temporary_settings({PREFECT_SERVER_API_PORT: port}), pytest.raises(ExperimentError, match=said):
            setup.ensure_server(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("deployments: [", "^prefect.yaml: while parsing .*line 1, column"),
        ("deployments: [{name: nightly}]", "^prefect.yaml: each of its `deployments` needs an `entrypoint`$"),
        ("", "^prefect.yaml: each of its `deployments` needs an `entrypoint`$"),
    ],
)
def test_a_fault_of_the_deployments_is_said(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "prefect.yaml").write_text(content)
    with pytest.raises(ExperimentError, match=said):
        setup.flow_names(tmp_path)


def test_what_prefect_refuses_to_deploy_is_said_with_where_it_says_more(tmp_path: Path) -> None:
    (tmp_path / setup.STATE).mkdir(parents=True)
    (tmp_path / "prefect.yaml").write_text("deployments: []\n")
    with pytest.raises(ExperimentError, match=r"^`prefect .*deploy --all` failed; .*/deploy\.log ends: .*entrypoint"):
        setup.deploy(tmp_path, f"http://127.0.0.1:{free_port()}/api")


def test_what_does_not_come_up_is_said_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / setup.STATE).mkdir(parents=True)
    with pytest.raises(ExperimentError, match=r"^server did not come up; .*server\.log ends: no room left$"):
        setup.start(tmp_path, "server", ["-c", "raise SystemExit('no room left')"], "here", lambda _: False)
    assert setup.find(tmp_path, "server") is None


def test_only_what_was_started_is_ended(tmp_path: Path) -> None:
    (tmp_path / setup.STATE).mkdir(parents=True)
    sleep = ["-c", "import time; time.sleep(600)"]
    # A process that has only just begun does not show its command yet.
    setup.start(tmp_path, "reports", sleep, "here", lambda _: setup.find(tmp_path, "reports") is not None)
    ours = setup.find(tmp_path, "reports")
    assert ours is not None
    setup.start(tmp_path, "reports", sleep, "here", lambda _: True)
    assert setup.find(tmp_path, "reports") == ours
    with pytest.raises(ExperimentError, match=r"^reports: runs for here and not for there; `make prefect-stop` first$"):
        setup.start(tmp_path, "reports", sleep, "there", lambda _: True)
    assert setup.stop(tmp_path, "reports")
    assert not ours.is_running()
    assert not setup.stop(tmp_path, "reports")

    with program("-c", "import time; time.sleep(500)") as stranger:
        note = {"pid": stranger.pid, "command": [sys.executable, *sleep], "serves": "here"}
        (tmp_path / setup.STATE / "reports.json").write_text(json.dumps(note))
        assert not setup.stop(tmp_path, "reports")
        assert stranger.is_running()


@contextmanager
def program(*arguments: str, **environment: str) -> Iterator[psutil.Popen]:
    """A Python that runs until the block ends."""
    process = psutil.Popen([sys.executable, *arguments], env=os.environ | environment, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_it_all_comes_up_runs_an_experiment_stays_as_it_is_and_goes(project: Project, tmp_path: Path) -> None:
    port, reports = free_port(), f"http://127.0.0.1:{free_port()}"
    api = f"http://127.0.0.1:{port}/api"
    environment = {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_API_PORT": str(port),
        "ATELIER_REPORTS": reports,
    }
    notes = project.path / setup.STATE

    def set_up(*options: str) -> str:
        return project.run("python", "-m", "flows.setup", *options, ok=True, **environment)

    def processes() -> dict[str, psutil.Process]:
        return {note.stem: psutil.Process(json.loads(note.read_text())["pid"]) for note in notes.glob("*.json")}

    try:
        said = set_up()
        assert f"export PREFECT_API_URL={api}" in said
        started = processes()
        assert set(started) == {"server", "reports", *setup.WORKERS}
        listening = [found for process in started.values() for found in process.net_connections("inet")]
        assert {found.laddr.ip for found in listening if found.status == psutil.CONN_LISTEN} == {"127.0.0.1"}

        (trigger,) = [line.strip() for line in said.splitlines() if "deployment run" in line]
        # As a person does it, in a shell in which nothing but the address is set.
        project.run("sh", "-c", f"{trigger} --watch --watch-timeout 300", PREFECT_API_URL=api)
        assert "mnist-quick" in project.run("dvc", "exp", "list")
        commit = project.run("git", "rev-parse", "HEAD")[:7]
        assert answers(f"{reports}/mnist-quick-{commit}/index.html")
        assert project.run("git", "status", "--porcelain") == ""

        assert "starts" not in set_up()
        assert processes() == started

        started["computing"].kill()
        wait_for(lambda: not started["computing"].is_running(), 20)
        assert "computing starts" in set_up()
        assert {name for name, process in processes().items() if process != started[name]} == {"computing"}
    finally:
        set_up("--stop")
    assert not any(process.is_running() for process in started.values())
    assert not answers(f"{api}/health")
    assert "server did not run" in set_up("--stop")


SLEEPER = """
import sys, time
from prefect import flow
from prefect.runtime import flow_run

@flow(name=sys.argv[1])
def sleeper():
    print(flow_run.id, flush=True)
    time.sleep(float(sys.argv[2]))

sleeper()
"""


@pytest.mark.slow
def test_only_a_run_that_was_killed_is_marked_crashed_and_in_two_minutes(
    client: SyncPrefectClient, server: Server
) -> None:
    setup.ensure_automation(["sleeper"])

    def state(run: UUID) -> State[Any]:
        found = client.read_flow_run(run).state
        assert found is not None
        return found

    with ExitStack() as stack:

        def sleeper(name: str, seconds: float) -> tuple[UUID, subprocess.Popen[str]]:
            process = subprocess.Popen(
                [sys.executable, "-c", SLEEPER, name, str(seconds)],
                cwd=ROOT,  # for its prefect.toml
                env=os.environ | server.environment,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout is not None
            stack.callback(process.stdout.close)
            return UUID(process.stdout.readline().strip()), process

        killed, process = sleeper("sleeper", 600)
        others, other = sleeper("of somebody else", 600)
        living, _ = sleeper("sleeper", 600)
        finished, _ = sleeper("sleeper", 1)
        wait_for(lambda: state(finished).is_completed(), 30)
        time.sleep(40)  # until each has had its second heartbeat
        os.killpg(process.pid, signal.SIGKILL)
        os.killpg(other.pid, signal.SIGKILL)
        wait_for(lambda: state(killed).is_crashed(), 120)
        assert state(killed).message == "its heartbeats ended: it was killed"
        time.sleep(30)
        assert state(living).is_running()
        assert state(finished).is_completed()
        assert state(others).is_running()
