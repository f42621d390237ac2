"""What all pages share: the templates' environment, figures with what made them, and files embedded in the page."""

import base64
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from gan.figures.scores import number

DISPLAY_WIDTH = 720
"""Width in CSS pixels that a picture is enlarged to, as far as a whole factor goes."""
CHART_SCALE = 1.5
"""CSS pixels for a point (1/72 inch) of a chart."""
MEDIA_TYPES = {".csv": "text/csv", ".json": "application/json", ".png": "image/png", ".svg": "image/svg+xml"}
VIEW_BOX = re.compile(r'<svg[^>]*\sviewBox="0 0 ([\d.]+) ([\d.]+)"')
PARAMETER = re.compile(
    r"\b(?:data|generator|discriminator|train|reference|sample|evaluate|hardware)\.\w+"
    r"(?:=(?:\[[\w., -]*\]|[\w./+-]*\w))?"
)
"""A parameter by its section and name, with a value or without; the sentence's comma or full stop is not of it."""


@dataclass(frozen=True)
class Provenance:
    """What a file was made from, and how to make it again."""

    name: str
    """The file, as `md5sum` run beside dvc.yaml would name it."""
    md5: str
    command: str
    made_from: Mapping[str, str]
    """Name and MD5 of each file that it was drawn from."""


@dataclass(frozen=True)
class Figure:
    """A chart (SVG) or a picture (PNG, animated or not), its provenance, and the file of its numbers.

    `numbers` is None where the numbers are arrays of images, too large for a page.
    """

    path: Path
    provenance: Provenance
    numbers: Path | None = None


def page_environment() -> Environment:
    """The templates of this folder, which escape all that they are given and refuse to leave a blank."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"yaml": _yaml, "number": number, "code": _code, "fact": _fact, "embed": embed}
    environment.globals["picture"] = picture
    return environment


def picture(path: Path, *, enlarge: bool = True) -> dict[str, Any]:
    """A figure as a template needs it: its data, its kind, its size in CSS pixels, and an animation's last frame.

    `enlarge`: show a small picture with each of its pixels as a square; a picture with letters is better left alone.
    """
    if path.suffix == ".svg":
        return _chart(path)
    with Image.open(path) as image:
        factor = max(1, DISPLAY_WIDTH // image.width) if enlarge else 1
        found = {
            "uri": embed(path),
            "kind": "pixels",
            "enlarged": factor > 1,
            "width": factor * image.width,
            "height": factor * image.height,
            "still": None,
        }
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            image.seek(frames - 1)
            buffer = io.BytesIO()
            image.save(buffer, format="PNG", optimize=True)
            found["still"] = _uri(buffer.getvalue(), ".png")
    return found


def embed(path: Path) -> str:
    """A file as a `data:` address."""
    return _uri(path.read_bytes(), path.suffix)


def _chart(path: Path) -> dict[str, Any]:
    svg = path.read_bytes()
    found = VIEW_BOX.search(svg.decode())
    if found is None:
        raise ValueError(f"{path.name}: no chart of ours, for it names no size in points")
    width, height = map(float, found.groups())
    return {
        "uri": _uri(svg, ".svg"),
        "kind": "chart",
        "enlarged": False,
        "width": round(CHART_SCALE * width),
        "height": round(CHART_SCALE * height),
        "still": None,
    }


def _uri(content: bytes, suffix: str) -> str:
    return f"data:{MEDIA_TYPES[suffix]};base64,{base64.b64encode(content).decode()}"


def _yaml(value: object) -> str:
    """A value as params.yaml would have it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _fact(value: object) -> str:
    """A value of the protocol: names with values as words, all else as params.yaml would have it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_yaml(each)}" for name, each in value.items())
    return _yaml(value)


def _code(text: str) -> Markup:
    """Text with the parameters that it names set as code."""
    return Markup(PARAMETER.sub(r"<code>\g<0></code>", str(escape(text))))  # noqa: S704 - escaped before
