"""Kills `dvc repro` over and over, and compares what it ends with to a run that nobody touched.

`python -m tests.torture.kills --minutes M [--kills N] [--seed S] [--variant NAME …]`

Each variant is the tiny experiment of tests/project.py with parameters of its own; together they have every loss,
penalty, norm, network and way of checkpointing. A variant is run once undisturbed. Then, in fresh repositories, rounds:
`dvc repro` is killed and started again until it comes through, at moments spread over DVC's own work and all stages,
and some aimed at what is short: a checkpoint being written, events, the generators kept, a commit of DVC. Most kills
are SIGKILL to the whole process group; others hit the stage or DVC alone, or are SIGTERM or Ctrl-C. At the end of a
round dvc.lock and every byte of data/ and results/ must be those of the undisturbed run, TensorBoard must have each
point and grid once, and nothing may be left behind or be out of date.

What the variants differ in is training, so where there is little time for each, most of them end with the stage `train`
and two of them go through all stages.

The variant `pair` runs two experiments at once, by `dvc exp run --temp` in one repository, and kills both.

DVC itself writes dvc.lock and its own list of locks in place. Killed in the midst, it leaves half a file and refuses to
start; that file is then removed, as a user would have to, and counted as "torn".
"""

import argparse
import csv
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.project import Project, make_project, stages_run, write_digits

POLL_SECONDS = 0.001
KILLS_AT_LEAST, KILLS_IN_A_ROUND = 3, 12
SECONDS_FOR_ALL_STAGES = 180
WHOLE = ("dcgan-non-saturating", "cspup-avgpool")
"""Variants that go through all stages in less time too; the second has image files and so processes in `prepare`."""
END_SECONDS = 8.0
"""Within which a stage must have ended whose DVC was killed."""
REPRO = ("dvc", "repro")
FULL_AUGMENTATION = ["colour", "translation", "cutout"]

