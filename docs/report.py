"""Takes docs/report.png, the first screen of the report of a run, with headless Chromium.

divlens probe zoo/ar zoo/mim zoo/diffusion --out run
divlens decompose zoo/ar zoo/mim zoo/diffusion --limit 3 --wordings 2 --paths 3 --executions 3 --out run
python docs/report.py run
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import ViewportSize, sync_playwright

from divlens.pages.report import report

SIZE = ViewportSize(width=1200, height=800)
NAMES = ("chromium-headless-shell", "chromium", "google-chrome")
COLOURS = 256  # of the file; a screen of text and small pictures has few


def main() -> None:
    target = Path(__file__).with_suffix(".png")
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = report(sys.argv[1], Path(folder) / "page.html")
        browser = playwright.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, NAMES)), None), args=["--no-sandbox"]
        )
        tab = browser.new_page(viewport=SIZE, color_scheme="light")
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-drawn]")
        tab.wait_for_timeout(500)  # until the last picture is decoded
        tab.screenshot(path=target)
        browser.close()
    Image.open(target).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    main()
