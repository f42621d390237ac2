"""Damaged parameters: every entrance takes them as they are, or refuses them in one short line, at no cost.

Tried are values of every kind in the place of every parameter and in random combinations, pieces of YAML in its text,
random YAML with anchors, aliases, merges and tags, bytes changed anywhere in params.yaml and experiments.yaml, and
overrides as a command line has them. What is refused must be refused by the one exception for a user's mistake, in one
printable line; what is accepted must be the value that was given. A case may take `SECONDS` of computing and
`MEGABYTES` of memory.

`python -m tests.torture.parameters --minutes M [--seed S]`
"""

import argparse
import json
import math
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from flows.experiment import EXPERIMENTS, ExperimentError, check_values, default_name, experiment_command
from flows.experiment import read_experiments as read_experiments_of
from flows.parameters import plain_word, read_overrides
from gan.documents import parse_document
from gan.errors import InputError
from gan.params import check_params, load_params
from tests.hostile import FILES, LEAVES, LONGEST_MESSAGE, ROOT, SNIPPETS, TEXT, VALUES, changed, rewritten

SECONDS = 5.0
"""Of this process's own computing: others may share the processor."""
MEGABYTES = 100
WORDS = ["a", "seed", "train", "<<", "1", "null", "true", "1e9", "0x1f", ".nan", "2026-13-01", "'", '"', "é", "\t", "#"]
MARKS = [
    "&a ",
    "&b ",
    "*a",
    "*b",
    "!!int ",
    "!!python/name:os ",
    "? ",
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "\n",
    "\n  ",
    "|\n",
    "%",
]


class WrongError(Exception):
    """What was accepted and should not have been, or not so."""


def value_in_place(rng: random.Random, folder: Path, number: int) -> None:
    """Each kind of value in the place of each parameter, in turn."""
    del rng, folder
    key, value = pair(number, LEAVES, VALUES)
    taken: Any = check_params(changed(key, value)).model_dump()
    for part in key.split("."):
        taken = taken[part]
    if taken != value:
        raise WrongError(f"{key}: {value!r} was taken as {taken!r}")


def values_together(rng: random.Random, folder: Path, number: int) -> None:
    """Several parameters changed at once, numbers of all sizes among them."""
    del folder, number
    document = changed("seed", 0)
    for key in rng.choices(LEAVES, k=rng.randint(1, 5)):
        section, _, name = key.rpartition(".")
        size = 10.0 ** rng.uniform(-320, 308)
        drawn = [rng.choice(VALUES), size, -size, math.floor(size), rng.uniform(0, 2), rng.randint(0, 1000)]
        (document[section] if section else document)[name] = rng.choice(drawn)
    json.dumps(check_params(document).model_dump(), allow_nan=False)


def piece_in_place(rng: random.Random, folder: Path, number: int) -> None:
    """Each piece of YAML in the place of each value in the text, in turn."""
    del rng
    key, piece = pair(number, LEAVES, SNIPPETS)
    read(folder, rewritten(key, piece).encode())


def bytes_changed(rng: random.Random, folder: Path, number: int) -> None:
    """Bytes of params.yaml or of another file replaced, removed, doubled and cut."""
    del number
    read(folder, damaged(rng, rng.choice([TEXT.encode(), TEXT.encode(), rng.choice(list(FILES.values()))])))


def yaml_at_random(rng: random.Random, folder: Path, number: int) -> None:
    """Words and marks of YAML in any order, alone or after params.yaml."""
    del number
    text = "".join(rng.choice(rng.choice([WORDS, MARKS])) for _ in range(rng.randint(1, 200)))
    read(folder, (rng.choice(["", TEXT, "%YAML 1.1\n---\n", "x: "]) + text).encode())


def aliases_at_random(rng: random.Random, folder: Path, number: int) -> None:
    """Lists and mappings of aliases of earlier ones: bombs, merges, and what refers to itself."""
    del number
    lines = []
    for level in range(rng.randint(2, 40)):
        names = [f"*n{rng.randint(max(0, level - 3), level)}" for _ in range(rng.randint(1, 12))]
        body = rng.choice([f"[{', '.join(names)}]", f"{{<<: [{', '.join(names)}]}}", f"{{k: {names[0]} }}", "{x: 1}"])
        lines.append(f"k{level}: &n{level} {body}\n")
    read(folder, (rng.choice(["", TEXT]) + "".join(lines)).encode())


def experiments_damaged(rng: random.Random, folder: Path, number: int) -> None:
    """experiments.yaml with bytes changed; of what is accepted, the command that an experiment stands for."""
    del number
    path = folder / EXPERIMENTS
    path.write_bytes(damaged(rng, (ROOT / EXPERIMENTS).read_bytes()))
    experiments = read_experiments_of(path)
    for name in experiments:
        command = experiment_command(name, experiments, [])
        if "\0" in "".join(command) or name.startswith("-"):
            raise WrongError(f"{command} cannot be run")


def overrides(rng: random.Random, folder: Path, number: int) -> None:
    """`KEY=VALUE` words with pieces of YAML as values; a run's name is made of those that are accepted."""
    del folder
    key, piece = rng.choice([*LEAVES, "", "-S", "x"]), SNIPPETS[number % len(SNIPPETS)]
    found = read_overrides([f"{key}{rng.choice(['=', '=', '=', '', '=='])}{piece}"])
    check_values(found)
    name = default_name("mnist-quick", found)
    if name.startswith("-") or "/" in name or not name.isprintable():
        raise WrongError(f"{found} makes the name {name!r}")


