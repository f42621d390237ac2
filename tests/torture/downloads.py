"""Downloads from a mirror on this machine that fails in every way that chance finds.

It breaks off at any byte, sends other lengths, other parts, other bytes, pages, redirections, archives that nobody
asked for, refusals, nonsense, one byte now and then, or bytes without end, several of these one after the other, on one
or two mirrors. Whatever comes, the file that was asked for is there in the end, whole, or there is none and one line
says why; what is on the disk never grows beyond its bound; and once a mirror answers as it should, the download ends
well.

    python -m tests.torture.downloads --minutes 5 [--seed 0] [--only NUMBER]
"""

import argparse
import hashlib
import logging
import sys
import tempfile
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

from gan.data import download as download_module
from gan.data.download import download
from gan.errors import InputError
from tests.gan.data import mirror
from tests.gan.data.mirror import Answer, Mirror, serve

CONTENT = np.random.default_rng(0).integers(0, 256, 200_000, np.uint8).tobytes()
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
BOUND = 2 * len(CONTENT)
USE = "put it there"
HANGS = 60.0

Random = np.random.Generator


def below(random: Random, end: int) -> int:
    return int(random.integers(end))


ELSEWHERE = [
    "http://192.0.2.1/file",
    "http://127.0.0.1:1/",
    "http://127.0.0.1:99999999/",
    "http://\xb9\xff/",
    "https://[",
    "https://" + "a" * 300 + "/",
    "ftp://127.0.0.1/",
    "file:///etc/passwd",
    "//",
    "\x01\x02",
]
BROKEN_CHUNKS = [b"zz\r\n", b"-5\r\nabc", b"ffffffffff\r\nx"]

