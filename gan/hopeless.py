"""Whether a training that still runs will come to nothing, from its curves alone.

They show no images, and can look worse than these: many a discriminator that was far ahead has been caught up with. So
an alarm of the diagnosis is not enough. It must have held for long, in a run that is no longer short, and the
generator's output must vary far less than real images do and not be on its way to them. Such a run is hopeless; any
other goes on.
"""

from collections.abc import Mapping

import numpy as np

from gan.diagnosis import SHORT_KIMG, SHORT_STEPS, Curve, Run, diagnose

ALARMS = ("generator collapsed", "discriminator wins", "diverged")
HELD = 0.1
"""Share of all steps planned for which the alarm must have held, so far and without a break."""
EARLIEST = 0.25
"""Share of them before which no alarm counts, and after LATEST the run may as well end and be scored."""
LATEST = 0.9
CHECKS = 10
"""Points within that time, at most, at which the curves up to there are judged."""
MIN_ROWS = 3
POOR = 0.5
"""Spread of the generator's output across z against that of the real images. Where digits stayed noise for good it was
0.2 to 0.3; a DCGAN that caught up with its discriminator after half its training had 0.6 then, and 0.95 in the end."""
TINY = 1e-12
"""In the place of a spread of zero, which has no logarithm."""

Curves = Mapping[str, Curve]


def curves_alone(curves: Curves) -> Run:
    """A run of which nothing else is known yet."""
    return Run(curves, None, None, [], None, None, None)


def is_hopeless(curves: Curves, planned: int, real_spread: float) -> bool:
    """Whether a training of `planned` steps with these curves so far will come to nothing."""
    step, kimg = curves["step"], curves["kimg"]
    if len(step) < MIN_ROWS or step[-1] > LATEST * planned:
        return False
    first = min(int(np.searchsorted(step, step[-1] - HELD * planned)), len(step) - MIN_ROWS)
    short = step[first] < SHORT_STEPS and kimg[first] < SHORT_KIMG
    if short or step[first] < EARLIEST * planned:
        return False
    points = np.unique(np.linspace(first + 1, len(step), CHECKS).astype(int))
    return all(_is_lost(curves, int(rows), planned, real_spread) for rows in points)


def _is_lost(curves: Curves, rows: int, planned: int, real_spread: float) -> bool:
    """Whether an alarm is on after so many rows, and the generator is not on its way to images as varied as real ones.

    Its way is that of the second half so far: a spread that has grown tenfold there is taken to do so again.
    """
    verdict = diagnose(curves_alone({name: column[:rows] for name, column in curves.items()})).verdict
    if verdict not in ALARMS:
        return False
    if verdict == "diverged":
        return True
    half = max(rows // 2, 1)
    window = max(MIN_ROWS, round(HELD * rows))
    before, now = (np.log(max(np.median(curves["z_spread"][:end][-window:]), TINY)) for end in (half, rows))
    passed, left = curves["step"][rows - 1] - curves["step"][half - 1], planned - curves["step"][rows - 1]
    return bool(now + max(0.0, now - before) * left / passed <= np.log(max(POOR * real_spread, TINY)))
