"""Searches parameters for the best score: every trial an experiment, those without hope stopped early.

`python -m flows.sweep EXPERIMENT --metric classifier-FD train.lr_d=1e-4,1e-3 train.beta1=0.0,0.5`, or the deployment
`sweep/sweep`. The same sweep started again goes on where it was broken off.
"""

import argparse
import difflib
import fcntl
import itertools
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import deployment, flow_run
from prefect.states import Completed, Failed
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from flows.artifacts import key, numbers
from flows.children import at_once, run_pipeline
from flows.compare import aligned, read_outcome
from flows.comparison import deciding_params, protocol_difference, resolve, say_difference
from flows.experiment import (
    EXPERIMENTS,
    PARAMS,
    ExperimentError,
    check_overrides,
    is_name,
    read_experiments,
    read_keys,
    settings_of,
)
from flows.parameters import ExperimentName, Parallel, Remote, Revision, described, run_flow, settable
from flows.pipeline import STOPPED_EARLY, StopEarly
from flows.processes import CommandError, adapt_to_worker, run
from flows.slots import count_slots
from flows.workspace import find_commit, find_home
from gan.documents import parse_document, shown
from gan.errors import InputError

SWEEPS = Path(".atelier/sweeps")
SCORES = "results/scores.json"
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"({NUMBER})\.\.({NUMBER})(:log)?")
ALIKE = 0.8
"""Likeness of two names, of which one is taken for the other misspelt; squeezenet-FD and classifier-FD have 0.4."""
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped early", TrialState.FAIL: "failed"}


class MetricError(ExperimentError):
    """Scores without the metric: no other trial will have it."""


class Range(BaseModel):
    """Numbers between two bounds, whole ones where both bounds are; with `log`, their logarithms are uniform."""

    model_config = ConfigDict(extra="forbid")

    low: int | float
    high: int | float
    log: bool = False


Space = Annotated[
    dict[str, list[Any] | Range],
    Field(min_length=1),
    described(
        f"parameters of {PARAMS} and what each may be: a list of values, as in "
        '{"train.beta1": [0.0, 0.5]}, or, for a random search, a range, as in '
        '{"train.lr_d": {"low": 0.0001, "high": 0.01, "log": true}}'
    ),
    AfterValidator(settable),
]
Method = Annotated[
    Literal["grid", "random"], described("grid: every combination of the values; random: draws from the space")
]
Metric = Annotated[str, described(f"the number of {SCORES} to search by, as classifier-FD")]
Direction = Annotated[Literal["minimize", "maximize"], described("which numbers are better")]
Trials = Annotated[int | None, Field(ge=1), described("how many trials; of a grid, by default, all its combinations")]
SweepName = Annotated[str | None, described("trials are kept as NAME-000, NAME-001, …; by default, EXPERIMENT-sweep")]
Seed = Annotated[int, Field(ge=0), described("of a random search: trial n depends on this seed and n alone")]

Definition = dict[str, Any]
"""What makes two sweeps the same: experiment, commit, space, method, metric, direction and seed."""


def _run_name() -> str:
    parameters = flow_run.parameters
    return str(parameters.get("name") or f"{parameters['experiment']}-sweep")


@flow(flow_run_name=_run_name)
def sweep(
    experiment: ExperimentName,
    space: Space,
    metric: Metric,
    *,
    direction: Direction = "minimize",
    method: Method = "grid",
    trials: Trials = None,
    name: SweepName = None,
    stop_early: StopEarly = True,
    parallel: Parallel = None,
    revision: Revision = "HEAD",
    remote: Remote = None,
    seed: Seed = 0,
) -> State[Any]:
    """Run an experiment with the values of a space, each trial an experiment of its own, and find the best.

    A trial that fails stops no other. The same sweep started again keeps what is complete or was stopped early, and
    runs the rest.
    """
    sweep_name = name or f"{experiment}-sweep"
    try:
        adapt_to_worker()
        home = find_home()
        definition: Definition = {
            "experiment": experiment,
            "commit": find_commit(home, revision, remote),
            "space": {key: axis.model_dump() if isinstance(axis, Range) else axis for key, axis in space.items()},
            "method": method,
            "metric": metric,
            "direction": direction,
            "seed": seed,
        }
        count = count_trials(definition, trials)
        shared = {"stop_early": stop_early, "remote": remote}
        check_metric(home, definition)
        check_protocol(home, definition)
        with open_study(home, sweep_name, definition) as study:
            kept = {number for number, record in last_records(study).items() if record.state != TrialState.FAIL}
            todo = [number for number in range(count) if number not in kept]
            get_run_logger().info("%d trials, %d of them to run", count, len(todo))
            run_trials(
                home, study, definition, todo, parallel or (len(todo) if deployment.id else count_slots(home)), shared
            )
            found = {number: record for number, record in last_records(study).items() if number < count}
    except (ExperimentError, CommandError) as error:
        get_run_logger().error("%s", error)
        return Failed(message=str(error))
    return conclude(sweep_name, definition, found)


