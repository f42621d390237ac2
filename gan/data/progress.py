"""Progress of slow work: a bar in a terminal, plain lines elsewhere."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

LOG = logging.getLogger(__name__)

PARTS = 10
"""Plain lines for the whole of the work."""


@contextmanager
def progress(label: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], object]]:
    """Show how much of `total` is done; call what is yielded with each further amount.

    The bar is drawn on stderr, the lines are logged. `done` of the work counts as done at the start;
    a `total` of 0 is unknown.
    """
    if sys.stderr.isatty():
        with tqdm(total=total or None, initial=done, desc=label, unit=unit, unit_scale=True) as bar:
            yield bar.update
        return

    def advance(amount: int) -> None:
        nonlocal done
        before, done = done, done + amount
        if total and done * PARTS // total > before * PARTS // total:
            LOG.info("%s: %s of %s %s", label, f"{done:,}", f"{total:,}", unit)

    yield advance
