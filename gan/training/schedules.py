"""What changes over a run: numbers as functions of how far it has come."""

import math


def decay(schedule: str, progress: float, end: float) -> float:
    """Share of a learning rate that is left at `progress`, 0 at the start to 1 at the end of the run.

    `none`: 1; `linear`: along a line from 1 to `end`; `cosine`: along a half cosine (Loshchilov and Hutter 2017, arXiv
    1608.03983, equation 5, without restarts). Raises ValueError for another name.
    """
    match schedule:
        case "none":
            return 1.0
        case "linear":
            return end + (1 - end) * (1 - progress)
        case "cosine":
            return end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2
    raise ValueError(f"no schedule is named {schedule!r}")


def noise_level(start: float, fall_kimg: float, kimg: float) -> float:
    """Standard deviation of the instance noise after `kimg` thousands of images: from `start` to zero over `fall_kimg`.

    Sønderby et al. 2017 (arXiv 1610.04490); `fall_kimg` 0 keeps it. In units of images in [-1, 1].
    """
    return start * max(0.0, 1 - kimg / fall_kimg) if fall_kimg else start