def count_trials(definition: Definition, trials: int | None) -> int:
    """How many trials the sweep has: as many as asked for, and of a grid at most all.

    Raises ExperimentError where its space contradicts itself or its method.
    """
    size = 1
    for name, axis in definition["space"].items():
        if isinstance(axis, list):
            size *= len(axis)
            if not axis:
                raise ExperimentError(f"space: {name} has no value")
            if any(value in axis[:index] for index, value in enumerate(axis)):
                raise ExperimentError(f"space: {name} has a value twice: {json.dumps(axis)}")
        elif definition["method"] == "grid":
            raise ExperimentError(f"space: {name} is a range, and a grid needs values: list them, or search at random")
        elif not axis["low"] < axis["high"]:
            raise ExperimentError(f"space: {name}: {axis['low']} is not below {axis['high']}")
        elif axis["log"] and axis["low"] <= 0:
            raise ExperimentError(f"space: {name}: {axis['low']} has no logarithm")
    if definition["method"] == "grid":
        return min(size, trials or size)
    if trials is None:
        raise ExperimentError("trials: say how many a random search makes")
    return trials


def trial_values(definition: Definition, number: int) -> dict[str, Any]:
    """The parameters of the trial `number`, the same whenever it is asked for."""
    space = definition["space"]
    if definition["method"] == "grid":
        return dict(zip(space, next(itertools.islice(itertools.product(*space.values()), number, None)), strict=True))
    seed = int(np.random.SeedSequence((definition["seed"], number)).generate_state(1)[0])
    drawn = optuna.create_study(sampler=RandomSampler(seed)).ask(distributions(space)).params
    return {name: _plain(axis, drawn[name]) for name, axis in space.items()}