LONGER: dict[str, Any] = {
    "train.epochs": 15,  # of 14 steps
    "train.log_every": 7,
    "train.grid_every": 10,
    "train.keep": 5,
    "train.ema_kimg": 0.5,
    "train.lr_d": 0.0005,
    "train.checkpoint_seconds": 0.0,
    "reference.epochs": 4,
    "evaluate.trajectory": 200,
}
LARGER: dict[str, Any] = {"data.image_size": 64, "train.epochs": 5, "generator.name": "cspup"}
VARIANTS: dict[str, dict[str, Any]] = {
    "dcgan-non-saturating": {
        "train.r1_gamma": 1.0,
        "train.penalty_interval": 4,
        "train.augment": FULL_AUGMENTATION,
        "train.real_label": [0.8, 1.0],
        "train.ema_rampup": 0.05,
        "train.checkpoint_steps": 1,
    },
    "vanilla-minimax": {
        "generator.name": "vanilla",
        "discriminator.name": "vanilla",
        "discriminator.norm": "none",
        "train.loss": "minimax",
        "train.real_label": 0.9,
        "train.r1_gamma": 0.0,
        "train.epochs": 30,
        "train.n_dis": 2,
        "train.lr_decay_g": "linear",
        "train.lr_decay_d": "none",
        "train.checkpoint_seconds": 0.3,
        "hardware.threads": 2,
    },
    "vanilla-least-squares": {
        "generator.name": "vanilla",
        "discriminator.name": "vanilla",
        "discriminator.norm": "spectral",
        "train.loss": "least-squares",
        "train.r1_gamma": 0.0,
        "train.real_label": [0.7, 1.2],
        "train.epochs": 30,
        "train.instance_noise": 0.3,
        "train.instance_noise_kimg": 6.0,
        "train.fresh_latents": False,
        "train.lr_decay_d": "linear",
        "train.lr_end": 0.1,
        "train.grid_every": 1,
        "train.checkpoint_steps": 3,
    },
    "dcgan-hinge": {
        "discriminator.norm": "spectral",
        "train.loss": "hinge",
        "train.r1_gamma": 0.0,
        "train.augment": ["translation"],
        "train.n_dis": 2,
        "train.fresh_latents": False,
        "train.ema_kimg": 0.0,
        "sample.ema": False,
        "train.checkpoint_seconds": 0.2,
    },
    "dcgan-wasserstein": {
        "discriminator.norm": "none",
        "train.loss": "wasserstein",
        "train.r1_gamma": 0.0,
        "train.gradient_penalty": 10.0,
        "train.penalty_interval": 2,
        "train.n_dis": 3,
        "train.keep": 40,
        "train.checkpoint_steps": 1,
        "hardware.threads": 2,
    },
    "dcgan-relativistic": {
        "discriminator.norm": "none",
        "train.loss": "relativistic",
        "train.r1_gamma": 0.5,
        "train.r2_gamma": 0.5,
        "train.penalty_interval": 3,
        "train.augment": FULL_AUGMENTATION,
        "train.ema_rampup": 0.1,
        "train.checkpoint_steps": 5,
        "train.checkpoint_seconds": 0.1,
    },
    "cspup-plain": LARGER
    | {
        "generator.block": "unnormalised",
        "generator.right_scale": 0.0,
        "generator.init": "fan-in",
        "discriminator.name": "plain",
        "discriminator.norm": "none",
        "discriminator.init": "fan-in",
        "train.loss": "relativistic",
        "train.r1_gamma": 0.1,
        "train.r2_gamma": 0.1,
        "train.checkpoint_steps": 1,
        "train.grid_every": 2,
    },
    "cspup-avgpool": LARGER
    | {
        "data.source": "folder",
        "data.path": "pictures",
        "data.channels": 3,
        "generator.block": "after",
        "discriminator.name": "avgpool",
        "discriminator.norm": "batch",
        "train.real_label": 0.9,
        "train.r1_gamma": 0.5,
        "train.augment": ["colour"],
        "train.checkpoint_seconds": 0.5,
        "hardware.threads": 2,
    },
    "cspup-spectral": LARGER
    | {
        "generator.block": "inside",
        "discriminator.name": "plain",
        "discriminator.norm": "spectral",
        "train.loss": "wasserstein",
        "train.r1_gamma": 0.0,
        "train.n_dis": 2,
        "train.instance_noise": 0.1,
        "train.checkpoint_steps": 2,
    },
    "two-processes": {
        "hardware.devices": 2,
        "train.r1_gamma": 0.5,
        "train.penalty_interval": 3,
        "train.augment": FULL_AUGMENTATION,
        "train.real_label": [0.8, 1.0],
        "train.checkpoint_steps": 2,
    },
    "two-processes-vanilla": {
        "hardware.devices": 2,
        "generator.name": "vanilla",
        "discriminator.name": "vanilla",
        "discriminator.norm": "spectral",
        "train.loss": "hinge",
        "train.r1_gamma": 0.0,
        "train.instance_noise": 0.3,
        "train.n_dis": 2,
        "train.checkpoint_seconds": 0.3,
    },
    "pair": {"train.checkpoint_steps": 1, "train.real_label": [0.8, 1.0], "train.augment": FULL_AUGMENTATION},
}


# A run, and the moments of it


