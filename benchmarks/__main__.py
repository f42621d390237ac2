"""Every benchmark in turn, on one page: `python -m benchmarks [PART …] [--out PAGE.md]`.

Each part also runs alone, with options of its own: `python -m benchmarks.training --help`.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.measuring import ROOT

PARTS: Mapping[str, Sequence[Sequence[str]]] = {
    "training": ((), ("--profile", "--steps", "160")),
    "sampling": ((),),
    "preparation": ((),),
    "stages": ((),),
    "checkpoints": (("--steps", "4"),),
    "scores": (("--images", "300"),),
}
"""The modules, and the options of each of their runs."""


def main(arguments: Sequence[str], parts: Mapping[str, Sequence[Sequence[str]]] = PARTS) -> int:
    """Run the parts, and show what each prints as it comes; the exit status is 1 if one of them failed."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", help=f"default: all of {', '.join(parts)}")
    parser.add_argument("--out", type=Path, help="write the page there too")
    options = parser.parse_args(arguments)
    for name in options.parts:
        if name not in parts:
            parser.error(f"no part is named {name!r}; there are {', '.join(parts)}")
    page = ["# Benchmarks\n"]
    failed = []
    print(page[0])
    for name in options.parts or parts:
        for words in parts[name]:
            command = ["-m", f"benchmarks.{name}", *words]
            page += _section(f"## {name}\n\n`python {' '.join(command)}`\n")
            with subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    page += _section(line.rstrip("\n"))
            if process.returncode:
                failed.append(name)
                page += _section(f"\n{name} failed")
            page += _section("")
            if options.out is not None:
                options.out.write_text("\n".join(page))
    return 1 if failed else 0


def _section(text: str) -> list[str]:
    print(text, flush=True)
    return [text]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
