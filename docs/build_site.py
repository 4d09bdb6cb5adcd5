"""Builds the site of the documentation into build/site. `make docs` runs it; nothing is asked of the network.

The pages are the files that a reader of the repository reads. They are copied to where the tool for the site expects
them, their links follow, and links to what is no page of the site lead to the repository. Notebooks become pages with
what they printed and drew. Formulas become MathML, which a browser shows without a script.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from latex2mathml.converter import convert
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
PAGES, SITE = ROOT / "build" / "pages", ROOT / "build" / "site"
REPOSITORY = "https://github.com/divlens/divlens/blob/HEAD/"
CARDS = "src/divlens/models/zoo/assets"
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def places() -> dict[str, str]:
    """Where each page and picture stands in the site, by where it stands in the repository."""
    found = {"README.md": "index.md"}
    for name in ("ARCHITECTURE", "CONTRIBUTING", "CHANGELOG", "ATTRIBUTION"):
        found[f"{name}.md"] = f"{name.lower()}.md"
    for path in sorted(ROOT.glob(f"{CARDS}/card-*.md")):
        found[f"{CARDS}/{path.name}"] = f"cards/{path.name.removeprefix('card-')}"
    for path in sorted(ROOT.glob("examples/*.ipynb")):
        found[f"examples/{path.name}"] = f"examples/{path.stem}.md"
    for path in sorted(path for kind in ("md", "png", "svg") for path in ROOT.glob(f"docs/*.{kind}")):
        found[f"docs/{path.name}"] = path.name
    return found


def address_in_site(address: str, source: str, known: dict[str, str]) -> str:
    """A relative address of a page of the repository, as it is in the site."""
    parts = urlsplit(address)
    if parts.scheme or not parts.path:
        return address
    target = os.path.normpath(PurePosixPath(source).parent / parts.path)
    if target not in known:
        if not (ROOT / target).exists():
            raise SystemExit(f"{source} links to {address}, and there is no {target}")
        return f"{REPOSITORY}{target}" + (f"#{parts.fragment}" if parts.fragment else "")
    there = os.path.relpath(known[target], PurePosixPath(known[source]).parent)
    return parts._replace(path=there).geturl()


def page_in_site(text: str, source: str, known: dict[str, str]) -> str:
    """The text of a page, its links and pictures changed to where they are in the site; code is left as it is."""
    lines = text.split("\n")
    for block in MarkdownIt().enable("table").parse(text):
        found = [child.attrGet("href") or child.attrGet("src") for child in block.children or ()]
        for address in filter(None, found):
            new = address_in_site(str(address), source, known)
            for number in range(*(block.map or (0, 0))):
                lines[number] = lines[number].replace(f"]({address})", f"]({new})")
    return "\n".join(lines)


def page_of_notebook(source: str, known: dict[str, str]) -> tuple[str, dict[str, bytes]]:
    """A notebook as the text of a page, and its pictures by their names beside it."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in json.loads((ROOT / source).read_text("utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(page_in_site(text, source, known))
            continue
        parts.append(fenced(text, "python"))
        for output in cell["outputs"]:
            data = {kind: "".join(content) for kind, content in output.get("data", {}).items()}
            if "image/png" in data:
                name = f"{Path(source).stem}-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                parts.append(f"![What the code above draws]({name})")
            elif "text/html" in data:
                parts.append(f"<div>{flat(data['text/html'])}</div>")
            else:
                parts.append(fenced("".join(output.get("text", "")) or data["text/plain"], "text"))
    return "\n\n".join(parts) + "\n", pictures


def fenced(code: str, language: str) -> str:
    """A block of code; four backticks, for the code may have three."""
    return f"````{language}\n{code.rstrip()}\n````"


def flat(table: str) -> str:
    """The HTML of an output in one line, as Markdown takes it for HTML to its end, and without styles of its own."""
    lines = re.sub(r"<style.*?</style>", "", table, flags=re.DOTALL).splitlines()
    return "".join(line.strip() for line in lines)


def copy_pages() -> None:
    shutil.rmtree(PAGES, ignore_errors=True)
    known = places()
    for source, place in known.items():
        target = PAGES / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.endswith(".ipynb"):
            text, pictures = page_of_notebook(source, known)
            target.write_text(text, "utf-8")
            for name, content in pictures.items():
                target.with_name(name).write_bytes(content)
        elif target.suffix == ".md":
            target.write_text(page_in_site((ROOT / source).read_text("utf-8"), source, known), "utf-8")
        else:
            shutil.copyfile(ROOT / source, target)


def with_mathml(page: str) -> str:
    """A page whose formulas are MathML in place of LaTeX."""
    return FORMULA.sub(lambda m: convert(unescape(m[2]), display="block" if m[1] == "div" else "inline"), page)


def main() -> None:
    copy_pages()
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    outcome = subprocess.run([*command, "--config-file", str(ROOT / "zensical.toml")], cwd=ROOT)
    if outcome.returncode:
        sys.exit(outcome.returncode)
    for path in SITE.rglob("*.html"):
        path.write_text(with_mathml(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
