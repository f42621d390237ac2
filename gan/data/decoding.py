"""From an encoded image file, or grey pixels, to an image of the packed set."""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from gan.data.packed import Images
from gan.data.sources.source import UnreadableError
from gan.errors import is_no_memory

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
SMALLER = "smaller than data.crop"

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
        image = _decode(item)
        side = min(image.size) if crop is None else crop
        if side > min(image.size):
            raise UnreadableError(f"{image.width}x{image.height} pixels, {SMALLER} {crop}")
    except UnreadableError as error:
        return str(error)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).convert("L" if channels == 1 else "RGB")
    image = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(image_size, image_size, channels)


def read_image(file: bytes, channels: int) -> Images:
    """An encoded image as it is, upright, H×W×C, with C = 1 for grey or 3 for colour. Raises UnreadableError."""
    image = _decode(file).convert("L" if channels == 1 else "RGB")
    return np.asarray(image).reshape(image.height, image.width, channels)


def _decode(item: Item) -> Image.Image:
    """An upright, opaque image of 8 bits a channel."""
    if isinstance(item, UnreadableError):
        raise item
    if isinstance(item, np.ndarray):
        return Image.fromarray(item)
    with warnings.catch_warnings():
        # Remarks on odd metadata do not concern the pixels; an absurd size does.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = ImageOps.exif_transpose(Image.open(io.BytesIO(item), formats=FORMATS))
            image.load()
        except UnidentifiedImageError:
            raise UnreadableError(f"not an image in one of the formats {', '.join(FORMATS)}") from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise UnreadableError(f"more than the {Image.MAX_IMAGE_PIXELS} pixels allowed") from None
        except Exception as error:  # noqa: BLE001 - on damaged files, decoders raise whatever they stumble over
            raise _unreadable(error) from None
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
    return UnreadableError(f"cannot be decoded: {' '.join(str(error).split())}")
