"""What a reader's browser does with a page, and shows of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

DESKTOP = {"width": 1280, "height": 800}


@contextmanager
def opened(browser: Browser, file: Path, **options: Any) -> Iterator[Page]:
    with browser.new_context(**{"viewport": DESKTOP, **options}) as context:
        page = context.new_page()
        page.goto(file.as_uri())
        yield page


def shown(page: Page, selector: str) -> list[list[float]]:
    """Left, top, right and bottom of what is displayed, in CSS pixels of the window."""
    boxes: list[list[float]] = page.eval_on_selector_all(
        selector,
        "all => all.map(each => each.getBoundingClientRect()).filter(box => box.width).map("
        "box => [box.left, box.top, box.right, box.bottom])",
    )
    return boxes


def asked_and_said(browser: Browser, file: Path, scheme: str) -> tuple[list[str], list[str]]:
    """The addresses that the page asks for, but for those that are the data themselves, and what the console says."""
    asked: list[str] = []
    said: list[str] = []
    with browser.new_context(viewport=DESKTOP, color_scheme=scheme) as context:  # type: ignore[arg-type]
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(file.as_uri(), wait_until="networkidle")
        page.mouse.wheel(0, 100_000)
        page.wait_for_timeout(200)
    return [url for url in asked if not url.startswith("data:")], said
