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

from flows.experiment import (
    EXPERIMENTS,
    PARAMS,
    ExperimentError,
    check_keys,
    check_overrides,
    check_values,
    read_experiments,
    read_keys,
    settings_of,
)
from flows.processes import end_when_interrupted
from gan.documents import parse_document, shown
from gan.errors import InputError, one_line

LONGEST_WORD = 1000
LONGEST_REFUSAL = 2000
"""Characters; the names of all experiments are among them."""


def described(text: str, **schema: object) -> Any:  # noqa: ANN401 (pydantic's own type for it)
    """A parameter's description in Prefect's form, which leaves out a plain Field's; and more of its JSON schema."""
    return Field(json_schema_extra={"description": text, **schema})  # type: ignore[dict-item]


def _names() -> list[str]:
    try:
        return list(read_experiments(EXPERIMENTS))
    except ExperimentError:
        return []  # not in the project's folder; the flow says so when it runs


def _keys() -> list[str]:
    try:
        return read_keys(PARAMS)
    except ExperimentError:
        return []  # likewise


def _known(name: str) -> str:
    if EXPERIMENTS.exists():
        settings_of(name, read_experiments(EXPERIMENTS))
    return name


def settable(values: dict[str, Any]) -> dict[str, Any]:
    """The values, if all their names are those of parameters; raises ExperimentError."""
    if PARAMS.exists():
        check_keys(values, read_keys(PARAMS))
    return values


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    check_values(values)
    return values


def plain_word(text: str) -> str:
    """The text, if git and DVC can be given it as a word; raises ExperimentError.

    They would take what begins with a dash for an option, some of which name a program to run, and what holds `::` for
    a program that speaks for a remote; and no command takes a NUL.
    """
    if not text or text.startswith("-") or "::" in text or not text.isprintable() or len(text) > LONGEST_WORD:
        raise ExperimentError(
            f"{shown(text)}: give at most {LONGEST_WORD} printable characters, without a dash before them or :: in them"
        )
    return text


ExperimentName = Annotated[
    str,
    AfterValidator(_known),
    described(f"an experiment of {EXPERIMENTS}", enum=list(_names())),
]
Overrides = Annotated[
    dict[str, Any],
    AfterValidator(settable),
    AfterValidator(_plain),
    described(
        f'parameters of {PARAMS} to change beside the experiment\'s own, as {{"train.epochs": 20}}',
        propertyNames={"enum": list(_keys())},
    ),
]
Word = Annotated[str, AfterValidator(plain_word)]
Revision = Annotated[Word, described("the commit, branch or tag whose code and parameters are run")]
Parallel = Annotated[
    int | None, Field(ge=1), described("how many experiments at once; by default as many as this host has slots")
]
Remote = Annotated[
    Word | None,
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
            overrides[key] = parse_document(value, shown(word))
        except InputError as error:
            raise ExperimentError(str(error)) from None
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
        print(f"{flow.name}: {one_line('; '.join(said), LONGEST_REFUSAL)}", file=sys.stderr)
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
