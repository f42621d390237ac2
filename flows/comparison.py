"""Which experiments' scores compare, and one page that puts experiments side by side.

`python -m flows.comparison NAME NAME …`, or `make compare NAMES="NAME NAME …"`, of experiments that exist: nothing
is trained, and no server is needed.
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.logging import get_logger
from ruamel.yaml import YAML

from flows.artifacts import first_of
from flows.children import at_once
from flows.differences import leaves
from flows.experiment import (
    EXPERIMENTS,
    PARAMS,
    ExperimentError,
    experiment_command,
    read_experiments,
    settings_of,
)
from flows.processes import CommandError, run
from flows.workspace import alone, find_commit, find_experiment, find_home

SCORES = "results/scores.json"
SHOWN = ("results/curves.csv", "results/evaluation", "results/samples/grid.png")
"""What of an experiment the page shows beside its scores."""
PAGE = Path("results/comparison/index.html")

DRAWS = ("seed",)
"""Entries of a protocol that may differ: a seed is a draw, and no rule of measurement."""
SUBJECTS = ("evaluate.samples", "sample.generator")
"""Parameters that name what is scored, not how."""
DECIDED_BY = {
    "extractor": ("evaluate.extractor",),
    "weights_md5": (
        "evaluate.extractor",
        "evaluate.weights",
        "reference.epochs",
        "reference.batch_size",
        "reference.lr",
    ),
    "real_split": ("evaluate.split",),
    "real_images": ("evaluate.split", "reference.images"),
    "floor_images": ("evaluate.split", "reference.images"),
    "data_md5": ("evaluate.split",),
    "generated_images": ("sample.count",),
    "inception_score_splits": ("evaluate.splits",),
    "trajectory_images": ("evaluate.trajectory",),
    "kernel_subset_size": ("sample.count", "evaluate.split", "reference.images"),
    "manifold_images": ("sample.count", "evaluate.split", "reference.images"),
    "copy_samples": ("sample.count",),
}
"""Parameters of the stages after training that decide an entry of the protocol; any other one is decided by
`evaluate.ENTRY`, if there is such a parameter, and by `evaluate.extractor`."""
COUNTS = ("generated_images", "real_images")
LIMITED = ("kernel_subset_size", "manifold_images", "copy_samples")
"""Entries that say no more than that a count differs, where one does."""
FIXED = ("image_size", "channels", "crop", "resize", "training_images", "versions")
"""Entries that no parameter of the stages after training decides."""
OF_THE_DATA = ("real_images", "floor_images", "data_md5")
"""Entries that depend on the prepared images too, as do a classifier's weights."""

GET_ALL = """
import sys
from dvc.cli import main
home, folder, *commits = sys.argv[1:]
for number, commit in enumerate(commits):
    main(["get", "--quiet", "--rev", commit, home, "results", "--out", f"{folder}/{number}/results"])
"""
"""`dvc get` for each commit, all in one process: DVC takes ten times as long to start as to get the results of one."""

BESIDE_RESULTS = (".", f":!{PARAMS}", ":!dvc.lock", ":!results", ":!.dvc/tmp", ":!*.gitignore")
"""Where a commit differs from its baseline if its code does: git's words for all files but parameters and results."""

Protocol = Mapping[str, Any]
Params = Mapping[str, Any]
"""Parameters by their names, as `train.epochs`."""


@dataclass(frozen=True)
class Result:
    """What an experiment, or a committed run, came to."""

    name: str
    commit: str
    baseline: str
    """The commit that the experiment started from; `commit` itself for a committed run."""
    scores: Mapping[str, Any]
    params: Params

    @property
    def protocol(self) -> Protocol:
        """How the scores were measured."""
        return first_of(self.scores, "protocol")


def read_result(home: Path, name: str, commit: str, baseline: str) -> Result:
    """The scores and parameters that `commit` holds.

    Raises ExperimentError where it holds none.
    """
    try:
        scores = json.loads(run("git", "show", f"{commit}:{SCORES}", folder=home))
    except CommandError:
        raise ExperimentError(f"{name}: its commit {commit[:7]} has no {SCORES}; run it first") from None
    return Result(name, commit, baseline, scores, read_committed_params(home, commit))


def read_committed_params(home: Path, commit: str) -> dict[str, Any]:
    """The parameters of a commit by their names, as `train.epochs`. Raises CommandError where it has none."""
    document = YAML(typ="safe", pure=True).load(run("git", "show", f"{commit}:{PARAMS}", folder=home))
    return flat(document)