def distributions(space: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """The space in Optuna's terms."""
    found: dict[str, BaseDistribution] = {}
    for name, axis in space.items():
        if isinstance(axis, list):
            found[name] = CategoricalDistribution([_label(value) for value in axis])
        elif isinstance(axis["low"], int) and isinstance(axis["high"], int):
            found[name] = IntDistribution(axis["low"], axis["high"], log=axis["log"])
        else:
            found[name] = FloatDistribution(axis["low"], axis["high"], log=axis["log"])
    return found


def _plain(axis: Any, drawn: Any) -> Any:  # noqa: ANN401 (parameters are of any type)
    """What Optuna has drawn, in the words of the space; numbers in four digits, which is what a table has room for."""
    if isinstance(axis, list):
        return next(value for value in axis if _label(value) == drawn)
    if isinstance(drawn, float):
        return min(max(float(f"{drawn:.4g}"), axis["low"]), axis["high"])
    return drawn


def _label(value: object) -> CategoricalChoiceType:
    """A value as Optuna holds it: lists are text there."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)


@contextmanager
def open_study(home: Path, name: str, definition: Definition) -> Iterator[optuna.Study]:
    """The sweep's record in `home`, for this process alone.

    Raises ExperimentError where another process has it, or it is that of another sweep.
    """
    if not is_name(name):
        raise ExperimentError(f"{name!r} cannot name a sweep: use letters, digits, and . _ - between them")
    path = home / SWEEPS / f"{name}.journal"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExperimentError(f"the sweep {name} runs already; wait for it, or give another name") from None
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)  # a full disk may have cut the last line short
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path))),
            study_name=name,
            direction=definition["direction"],
            load_if_exists=True,
        )
        before = study.user_attrs["definition"] if study.get_trials(deepcopy=False) else definition
        differing = [
            f"{part} ({_short(before[part])} there, {_short(definition[part])} now)"
            for part in definition
            if before[part] != definition[part]
        ]
        if differing:
            raise ExperimentError(
                f"the sweep {name} has trials of another {', '.join(differing)}; go on with that, give another name, "
                f"or delete {path.relative_to(home)} to begin anew"
            )
        study.set_user_attr("definition", definition)
        yield study


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:7] if re.fullmatch(r"[0-9a-f]{40}", text) else text


def last_records(study: optuna.Study) -> dict[int, FrozenTrial]:
    """The last record of each trial by its number in the search."""
    return {record.user_attrs["number"]: record for record in study.get_trials(deepcopy=False)}


def check_metric(home: Path, definition: Definition) -> None:
    """Look for the metric among the committed scores: hours may pass before the first trial tells.

    Raises MetricError where it is not there, unless the trials are evaluated in another way: then only where it looks
    like a slip of the pen, and else logs a warning.
    """
    metric = definition["metric"]
    try:
        known = list(numbers(json.loads(run("git", "show", f"{definition['commit']}:{SCORES}", folder=home))))
    except CommandError:
        return
    close = difflib.get_close_matches(metric, known, 1, ALIKE)
    if metric not in known and close:
        raise MetricError(f"metric: the scores have no {metric!r}; did you mean {close[0]}?")
    changed = [*settings_of(definition["experiment"], read_experiments(home / EXPERIMENTS)), *definition["space"]]
    if metric not in known and not any(name.startswith("evaluate.") for name in changed):
        raise MetricError(f"metric: the scores have no {metric!r}; they have {', '.join(known)}")
    if metric not in known:
        get_run_logger().warning("the committed scores have no %s, but %s", metric, ", ".join(known))


def check_protocol(home: Path, definition: Definition) -> None:
    """Look for searched parameters that decide how scores are measured: all trials but the first would fail in the end.

    Raises ExperimentError where there is one.
    """
    space = definition["space"]
    fixed = {name: axis[0] for name, axis in space.items() if isinstance(axis, list)}
    deciding = deciding_params(resolve(home, definition["commit"], definition["experiment"], fixed))
    for name, axis in space.items():
        if name in deciding and not (isinstance(axis, list) and len(axis) == 1):
            raise ExperimentError(
                f"space: {name} decides how scores are measured, and those of its trials would not compare; give it "
                "one value"
            )


@task(task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
def trial(name: str, parameters: Mapping[str, Any]) -> State[Any]:
    """Run one trial's pipeline as a child. One that was stopped early is no fault of the sweep."""
    state = run_pipeline({**parameters, "name": name})
    if state.is_completed():
        return state
    ended = Completed if state.name == STOPPED_EARLY else Failed
    return ended(name=state.name, message=state.message)


def run_trials(
    home: Path,
    study: optuna.Study,
    definition: Definition,
    todo: Sequence[int],
    parallel: int,
    shared: Mapping[str, Any],
) -> None:
    """Run the trials `todo`, so many at once, and record each in the study as it ends; `shared` goes to each pipeline.

    Raises MetricError where the first that is complete lacks the metric; those that have not begun are left out then.
    """
    faults: list[MetricError] = []
    recording = Lock()

    def run_one(number: int) -> None:
        if not faults:
            try:
                record = run_trial(home, f"{study.study_name}-{number:03}", definition, number, shared)
                with recording:  # two that end at once are not both the first
                    kept = hold_to_protocol(record, study.get_trials(deepcopy=False))
                    study.add_trial(kept)
                if kept is not record:
                    get_run_logger().error("%s: %s", kept.user_attrs["experiment"], kept.user_attrs["said"])
            except MetricError as error:
                faults.append(error)

    at_once(run_one, todo, max(1, min(len(todo), parallel)))
    if faults:
        raise faults[0]


def run_trial(home: Path, name: str, definition: Definition, number: int, shared: Mapping[str, Any]) -> FrozenTrial:
    """Run one trial as the experiment `name`; its record.

    Raises MetricError where its scores lack the metric.
    """
    values = trial_values(definition, number)
    commit = definition["commit"]
    parameters = {"experiment": definition["experiment"], "overrides": values, "revision": commit, **shared}
    state = trial(name, parameters, return_state=True)
    ended, score, said = TrialState.FAIL, None, state.message or state.name or ""
    protocol: dict[str, Any] = {}
    if state.name == STOPPED_EARLY:
        ended = TrialState.PRUNED
    elif state.is_completed():
        try:
            result = read_outcome(home, name, commit, state, shared["remote"]).result
            assert result
            score, said = read_metric(result.scores, definition["metric"]), str(result.scores.get("verdict", ""))
            ended, protocol = TrialState.COMPLETE, dict(result.protocol)
        except MetricError:
            raise
        except (ExperimentError, CommandError) as error:
            said = str(error)
    get_run_logger().info("%s: %s", name, said if score is None else f"{definition['metric']} {score:g}, {said}")
    return create_trial(
        state=ended,
        value=score,
        params={key: _label(value) for key, value in values.items()},
        distributions=distributions(definition["space"]),
        user_attrs={"number": number, "experiment": name, "said": said, "protocol": protocol},
    )


def hold_to_protocol(record: FrozenTrial, others: Sequence[FrozenTrial]) -> FrozenTrial:
    """The record of a trial, failed if it was scored by another protocol than the first complete one of the others."""
    first = next((other for other in others if other.state == TrialState.COMPLETE), None)
    if first is None or record.state != TrialState.COMPLETE:
        return record
    difference = protocol_difference(first.user_attrs["protocol"], record.user_attrs["protocol"])
    if not difference:
        return record
    said = (
        f"its score does not compare with that of {first.user_attrs['experiment']}: protocols differ in "
        f"{say_difference(difference)}"
    )
    return create_trial(
        state=TrialState.FAIL,
        params=record.params,
        distributions=record.distributions,
        user_attrs=record.user_attrs | {"said": said},
    )


def read_metric(scores: Mapping[str, Any], metric: str) -> float:
    """The number `metric` of the scores.

    Raises MetricError, naming those there are, where it is not among them.
    """
    found = numbers(scores)
    if metric not in found:
        raise MetricError(f"metric: the scores have no number {metric!r}; they have {', '.join(found)}")
    return float(found[metric])


def conclude(name: str, definition: Definition, found: Mapping[int, FrozenTrial]) -> State[Any]:
    """Publish the table of trials, the best first, and what to do with it; the state that the sweep ends in."""
    ranked = rank(found, definition["direction"])
    rows = trial_rows(ranked, definition)
    create_table_artifact(key=key(name, "trials"), description=f"Trials of {name}, the best first", table=rows)
    get_run_logger().info("\n%s", aligned(rows))
    counts = [(said, sum(record.state == state for record in ranked)) for state, said in STATES.items()]
    summary = f"{len(ranked)} trials: {', '.join(f'{count} {said}' for said, count in counts if count)}"
    best = ranked[0] if ranked[0].state == TrialState.COMPLETE else None
    lines = [f"# {name}", summary + "."]
    if best:
        values = trial_values(definition, best.user_attrs["number"])
        winner = f"{best.user_attrs['experiment']}: {definition['metric']} {best.value:g}"
        lines += [
            f"**Best: {winner}**, {best.user_attrs['said']}",
            "\n".join(f"- `{key}={json.dumps(value)}`" for key, value in values.items()),
            f"```sh\ndvc exp apply {best.user_attrs['experiment']}\n```",
        ]
        summary = f"best {winner}; {summary}"
    create_markdown_artifact(key=key(name, "best"), description=f"What {name} found", markdown="\n\n".join(lines))
    failed = [record for record in ranked if record.state == TrialState.FAIL]
    if failed:
        first = failed[0].user_attrs
        return Failed(message=f"{summary}; {first['experiment']} failed: {first['said']}")
    return Completed(message=summary) if best else Failed(message=summary)


def rank(found: Mapping[int, FrozenTrial], direction: str) -> list[FrozenTrial]:
    """The trials, complete ones by their score and the best first, then those stopped early, then those failed."""
    sign = 1 if direction == "minimize" else -1
    order = list(STATES)
    records = [found[number] for number in sorted(found)]
    return sorted(records, key=lambda record: (order.index(record.state), sign * (record.value or 0.0)))


def trial_rows(ranked: Sequence[FrozenTrial], definition: Definition) -> list[dict[str, Any]]:
    """A row a trial: its experiment, the parameters that are searched, its score, verdict or fault, and state."""
    searched = [name for name, axis in definition["space"].items() if not isinstance(axis, list) or len(axis) > 1]
    rows = []
    for record in ranked:
        values = trial_values(definition, record.user_attrs["number"])
        said = record.user_attrs["said"]
        rows.append(
            {"trial": record.user_attrs["experiment"]}
            | {name: _short(values[name]) for name in searched}
            | {definition["metric"]: "" if record.value is None else record.value}
            | {"verdict": _without_evidence(said) if record.state == TrialState.PRUNED else said}
            | {"state": STATES[record.state]}
        )
    return rows


def _without_evidence(reason: str) -> str:
    """`stopped early at 24.4 kimg: generator collapsed`, of a longer text."""
    return ": ".join(reason.split(": ")[:2])


def read_space(words: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE,VALUE` and `KEY=LOW..HIGH` words of a command line as a space, the values in YAML.

    Raises ExperimentError for another form, an unknown key, or a value that is not YAML.
    """
    check_overrides(words, read_keys(PARAMS))
    space: dict[str, Any] = {}
    for word in words:
        name, _, text = word.partition("=")
        bounds = RANGE.fullmatch(text)
        try:
            if bounds:
                low, high = (parse_document(bound, shown(word)) for bound in bounds.groups()[:2])
                space[name] = {"low": low, "high": high, "log": bool(bounds[3])}
            else:
                space[name] = parse_document(f"[{text}]", shown(word))
        except InputError as error:
            raise ExperimentError(str(error)) from None
    return space


def main(arguments: Sequence[str]) -> int:
    """Run the flow as the command line says; the exit status."""
    parser = argparse.ArgumentParser("python -m flows.sweep", description=__doc__)
    parser.add_argument("experiment", help=f"a name of {EXPERIMENTS}")
    parser.add_argument(
        "space",
        nargs="+",
        metavar="KEY=VALUES",
        help="what to search: values as train.lr_d=1e-4,1e-3; at random also in a range, as train.n_dis=1..5 or, with "
        "uniform logarithms, train.lr_d=1e-4..1e-2:log",
    )
    parser.add_argument("--metric", required=True, help=f"the number of {SCORES} to search by, as classifier-FD")
    parser.add_argument("--direction", choices=["minimize", "maximize"], default="minimize", help="which are better")
    parser.add_argument("--method", choices=["grid", "random"], help="default: grid, and random where there is a range")
    parser.add_argument("--trials", type=int, help="how many (default: the whole grid)")
    parser.add_argument("--name", help="trials are kept as NAME-000, NAME-001, … (default: EXPERIMENT-sweep)")
    parser.add_argument("--seed", type=int, default=0, help="of a random search")
    parser.add_argument(
        "--no-stop-early", dest="stop_early", action="store_false", help="train hopeless ones to the end"
    )
    parser.add_argument("--parallel", type=int, help="how many at once (default: this host's slots)")
    parser.add_argument("--revision", default="HEAD", help="the commit to run (default: HEAD)")
    parser.add_argument("--remote", help="a git remote to share the results through")
    options = vars(parser.parse_intermixed_args(arguments))

    def read_parameters() -> dict[str, Any]:
        space = read_space(options["space"])
        ranges = any(isinstance(axis, dict) for axis in space.values())
        return options | {"space": space, "method": options["method"] or ("random" if ranges else "grid")}

    return run_flow(sweep, read_parameters)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
