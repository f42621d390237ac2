"""From an encoded image file, or grey pixels, to an image of the packed set.

Files come from anywhere, and a few bytes can announce any size, so that nothing here grows with what a file announces:
pixels, sides and passes are bounded, conversions go strip by strip, and processes side by side share what memory large
images take. Measured, the worst of files takes 1.4 GB.
"""

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from gan.data.packed import Images
from gan.data.sources.source import UnreadableError
from gan.errors import is_no_memory

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
SMALLER = "smaller than data.crop"

MAX_PIXELS = 2**26
"""Largest image decoded; the decoders take up to 16 bytes for a pixel."""
MAX_SIDE = 2**16 - 1
"""Largest side of an image, in pixels: JPEG's."""
MAX_SCANS = 1000
MAX_SCANNED = 2**30
"""Passes over a JPEG's image, and pixels in all of them together: a pass can be of a few bytes."""
SCAN = b"\xff\xda"
MAX_READS = 2**21
"""Pieces of a file that are read; of the smallest, 64 MB of it have twenty million."""
STRIP = 2**20
"""Pixels converted at a time."""
SHARE = 2**22
"""Pixels that one of the shares of memory is for; smaller images need none."""

# It logs what is odd in a file, which is told as that image's fault or does not matter.
logging.getLogger("PIL").setLevel(logging.CRITICAL)

Item = bytes | NDArray[np.uint8] | UnreadableError
"""An encoded image file, grey pixels, or why there is neither."""
Outcome = Images | str
"""A prepared image, H×W×C, or the reason why it is unreadable."""


def convert_image(item: Item, *, image_size: int, channels: int, crop: int | None) -> Outcome:
    """Decode, turn upright, crop at the centre and resize one image; or the reason, in one line, why it cannot be.

    Transparent images are laid on white, 16-bit grey ones are scaled to 8 bits, and of an animation the first frame is
    taken. Resizing is antialiased, in gamma space, after the conversion to grey or colour.
    """
    try:
        with _decoded(item) as image:
            side = min(image.size) if crop is None else crop
            if side > min(image.size):
                raise UnreadableError(f"{image.width}x{image.height} pixels, {SMALLER} {crop}")
            left, top = (image.width - side) // 2, (image.height - side) // 2
            plain = _plain(image, (left, top, left + side, top + side), channels)
            resized = plain.resize((image_size, image_size), Image.Resampling.BICUBIC)
            return np.asarray(resized).reshape(image_size, image_size, channels)
    except UnreadableError as error:
        return str(error)


def read_image(file: bytes, channels: int) -> Images:
    """An encoded image as it is, upright, H×W×C, with C = 1 for grey or 3 for colour. Raises UnreadableError."""
    with _decoded(file) as image:
        plain = _plain(image, (0, 0, *image.size), channels)
        return np.asarray(plain).reshape(plain.height, plain.width, channels)


def measure_image(file: bytes) -> tuple[int, int]:
    """Width and height that an encoded image announces, not yet turned upright. Raises UnreadableError."""
    with _as_unreadable():
        return _open(file).size


@contextmanager
def _decoded(item: Item) -> Iterator[Image.Image]:
    """An upright image, in any mode, for as long as the block uses it."""
    if isinstance(item, UnreadableError):
        raise item
    if isinstance(item, np.ndarray):
        yield Image.fromarray(item)
        return
    with _as_unreadable():
        image = _open(item)
        with _large_in_turn(image.width * image.height):
            with _without_stderr() if image.format == "TIFF" else nullcontext():
                image.load()
            ImageOps.exif_transpose(image, in_place=True)
            yield image


class _Pieces(io.BytesIO):
    """A file that cannot be read in too many pieces."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise UnreadableError(f"more than {MAX_READS} pieces, which take too long")
        return super().read(size)


def _open(file: bytes) -> Image.Image:
    image = Image.open(_Pieces(file), formats=FORMATS)
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise UnreadableError(f"more than the {MAX_PIXELS} pixels allowed")
    if max(image.size) > MAX_SIDE:
        raise UnreadableError(f"more than the {MAX_SIDE} pixels a side allowed")
    if image.format in ("JPEG", "MPO"):
        scans = file.count(SCAN)
        if scans > MAX_SCANS or scans * pixels > MAX_SCANNED:
            raise UnreadableError(f"{scans} passes over {image.width}x{image.height} pixels, which take too long")
    return image


@contextmanager
def _as_unreadable() -> Iterator[None]:
    with warnings.catch_warnings():
        # Remarks on odd metadata do not concern the pixels; an absurd size does.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except UnreadableError:
            raise
        except UnidentifiedImageError:
            raise UnreadableError(f"not an image in one of the formats {', '.join(FORMATS)}") from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise UnreadableError(f"more than the {MAX_PIXELS} pixels allowed") from None
        except Exception as error:  # noqa: BLE001 - on damaged files, decoders raise whatever they stumble over
            raise _unreadable(error) from None


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Keep what libtiff writes of a damaged file, past Python, from the process's own stderr."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _plain(image: Image.Image, box: tuple[int, int, int, int], channels: int) -> Image.Image:
    """A part of an image in 8 bits of grey (1 channel) or colour (3), made in strips: copies of all of it add up."""
    mode = "L" if channels == 1 else "RGB"
    left, upper, right, lower = box
    rows = max(1, STRIP // (right - left))
    if rows >= lower - upper:
        return _opaque(image.crop(box)).convert(mode)
    plain = Image.new(mode, (right - left, lower - upper))
    for top in range(upper, lower, rows):
        strip = image.crop((left, top, right, min(top + rows, lower)))
        plain.paste(_opaque(strip).convert(mode), (0, top - upper))
    return plain


def _opaque(image: Image.Image) -> Image.Image:
    """An opaque image of 8 bits a channel."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535).convert("L")
    if image.mode in ("I", "F"):
        raise UnreadableError("32 bits a pixel, with no known range")
    if image.has_transparency_data:
        colour = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colour)
    if image.mode not in ("1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV"):
        raise UnreadableError(f"colour mode {image.mode}, which has no plain conversion; save it as RGB")
    return image


def _unreadable(error: Exception) -> UnreadableError:
    """A decoder's error as the image's fault; raises it again where memory ran out, which says nothing of the image."""
    if is_no_memory(error):
        raise error
    reason = " ".join(str(error).split()) or type(error).__name__
    return UnreadableError(f"cannot be decoded: {reason}")


class Shares:
    """Shares of memory for large images, among processes that decode side by side: one of the largest at a time."""

    def __init__(self, context: BaseContext) -> None:
        self._gate = context.Lock()
        self._free = context.Semaphore(MAX_PIXELS // SHARE)

    @contextmanager
    def take(self, count: int) -> Iterator[None]:
        """Wait for so many shares, and hold them."""
        with self._gate:  # two that each had collected half of theirs would wait for each other
            for _ in range(count):
                self._free.acquire()
        try:
            yield
        finally:
            for _ in range(count):
                self._free.release()


_shares: list[Shares] = []
"""This process's, where it decodes beside others."""


def share_memory(shares: Shares) -> None:
    """Have this process decode large images only when `shares` allow."""
    _shares[:] = [shares]


@contextmanager
def _large_in_turn(pixels: int) -> Iterator[None]:
    count = pixels // SHARE
    if count and _shares:
        with _shares[0].take(count):
            yield
    else:
        yield
