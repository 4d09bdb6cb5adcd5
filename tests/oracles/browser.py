"""Pages in a headless Chromium: what a page complained of and asked for, what axe finds in it, and texts that would do
harm if a page took them for more than text. The browser itself is the fixture `chromium` of tests/conftest.py."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from divlens.pages.texts import shown

BROWSER = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)
HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(1)>, \"q\" 'r'"
TURNED = "\u202eright \u05e9\u05dc\u05d5\u05dd"
ODD = "</script><b>odd</b>"
IN_THE_PAGE = ("data:", "blob:", "file:")


@contextmanager
def opened(chromium: Any, address: str, *own: str) -> Iterator[Any]:
    """A page, its charts drawn. At the end nothing was complained of, nothing was asked for elsewhere than in the page
    and at addresses that begin as `own` do, and no text was run."""
    complaints: list[str] = []
    context = chromium.new_context(viewport={"width": 1200, "height": 900}, color_scheme="light")
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda one: one.url.startswith((*IN_THE_PAGE, *own)) or complaints.append(one.url))
    page.goto(address)
    page.wait_for_selector("html[data-drawn=light]", timeout=60_000)
    yield page
    context.close()
    assert not complaints, complaints


def switch(page: Any, theme: str) -> None:
    """To light or dark, by the button, with all charts drawn anew."""
    if page.locator("html").get_attribute("data-theme") != theme:
        page.click("#theme")
    page.wait_for_selector(f"html[data-drawn={theme}]")


def check_light_and_dark(page: Any) -> None:
    """The paper and the texts of charts have colours of their own in both."""
    found = []
    for theme in ("light", "dark"):
        switch(page, theme)
        paper = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        ink = page.locator("[data-chart=prompts] svg text").first.get_attribute("fill")
        found.append((paper, ink))
    (paper, ink), (other_paper, other_ink) = found
    assert paper != other_paper and ink != other_ink


def check_with_axe(page: Any, *themes: str) -> None:
    """No serious fault in what is shown, nor in the record of a picture that is open."""
    for theme in themes:
        switch(page, theme)
        assert not (found := serious_faults(page)), found
        page.locator("#blocks .pic").first.click()
        assert not (found := serious_faults(page)), found
        page.keyboard.press("Escape")
    page.evaluate("document.querySelector('.pic img').removeAttribute('alt')")
    assert any(line.startswith("button-name") for line in serious_faults(page))  # it does find what is there


def serious_faults(page: Any) -> list[str]:
    """What axe-core finds; it reads what is shown, and asks nobody."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {node['html'][:120]}" for one in grave for node in one["nodes"]]


def check_odd_names(page: Any, *headings: str) -> None:
    """`HOSTILE` and `TURNED` are prompts, `ODD` is part of the name of a condition: all show as text, in the gallery
    and in the chart of prompts. `headings`: other texts that stand in the page as they are."""
    page.select_option("#filter-prompt", label="all prompts")
    titles = page.locator("#blocks h3 bdi").all_text_contents()
    assert HOSTILE in titles and shown(TURNED) in titles
    assert any(ODD in name for name in page.locator("#blocks .name").all_text_contents())
    page.select_option("#filter-prompt", index=1)
    labels = page.locator("[data-chart=prompts] svg text").all_text_contents()
    assert shown(TURNED) in labels and any(label.startswith("<script>alert(1)</script>") for label in labels)
    text = page.locator("body").inner_text()
    assert not [heading for heading in headings if heading not in text]
    assert page.locator("main b:not(.chance b)").count() == 0 and page.locator("img[onerror]").count() == 0


def comes_true(page: Any, holds: Callable[[], bool]) -> bool:
    """Whether it does within 20 s. Playwright's waiting for a function needs `eval`, which the page's policy bars."""
    return any(holds() or page.wait_for_timeout(100) for _ in range(200))
