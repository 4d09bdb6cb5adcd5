"""The pages of `divlens view` and of `divlens compare --out` in a headless Chromium; that of `divlens report` is in
tests/test_report_in_a_browser.py."""

import shutil
from contextlib import contextmanager
from importlib import import_module

import pytest

import divlens
from divlens.pages.paired import report_of_two
from oracles import browser
from oracles.browser import HOSTILE, ODD, TURNED, comes_true
from oracles.colour_network import colour_network
from oracles.served_runs import serving

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPTS = [HOSTILE, TURNED, *(f"thing {i}" for i in range(14))]  # a page of several screens
CONDITIONS = {"baseline": [], "argmax": divlens.Argmax(), ODD: divlens.Temperature(2)}
NAME = "a<b>'run\""


def probed(folder, model="toy/mim", n=2):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            import_module("divlens.experiment.comparison"), "load_network", lambda name=None: colour_network()
        )
        divlens.probe(model, PROMPTS, n, conditions=CONDITIONS, out=folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache_of_the_session):
    return probed(tmp_path_factory.mktemp("run") / NAME)


@pytest.fixture(scope="module")
def address(run):
    with serving(run) as found:
        yield f"{found}/"


@pytest.fixture
def viewed(chromium, address):
    with browser.opened(chromium, address, address) as page:
        yield page


@pytest.fixture(scope="module")
def both(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("divlens.pages.stored.load_network", lambda name=None: colour_network())
        report_of_two(run, probed(folder / NAME, "toy/ar"), folder / "both.html")
    return folder / "both.html"


@pytest.fixture
def paired(chromium, both):
    with browser.opened(chromium, both.as_uri()) as page:
        yield page


@contextmanager
def asked_for(page):
    """The pictures that a page asks its server for, as it does."""
    found = []

    def note(request):
        if "/picture/" in request.url:
            found.append(request.url)

    page.on("request", note)
    yield found
    page.remove_listener("request", note)


def is_drawn(picture):
    return picture.evaluate("one => one.complete && one.naturalWidth > 0")


def test_pictures_of_a_served_page_come_when_one_scrolls_to_them(viewed):
    viewed.set_viewport_size({"width": 1200, "height": 300})
    with asked_for(viewed) as found:
        viewed.select_option("#filter-prompt", label="all prompts")
        pictures = viewed.locator("#blocks img")
        first, last = pictures.first, pictures.last
        assert pictures.count() == len(PROMPTS) * len(CONDITIONS) * 2
        assert comes_true(viewed, lambda: is_drawn(first))
        viewed.wait_for_load_state("networkidle")
        wanted = last.evaluate("one => one.src")
        assert found and wanted not in found and not is_drawn(last)
        last.scroll_into_view_if_needed()
        assert comes_true(viewed, lambda: is_drawn(last)) and wanted in found


def test_a_served_page_offers_what_is_new_and_shows_it(chromium, run, tmp_path):
    grown = tmp_path / "run"
    shutil.copytree(run, grown)
    with serving(grown) as found, browser.opened(chromium, f"{found}/", found) as page:
        page.clock.install()  # the page asks every five seconds
        page.reload()
        news, head = page.locator("#news"), page.locator("#blocks thead th")
        assert head.all_inner_texts() == ["0", "1"]
        with page.expect_response(f"{found}/state"):
            page.clock.fast_forward(5000)
        assert not news.is_visible()  # the control: it asked, and nothing was new
        probed(grown, n=3)
        page.clock.fast_forward(5000)
        news.wait_for(timeout=20_000)
        page.click("#reload")
        assert comes_true(page, lambda: head.all_inner_texts() == ["0", "1", "2"])
        assert not news.is_visible()


def test_a_served_page_is_filtered_and_tells_of_each_picture(viewed):
    rows = viewed.locator("#blocks tbody tr")
    assert rows.count() == len(CONDITIONS)
    viewed.locator("#filters [name=condition]").nth(2).uncheck()
    assert rows.count() == len(CONDITIONS) - 1
    before = viewed.locator("#blocks h3").inner_text()
    viewed.click("#after")
    assert viewed.locator("#blocks h3").inner_text() != before
    viewed.locator("#blocks .pic").nth(1).click()
    assert viewed.locator("#picture-command").inner_text().endswith("--index 1")
    assert comes_true(viewed, lambda: is_drawn(viewed.locator("#picture-image")))


def test_a_page_of_two_runs_is_filtered_and_a_dot_opens_the_rows_of_both(paired):
    rows = paired.locator("#blocks tbody tr")
    assert rows.count() == 2 * len(CONDITIONS)
    paired.locator("#filters [name=condition]").first.uncheck()
    assert rows.count() == 2 * len(CONDITIONS) - 1
    assert is_drawn(paired.locator("#blocks img").first)
    paired.locator("[data-chart=prompts] svg .mark-symbol path").last.click()
    names = paired.locator("#pair .name").all_inner_texts()
    assert names == ["baseline, a", "baseline, b"]


@pytest.mark.parametrize("kind", ["viewed", "paired"])
def test_odd_names_light_and_dark_and_axe(kind, request):
    page = request.getfixturevalue(kind)
    browser.check_odd_names(page, NAME)
    browser.check_light_and_dark(page)
    browser.check_with_axe(page, "dark", "light")