class Run:
    """A command of DVC in a process group of its own, its output in a file, and when each stage of it began."""

    def __init__(self, project: Project, log: Path, *command: str, **environment: str) -> None:
        self.project, self.log = project, log
        self.begun: dict[str, float] = {}
        self.started, self.clock = time.monotonic(), time.time()
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background; DVC would inherit it
            signal.signal(signal.SIGINT, signal.default_int_handler)
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                cwd=project.path,
                env=project.environment | {"DVC_SITE_CACHE_DIR": str(project.path.parent / "site")} | environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def stage(self) -> str | None:
        """The last one that began."""
        return list(self.begun)[-1] if self.begun else None

    def goes_on(self) -> bool:
        """Whether the command still runs; takes note of the stages that have begun."""
        running = self.process.poll() is None
        self.take_note()
        return running

    def take_note(self) -> None:
        for stage in stages_run(self.output):
            self.begun.setdefault(stage, time.monotonic())

    def end(self) -> None:
        """End every process of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def members(self) -> list[int]:
        """The living processes of this run, whoever their parent is by now."""
        found = []
        for process in psutil.process_iter():
            try:
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and os.getsid(process.pid) == self.process.pid:
                    found.append(process.pid)
            except (psutil.Error, ProcessLookupError, PermissionError):
                continue
        return found + self.trainers()

    def trainers(self) -> list[int]:
        """The living processes of a training that has several; each has a session of its own."""
        found = []
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
                takes_part = "stages.train" in words and words[-1] != "stages.train"
                if takes_part and Path(process.cwd()) == self.project.path:
                    found.append(process.pid)
            except (psutil.Error, OSError):
                continue
        return found

    def worker(self) -> int | None:
        """The process of the stage that runs."""
        try:
            for child in psutil.Process(self.process.pid).children():
                if any(word.startswith("stages.") for word in child.cmdline()):
                    return child.pid
        except psutil.Error:
            pass  # it ended while it was looked at
        return None

    def files(self, pattern: str) -> list[Path]:
        return list(self.project.path.glob(pattern))

    def writes(self, *patterns: str) -> bool:
        """Whether a file of the patterns is being written; one that an earlier run left behind is older."""
        for file in (file for pattern in patterns for file in self.files(pattern)):
            with suppress(FileNotFoundError):  # it has got its name meanwhile
                if file.stat().st_mtime > self.clock:
                    return True
        return False


Moment = Callable[[Run], bool]
"""Asked again and again while a run goes on: whether it has come."""


def after(seconds: float, stage: str | None = None) -> Moment:
    """So long after the run, or the stage, began."""

    def has_come(run: Run) -> bool:
        start = run.started if stage is None else run.begun.get(stage)
        return start is not None and time.monotonic() - start >= seconds

    return has_come


def then(first: Moment, second: Moment) -> Moment:
    """The second moment, looked for once the first has come."""
    come = False

    def has_come(run: Run) -> bool:
        nonlocal come
        come = come or first(run)
        return come and second(run)

    return has_come


def writing_checkpoint(run: Run) -> bool:
    return run.writes(".atelier/runs/*/*partial*")


def writing_output(run: Run) -> bool:
    return run.writes("data/.*.partial", "results/.*.partial")


def growing(pattern: str) -> Moment:
    """Some file of the pattern has grown since the first look."""
    before: list[int] = []

    def has_come(run: Run) -> bool:
        size = 0
        for file in run.files(pattern):
            try:
                size += file.stat().st_size
            except FileNotFoundError:
                continue
        before.append(size)
        return before[-1] > before[0]

    return has_come


def training_ends(run: Run) -> bool:
    return (run.project.path / "results/train.json").exists()


def committing(stage: str) -> Moment:
    """The stage's process was there and is gone, and DVC is at its outputs."""
    seen = False

    def has_come(run: Run) -> bool:
        nonlocal seen
        if run.stage != stage:
            return False
        there = run.worker() is not None
        seen = seen or there
        return seen and not there

    return has_come


@dataclass(frozen=True)
class Timeline:
    """When the stages of the undisturbed run began, in their order, and when it ended, in seconds."""

    begun: dict[str, float]
    end: float

    @property
    def stages(self) -> list[str]:
        return list(self.begun)

    def length(self, stage: str) -> float:
        order = [*self.begun.values(), self.end]
        at = self.stages.index(stage)
        return order[at + 1] - order[at]


def draw_moment(rng: random.Random, timeline: Timeline, reached: str | None) -> tuple[str, Moment]:
    """A moment of what is left of a run that got as far as the stage `reached`, in words and to be waited for."""
    left = timeline.stages[timeline.stages.index(reached) :] if reached else timeline.stages
    begun = timeline.begun[left[0]] if reached else 0
    near = left[:3]
    stage = rng.choice([*near, *["train"] * 2 * ("train" in near)])
    inside = after(rng.uniform(0, timeline.length(stage)), stage)
    little = rng.choice([0.0, rng.uniform(0, 0.02), rng.uniform(0, 0.3)])
    choices: list[tuple[str, Moment]] = [
        ("at any time", after(rng.uniform(0, timeline.end - begun))),
        ("as DVC starts", after(rng.uniform(0, timeline.begun[timeline.stages[0]]))),
        (f"as {stage} starts", after(rng.uniform(0, 0.3), stage)),
        (f"in {stage}", inside),
        (f"in {stage}", inside),
        (f"as {stage} writes", then(after(0, stage), writing_output)),
        (f"as {stage} is committed", then(committing(stage), waited(little))),
    ]
    if stage == "train":
        choices += [
            ("in a checkpoint", then(inside, writing_checkpoint)),
            ("in a checkpoint", then(then(inside, writing_checkpoint), waited(little / 10))),
            ("in the events", then(inside, growing("runs/*/*"))),
            ("in a kept generator", then(inside, growing(".atelier/runs/*/kept/*/*"))),
            ("as training ends", then(after(0, stage), then(training_ends, waited(little / 10)))),
        ]
    return rng.choice(choices)