def resolve(home: Path, commit: str, experiment: str, overrides: Params) -> dict[str, Any]:
    """The parameters that an experiment of `commit` will run with, by their names.

    Raises ExperimentError where the commit has no such experiment, CommandError where it has none at all.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / EXPERIMENTS
        path.write_text(run("git", "show", f"{commit}:{EXPERIMENTS}", folder=home), encoding="utf-8")
        settings = settings_of(experiment, read_experiments(path))
    return read_committed_params(home, commit) | settings | dict(overrides)


def flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """What params.yaml holds, by names as `train.epochs`."""
    found: dict[str, Any] = {}
    for section, values in document.items():
        found |= (
            {f"{section}.{key}": value for key, value in values.items()}
            if isinstance(values, Mapping)
            else {section: values}
        )
    return found


def find_result(home: Path, name: str) -> Result:
    """What the experiment `name` came to, or else what is committed under the branch, tag or commit of that name.

    Raises ExperimentError where there is neither, or nothing was run, or several experiments have the name.
    """
    try:
        commit, baseline = find_experiment(home, name)
    except ExperimentError as error:
        try:
            commit = baseline = find_commit(home, name)
        except ExperimentError:
            raise error from None
    return read_result(home, name, commit, baseline)


def protocol_difference(ours: Protocol, theirs: Protocol) -> dict[str, tuple[Any, Any]]:
    """The entries in which two protocols differ, with both values: where there are any, the scores do not compare."""
    return {
        entry: (ours.get(entry), theirs.get(entry))
        for entry in dict.fromkeys([*ours, *theirs])
        if entry not in DRAWS and ours.get(entry) != theirs.get(entry)
    }


def say_difference(difference: Mapping[str, tuple[Any, Any]]) -> str:
    """`generated_images (100, 5), versions.torch (2.14.1, 2.15.0)`."""
    said = []
    for entry, values in difference.items():
        if entry in LIMITED and any(count in difference for count in COUNTS):
            continue
        ours, theirs = (dict(leaves(value, entry)) for value in values)
        said += [
            f"{place} ({_plain(ours.get(place))}, {_plain(theirs.get(place))})"
            for place in dict.fromkeys([*ours, *theirs])
            if ours.get(place) != theirs.get(place)
        ]
    return ", ".join(said)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def refusal(results: Sequence[Result]) -> str:
    """Why the scores of these do not compare, in one line, and what would make them alike; nothing where they do."""
    first, *others = results
    differing = [(other, protocol_difference(first.protocol, other.protocol)) for other in others]
    said = [
        f"the scores of {first.name} and {other.name} do not compare: protocols differ in {say_difference(difference)}"
        for other, difference in differing
        if difference
    ]
    if not said:
        return ""
    command = remedy(results)
    return "; ".join([*said, f"score them alike: {command}"] if command else said)


def remedy(results: Sequence[Result]) -> str:
    """The command that scores the experiments again by the first one's protocol; nothing where none would.

    What depends on the training, its data or its seed stays as it is when an experiment is scored again. A committed
    run that is no experiment is not scored again: others are scored by the protocol of the first such one.
    """
    first = next((result for result in results if result.commit == result.baseline), results[0])
    others = [result for result in results if protocol_difference(first.protocol, result.protocol)]
    if any(result.commit == result.baseline for result in others):
        return ""
    classifier = first.params.get("evaluate.extractor") == "classifier"
    given = any(result.params.get("evaluate.samples") is not None for result in results)
    overrides: dict[str, Any] = {}
    for other in others:
        changed = {name for name in {*first.params, *other.params} if first.params.get(name) != other.params.get(name)}
        prepared_otherwise = any(name == "seed" or name.startswith("data.") for name in changed)
        for entry in protocol_difference(first.protocol, other.protocol):
            own = DECIDED_BY.get(entry, (f"evaluate.{entry}",))
            deciding = changed.intersection((*own, "evaluate.extractor"))
            of_the_data = entry in OF_THE_DATA or (entry == "weights_md5" and classifier)
            counted = given and "sample.count" in own
            if not deciding or entry in FIXED or counted or (of_the_data and prepared_otherwise):
                return ""
            overrides |= {name: first.params.get(name) for name in deciding}
    words = [
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in sorted(overrides.items())
    ]
    again = [result.name for result in results if result.commit != result.baseline]
    return shlex.join(["python", "-m", "flows.evaluate", *again, *words])


def deciding_params(params: Params) -> list[str]:
    """The names of the parameters that are sure to change the protocol where they change.

    A seed changes the classifier, which is trained, and of other extractors' protocols at most the split.
    """
    trained = params.get("evaluate.extractor") == "classifier"
    return [
        name
        for name in params
        if name not in SUBJECTS
        and (
            name in ("sample.count", "reference.images")
            or name.startswith(("data.", "evaluate."))
            or (trained and (name == "seed" or name.startswith(("reference.", "hardware."))))
        )
    ]


def foreseen(resolved: Mapping[str, Params]) -> list[str]:
    """Whose scores will not compare with the first one's, as far as parameters tell before anything runs."""
    (first, ours), *others = resolved.items()
    said = []
    for name, theirs in others:
        differing = [
            f"{key} ({_plain(ours.get(key))}, {_plain(theirs.get(key))})"
            for key in dict.fromkeys([*deciding_params(ours), *deciding_params(theirs)])
            if ours.get(key) != theirs.get(key)
        ]
        if differing:
            said.append(f"the scores of {first} and {name} will not compare: they differ in {', '.join(differing)}")
    return said


