"""The comparison as a reader has it: opened from a file, without a network, on a screen or a phone."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from stages.comparison import COMPARISON, main
from tests.browser.looking import DESKTOP, asked_and_said, opened, shown
from tests.stages.comparison_runs import entry, scores_of, three, write_comparison

LONG = "Aa_" * 40
REFUSAL = f"the scores of mnist-quick and {LONG} do not compare: protocols differ in {LONG} (1, 2)"


def make_page(folder: Path, entries: list[dict[str, Any]], failed: Mapping[str, str], refusal: str = "") -> Path:
    with contextlib.chdir(folder):
        write_comparison(Path("in"), entries, failed=dict(failed), refusal=refusal)
        assert main(["in"]) == 0
    return folder / COMPARISON / "index.html"


def long_entries() -> list[dict[str, Any]]:
    """Seven experiments whose every text is a word without an end."""
    scores = scores_of(1.0, 0.1, verdict=LONG, warnings=[LONG], protocol=[{LONG: LONG}]) | {LONG: 1.0}
    return [*three(), *(entry(f"{LONG}{number}", scores, **{LONG: LONG}) for number in range(4))]


@pytest.fixture(scope="session")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_page(tmp_path_factory.mktemp("comparison"), three(), {"mnist-dcgan": "fetch: no network"})


@pytest.fixture(scope="session")
def long_page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_page(tmp_path_factory.mktemp("long"), long_entries(), {LONG: LONG})


@pytest.fixture(scope="session")
def refused_page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_page(tmp_path_factory.mktemp("refused"), long_entries(), {}, REFUSAL)


PAGES = pytest.mark.parametrize("of", ["page_file", "long_page_file", "refused_page_file"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_loads_nothing_beyond_itself_and_complains_of_nothing(
    browser: Browser, page_file: Path, scheme: str
) -> None:
    assert asked_and_said(browser, page_file, scheme) == ([page_file.as_uri()], [])


def test_every_figure_is_seen(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        widths = page.eval_on_selector_all("img", "all => all.map(each => each.naturalWidth)")
    assert len(widths) == 7
    assert min(widths) > 0


@pytest.mark.parametrize("width", [360, 768, 1280])
@PAGES
def test_nothing_sticks_out(browser: Browser, request: pytest.FixtureRequest, of: str, width: int) -> None:
    with opened(browser, request.getfixturevalue(of), viewport={"width": width, "height": 740}) as page:
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert max(right for _, _, right, _ in shown(page, "h1, h2, h3, p, img, li, .plate, .scroll, pre")) <= width


@PAGES
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_open_to_everyone(browser: Browser, request: pytest.FixtureRequest, of: str, scheme: str) -> None:
    with opened(browser, request.getfixturevalue(of), color_scheme=scheme) as page:
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def test_every_link_leads_somewhere(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        links = page.eval_on_selector_all("a[href^='#']", "all => all.map(each => each.hash.slice(1))")
        assert len(links) > 12
        assert page.evaluate("links => links.filter(each => !document.getElementById(each))", links) == []


def test_the_first_screen_holds_the_finding_and_every_verdict(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        for selector, count in (("h1", 1), (".lead", 1), (".state", 4)):
            boxes = shown(page, selector)
            assert len(boxes) == count, selector
            assert all(0 <= top < bottom <= DESKTOP["height"] for _, top, _, bottom in boxes), selector


def test_a_mark_has_the_colour_and_the_shape_of_its_experiment_wherever_it_stands(
    browser: Browser, page_file: Path
) -> None:
    with opened(browser, page_file) as page:
        signs = page.eval_on_selector_all(".mark", "all => all.map(each => each.getAttribute('fill') + each.innerHTML)")
    assert len(set(signs)) == 3
    assert signs[:3] == signs[3:6]
    assert len(signs) % 3 == 0