def waited(seconds: float) -> Moment:
    """So long after the first look."""
    first: list[float] = []

    def has_come(_run: Run) -> bool:
        first.append(time.monotonic())
        return first[-1] - first[0] >= seconds

    return has_come


# Kills


def draw_kind(rng: random.Random) -> str:
    kinds = {
        "SIGKILL to all": 11,
        "SIGKILL to the stage": 3,
        "SIGKILL to DVC": 3,
        "SIGTERM to all": 1,
        "SIGTERM to DVC": 1,
        "Ctrl-C": 1,
    }
    return rng.choices(list(kinds), list(kinds.values()))[0]


def kill(run: Run, kind: str) -> tuple[str, str]:
    """Kill the run in this way; the stage and the phase that it was in."""
    group = run.process.pid
    run.take_note()
    if kind == "SIGKILL to all":
        os.killpg(group, signal.SIGSTOP)  # so that it stands still while it is looked at
        where = look(run)
        os.killpg(group, signal.SIGKILL)
    else:
        where = look(run)
        worker = max(run.trainers(), default=run.worker())
        if kind == "SIGKILL to the stage" and worker is not None:
            os.kill(worker, signal.SIGKILL)
        elif kind == "SIGKILL to DVC":
            os.kill(group, signal.SIGKILL)
        elif kind == "SIGTERM to DVC":
            os.kill(group, signal.SIGTERM)
        elif kind == "Ctrl-C":
            os.killpg(group, signal.SIGINT)
        else:
            os.killpg(group, signal.SIGTERM)
    return where


def look(run: Run) -> tuple[str, str]:
    """The stage and the phase that a run is in, as far as can be seen from outside."""
    stage = run.stage
    if stage is None:
        return "dvc", "start"
    if run.worker() is None:
        return stage, "dvc's commit"
    if stage != "train":
        return stage, "writing" if writing_output(run) else "running"
    if writing_checkpoint(run):
        return stage, "checkpoint"
    if training_ends(run) or writing_output(run):
        return stage, "end"
    return stage, "steps" if run.files(".atelier/runs/*/") else "start"


# What a run must leave


def differences(project: Project, undisturbed: Project) -> list[str]:
    """In what the results of two runs differ, in words; in nothing, if all is well."""
    found = []
    if (project.path / "dvc.lock").read_bytes() != (undisturbed.path / "dvc.lock").read_bytes():
        found.append("dvc.lock differs")
    mine, theirs = project.contents("data", "results"), undisturbed.contents("data", "results")
    for name in sorted(name for name in {*mine, *theirs} if not name.endswith(".gitignore")):
        if mine.get(name) != theirs.get(name):
            what = "differs" if name in mine and name in theirs else "is missing" if name in theirs else "is too many"
            found.append(f"{name} {what}")
    return found


def left_behind(project: Project) -> list[str]:
    """Files that a run must not leave, and damaged ones in DVC's cache."""
    found = [f"{path.relative_to(project.path)} is left" for path in (project.path / ".atelier/runs").glob("*")]
    found += [
        f"{path.relative_to(project.path)} is left"
        for path in project.path.rglob("*.part*")
        if ".git" not in path.relative_to(project.path).parts
    ]
    for file in (project.path / ".dvc/cache/files/md5").glob("??/*"):
        digest = hashlib.md5(file.read_bytes()).hexdigest()
        name = file.parent.name + file.name.removesuffix(".dir")
        if len(name) == 32 and digest != name:
            found.append(f"{file.relative_to(project.path)} is damaged")
    return found


def out_of_date(project: Project, undisturbed: Project, target: Sequence[str]) -> list[str]:
    """What DVC and git find changed, and should not."""
    found = []
    site = str(project.path.parent / "site")
    status = project.run("dvc", "status", *target, DVC_SITE_CACHE_DIR=site)
    if "up to date" not in status:
        found.append(f"dvc status: {status}")
    if ran := stages_run(project.run("dvc", "repro", *target, DVC_SITE_CACHE_DIR=site)):
        found.append(f"dvc repro runs {', '.join(ran)} again")
    mine, theirs = (each.run("git", "status", "--porcelain") for each in (project, undisturbed))
    if mine != theirs:
        found.append(f"git status: {mine!r} in place of {theirs!r}")
    return found