FAULTS: dict[str, Callable[[Random], Answer]] = {
    "breaks off": lambda random: mirror.cut(below(random, len(CONTENT))),
    "breaks off at once": lambda _: mirror.cut(0),
    "knows no ranges": lambda _: mirror.without_ranges,
    "announces too little": lambda random: mirror.of_length(below(random, len(CONTENT)), len(CONTENT)),
    "announces too much": lambda random: mirror.of_length(len(CONTENT) + 1 + below(random, 1000), len(CONTENT)),
    "announces 2**40 bytes": lambda _: mirror.of_length(2**40, 10_000),
    "announces nonsense": lambda random: mirror.of_length(
        str(random.choice(["-1", "x", "1e9", "9" * 400, "12, 13", ""])), len(CONTENT)
    ),
    "sends a page": lambda _: mirror.page,
    "redirects to itself": lambda _: mirror.redirect("/again"),
    "redirects elsewhere": lambda random: mirror.redirect(str(random.choice(ELSEWHERE))),
    "sends a part from elsewhere": lambda random: mirror.part_from(below(random, len(CONTENT))),
    "sends a part without saying which": lambda _: mirror.part_without_range,
    "sends a part of other bytes": lambda _: mirror.part_that_lies,
    "trickles": lambda _: mirror.trickle(0.02),
    "sends without end": lambda _: mirror.endless,
    "sends chunks without end": lambda _: mirror.endless_chunks,
    "sends chunks": lambda _: mirror.chunked,
    "sends it packed": lambda _: mirror.gzipped,
    "calls it packed": lambda _: mirror.called_gzip,
    "flips a bit": lambda random: mirror.flipped(below(random, len(CONTENT))),
    "refuses": lambda random: mirror.status(
        str(random.choice(["404 Not Found", "416 No", "429 Slow", "503 Later", "500 \x1b[2J", "403 " + "x" * 5000]))
    ),
    "answers oddly": lambda random: mirror.status(
        str(random.choice(["204 None", "304 Same", "300 Many", "202 Yes", "999 X", "100 Continue", "206 Part"]))
    ),
    "sends nonsense": lambda random: mirror.raw(random.integers(0, 256, below(random, 5000), np.uint8).tobytes()),
    "sends half a head": lambda random: mirror.raw(mirror.part_head(CONTENT, 0)[: below(random, 80)]),
    "sends too long a head": lambda _: mirror.raw(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 70_000),
    "sends too many headers": lambda _: mirror.raw(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n"),
    "sends broken chunks": lambda random: mirror.raw(
        mirror.head("200 OK", "Transfer-Encoding: chunked") + BROKEN_CHUNKS[below(random, len(BROKEN_CHUNKS))]
    ),
    "damages a head": lambda random: mirror.raw(damaged(mirror.part_head(CONTENT, 0), random) + CONTENT),
}  # fmt: skip


def damaged(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(3):
        changed[below(random, len(changed))] = below(random, 256)
    return bytes(changed)


@dataclass
class Row:
    """Downloads that met a fault."""

    tried: int = 0
    whole: int = 0
    refused: int = 0
    failed: int = 0


def try_one(seed: int, number: int, folder: Path) -> tuple[list[str], bool, list[str]]:
    """The faults that one download meets, whether it ends well at first, and what is wrong with its end."""
    random = np.random.default_rng([seed, number])
    names = sorted(FAULTS)
    met = [names[number % len(names)]]
    met += [names[below(random, len(names))] for _ in range(below(random, download_module.ATTEMPTS + 1))]
    path = folder / "file"
    wrong = []
    with ExitStack() as stack:
        mirrors = [stack.enter_context(serve(CONTENT)) for _ in range(1 + below(random, 2))]
        for turn, name in enumerate(met):
            mirrors[turn % len(mirrors)].answers.append(FAULTS[name](random))
        message = attempt(mirrors, path)
        wrong += wrong_end(path, message)
        for each in mirrors:
            each.answers.clear()
        again = attempt(mirrors, path)
        if again is not None:
            wrong.append(f"it does not end well once the mirror does: {again}")
        wrong += wrong_end(path, again)
    return met, message is None, wrong


def attempt(mirrors: list[Mirror], path: Path) -> str | None:
    """Download; the message of a refusal, or the whole of any other error."""
    messages: list[str | None] = []

    def run() -> None:
        try:
            download([f"{each.address}/file" for each in mirrors], path, DIGEST, USE, 0.001)
        except InputError as error:
            messages.append(str(error))
        except BaseException:  # noqa: BLE001 - that is what this looks for
            messages.append(traceback.format_exc())
        else:
            messages.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(HANGS)
    return messages[0] if messages else f"\nhangs: {HANGS:g} s"


def wrong_end(path: Path, message: str | None) -> list[str]:
    """What is not as it must be after a download that was refused with `message`, or was not."""
    wrong = []
    partial = path.with_name("file.part")
    if path.exists() and path.read_bytes() != CONTENT:
        wrong.append("a wrong file under the right name")
    if message is None and not path.exists():
        wrong.append("no file, and no word of it")
    if message is not None and (not message.isprintable() or len(message) > 2000 or not message.endswith(USE)):
        wrong.append(f"not one line: {message[-1500:]!r}")
    if message is not None and path.exists():
        wrong.append("refused, and the file is there")
    if partial.exists() and partial.stat().st_size > BOUND:
        wrong.append(f"{partial.stat().st_size} bytes on the disk")
    return wrong


@contextmanager
def hurried() -> Iterator[None]:
    """Bounds and waits for a small file."""
    with ExitStack() as stack:
        settings = {"MAX_BYTES": BOUND, "WINDOW": 0.2, "TIMEOUT": (2, 2), "SLOWEST": 10_000.0}
        for name, value in settings.items():
            stack.enter_context(mock.patch.object(download_module, name, value))
        yield


def try_all(seed: int, numbers: Iterator[int], end: float) -> dict[str, Row]:
    """Try downloads until `end` on the monotonic clock; what became of those that met each fault."""
    rows: dict[str, Row] = defaultdict(Row)
    with hurried():
        for number in numbers:
            if time.monotonic() > end:
                break
            with tempfile.TemporaryDirectory(prefix="downloads-") as folder:
                met, whole, wrong = try_one(seed, number, Path(folder))
            for name in {*met}:
                rows[name].tried += 1
                rows[name].whole += whole and not wrong
                rows[name].refused += not whole and not wrong
                rows[name].failed += bool(wrong)
            if wrong:
                print(f"FAILED, number {number} of seed {seed}, after {met}: {'; '.join(wrong)}", flush=True)
                print(f"  repeat: python -m tests.torture.downloads --seed {seed} --only {number}", flush=True)
            if (number + 1) % 100 == 0:
                print(f"{number + 1} downloads", flush=True)
    return rows


def table(rows: dict[str, Row]) -> str:
    """A Markdown table of what was tried and what held; a download counts in the row of each fault that it met."""
    lines = ["| the mirror | tried | whole at last | refused in one line | failures |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {row.tried} | {row.whole} | {row.refused} | {row.failed} |" for name, row in sorted(rows.items())
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    given = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    numbers = iter(range(10**9)) if given.only is None else iter([given.only])
    rows = try_all(given.seed, numbers, time.monotonic() + given.minutes * 60)
    print(table(rows))
    return 1 if any(row.failed for row in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
