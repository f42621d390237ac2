"""The flows' parameters: what Prefect's form shows, and what is refused before anything runs."""

import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from prefect import Flow
from prefect.client.schemas.objects import State
from prefect.exceptions import ParameterTypeError
from prefect.runtime import flow_run
from prefect.settings import get_current_settings
from pydantic import AfterValidator, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.experiment import (
    EXPERIMENTS,
    PARAMS,
    ExperimentError,
    check_keys,
    check_overrides,
    read_experiments,
    read_keys,
    settings_of,
)
from flows.processes import end_when_interrupted


def described(text: str, **schema: object) -> Any:  # noqa: ANN401 (pydantic's own type for it)
    """A parameter's description in Prefect's form, which leaves out a plain Field's; and more of its JSON schema."""
    return Field(json_schema_extra={"description": text, **schema})  # type: ignore[dict-item]


def _names() -> list[str]:
    try:
        return list(read_experiments(EXPERIMENTS))
    except ExperimentError:
        return []  # not in the project's folder; the flow says so when it runs


def _keys() -> list[str]:
    return read_keys(PARAMS) if PARAMS.exists() else []


def _known(name: str) -> str:
    if EXPERIMENTS.exists():
        settings_of(name, read_experiments(EXPERIMENTS))
    return name


def settable(values: dict[str, Any]) -> dict[str, Any]:
    """The values, if all their names are those of parameters; raises ExperimentError."""
    if PARAMS.exists():
        check_keys(values, read_keys(PARAMS))
    return values


ExperimentName = Annotated[
    str,
    AfterValidator(_known),
    described(f"an experiment of {EXPERIMENTS}", enum=list(_names())),
]
Overrides = Annotated[
    dict[str, Any],
    AfterValidator(settable),
    described(
        f'parameters of {PARAMS} to change beside the experiment\'s own, as {{"train.epochs": 20}}',
        propertyNames={"enum": list(_keys())},
    ),
]
Revision = Annotated[str, described("the commit, branch or tag whose code and parameters are run")]
Parallel = Annotated[
    int | None, Field(ge=1), described("how many experiments at once; by default as many as this host has slots")
]
Devices = Annotated[int, Field(ge=1), described("how many GPUs each stage sees; all are taken at once")]
Remote = Annotated[
    str | None,
    described("a git remote to share the result through, its data by DVC's own remote; none: keep it here"),
]


def read_overrides(words: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` words of a command line, the values in YAML, by key.

    Raises ExperimentError for another form, an unknown key, or a value that is not YAML.
    """
    check_overrides(words, read_keys(PARAMS))
    overrides = {}
    for word in words:
        key, _, value = word.partition("=")
        try:
            overrides[key] = YAML(typ="safe", pure=True).load(value)
        except YAMLError:
            raise ExperimentError(f"{word!r}: the value is not valid YAML") from None
    return overrides


def read_words(words: Sequence[str]) -> dict[str, Any]:
    """The parameters of a flow over several experiments: their names, and `KEY=VALUE` words, of a command line."""
    return {
        "experiments": [word for word in words if "=" not in word],
        "overrides": read_overrides([word for word in words if "=" in word]),
    }


def name_of_several() -> str:
    """What to call a run of several experiments."""
    return ", ".join(flow_run.parameters["experiments"])


def run_flow(flow: Flow[..., State[Any]], read_parameters: Callable[[], Mapping[str, Any]]) -> int:
    """Run a flow with the parameters that are read from the command line; 0 if it completed, else 1.

    Parameters that are refused, by ExperimentError or by the flow, are one line on stderr; otherwise the last line on
    stdout is the state it ended in.
    """
    prefects_log = logging.getLogger("prefect.flows")
    prefects_log.disabled = True  # it repeats what is refused, at length
    try:
        validated = flow.validate_parameters(dict(read_parameters()))
    except ExperimentError as error:
        print(f"{flow.name}: {error}", file=sys.stderr)
        return 1
    except ParameterTypeError as error:
        cause = error.__context__
        assert isinstance(cause, ValidationError)
        said = [f"{fault['loc'][0]}: {fault['msg'].removeprefix('Value error, ')}" for fault in cause.errors()]
        print(f"{flow.name}: {'; '.join(said)}", file=sys.stderr)
        return 1
    finally:
        prefects_log.disabled = False
    if not get_current_settings().api.url:
        end_when_interrupted()
    try:
        state: State[Any] = flow(**validated, return_state=True)
    except KeyboardInterrupt:
        print(f"{flow.name}: interrupted; the same command goes on from there", file=sys.stderr)
        return 128 + signal.SIGINT
    print(f"{state.name}: {state.message}", flush=True)
    return int(not state.is_completed())
