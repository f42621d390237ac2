"""What nobody should write, and somebody will: values, pieces of YAML and whole files to put into params.yaml."""

import copy
import datetime as dt
import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
DEFAULT: dict[str, Any] = YAML(typ="safe", pure=True).load(TEXT)
LEAVES = [
    f"{section}.{key}" if key else section
    for section, values in DEFAULT.items()
    for key in (values if isinstance(values, dict) else [""])
]
LONGEST_MESSAGE = 500
"""Characters of a refusal, the name of its file left out."""


def recursive() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def tower(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


def bomb(levels: int = 9, width: int = 9) -> list[Any]:
    """`width` to the power of `levels` values in a few hundred bytes."""
    found: list[Any] = ["x"] * width
    for _ in range(levels):
        found = [found] * width
    return found


VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, -1, 3, 64, 255, 10**9, 10**12, 10**15, 2**31, 2**63, 2**64, -(2**64)),
    *(
        10**400,
        10**5000,
        -(10**5000),
        0.0,
        -0.0,
        0.5,
        1.0,
        1.5,
        0.9999999999999999,
        1e-300,
        5e-324,
        1e300,
        1e308,
        -1e308,
    ),
    *(float("nan"), float("inf"), -float("inf"), 1j, "", " ", "0", "1e400", "null", "yes", "none", "auto", "../../etc"),
    *(
        "\0",
        "a\0b",
        "a\nb",
        "\ud800",
        "\u202etxt.exe",
        "שלום",
        "🧨" * 50,
        "x" * 10**6,
        "\x1b[31mred",
        "{{7*7}}",
        "$(id)",
    ),
    *(
        "~",
        "~root/x",
        "/dev/zero",
        "<script>alert(1)</script>",
        b"\xff\xfe",
        bytearray(b"x"),
        dt.date(2026, 1, 1),
    ),
    *(
        dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        dt.timedelta(1),
        [],
        [[]],
        [None],
        [1],
        [1, 2],
        [0.7, 1.2],
    ),
    *(
        ["colour"] * 10**5,
        [10**5000],
        [1.0] * 10**5,
        list(range(10**5)),
        ["\ud800"],
        {},
        {"a": 1},
        {1: 2},
        {None: None},
    ),
    *({"x" * 10**6: 1}, {(1, 2): 3}, {"\x1b[31m": 1}, set(), {1, 2}, frozenset({1}), (1, 2), object(), len, int),
    *(recursive(), tower(900), bomb()),
]

SNIPPETS = [
    *("", "~", "null", "Null", "true", "True", "yes", "no", "on", "off", "y", "0", "-0", "+1", "1", "2", "08", "0o17"),
    *("0x1F", "0b11", "1_000", "190:20:30", "1e3", "1E3", "1e-3", ".5", "5.", "-.5", ".inf", "-.INF", ".nan", "1e400"),
    *("-0.0", "1" * 4000, "1" * 5000, "0x" + "f" * 4000, "9" * 20, "0." + "9" * 40, "0.30000000000000000000000000004"),
    *("2026-01-01", "2026-99-99", "0001-01-01T00:00:00+23:59", "2026-01-01T99:00:00Z", "12:30:45", "[", "]", "{", "}"),
    *("[1, 2", "[]", "[[]]", "[1, [2, [3]]]", "{}", "{a: 1}", "{a: 1, a: 2}", "{? [1]: 2}", "{1: 2}", "{null: null}"),
    *("[1, 'x', null]", "[.nan]", "'", '"', "'a", '"\\q"', '"\\0"', '"\\ud800"', '"\\x1b[31m"', '"\\u202e"', "'שלום'"),
    *(
        "🧨",
        "a: b",
        "a: b: c",
        "? a",
        "- a",
        "|\n    a\n    b",
        ">-\n    a",
        "# only a comment",
        "%",
        "@",
        "`",
        "!",
        "&",
        "*",
    ),
    *(
        "&a",
        "&a 1",
        "*a",
        "&a [*a]",
        "&a {b: *a}",
        "&a &b 1",
        "<<",
        "{<<: 1}",
        "{<<: [1, 2]}",
        "{<<: {a: 1}}",
        "!!str 1",
    ),
    *("!!int x", "!!float x", "!!bool x", "!!null x", "!!timestamp x", "!!binary x", "!!binary AAAA", "!!set {a, b}"),
    *("!!omap [a: 1]", "!!pairs [a: 1]", "!!seq x", "!!map x", "!!python/object/apply:os.system ['exit 1']"),
    *("!!python/name:os.system", "!!python/object:object {}", "!<tag:x> 1", "! 1", "!local 1", "\t1", "1 \t", "1\t# x"),
    *(
        "x" * 5000,
        '"' + "x" * 5000 + '"',
        "[" * 100,
        "[" * 100_000,
        "{a: " * 100,
        "- " * 100,
        "[" + "1, " * 30_000 + "1]",
    ),
    *(
        "&a [x, x]\nz: &b [*a, *a]\ny: [*b, *b]",
        "1\nseed: 2",
        "1\n...\n",
        "1\n---\na: 1",
        "1\n%YAML 1.1",
        "\x00",
        "\x7f",
    ),
    *(
        "\x85",
        "\u2028",
        "\ufeff",
        "\ufffe",
        "${oc.env:HOME}",
        "{{ 7*7 }}",
        "$(touch x)",
        "`touch x`",
        "; touch x",
        "--help",
    ),
]


