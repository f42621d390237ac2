"""Watching a run: TensorBoard, and a progress bar in a terminal or plain lines in a log file.

Speeds and times go here and nowhere else, because what DVC tracks must not depend on the clock.
"""

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid
from tqdm import tqdm

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 15


class Watch:
    """Shows the progress of a run of `total` steps of `batch_size` images, from step `start` on.

    TensorBoard's events go to `folder`; those of a killed run past `start` are hidden, so curves have no doubles.
    """

    def __init__(self, folder: Path, start: int, total: int, batch_size: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=start + 1)
        self._bar = tqdm(total=total, initial=start, unit="step", disable=not sys.stderr.isatty(), smoothing=0.1)
        self._total, self._batch_size = total, batch_size
        self._start, self._begun = start, time.monotonic()
        self._last_step, self._last_time = start, self._begun
        self._last_line = self._begun

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()
        self._writer.close()

    def row(self, row: Mapping[str, float]) -> None:
        """Show a row of the curves."""
        step, now = int(row["step"]), time.monotonic()
        speed = (step - self._last_step) * self._batch_size / max(now - self._last_time, 1e-9)
        self._last_step, self._last_time = step, now
        for name, value in row.items():
            if name not in ("step", "kimg"):
                self._writer.add_scalar(name, value, step)
        self._writer.add_scalar("images_per_second", speed, step)
        summary = {
            "loss_d": f"{row['loss_d']:.3f}",
            "loss_g": f"{row['loss_g']:.3f}",
            "D(x)": f"{row['d_real']:.2f}",
            "D(G(z))": f"{row['d_fake_before']:.2f}",
            "img/s": f"{speed:.0f}",
        }
        self._bar.set_postfix(summary, refresh=False)
        self._bar.update(step - self._bar.n)
        if self._bar.disable and (now - self._last_line > SECONDS_BETWEEN_LINES or step == self._total):
            self._last_line = now
            left = (now - self._begun) / (step - self._start) * (self._total - step)
            words = "  ".join(f"{name} {value}" for name, value in summary.items())
            log.info("step %d/%d  %s  %s left", step, self._total, words, tqdm.format_interval(left))

    def flush(self) -> None:
        """Hand all events to the system, so that a kill takes none of them; before a checkpoint is written."""
        self._writer.flush()

    def grid(self, step: int, images: Tensor) -> None:
        """Show generated images, N×C×H×W in [-1, 1]."""
        grid = make_grid(images.add(1).div(2).clamp(0, 1), nrow=4)
        self._writer.add_image("fixed_latents", grid.to("cpu", torch.float32), step)
