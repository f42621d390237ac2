"""Everything that is tried against a run, one after the other, in a bounded time: `make torture [MINUTES=20]`.

Each part is a command of its own, such as `python -m tests.torture.kills --minutes 10 --seed 3`, and ends with a table
of what was tried, how often, and what held.
"""

import argparse
import subprocess
import sys
import time

SHARES = {"kills": 0.55, "mutations": 0.2, "parameters": 0.05, "downloads": 0.05, "machines": 0.15}
"""Of the minutes, for each part."""


def main() -> int:
    """Run the parts; 0 if all held, else 1."""
    parser = argparse.ArgumentParser("python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="in all (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of what is tried (default: 0)")
    options = parser.parse_args()
    failed = []
    for part, share in SHARES.items():
        minutes = options.minutes * share
        command = ["python", "-m", f"tests.torture.{part}", "--minutes", f"{minutes:g}", "--seed", str(options.seed)]
        print(f"\n## {part}\n\n`{' '.join(command)}`\n", flush=True)
        begun = time.monotonic()
        status = subprocess.run([sys.executable, *command[1:]], check=False).returncode
        print(f"\n{part}: {'all held' if status == 0 else 'FAILED'}, {(time.monotonic() - begun) / 60:.1f} minutes")
        if status:
            failed.append(part)
    print(f"\n{'all held' if not failed else 'failed: ' + ', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