def command_of(home: Path, result: Result) -> str:
    """The commands that make the result again in a clone that has its commit."""
    from_there = f"git switch --detach {result.baseline}"
    others = run("git", "diff", "--name-only", result.baseline, result.commit, "--", *BESIDE_RESULTS, folder=home)
    if result.commit == result.baseline or others:
        return f"git switch --detach {result.commit} && dvc repro"
    before = read_committed_params(home, result.baseline)
    changed = {name: value for name, value in result.params.items() if before.get(name, ...) != value}
    return f"{from_there} && {shlex.join(experiment_command(result.name, {result.name: {'set': changed}}, []))}"


@contextmanager
def gathered(home: Path, results: Sequence[Result]) -> Iterator[Path]:
    """A temporary folder with a folder for each result, by its number, in which `results` is as its commit has it.

    Only what the page shows is brought. What is neither in DVC's cache nor in its remote is not there, and a warning
    says so.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with suppress(CommandError):  # what then lacks is told below
            run("python", "-c", GET_ALL, str(home), temporary, *(result.commit for result in results), folder=folder)

        def bring(number: int) -> None:
            result, place = results[number], folder / str(number)
            get = ("dvc", "get", "--quiet", "--rev", result.commit, str(home))
            for path in SHOWN:
                (place / path).parent.mkdir(parents=True, exist_ok=True)
                try:
                    if not (place / path).exists():
                        run(*get, path, "--out", str(place / path), folder=place)
                except CommandError as error:
                    get_logger("flows").warning("%s: %s is left out: %s", result.name, path, error)
            scores = run("git", "show", f"{result.commit}:{SCORES}", folder=home)
            (place / SCORES).write_text(scores + "\n", encoding="utf-8")

        at_once(bring, range(len(results)), os.cpu_count() or 1)
        yield folder


def write_page(home: Path, results: Sequence[Result], folder: Path, failed: Mapping[str, str]) -> Path:
    """Write the page of the results `gathered` in `folder`, and of those that `failed` and why, into `home`; its path.

    Raises CommandError where that fails.
    """
    comparison = {
        "experiments": [
            {
                "name": result.name,
                "commit": result.commit,
                "command": command_of(home, result),
                "params": dict(result.params),
                "scores": dict(result.scores),
            }
            for result in results
        ],
        "failed": dict(failed),
        "refusal": refusal(results),
    }
    (folder / "comparison.json").write_text(json.dumps(comparison), encoding="utf-8")
    with alone(home):
        run("python", "-m", "stages.comparison", str(folder), folder=home)
    return home / PAGE


def main(arguments: Sequence[str]) -> int:
    """Write the page of the named experiments, and say where it is; the exit status."""
    parser = argparse.ArgumentParser("python -m flows.comparison", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="experiments that `dvc exp show` lists, or commits with results"
    )
    names = list(dict.fromkeys(parser.parse_args(arguments).names))
    try:
        if len(names) < 2:
            raise ExperimentError("give two or more names; `dvc exp list --all-commits` lists the experiments")
        home = find_home()
        results = [find_result(home, name) for name in names]
        with gathered(home, results) as folder:
            page = write_page(home, results, folder, {})
        print(f"comparison: {page.relative_to(home)}")
    except (ExperimentError, CommandError) as error:
        print(f"comparison: {error}", file=sys.stderr)
        return 1
    refused = refusal(results)
    if refused:
        print(f"comparison: {refused}", file=sys.stderr)
    return int(bool(refused))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
