"""The flows' parameters: what Prefect's form shows, and what is refused before anything runs."""

import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from prefect import Flow
from prefect.client.schemas.objects import State
from prefect.exceptions import ParameterTypeError
from prefect.runtime import flow_run
from prefect.settings import get_current_settings
from pydantic import AfterValidator, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.experiment import EXPERIMENTS, PARAMS, ExperimentError, check_overrides, read_experiments, read_keys
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
    names = _names()
    if names and name not in names:
        raise ValueError(f"no experiment is named {name!r}; {EXPERIMENTS} has {', '.join(names)}")
    return name


def _settable(overrides: dict[str, Any]) -> dict[str, Any]:
    keys = _keys()
    if keys:
        check_overrides([f"{key}=" for key in overrides], keys)
    return overrides


ExperimentName = Annotated[
    str,
    AfterValidator(_known),
    described(f"an experiment of {EXPERIMENTS}", enum=list(_names())),
]
Overrides = Annotated[
    dict[str, Any],
    AfterValidator(_settable),
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


def name_of_several() -> str:
    """What to call a run of several experiments."""
    return ", ".join(flow_run.parameters["experiments"])


def run_flow(flow: Flow[..., State[Any]], parameters: Mapping[str, Any]) -> int:
    """Run a flow from the command line; 0 if it completed, else 1.

    Parameters that are refused are one line on stderr; otherwise the last line on stdout is the state it ended in.
    """
    prefects_log = logging.getLogger("prefect.flows")
    prefects_log.disabled = True  # it repeats what is refused, at length
    try:
        validated = flow.validate_parameters(dict(parameters))
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
