"""Pictures of many images: a grid, and an animation of grids."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
"""One picture, H×W×C, 0 to 255; C is 1 (grey) or 3 (colour)."""

GAP = 2
"""Pixels of paper around each image of a grid."""
PAPER = 128
"""Grey level between images: calm beside dark and light ones, on dark and light pages."""
LAST_FRAME_SECONDS = 2.0
"""How much longer the last frame of an animation stays than the others."""


def tile(images: NDArray[np.uint8], columns: int) -> Pixels:
    """Lay images, N×H×W×C, out in rows of `columns`, left to right and top to bottom, on grey paper.

    A last row that is not full ends in paper, and every image has `GAP` pixels of it on all sides. Raises ValueError
    if there is no image or no column.
    """
    count, height, width, channels = images.shape
    if count < 1 or columns < 1:
        raise ValueError(f"a grid needs an image and a column, not {count} images in {columns} columns")
    rows = -(-count // columns)
    cells = np.full((rows * columns, height + GAP, width + GAP, channels), PAPER, np.uint8)
    cells[:count, :height, :width] = images
    grid = cells.reshape(rows, columns, height + GAP, width + GAP, channels).swapaxes(1, 2)
    grid = grid.reshape(rows * (height + GAP), columns * (width + GAP), channels)
    return np.pad(grid, ((GAP, 0), (GAP, 0), (0, 0)), constant_values=PAPER)


def save_png(path: Path, image: Pixels, scale: int = 1) -> None:
    """Write a picture as PNG, each pixel a square of `scale` by `scale`. Equal pictures give equal bytes."""
    _picture(image, scale).save(path, format="PNG", optimize=True)


def save_animation(path: Path, frames: Sequence[Pixels], seconds_per_frame: float, scale: int = 1) -> None:
    """Write pictures of equal shape as an animated PNG that plays for ever and rests on its last frame.

    Animated PNG keeps every pixel, where GIF has 256 colours; browsers and GitHub play it, and whatever does not
    shows its first frame. Name the file `.png`. Each pixel becomes a square of `scale` by `scale`. Equal neighbouring
    frames are stored as one that stays longer. Equal frames give equal bytes. Raises ValueError without frames.
    """
    if not frames:
        raise ValueError("an animation needs a frame")
    first, *others = [_picture(frame, scale) for frame in frames]
    milliseconds = [round(1000 * seconds_per_frame)] * len(frames)
    milliseconds[-1] += round(1000 * LAST_FRAME_SECONDS)
    first.save(path, format="PNG", save_all=True, append_images=others, duration=milliseconds, loop=0)


def _picture(image: Pixels, scale: int) -> Image.Image:
    if image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"a picture is H×W×1 or H×W×3, not {image.shape}")
    large = image.repeat(scale, axis=0).repeat(scale, axis=1)
    return Image.fromarray(large[:, :, 0] if large.shape[2] == 1 else large)
