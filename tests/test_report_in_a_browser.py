"""The page of `divlens report` in a headless Chromium, where this machine has one: charts are drawn, clicks answered,
nothing is asked for from anywhere, and no text does anything."""

import csv
import io
from importlib import import_module
from typing import Any

import pytest

import divlens
from divlens.pages.texts import shown
from oracles import browser
from oracles.browser import HOSTILE, ODD, TURNED, comes_true
from oracles.colour_network import colour_network

PROMPTS = ["red heart", HOSTILE, TURNED, "snow", "a cat", "blue sea", "green hill"]


@pytest.fixture(scope="module")
def written(tmp_path_factory, cache_of_the_session):
    """A page with every kind of chart."""
    folder = tmp_path_factory.mktemp("page")
    conditions = {
        "baseline": (),
        "subset": divlens.Subset(0.5),
        "argmax": divlens.Argmax(),
        ODD: divlens.Temperature(2),
        "cool": divlens.Temperature(0.5),
    }
    with pytest.MonkeyPatch.context() as patch:
        for module, loader in {"experiment.comparison": "load_network", "pages.stored": "load_network"}.items():
            patch.setattr(import_module(f"divlens.{module}"), loader, lambda name=None: colour_network())
        divlens.probe(["toy/ar", "toy/mim"], PROMPTS, 4, conditions=conditions, out=folder / "a<b>run")
        divlens.information("toy/mim", PROMPTS[:2], n=4, out=folder / "a<b>run")
        divlens.decompose("toy/mim", PROMPTS[:2], 1, 2, 3, out=folder / "a<b>run")
        return divlens.report(folder / "a<b>run", folder / "page.html")


@pytest.fixture
def opened(chromium, written):
    with browser.opened(chromium, written.as_uri()) as page:
        yield page


def test_every_chart_is_drawn_and_shows_hostile_text_as_text(opened):
    charts = opened.locator("[data-chart]")
    assert [charts.nth(i).get_attribute("data-chart") for i in range(charts.count())] == [
        *("changes-0", "changes-1"),
        *("prompts", "replay", "doses-0-diversity", "sources", "bits"),
        *("steps", "maps-0", "codes-0", "codes-1"),
    ]
    for i in range(charts.count()):
        assert charts.nth(i).locator("svg path[d]").count() > 3
    browser.check_odd_names(opened)
    assert any(label.startswith("</script><b>odd") for label in opened.locator("#verdict svg text").all_text_contents())
    assert opened.locator("#crossed img").count() == 2 * 3


def test_filters_choose_models_prompts_and_conditions(opened):
    rows = opened.locator("#blocks tbody tr")
    assert rows.count() == 2 * 5 and opened.locator("#blocks .pic img").first.evaluate("e => e.naturalWidth") > 0
    opened.select_option("#filter-model", label="toy/mim:0")
    assert rows.count() == 5
    opened.locator("#filters [name=condition]").nth(3).uncheck()  # the odd name
    assert rows.count() == 4
    before = opened.locator("#blocks h3").inner_text()
    opened.click("#after")
    assert opened.locator("#blocks h3").inner_text() != before
    opened.select_option("#filter-prompt", label="all prompts")
    assert rows.count() == 4 * len(PROMPTS)


def test_a_picture_opens_its_record_and_keys_move_on(opened):
    opened.locator("#blocks .pic").nth(1).click()
    assert opened.locator("#picture-command").inner_text().endswith("--index 1")
    opened.keyboard.press("ArrowRight")
    assert opened.locator("#picture-command").inner_text().endswith("--index 2")
    facts = opened.locator("#picture-facts dt").all_inner_texts()
    assert {"model", "condition", "prompt", "wording", "sample", "seed", "tokens"} <= set(facts)
    opened.keyboard.press("Escape")
    assert not opened.locator("#picture").is_visible()


def test_a_dot_opens_its_two_rows(opened):
    opened.locator("[data-chart=prompts] svg .mark-symbol path").last.click()
    assert opened.locator("#pair tbody tr").count() == 2
    opened.locator("#prompts summary").click()
    opened.locator("#prompts-table button").first.click()
    first = opened.locator("#prompts-table tbody th").first.inner_text()
    assert opened.locator("#pair h3").inner_text() == first


def test_light_and_dark(opened):
    browser.check_light_and_dark(opened)


def test_charts_and_their_data_are_saved(opened, tmp_path):
    for kind in ("svg", "png", "csv"):
        with opened.expect_download() as waiting:
            opened.locator(f"[data-chart=prompts] [data-save={kind}]").click()
        waiting.value.save_as(tmp_path / kind)
        assert waiting.value.suggested_filename == f"a-b-run-prompts.{kind}"
    assert (tmp_path / "svg").read_text().startswith("<svg") and (tmp_path / "png").read_bytes().startswith(b"\x89PNG")
    rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO((tmp_path / "csv").read_text(), newline="")))
    assert {row["prompt"] for row in rows} == {shown(prompt) for prompt in PROMPTS}
    assert all(float(row["change_low"]) <= float(row["change"]) for row in rows)


def test_a_phone_needs_no_sideways_scrolling(opened):
    opened.set_viewport_size({"width": 375, "height": 800})
    opened.wait_for_function("document.documentElement.scrollWidth <= 375", timeout=10_000)
    opened.reload()
    opened.wait_for_selector("html[data-drawn]")
    area = opened.locator("[data-chart=bits] svg .root .background").first.bounding_box()
    assert area["width"] > 375 * 0.35  # its long names leave it room


def test_paper_is_light_and_has_what_is_folded_away(opened):
    def paper():
        return opened.evaluate("() => getComputedStyle(document.body).backgroundColor")

    folded = opened.locator("#prompts-table")
    browser.switch(opened, "dark")
    assert paper() != "rgb(255, 255, 255)" and not folded.is_visible()
    opened.emulate_media(media="print")
    assert paper() == "rgb(255, 255, 255)" and folded.is_visible()
    assert not opened.locator("#filters").is_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_fault(opened, theme):
    browser.check_with_axe(opened, theme)


def test_one_slider_moves_the_replays_of_all_models(opened):
    said = opened.locator("#replays .replay span:nth-of-type(1)")
    ends = [line.split(",")[0].split(" of ") for line in said.all_inner_texts()]
    assert len(ends) == 2 and all(step == f"step {steps}" for step, steps in ends)
    before = opened.locator("#replays img").evaluate_all("all => all.map((one) => one.src)")
    rule = "() => document.querySelector('[data-chart=replay] svg .mark-rule.role-mark line').getAttribute('transform')"
    at = opened.evaluate(rule)
    opened.locator("#replay-at").fill("0")
    assert [line.split(" of ")[0] for line in said.all_inner_texts()] == ["step 1", "step 1"]
    after = opened.locator("#replays img").evaluate_all("all => all.map((one) => one.src)")
    assert all(one != other for one, other in zip(before, after, strict=True))
    assert comes_true(opened, lambda: opened.evaluate(rule) != at)
    opened.click("#replay-play")
    assert comes_true(opened, lambda: opened.locator("#replay-at").input_value() == "100")