def gaps_and_doubles(project: Project, params: dict[str, Any], name: str = "workspace") -> list[str]:
    """What TensorBoard shows too little or too much of."""
    with (project.path / "results/curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    every = params["train.grid_every"]
    grids = sorted({*range(every, steps[-1] + 1, every), steps[-1]})
    folders = list((project.path / "runs").glob(f"{name}-*"))
    if len(folders) != 1:
        return [f"TensorBoard: {len(folders)} runs"]
    events = EventAccumulator(str(folders[0]), size_guidance={"images": 0, "scalars": 0}).Reload()
    tags = {*rows[0], "images_per_second"} - {"step", "kimg"}
    if set(events.Tags()["scalars"]) != tags or events.Tags()["images"] != ["fixed_latents"]:
        return [f"TensorBoard: has {events.Tags()['scalars']} and {events.Tags()['images']}"]
    found = []
    for tag in sorted(tags):
        found += compare_steps(tag, [event.step for event in events.Scalars(tag)], steps)
    return found + compare_steps("grids", [event.step for event in events.Images("fixed_latents")], grids)


def compare_steps(tag: str, shown: list[int], expected: list[int]) -> list[str]:
    if shown == expected:
        return []
    missing = sorted(set(expected) - set(shown))
    doubled = sorted(step for step, count in Counter(shown).items() if count > 1)
    return [f"TensorBoard: {tag}: steps {missing} missing, {doubled} doubled, in order: {shown == sorted(shown)}"]


# Rounds


@dataclass
class Tally:
    """What became of a variant."""

    ends_with: str = "report"
    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    torn: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def killed(self) -> int:
        return self.kills.total()

    def count(self, name: str, kind: str, where: tuple[str, str]) -> None:
        self.kills[where] += 1
        self.kinds[kind] += 1
        say(name, f"{kind}: {' '.join(where)}")


def mend(run: Run, tally: Tally) -> bool:
    """Remove the file of DVC's own that it left half-written, and so does not start with; whether it was that."""
    lock, busy = (run.project.path / name for name in ("dvc.lock", ".dvc/tmp/rwlock"))
    refused = re.search(r"dvc\.lock' (is invalid|validation failed)", run.output)
    # The beginning of a line is not always refused.
    if lock.exists() and (refused or not lock.read_text().endswith("\n")):
        torn = lock
    elif "Unable to read RWLock-file" in run.output:
        torn = busy
    elif "join() argument must be str" in run.output:  # where it was to note a run in its cache, and has not
        empty = [path for path in run.project.path.glob(".dvc/cache/runs/??/*") if not any(path.iterdir())]
        for path in empty:
            path.rmdir()
        tally.torn["run cache"] += 1
        return bool(empty)
    else:
        return False
    tally.torn[torn.name] += 1
    torn.unlink()
    return True


@dataclass(frozen=True)
class Plan:
    """A variant: what it runs, what that ends with, and how much it is to be disturbed."""

    name: str
    params: dict[str, Any]
    template: Project
    undisturbed: Project
    timeline: Timeline
    command: Sequence[str]
    wanted: int
    deadline: float
    """Of the monotonic clock."""

    def time_for(self, runs: float) -> bool:
        return time.monotonic() + runs * self.timeline.end < self.deadline


def copy(project: Project, folder: Path) -> Project:
    folder.mkdir(parents=True)
    shutil.copytree(project.path, folder / "atelier", symlinks=True)
    return Project(folder / "atelier")


def wait(run: Run, moment: Moment, limit: float) -> bool:
    """Whether the moment came while the run went on; a run that goes on for more than `limit` seconds is a fault."""
    while run.goes_on():
        if moment(run):
            return True
        if run.seconds > limit:
            run.end()
            raise TimeoutError(f"dvc did not end within {limit:.0f} s:\n{run.output[-1000:]}")
        time.sleep(POLL_SECONDS)
    return False


def wait_for_end(run: Run, kind: str, tally: Tally, where: tuple[str, str]) -> None:
    """Wait for all processes of a killed run; one that lives on without its DVC is a fault, and ended here."""
    try:
        run.process.wait(60)  # it may have something to say first
    except subprocess.TimeoutExpired:
        tally.faults.append(f"DVC, in {where[0]} ({where[1]}), went on after {kind}")
        run.end()
    deadline = time.monotonic() + END_SECONDS
    while run.members() and time.monotonic() < deadline:
        time.sleep(0.02)
    if run.members():
        tally.faults.append(f"{where[0]} ({where[1]}) went on after {kind}")
        run.end()


def disturb(plan: Plan, project: Project, rng: random.Random, tally: Tally) -> list[str]:
    """Run the project to its end, killed on the way; the kills, in words."""
    history: list[str] = []
    reached: str | None = None
    limit = 60 + 10 * plan.timeline.end
    while True:
        words, moment = draw_moment(rng, plan.timeline, reached)
        late = tally.killed() >= KILLS_AT_LEAST and not plan.time_for(1.5)
        if len(history) >= KILLS_IN_A_ROUND or tally.killed() >= plan.wanted or late:
            words, moment = "never", lambda _: False
        run = Run(project, project.path.parent / f"log-{len(history):02}.txt", *plan.command)
        if wait(run, moment, limit):
            kind = draw_kind(rng)
            where = kill(run, kind)
            tally.count(plan.name, kind, where)
            history.append(f"{kind} {words}: {' '.join(where)}")
            wait_for_end(run, kind, tally, where)
        elif run.process.returncode == 0:
            return history
        elif not mend(run, tally):
            raise RuntimeError(f"dvc repro failed of itself, after {history[-3:]}:\n{run.output[-1500:]}")
        if run.stage and (reached is None or plan.timeline.begun[run.stage] > plan.timeline.begun[reached]):
            reached = run.stage


def run_undisturbed(project: Project, folder: Path, command: Sequence[str] = REPRO) -> Timeline:
    run = Run(project, folder / "undisturbed.txt", *command)
    wait(run, lambda _: False, 600)
    assert run.process.returncode == 0, run.output
    end = time.monotonic() - run.started
    return Timeline({stage: at - run.started for stage, at in run.begun.items()}, end)


def prepare(name: str, folder: Path, seed: int) -> tuple[Project, dict[str, Any]]:
    """The repository of a variant, committed, and its parameters."""
    params = LONGER | VARIANTS[name] | {"seed": seed}
    project = make_project(folder / "template")
    if params.get("data.source") == "folder":
        write_pictures(folder / "digits", project.path / "pictures")
    project.set(params)
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", name)
    return project, params


def write_pictures(digits: Path, folder: Path, count: int = 200) -> None:
    """Coloured digits as image files, in one folder a class."""
    import gzip

    write_digits(digits, count)
    images = np.frombuffer(gzip.decompress((digits / "train-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    labels = np.frombuffer(gzip.decompress((digits / "train-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)
    rng = np.random.default_rng(0)
    for index, (pixels, label) in enumerate(zip(images.reshape(-1, 28, 28), labels, strict=True)):
        coloured = pixels[..., None] / 255 * rng.uniform(0.3, 1, 3) * 255
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(coloured.astype(np.uint8)).resize((300, 280))
        picture.save(folder / f"{label}/{index:04}.png")


def torture(name: str, folder: Path, *, kills: int, seed: int, seconds: float) -> Tally:
    """Kill a variant in round after round, for about so many seconds; what became of it."""
    start = time.monotonic()
    target = [] if name in WHOLE or seconds >= SECONDS_FOR_ALL_STAGES else ["train"]
    template, params = prepare(name, folder, seed)
    undisturbed = copy(template, folder / "undisturbed")
    command = [*REPRO, *target]
    timeline = run_undisturbed(undisturbed, folder, command)
    say(name, f"undisturbed in {timeline.end:.0f} s")
    plan = Plan(name, params, template, undisturbed, timeline, command, kills, start + seconds)
    tally = Tally(ends_with=timeline.stages[-1])
    tally.faults += gaps_and_doubles(undisturbed, params)
    while tally.killed() < kills and (tally.rounds == 0 or plan.time_for(2.5)):
        project = copy(template, folder / f"round-{tally.rounds:02}")
        begun = time.monotonic()
        try:
            history = disturb(plan, project, random.Random(f"{seed} {name} {tally.rounds}"), tally)
            wrong = differences(project, undisturbed) + gaps_and_doubles(project, params)
            if target:  # the next stage, whichever it is, removes what a complete training keeps until DVC has it
                project.run(*REPRO, "--force", "--single-item", "check")
            wrong += left_behind(project) + out_of_date(project, undisturbed, target)
        except (RuntimeError, TimeoutError, AssertionError) as error:
            tally.faults.append(f"round {tally.rounds}: {error}")
            say(name, f"round {tally.rounds}: FAULT: {error}")
            break
        tally.rounds += 1
        if wrong:
            tally.faults += [f"round {tally.rounds - 1}: {line}" for line in wrong]
            say(name, f"round {tally.rounds - 1}: FAULTS: {'; '.join(wrong)}; killed: {'; '.join(history)}")
        else:
            shutil.rmtree(project.path.parent)
        say(name, f"round {tally.rounds - 1}: {len(history)} kills in {time.monotonic() - begun:.0f} s")
    return tally


# Two experiments at once


def torture_pair(folder: Path, *, kills: int, seed: int, seconds: float) -> Tally:
    """Two experiments of one repository side by side, each killed and started again until both are done."""
    start = time.monotonic()
    template, params = prepare("pair", folder, seed)
    alone: dict[str, Project] = {}
    timeline = None
    for name, number in (("one", seed + 1), ("two", seed + 2)):
        alone[name] = copy(template, folder / f"alone-{name}")
        alone[name].set({"seed": number})
        timeline = run_undisturbed(alone[name], folder)
    assert timeline is not None
    say("pair", f"undisturbed in {timeline.end:.0f} s each")
    tally = Tally()
    while tally.killed() < kills and (tally.rounds == 0 or time.monotonic() + 6 * timeline.end < start + seconds):
        project = copy(template, folder / f"round-{tally.rounds:02}")
        rng = random.Random(f"{seed} pair {tally.rounds}")
        pair = Pair(project, {"one": seed + 1, "two": seed + 2}, timeline, rng, tally)
        try:
            pair.run(kills, start + seconds - 3 * timeline.end)
            wrong = [line for name in alone for line in compare_experiment(project, name, alone[name], params)]
            wrong += tidied(project) + left_behind(project)  # the copies of killed runs go by then
        except (RuntimeError, TimeoutError, AssertionError) as error:
            tally.faults.append(f"round {tally.rounds}: {error}")
            say("pair", f"round {tally.rounds}: FAULT: {error}")
            break
        tally.rounds += 1
        tally.faults += wrong
        say("pair", f"round {tally.rounds - 1}: {pair.killed} kills; {'; '.join(wrong) or 'equal'}")
        if not wrong:
            shutil.rmtree(project.path.parent)
    return tally


class Pair:
    """Two `dvc exp run --temp` side by side."""

    def __init__(
        self, project: Project, seeds: dict[str, int], timeline: Timeline, rng: random.Random, tally: Tally
    ) -> None:
        self.project, self.seeds, self.timeline, self.rng, self.tally = project, seeds, timeline, rng, tally
        self.killed = 0

    def start(self, name: str) -> tuple[Run, Moment]:
        log = self.project.path.parent / f"log-{name}-{self.killed:02}.txt"
        command = ["dvc", "--wait-for-lock", "exp", "run", "--temp", "--name", name, "-S", f"seed={self.seeds[name]}"]
        stage = self.rng.choice([None, *self.timeline.stages, "train", "train"])
        length = self.timeline.end if stage is None else self.timeline.length(stage)
        moment = after(self.rng.uniform(0, length), stage)
        if stage == "train" and self.rng.random() < 0.5:
            moment = then(moment, writing_checkpoint)
        return Run(self.project, log, *command), moment

    def run(self, kills: int, deadline: float) -> None:
        """Until both are done."""
        limit = 120 + 20 * self.timeline.end
        running = {name: self.start(name) for name in self.seeds}
        while running:
            for name, (run, moment) in list(running.items()):
                late = self.tally.killed() >= KILLS_AT_LEAST and time.monotonic() > deadline
                disturbing = self.killed < 2 * KILLS_IN_A_ROUND and self.tally.killed() < kills and not late
                if run.goes_on():
                    if disturbing and moment(run):
                        kind = draw_kind(self.rng)
                        where = kill(run, kind)
                        self.killed += 1
                        self.tally.count("pair", kind, where)
                        wait_for_end(run, kind, self.tally, where)
                        if self.is_saved(name):  # DVC was at its last lines
                            del running[name]
                        else:
                            running[name] = self.start(name)
                    elif run.seconds > limit:
                        self.end(running)
                        raise TimeoutError(f"{name} did not end within {limit:.0f} s:\n{run.output[-1500:]}")
                elif run.process.returncode == 0 and "Ran experiment" in run.output:
                    del running[name]
                else:
                    self.end(running)
                    raise RuntimeError(f"{name} failed of itself:\n{run.output[-1500:]}")
            time.sleep(POLL_SECONDS)

    def is_saved(self, name: str) -> bool:
        return f"/{name}\n" in self.project.run("git", "for-each-ref", "--format=%(refname)", "refs/exps")

    @staticmethod
    def end(running: dict[str, tuple[Run, Moment]]) -> None:
        for run, _ in running.values():
            run.end()


def compare_experiment(project: Project, name: str, alone: Project, params: dict[str, Any]) -> list[str]:
    """In what an experiment differs from the same parameters run alone."""
    applied = copy(project, project.path.parent / f"applied-{name}")
    applied.run("dvc", "exp", "apply", name)
    wrong = differences(applied, alone) + gaps_and_doubles(applied, params, name)
    return [f"{name}: {line}" for line in wrong]


def tidied(project: Project) -> list[str]:
    """What killed experiments leave must be found and removed by `make doctor`, and the working tree be untouched."""
    project.run("python", "-m", "flows.doctor", "--clean")
    said = project.run("python", "-m", "flows.doctor")
    found = [] if "nothing to remove" in said else [f"doctor: {said}"]
    if "Running" in project.run("dvc", "exp", "show"):
        found.append("dvc exp show has a run that is none")
    if changed := project.run("git", "status", "--porcelain"):
        found.append(f"git status: {changed!r}")
    return found


# The command


def say(name: str, words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {name}: {words}", flush=True)


def table(tallies: dict[str, Tally]) -> str:
    lines = [
        "| variant | up to | kills | rounds | equal | torn files of DVC | where |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, tally in tallies.items():
        where = ", ".join(f"{' '.join(place)} {count}" for place, count in sorted(tally.kills.items()))
        torn = ", ".join(f"{file} {count}" for file, count in tally.torn.items()) or "none"
        equal = "yes" if tally.rounds and not tally.faults else "NO"
        lines.append(f"| {name} | {tally.ends_with} | {tally.killed()} | {tally.rounds} | {equal} | {torn} | {where} |")
    for title, counters in (("by stage", "kills"), ("by kind", "kinds")):
        total: Counter[str] = Counter()
        for tally in tallies.values():
            for key, count in getattr(tally, counters).items():
                total[key if isinstance(key, str) else " ".join(key)] += count
        lines += ["", f"{title}: " + ", ".join(f"{key} {count}" for key, count in sorted(total.items()))]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Torture the variants in turn; 0 if every one that was tried came through a round and all was equal."""
    parser = argparse.ArgumentParser("python -m tests.torture.kills", description="Kill runs at random moments.")
    parser.add_argument("--minutes", type=float, default=20, help="for all variants together")
    parser.add_argument("--kills", type=int, default=50, help="of each variant, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variant", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="NAME")
    options = parser.parse_args(arguments)
    end = time.monotonic() + 60 * options.minutes
    tallies: dict[str, Tally] = {}
    root = Path(tempfile.mkdtemp(prefix="kills-"))
    untried: list[str] = []
    for index, name in enumerate(options.variant):
        if tallies and time.monotonic() > end:  # one round of the others has taken all of it
            untried = options.variant[index:]
            break
        shares = [{"pair": 3}.get(each, 2 if each in WHOLE else 1) for each in options.variant[index:]]
        seconds = (end - time.monotonic()) * shares[0] / sum(shares)
        folder = root / name
        folder.mkdir()
        work = torture_pair if name == "pair" else partial(torture, name)
        tallies[name] = work(folder, kills=options.kills, seed=options.seed, seconds=seconds)
        if not tallies[name].faults:
            shutil.rmtree(folder)
    print(table(tallies))
    if untried:
        print(f"\nnot tried, since the minutes were over: {', '.join(untried)}")
    failed = {name: tally for name, tally in tallies.items() if tally.faults or not tally.rounds}
    for name, tally in failed.items():
        again = f"--minutes {options.minutes} --seed {options.seed} --variant {name}"
        print(f"\n{name}: repeat with {again}; the repositories are in {root / name}")
        print("\n".join(f"  {fault}" for fault in tally.faults))
    if not failed:
        shutil.rmtree(root)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