def words(rng: random.Random, folder: Path, number: int) -> None:
    """Revisions and remotes as a deployment's parameters may have them."""
    del folder, number
    text = "".join(
        rng.choice(["-", "--upload-pack=x", "a", "..", "@{", ";", "::", "\0", "\n", "é", "/"]) for _ in range(4)
    )
    if plain_word(text).startswith("-") or "\0" in text:
        raise WrongError(f"{text!r} was let through")


def documents(rng: random.Random, folder: Path, number: int) -> None:
    """The reader alone, on characters of all of Unicode."""
    del folder, number
    characters = [chr(rng.choice([rng.randrange(0x110000), rng.randrange(0x300)])) for _ in range(rng.randint(0, 60))]
    parse_document("".join(rng.choice([rng.choice(characters or [""]), rng.choice(MARKS)]) for _ in range(60)), "text")


def pair(number: int, first: Sequence[str], second: Sequence[Any]) -> tuple[str, Any]:
    """One of all pairs; each comes once before any comes again, in an order that mixes them well."""
    stride = next(stride for stride in count(1009) if math.gcd(stride, len(first) * len(second)) == 1)
    index = number * stride % (len(first) * len(second))
    return first[index % len(first)], second[index // len(first)]


def damaged(rng: random.Random, content: bytes) -> bytes:
    found = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 50])):
        at = rng.randrange(len(found) + 1)
        match rng.randrange(6):
            case 0:
                found[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del found[at : at + rng.choice([1, 2, 100])]
            case 2:
                found[at:at] = found[at : at + rng.choice([1, 30, 1000])]
            case 3:
                found[at:at] = rng.choice(MARKS).encode()
            case 4:
                found[at:at] = rng.choice(SNIPPETS)[:2000].encode("utf-8", "surrogatepass")
            case _ if rng.random() < 0.1:
                del found[at:]
    return bytes(found)


def read(folder: Path, content: bytes) -> None:
    path = folder / "params.yaml"
    path.write_bytes(content)
    json.dumps(load_params(path).model_dump(), allow_nan=False)


TRIED: Sequence[Callable[[random.Random, Path, int], None]] = [
    value_in_place,
    values_together,
    piece_in_place,
    bytes_changed,
    yaml_at_random,
    aliases_at_random,
    experiments_damaged,
    overrides,
    words,
    documents,
]


def attempt(case: Callable[[random.Random, Path, int], None], seed: int, number: int, folder: Path) -> tuple[str, str]:
    """Try one case: `accepted` or `refused`, or `failed` and why."""
    before, began = peak_megabytes(), time.process_time()
    outcome, why = "accepted", ""
    try:
        case(random.Random(f"{seed} {case.__name__} {number}"), folder, number)
    except (InputError, ExperimentError) as error:
        said = str(error).replace(str(folder), "")
        outcome = "refused"
        if len(said.splitlines()) != 1 or not said.isprintable() or len(said) > 2 * LONGEST_MESSAGE:
            outcome, why = "failed", f"said {said[:300]!r}, {len(said)} characters"
    except Exception as error:  # noqa: BLE001 - that there is none is what is tried
        place = traceback.extract_tb(error.__traceback__)[-1]
        outcome, why = "failed", f"{type(error).__name__}: {str(error)[:200]!r} in {place.name}"
    took, grew = time.process_time() - began, peak_megabytes() - before
    if took > SECONDS or grew > MEGABYTES:
        outcome, why = "failed", f"{took:.1f} s, {grew} MB more than before {why}"
    return outcome, why


def peak_megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main(arguments: Sequence[str]) -> int:
    """Try for some minutes, and print what came of it; 0 if everything held."""
    parser = argparse.ArgumentParser("python -m tests.torture.parameters", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="KIND:NUMBER", help="repeat one case")
    options = parser.parse_args(arguments)
    tally: Counter[tuple[str, str]] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.only:
            kind, _, number = options.only.partition(":")
            (case,) = (case for case in TRIED if case.__name__ == kind)
            print(*attempt(case, options.seed, int(number), folder))
            return 0
        end, told = time.monotonic() + 60 * options.minutes, time.monotonic()
        for number in count():
            for case in TRIED:
                outcome, why = attempt(case, options.seed, number, folder)
                tally[case.__name__, outcome] += 1
                if outcome == "failed":
                    again = f"python -m tests.torture.parameters --seed {options.seed} --only {case.__name__}:{number}"
                    failures.append(f"{case.__name__}: {why}; again: {again}")
                    print(ascii(failures[-1]), flush=True)
            if time.monotonic() > told + 30:
                told = time.monotonic()
                print(f"{tally.total()} cases, {len(failures)} failed", flush=True)
            if time.monotonic() > end:
                break
    print("\n| what | tried | accepted | refused in one line | failed |\n|---|---|---|---|---|")
    for case in TRIED:
        counts = [tally[case.__name__, outcome] for outcome in ("accepted", "refused", "failed")]
        print(f"| {' '.join((case.__doc__ or '').split())} | {sum(counts)} | {counts[0]} | {counts[1]} | {counts[2]} |")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