def billion_laughs(levels: int = 12) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)]
    return "\n".join(lines) + "\n"


def merging_bomb(levels: int = 12) -> str:
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 10)}]}}" for level in range(1, levels)]
    return "\n".join(lines) + "\n"


FILES: dict[str, bytes] = {
    "empty": b"",
    "blank": b"\n\n# nothing\n",
    "one word": b"word",
    "one number": b"1",
    "null": b"null\n",
    "a list": b"- 1\n- 2\n",
    "a directive": b"%YAML 9.9\n---\n" + TEXT.encode(),
    "several documents": TEXT.encode() + b"---\n" + TEXT.encode(),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16 without a mark": TEXT.encode("utf-16-le"),
    "UTF-32": TEXT.encode("utf-32"),
    "Latin-1": TEXT.encode("latin-1", "replace") + b"x: \xe9\n",
    "invalid UTF-8": TEXT.encode() + b"# \xff\n",
    "overlong UTF-8": TEXT.encode() + b"x: \xc0\xaf\n",
    "surrogates in UTF-8": TEXT.encode() + b"x: \xed\xa0\x80\n",
    "NUL": TEXT.encode() + b"\0",
    "binary": bytes(range(256)) * 16,
    "tabs": TEXT.replace("  ", "\t").encode(),
    "a key twice": TEXT.encode() + b"seed: 1\n",
    "a section twice": TEXT.encode() + b"sample: {}\n",
    "laughs": TEXT.encode() + billion_laughs().encode(),
    "laughs alone": billion_laughs().encode(),
    "merged laughs": merging_bomb().encode(),
    "merged laughs in a section": TEXT.encode() + merging_bomb().encode(),
    "itself": TEXT.encode() + b"x: &x [*x]\n",
    "itself as a key": b"&x {*x : 1}\n",
    "itself merged": b"x: &x\n  <<: *x\n",
    "nested lists": b"[" * 100_000,
    "nested mappings": b"{a: " * 100_000,
    "nested dashes": b"- " * 100_000,
    "nested question marks": b"? " * 100_000,
    "nested blocks": "".join(f"{' ' * level}k:\n" for level in range(900)).encode(),
    "an enormous key": b"k" * 400_000 + b": 1\n",
    "an enormous quoted key": b'"' + b"k" * 400_000 + b'": 1\n',
    "an enormous value": TEXT.encode() + b"x: " + b"v" * 400_000 + b"\n",
    "many keys": "".join(f"k{number}: 1\n" for number in range(40_000)).encode(),
    "many quotes": b'"' * 200_001,
    "many colons": b": " * 100_000,
    "many anchors": "".join(f"k{number}: &a{number} 1\n" for number in range(20_000)).encode(),
    "too long": b"# a comment\n" * 100_000,
}

ALIKE: dict[str, bytes] = {
    "byte order mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "CRLF": TEXT.replace("\n", "\r\n").encode(),
    "no last newline": TEXT.rstrip("\n").encode(),
    "an end": TEXT.encode() + b"...\n",
    "a beginning": b"---\n" + TEXT.encode(),
    "JSON": json.dumps(DEFAULT).encode(),
    "an alias": TEXT.replace("channels: 1", "channels: &one 1").replace("n_dis: 1", "n_dis: *one").encode(),
}
"""The same parameters as params.yaml has, written otherwise."""


def changed(key: str, value: Any) -> dict[str, Any]:
    """What params.yaml holds, with one value changed or added."""
    document = copy.deepcopy(DEFAULT)
    *sections, name = key.split(".")
    section = document
    for part in sections:
        section = section[part]
    section[name] = value
    return document


def rewritten(key: str, piece: str) -> str:
    """The text of params.yaml with another piece of text in the place of one value."""
    section, _, name = key.rpartition(".")
    inside = section == ""
    lines = []
    for line in TEXT.splitlines():
        inside = line.startswith(f"{section}:") if section and line[:1].strip() and line[0] != "#" else inside
        start = f"{'  ' if section else ''}{name}:"
        lines.append(f"{start} {piece}" if inside and line.startswith(start) else line)
    return "\n".join(lines) + "\n"
