"""A checkout of the tiny project with its own server and worker: a GPU box for tests to do harm to."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import LogSort
from prefect.settings import PREFECT_API_URL, temporary_settings
from ruamel.yaml import YAML

from flows.setup import POOL, ensure_automation, ensure_pool, flow_names
from flows.slots import limit_name
from tests.flows.conftest import Server, end, wait_for
from tests.project import Project

LONG = {"train.epochs": 40, "train.checkpoint_steps": 1}
"""Some 20 seconds of training, with a checkpoint at each step."""


@dataclass
class Box:
    """What a test does with it."""

    project: Project
    server: Server

    @property
    def environment(self) -> dict[str, str]:
        return self.project.environment | self.server.environment | {"PREFECT_WORKER_QUERY_SECONDS": "2"}

    @contextmanager
    def client(self) -> Iterator[SyncPrefectClient]:
        with temporary_settings({PREFECT_API_URL: f"{self.server.url}/api"}), get_client(sync_client=True) as client:
            yield client

    def command(self, *words: str, ok: bool = True, **environment: str) -> str:
        """A command as a person with PREFECT_API_URL set runs it."""
        return self.project.run(*words, ok=ok, **(self.environment | environment))

    def deploy(self) -> None:
        with temporary_settings({PREFECT_API_URL: f"{self.server.url}/api"}):
            ensure_pool()
            ensure_automation(flow_names(self.project.path))
        self.command("prefect", "--no-prompt", "deploy", "--all")

    @contextmanager
    def worker(self, *queues: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker of this checkout, for all queues or for these; ended, with all that it runs, at the end."""
        command = ["prefect", "worker", "start", "--pool", POOL, "--type", "process"]
        command += [word for queue in queues for word in ("--work-queue", queue)]
        with (self.project.path.parent / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.project.path,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            end(process)
            for left in self.processes():
                left.kill()

    def trigger(self, deployment: str = "pipeline/pipeline", **parameters: Any) -> UUID:
        """Ask for a run of the deployment, as the server's page does."""
        with self.client() as client:
            found = client.read_deployment_by_name(deployment)
            return client.create_flow_run_from_deployment(found.id, parameters=parameters).id

    def train(self, name: str, overrides: Mapping[str, Any] = LONG) -> UUID:
        """Ask for a run of the tiny experiment under a name of its own."""
        return self.trigger(experiment="mnist-quick", overrides=dict(overrides), name=name)

    def run(self, run: UUID) -> FlowRun:
        with self.client() as client:
            return client.read_flow_run(run)

    def wait_for_end(self, run: UUID, seconds: float = 180) -> State[Any]:
        wait_for(lambda: (state := self.run(run).state) is not None and state.is_final(), seconds, every=0.5)
        state = self.run(run).state
        assert state is not None
        return state

    def log(self, run: UUID) -> str:
        """All lines of the run's log, its tasks' included."""
        lines: list[str] = []
        with self.client() as client:
            while True:
                found = client.read_logs(
                    LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])),
                    limit=200,
                    offset=len(lines),
                    sort=LogSort.TIMESTAMP_ASC,
                )
                lines += [entry.message for entry in found]
                if len(found) < 200:
                    return "\n".join(lines)

    def slots_taken(self) -> int:
        with self.client() as client:
            return client.read_global_concurrency_limit_by_name(limit_name()).active_slots

    def processes(self, words: str = "") -> list[psutil.Process]:
        """What runs in a workspace of this checkout, or its flow, with `words` in its command line."""
        found = []
        for process in psutil.process_iter():
            try:
                folder, command = process.cwd(), " ".join(process.cmdline())
            except psutil.Error:
                continue
            ours = Path(folder).is_relative_to(self.project.path) and "worker start" not in command
            if ours and process.status() != psutil.STATUS_ZOMBIE and words in command:
                found.append(process)
        return found

    def wait_for_training(self) -> psutil.Process:
        """The training, once it has a checkpoint to go on from."""
        wait_for(lambda: self.processes("stages.train") and self.checkpoints(), 120)
        return self.processes("stages.train")[0]

    def checkpoints(self) -> list[Path]:
        return list(self.project.path.glob(".atelier/runs/*/step-*.pt"))

    def workspaces(self) -> list[Path]:
        return [path for path in self.project.path.glob(".atelier/workspaces/*") if path.is_dir()]

    def experiments(self) -> dict[str, dict[str, Any]]:
        """What `dvc exp show` lists, by name."""
        shown = json.loads(self.project.run("dvc", "exp", "show", "--json", "--all-commits"))
        return {
            experiment["name"]: experiment["revs"][0] | {"executor": experiment["executor"]}
            for row in shown
            for experiment in row["experiments"] or []
        }

    def outputs(self, name: str) -> dict[str, Any]:
        """The digests of all outputs of the experiment `name`."""
        refs = self.project.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
        (ref,) = [ref for ref in refs if ref.endswith(f"/{name}")]
        stages = YAML(typ="safe").load(self.project.run("git", "show", f"{ref}:dvc.lock"))["stages"]
        return {stage: values["outs"] for stage, values in stages.items()}

    def forget_runs(self) -> None:
        """Empty the run cache, so that the next run trains again."""
        shutil.rmtree(self.project.path / ".dvc/cache/runs")


def undisturbed(box: Box, name: str) -> dict[str, Any]:
    """The outputs of a training with the parameters of `LONG` that nothing befell."""
    box.forget_runs()
    run = box.train(name)
    assert box.wait_for_end(run).is_completed(), box.log(run)
    assert "going on from step" not in box.log(run)
    return box.outputs(name)
