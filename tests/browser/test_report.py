"""The report as a reader has it: opened from a file, without a network, on a screen, a phone or paper."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser

from gan.params import load_params
from stages import layout
from stages.report import report
from tests.browser.looking import DESKTOP, asked_and_said, opened, shown
from tests.stages.reported_run import DIAGNOSIS, SCORES, make_run, write_json

PHONE = {"width": 360, "height": 740}
LONG = "Aa_" * 60


@pytest.fixture(scope="session")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    with contextlib.chdir(folder):
        make_run()
        report(load_params(folder / "params.yaml"))
    return folder / layout.REPORT / "index.html"


@pytest.fixture(scope="session")
def long_page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run whose every text is a word without an end."""
    folder = tmp_path_factory.mktemp("long")
    with contextlib.chdir(folder):
        make_run()
        write_json(layout.SCORES, SCORES | {LONG: 1.0, "warnings": [LONG], "protocol": [{LONG: LONG}]})
        said = {"verdict": LONG, "rule": LONG, "evidence": [LONG], "explanation": LONG, "advice": LONG}
        write_json(layout.EVALUATION_FIGURES / "diagnosis.json", DIAGNOSIS | said)
        report(load_params(folder / "params.yaml"))
    return folder / layout.REPORT / "index.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_loads_nothing_beyond_itself_and_complains_of_nothing(
    browser: Browser, page_file: Path, scheme: str
) -> None:
    assert asked_and_said(browser, page_file, scheme) == ([page_file.as_uri()], [])


def test_every_figure_is_seen(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        widths = page.eval_on_selector_all("img", "all => all.map(each => each.naturalWidth)")
    assert len(widths) == 11
    assert min(widths) > 0


def test_the_first_screen_holds_the_verdict_the_scores_and_the_samples(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        for selector, count in (("h1", 1), (".lead", 1), (".tone", 1), (".headline > div", 3), ("#samples img", 1)):
            boxes = shown(page, selector)
            assert len(boxes) == count, selector
            for left, top, right, bottom in boxes:
                assert 0 <= left < right <= DESKTOP["width"], selector
                assert 0 <= top < bottom <= DESKTOP["height"], selector


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("of", ["page_file", "long_page_file"])
def test_nothing_sticks_out(browser: Browser, request: pytest.FixtureRequest, of: str, width: int) -> None:
    with opened(browser, request.getfixturevalue(of), viewport={"width": width, "height": 740}) as page:
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert max(right for _, _, right, _ in shown(page, "h1, h2, p, img, dl, .plate, .scroll, pre")) <= width


def test_every_link_leads_somewhere(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        links = page.eval_on_selector_all("a[href^='#']", "all => all.map(each => each.hash.slice(1))")
        assert len(links) > 20
        for target in sorted(set(links)):
            page.evaluate("target => { scrollTo(0, 0); location.hash = ''; location.hash = target }", target)
            ((_, top, _, bottom),) = shown(page, f"[id='{target}']")
            assert top < DESKTOP["height"], target
            assert bottom > 0, target


def test_the_numbers_can_be_saved(browser: Browser, page_file: Path) -> None:
    run = page_file.parents[2]
    files = {path.name: path for path in (run / "results").rglob("*") if path.suffix in (".csv", ".json")}
    with opened(browser, page_file) as page:
        links = page.locator("a[download]")
        assert links.count() == 7
        for index in range(links.count()):
            with page.expect_download() as saved:
                links.nth(index).click()
            name = saved.value.suggested_filename
            assert Path(saved.value.path()).read_bytes() == files[name].read_bytes(), name


def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        page.evaluate(
            "[...document.querySelectorAll('a, summary, [tabindex=\"0\"]')].filter(each => each.checkVisibility())"
            ".forEach((each, i) => each.dataset.stop = i)"
        )
        expected = page.eval_on_selector_all("[data-stop]", "all => all.length")
        stops = []
        for _ in range(expected):
            page.keyboard.press("Tab")
            stop, outline, left, top = page.evaluate(
                "() => { const each = document.activeElement, box = each.getBoundingClientRect(); "
                "return [each.dataset.stop, getComputedStyle(each).outlineStyle, box.left, box.top] }"
            )
            assert outline == "solid", stop
            assert left >= 0, stop
            assert 0 <= top < DESKTOP["height"], stop
            stops.append(int(stop))
        assert stops == list(range(expected))
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")


def test_the_first_stop_leads_past_the_first_screen(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier(browser: Browser, page_file: Path, scheme: str, viewport: dict[str, int]) -> None:
    with opened(browser, page_file, viewport=viewport, color_scheme=scheme, bypass_csp=True) as page:
        found = Axe().run(page).response
    assert len(found["passes"]) > 20
    barriers = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
    assert not barriers, json.dumps(barriers, indent=1)[:3000]


@pytest.mark.parametrize(("scheme", "paper", "ink"), [("light", 255, 60), ("dark", 26, 180)])
def test_charts_suit_the_page(browser: Browser, page_file: Path, scheme: str, paper: int, ink: int) -> None:
    with opened(browser, page_file, color_scheme=scheme) as page:
        for name in ("classes", "precision_recall", "distance", "curves"):
            shot = page.locator(f"#{name} img").screenshot()
            with Image.open(io.BytesIO(shot)) as image:
                grey = np.asarray(image.convert("L")).astype(int)
            assert abs(int(np.median(grey)) - paper) <= 2, name
            assert (abs(grey - paper) > abs(ink - paper)).mean() > 0.005, name


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_who_wants_no_motion_sees_the_last_frame(browser: Browser, page_file: Path, motion: str) -> None:
    with opened(browser, page_file, reduced_motion=motion) as page:
        assert len(shown(page, "#training .moving")) == (motion == "no-preference")
        assert len(shown(page, "#training .still")) == (motion == "reduce")


def test_paper_has_the_last_frame_and_no_links_for_clicking(browser: Browser, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        page.emulate_media(media="print")
        assert not shown(page, "nav, .moving, .skip")
        assert len(shown(page, "img")) == 10
        assert page.pdf(format="A4").startswith(b"%PDF")
