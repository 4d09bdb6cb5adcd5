"""The site of the documentation: it is built without a warning, and shows what the pages say."""

import base64
import inspect
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from markdown_it import MarkdownIt

import divlens
from oracles.documentation import ROOT, script

NOTEBOOKS = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "examples").glob("*.ipynb"))]
STRUCTURE = {"h1", "h2", "h3", "li", "ol", "ul", "table", "tr", "td", "th", "pre", "img", "strong", "em"}


def copy_of_the_project(folder):
    """All that the site is made of, in a folder of its own, where it may be built and changed."""
    for path in (*ROOT.glob("*.md"), ROOT / "zensical.toml"):
        shutil.copyfile(path, folder / path.name)
    for name in ("docs", "src", "benchmarks", "examples", "studies"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.npy.xz", "*.safetensors"))
    for name in ("pyproject.toml", "Makefile", "LICENSE"):
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def build(folder):
    command = [sys.executable, str(folder / "docs" / "build_site.py")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = copy_of_the_project(tmp_path_factory.mktemp("project"))
    outcome = build(folder)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return folder


def html_at(folder, place):
    """The file that a page of the site becomes."""
    site = folder / "build" / "site"
    return site / "index.html" if place == "index.md" else site / place.removesuffix(".md") / "index.html"


def article(html):
    """The page itself, without what stands around it."""
    return html[html.index("<article") : html.index("</article>")]


class Elements(HTMLParser):
    """Counts the elements of a page."""

    def __init__(self, html):
        super().__init__()
        self.found = Counter()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found[tag] += 1


def structure_of(html):
    return {tag: count for tag, count in Elements(html).found.items() if tag in STRUCTURE}


def pages():
    """Where each page stands in the site, by where it stands in the repository."""
    return {source: place for source, place in script("build_site").places().items() if place.endswith(".md")}


def text_of(source):
    """The Markdown of a page, of a notebook as the site has it."""
    site = script("build_site")
    return site.page_of_notebook(source, site.places())[0] if source in NOTEBOOKS else (ROOT / source).read_text()


@pytest.mark.parametrize("source", [source for source in pages() if source != "docs/api.md"])
def test_a_page_of_the_site_has_all_that_the_page_of_the_repository_has(source, project):
    text = text_of(source)
    expected = structure_of(MarkdownIt().enable("table").render(text))
    assert structure_of(article(html_at(project, pages()[source]).read_text())) == expected
    swallowed = structure_of(MarkdownIt().enable("table").render(re.sub(r"^# .*", "", text, count=1)))
    assert swallowed != expected  # the control: a lost heading would be seen


def test_the_reference_of_python_has_signatures_and_docstrings(project):
    """Every entry of docs/api.md, by the code, and not by what the tool for the site made of it."""
    shown = article(html_at(project, "api.md").read_text())
    places = re.findall(r"^::: (.*)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert len(places) > 60
    for place in places:
        assert f'id="{place}"' in shown, place
    text = " ".join(unescape(re.sub("<[^>]*>", "", shown)).split())
    for function in (divlens.probe, divlens.enhance, divlens.MinP, divlens.lpips_diversity):
        for parameter in inspect.signature(function).parameters:
            assert re.search(rf"\b{parameter}: ", text)
        first = " ".join((function.__doc__ or "").partition("\n")[0].replace("`", "").split())
        assert first in text
    assert "no_such_parameter: " not in text


def text_in(html):
    """What a reader sees, with single spaces."""
    return " ".join(unescape(re.sub("<[^>]*>", " ", html)).split())


@pytest.mark.parametrize("source", NOTEBOOKS)
def test_a_notebook_is_a_page_with_its_code_what_it_printed_and_its_pictures(source, project):
    page = html_at(project, pages()[source])
    html = article(page.read_text())
    shown = "".join(text_in(html).split())
    outputs = [each for cell in json.loads((ROOT / source).read_text())["cells"] for each in cell.get("outputs", [])]
    cells = [cell for cell in json.loads((ROOT / source).read_text())["cells"] if cell["cell_type"] == "code"]
    for code in ("".join(cell["source"]) for cell in cells):
        assert "".join(code.split()) in shown
    for printed in ("".join(each["text"]) for each in outputs if "text" in each):
        assert "".join(printed.split()) in shown
    drawn = [base64.b64decode("".join(data["image/png"])) for data in data_of(outputs) if "image/png" in data]
    assert drawn == [(page.parent / address).read_bytes() for address in re.findall(r'<img[^>]*src="([^"]*)"', html)]
    tables = ["".join(data["text/html"]) for data in data_of(outputs) if "text/html" in data]
    cells_of = [cell for table in tables for cell in re.findall(r"<td>(.*?)</td>", table)]
    assert re.findall(r"<td>(.*?)</td>", html) == cells_of
    assert len(cells) > 4 and drawn and cells_of and "<style" not in html


def data_of(outputs):
    return [each["data"] for each in outputs if "data" in each]


def test_every_page_is_in_the_navigation(project):
    config = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]

    def named(entry):
        (value,) = entry.values()
        return [value] if isinstance(value, str) else [place for one in value for place in named(one)]

    assert sorted(place for entry in config["nav"] for place in named(entry)) == sorted(pages().values())


def test_formulas_are_mathml(project):
    theory = html_at(project, "theory.md").read_text()
    formulas = len(re.findall(r"\$\$.+?\$\$|\$[^$]+\$", (ROOT / "docs" / "theory.md").read_text(), re.DOTALL))
    assert formulas > 300 and theory.count("<math") == formulas
    assert theory.count('display="block"') == (ROOT / "docs" / "theory.md").read_text().count("$$") / 2
    assert "arithmatex" not in theory and "\\frac" not in theory


def test_links_lead_to_pages_of_the_site_or_to_the_repository(project):
    site = script("build_site")
    known = site.places()
    assert site.address_in_site("docs/models.md#traps", "README.md", known) == "models.md#traps"
    assert site.address_in_site("../ARCHITECTURE.md", "docs/models.md", known) == "architecture.md"
    assert site.address_in_site("../pyproject.toml", "docs/models.md", known) == f"{site.REPOSITORY}pyproject.toml"
    for elsewhere in ("#traps", "https://semver.org/"):
        assert site.address_in_site(elsewhere, "README.md", known) == elsewhere
    for page in (project / "build" / "site").rglob("*.html"):
        for address in re.findall(r'(?:href|src)="([^"#]+)', article_or_nothing(page)):
            if not urlsplit(address).scheme:
                assert (page.parent / address).exists(), f"{page}: {address}"


def article_or_nothing(page):
    html = page.read_text()
    return article(html) if "<article" in html else ""


def test_code_is_left_as_it_is():
    site = script("build_site")
    text = "[runs](docs/runs.md)\n\n    [runs](docs/runs.md)\n\n```\n[runs](docs/runs.md)\n```\n"
    changed = site.page_in_site(text, "README.md", site.places())
    assert changed == text.replace("docs/", "", 1)


LOADED = re.compile(r'<(?:script|img|iframe|source)[^>]*\bsrc="([^"]*)"|<link[^>]*\bhref="([^"]*)"')
IN_STYLES = re.compile(r"""(?:url\(|@import\s+)["']?([^"')]+)""")


def test_no_file_of_the_site_names_another_host_to_load_from(project):
    """But for the script of the tool, which would load some things if a page had them: the browser tells whether."""
    site = project / "build" / "site"
    for page in site.rglob("*.html"):
        loaded = [address for pair in LOADED.findall(page.read_text()) for address in pair if address]
        assert loaded
        assert not [address for address in loaded if urlsplit(address).netloc]
    styles = [*site.rglob("*.css"), *site.rglob("*.svg")]
    assert styles
    for path in styles:
        assert not [one for one in IN_STYLES.findall(path.read_text()) if urlsplit(one).netloc]


def test_a_browser_that_shows_the_site_asks_nobody(project, chromium):
    """Every page, its script run: nothing is asked for but files of this machine."""
    asked = []
    page = chromium.new_page()
    page.on("request", lambda request: asked.append(request.url))
    for path in (project / "build" / "site").rglob("*.html"):
        page.goto(path.as_uri())
    assert len(asked) > 100 and not [address for address in asked if not address.startswith(("file:", "data:"))]
    page.set_content('<img src="http://127.0.0.1:9/x.png">')  # the control
    assert asked[-1] == "http://127.0.0.1:9/x.png"
    page.close()


def test_the_chart_of_the_data_flow_is_what_its_script_draws():
    flow = script("data_flow")
    assert flow.TARGET.read_text() == flow.chart()
    modules = {path.stem for path in (ROOT / "src" / "divlens").iterdir()}
    verbs = {name.partition(".")[0] for name in flow.BOXES} - modules
    assert verbs < set(divlens.__all__) and "planning" not in divlens.__all__


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("[a page](runs.md#the-folder)", None),  # the control
        ("[a page](nowhere.md)", "there is no docs/nowhere.md"),
        ("[an anchor](runs.md#nowhere)", "anchor does not exist"),
        ("[a file](../studies/nowhere.txt)", "there is no studies/nowhere.txt"),
    ],
)
def test_a_link_that_leads_nowhere_stops_the_build(line, complaint, tmp_path):
    folder = copy_of_the_project(tmp_path)
    (folder / "docs" / "api.md").write_text("# Python\n")  # the slow part of the site, and of no use here
    with (folder / "docs" / "report.md").open("a") as page:
        page.write(f"\n{line}\n")
    outcome = build(folder)
    assert bool(outcome.returncode) == bool(complaint)
    assert (complaint or "") in outcome.stdout + outcome.stderr
