"""Reads YAML that people write, and refuses what nobody would write: in one line, and before it costs anything.

A few lines of YAML can stand for a billion values by aliases of aliases, or nest so deep that a parser runs out of
stack, so all that is read is first looked through, event by event, without building any of it.
"""

import reprlib
from collections.abc import Container
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, StreamMark, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, Event, ScalarEvent
from ruamel.yaml.nodes import Node

from gan.errors import InputError, one_line

MOST_BYTES = 500_000
MOST_VALUES = 20_000
"""Keys and values, those behind an alias counted each time. experiments.yaml has some 2,000."""
DEEPEST = 32
LONGEST = 4096
"""Characters of one key or value: as many as a path may have on Linux."""
LONGEST_SHOWN = 60
LONGEST_LINE = 400


class _Brief(reprlib.Repr):
    """`repr`, cut short, for values of any size; Python refuses to write a whole number of more than 4,300 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 2
        self.maxstring = self.maxother = LONGEST_SHOWN

    def repr_int(self, x: int, level: int) -> str:
        del level
        return repr(x) if x.bit_length() <= 128 else f"a whole number of {x.bit_length()} bits"


_brief = _Brief()


def shown(value: object) -> str:
    """A value as a message may show it: its `repr`, printable and short, whatever it is."""
    text = one_line(_brief.repr(value), LONGEST_LINE)
    return text if len(text) <= LONGEST_SHOWN + 2 else f"{text[: LONGEST_SHOWN - 1]}…"


def read_document(path: Path) -> Any:  # noqa: ANN401 (YAML)
    """What a YAML file holds. Raises InputError, naming the file and the line, where it cannot be read."""
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: not a file; move away what has its name")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run from the folder that holds dvc.yaml") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise InputError(f"{path}: longer than {MOST_BYTES:,} bytes, and no such file has a reason to be")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: line {line}: not UTF-8 text; save it as UTF-8") from None
    return parse_document(text, str(path))


def parse_document(text: str, origin: str) -> Any:  # noqa: ANN401 (YAML)
    """What a text in YAML says; `origin` is named in the message of an InputError.

    Raises InputError where it is no YAML, or has what nobody writes: tags, aliases that stand for more than
    `MOST_VALUES` values or for themselves, more than `DEEPEST` levels, a key or value of more than `LONGEST`
    characters.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        _look_through(yaml, text)
        return yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise InputError(one_line(f"{origin}: not valid YAML: {_line(mark)}{said}", LONGEST_LINE)) from None
    except YAMLError as error:
        said = " ".join(str(error).split())
        raise InputError(one_line(f"{origin}: not valid YAML: {said}", LONGEST_LINE)) from None


class _Constructor(SafeConstructor):
    """Says where a value stands of which Python can make nothing, as 2001-02-30 or a number of 5,000 digits."""

    def construct_object(self, node: Node, deep: bool = False) -> Any:  # noqa: ANN401
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            raise ConstructorError(problem=f"{shown(node.value)}: {error}", problem_mark=node.start_mark) from None


def _look_through(yaml: YAML, text: str) -> None:
    """Raise a ConstructorError where the text has what `parse_document` refuses."""
    count = 0
    sizes: dict[str | None, int | None] = {}
    """Values behind each anchor; None where it is not at its end yet."""
    open_: list[tuple[str | None, int]] = []
    for event in yaml.parse(text):
        if isinstance(event, ScalarEvent | CollectionStartEvent):
            _check_node(event, sizes)
            count += 1
            sizes[event.anchor] = 1
        if isinstance(event, CollectionStartEvent):
            open_.append((event.anchor, count))
            sizes[event.anchor] = None
        elif isinstance(event, CollectionEndEvent):
            anchor, before = open_.pop()
            sizes[anchor] = count - before + 1
        elif isinstance(event, AliasEvent):
            size = sizes.get(event.anchor, 0)  # of an alias of nothing YAML itself tells
            if size is None:
                raise _refusal(f"*{event.anchor} stands for what it is part of", event)
            count += size
        if len(open_) > DEEPEST:
            raise _refusal(f"more than {DEEPEST} levels", event)
        if count > MOST_VALUES:
            raise _refusal(f"more than {MOST_VALUES:,} keys and values, those behind aliases included", event)


def _check_node(event: ScalarEvent | CollectionStartEvent, anchors: Container[str | None]) -> None:
    if event.anchor is not None and event.anchor in anchors:
        raise _refusal(f"the anchor &{event.anchor} is there twice", event)
    if event.tag is not None:
        raise _refusal(f"the tag {shown(str(event.tag))} is not allowed; write the plain value", event)
    if isinstance(event, ScalarEvent) and len(event.value) > LONGEST:
        raise _refusal(f"{len(event.value):,} characters in one value; at most {LONGEST:,} are allowed", event)


def _refusal(said: str, event: Event) -> ConstructorError:
    return ConstructorError(problem=said, problem_mark=event.start_mark)


def _line(mark: StreamMark | None) -> str:
    return "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
