"""Runs an experiment of experiments.yaml as the `dvc exp run` that it stands for.

`python -m flows.experiment NAME [KEY=VALUE …]`
"""

import difflib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gan.documents import LONGEST, LONGEST_SHOWN, read_document, shown
from gan.errors import InputError, one_line

EXPERIMENTS = Path("experiments.yaml")
PARAMS = Path("params.yaml")
NAME = re.compile(r"[A-Za-z0-9]([\w.-]{,118}[\w-])?", re.ASCII)
"""A name that git takes for a reference, too; but for `..` in it, and `.lock` at its end."""
PLAIN_WORD = re.compile(r"(?!(?:null|true|false|nan|inf)$)[a-z][\w./-]*", re.IGNORECASE)
"""Text that DVC's override grammar takes for itself without quotes."""
MOST_ITEMS = 100
LARGEST = 2**63


class ExperimentError(ValueError):
    """A name or a file that the user can put right; the message is one line."""


def read_experiments(path: Path) -> dict[str, dict[str, Any]]:
    """All experiments by name, each with `about` (what it is) and `set` (parameters that differ from params.yaml).

    Raises ExperimentError if the file is missing or not of that form.
    """
    document = _read_yaml(path)
    if not isinstance(document, Mapping) or not document:
        raise ExperimentError(f"{path}: must map names to experiments")
    for name, experiment in document.items():
        if not isinstance(name, str) or not is_name(name):
            raise ExperimentError(f"{path}: {shown(name)} cannot name an experiment: use letters, digits, and . _ -")
        if (
            not isinstance(experiment, Mapping)
            or set(experiment) != {"about", "set"}
            or not isinstance(experiment["about"], str)
            or not isinstance(experiment["set"], Mapping)
        ):
            raise ExperimentError(f"{path}: {name}: an experiment has `about`, a text, and `set`, a mapping; no more")
        try:
            check_values(experiment["set"])
        except ExperimentError as error:
            raise ExperimentError(f"{path}: {name}: {error}") from None
    return dict(document)


def is_name(name: str) -> bool:
    """Whether an experiment may have this name."""
    return bool(NAME.fullmatch(name)) and ".." not in name and not name.endswith(".lock")


def check_values(values: Mapping[Any, Any]) -> None:
    """Raise ExperimentError for a value that none of the parameters can have, whatever its name."""
    for name, value in values.items():
        each = value if isinstance(value, list) else [value]
        if len(each) > MOST_ITEMS or not all(map(_is_plain, each)):
            raise ExperimentError(
                f"{one_line(str(name), LONGEST_SHOWN)}: {shown(value)} is no value of a parameter, which is a number, "
                "a text, true, false, null, or a list of these"
            )


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST
    if isinstance(value, int | float):
        return abs(value) < LARGEST  # which NaN is not
    return value is None


def _read_yaml(path: Path) -> Any:  # noqa: ANN401 (YAML)
    try:
        return read_document(path)
    except InputError as error:
        raise ExperimentError(str(error)) from None


def settings_of(name: str, experiments: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The parameters that the experiment `name` sets. Raises ExperimentError, listing the names, if it is unknown."""
    if name not in experiments:
        raise ExperimentError(f"no experiment is named {shown(name)}; {EXPERIMENTS} has {', '.join(experiments)}")
    return dict(experiments[name]["set"])


def experiment_command(name: str, experiments: Mapping[str, Mapping[str, Any]], overrides: Sequence[str]) -> list[str]:
    """The `dvc exp run` command of the experiment `name`, and after its own parameters the user's `overrides`.

    Raises ExperimentError, listing the names, if it is unknown.

    It runs in a temporary copy, so that the working tree stays as it is and the next experiment starts from the
    committed parameters too.
    """
    settings = settings_of(name, experiments)
    command = ["dvc", "--wait-for-lock", "exp", "run", "--temp", "--name", name]
    for key, value in settings.items():
        plain = isinstance(value, str) and PLAIN_WORD.fullmatch(value)
        command += ["--set-param", f"{key}={value if plain else json.dumps(value, ensure_ascii=False)}"]
    for override in overrides:
        command += ["--set-param", override]
    return command


def default_name(experiment: str, overrides: Mapping[str, Any]) -> str:
    """The experiment's name, and the values of its overrides: `mnist-quick-epochs-20`."""
    words = [experiment] + [f"{key.rpartition('.')[2]}-{value}" for key, value in sorted(overrides.items())]
    return re.sub(r"(?:[^\w.]|\.\.)+", "-", "-".join(words)).strip("-.")


def check_overrides(overrides: Sequence[str], keys: Sequence[str]) -> None:
    """Raise ExperimentError for an override that is not KEY=VALUE with one of the parameters' `keys`."""
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or key.startswith("-"):
            raise ExperimentError(f"{shown(override)} is not KEY=VALUE, as in train.epochs=20")
        check_keys([key], keys)


def check_keys(names: Iterable[str], keys: Sequence[str]) -> None:
    """Raise ExperimentError for a name that is none of the parameters' `keys`."""
    for name in names:
        if name not in keys:
            close = difflib.get_close_matches(name, keys, 1)
            raise ExperimentError(
                f"{PARAMS} has no {one_line(str(name), LONGEST_SHOWN)}"
                + (f"; did you mean {close[0]}?" if close else "")
            )


def read_params(path: Path) -> dict[str, Any]:
    """What params.yaml holds. Raises ExperimentError if it is missing or no mapping."""
    document = _read_yaml(path)
    if not isinstance(document, Mapping):
        raise ExperimentError(f"{path}: must map sections to parameters")
    return dict(document)


def read_keys(path: Path) -> list[str]:
    """The parameters' names, as `train.epochs`."""
    names = []
    for section, values in read_params(path).items():
        names += [f"{section}.{name}" for name in values] if isinstance(values, Mapping) else [section]
    return names


def main(arguments: list[str]) -> int:
    """Print the command of the named experiment and run it; the exit status is DVC's."""
    try:
        experiments = read_experiments(EXPERIMENTS)
        if not arguments or not arguments[0]:
            width = max(map(len, experiments))
            menu = "\n".join(f"  {name:{width}}  {experiment['about']}" for name, experiment in experiments.items())
            raise ExperimentError(f"give one name of {EXPERIMENTS}, as in make experiment NAME=…\n{menu}")
        keys = read_keys(PARAMS)
        check_keys(settings_of(arguments[0], experiments), keys)
        check_overrides(arguments[1:], keys)
        command = experiment_command(arguments[0], experiments, arguments[1:])
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "params.yaml"], check=False)
        if changed.returncode:
            raise ExperimentError(
                "params.yaml differs from the commit, and experiments are defined against the committed one; "
                "commit it or `git restore params.yaml`"
            )
    except ExperimentError as error:
        print(f"experiment: {error}", file=sys.stderr)
        return 1
    print(shlex.join(command), flush=True)
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
