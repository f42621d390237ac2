"""Pictures of many images: a grid, an animation of grids, and grids under headings for print."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
"""One picture, H×W×C, 0 to 255; C is 1 (grey) or 3 (colour)."""

GAP = 2
"""Pixels of paper around each image of a grid."""
PAPER = 128
"""Grey level between images: calm beside dark and light ones, on dark and light pages."""
LAST_FRAME_SECONDS = 2.0
"""How much longer the last frame of an animation stays than the others."""
STRIP_COLUMNS = 8
"""Moments of a film strip, at most: as many as a page has room for."""
ENLARGED = 64
"""Pixels that a smaller image is enlarged to under a heading, as far as a whole factor goes."""
BETWEEN = 24
"""Pixels of paper between two grids side by side."""
FONT_SIZES = range(18, 7, -1)
"""Of headings, in pixels, from the one that is tried first."""


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


def film_strip(path: Path, images: Sequence[NDArray[np.uint8]], kimg: Sequence[float]) -> None:
    """Write images of the same latents through training as PNG: a row a latent, a column a generator, headed by kimg.

    `images` holds one array, N×H×W×C, a generator; `kimg` thousands of real images shown, rising. Of more than
    `STRIP_COLUMNS` generators so many are taken evenly, the first and the last included. Equal images give equal
    bytes. Raises ValueError if there is none, or not one `kimg` for each.
    """
    if not images or len(images) != len(kimg):
        raise ValueError(f"a film strip needs generators, each with its kimg, not {len(images)} with {len(kimg)}")
    chosen = np.linspace(0, len(images) - 1, min(len(images), STRIP_COLUMNS)).round().astype(int)
    headings = [f"{kimg[index]:,.{0 if kimg[index] >= 10 else 1}f} kimg" for index in chosen]
    _save_headed(path, [tile(images[index], 1) for index in chosen], headings, _scale(images[0]))


def draw_side_by_side(path: Path, real: NDArray[np.uint8], generated: NDArray[np.uint8], columns: int) -> None:
    """Write real images as a grid of `columns` under "Real", and as many generated ones beside it, as PNG.

    Both are N×H×W×C. Equal images give equal bytes. Raises ValueError if their shapes differ.
    """
    if real.shape != generated.shape:
        raise ValueError(f"real and generated images side by side differ in shape: {real.shape}, {generated.shape}")
    grids = [tile(images, columns) for images in (real, generated)]
    _save_headed(path, grids, ["Real", "Generated"], _scale(real), space=BETWEEN)


def _scale(images: NDArray[np.uint8]) -> int:
    return max(1, ENLARGED // int(images.shape[1]))


def _save_headed(path: Path, pictures: Sequence[Pixels], headings: Sequence[str], scale: int, space: int = 0) -> None:
    """Write pictures of equal shape side by side as PNG, `space` pixels of paper between them, a heading above each."""
    bodies = [_picture(picture, scale) for picture in pictures]
    width, height = bodies[0].size
    font = _font(headings, width)
    top = 2 * round(font.size)
    size = (len(bodies) * (width + space) - space, top + height)
    page = Image.new(bodies[0].mode, size, "#" + 3 * f"{PAPER:02x}")
    pen = ImageDraw.Draw(page)
    for index, (body, heading) in enumerate(zip(bodies, headings, strict=True)):
        left = index * (width + space)
        page.paste(body, (left, top))
        pen.text((left + width / 2, top / 2), heading, fill="black", font=font, anchor="mm")
    page.save(path, format="PNG", optimize=True)


def _font(headings: Sequence[str], width: int) -> ImageFont.FreeTypeFont:
    """The largest of `FONT_SIZES` in which every heading has room, or the smallest; of the font that matplotlib has."""
    file = Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    for size in FONT_SIZES:
        # Raqm, the other layout engine, is not on every machine.
        font = ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)
        if max(font.getlength(heading) for heading in headings) <= 0.94 * width:
            break
    return font


def _picture(image: Pixels, scale: int) -> Image.Image:
    if image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"a picture is H×W×1 or H×W×3, not {image.shape}")
    large = image.repeat(scale, axis=0).repeat(scale, axis=1)
    return Image.fromarray(large[:, :, 0] if large.shape[2] == 1 else large)
