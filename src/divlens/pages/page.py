"""The HTML of a page. Every text is escaped, and a policy in the page allows no request and no other script."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from divlens.pages.texts import shown
from divlens.pages.verdicts import Card
from divlens.showing import Block, visible


@dataclass(frozen=True)
class Figure:
    """A chart: `key` is its name in the page and in the names of files, `rows` are its data."""

    key: str
    title: str
    spec: Mapping[str, Any] = field(repr=False)
    rows: list[dict[str, Any]] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that a page shows. `later`: the conditions that the first screen leaves out; they stand further below, and so
    do their `later_warnings`. `missing`: what is not there and why, a sentence each. `data`: what its script reads.
    `paired`: whether it holds two runs against each other, in place of conditions."""

    title: str
    headline: str
    facts: tuple[tuple[str, str], ...]
    cards: tuple[Card, ...]
    warnings: Mapping[str, list[str]]
    later: tuple[str, ...]
    later_warnings: Mapping[str, list[str]]
    verdict_notes: tuple[str, ...]
    missing: tuple[str, ...]
    figures: tuple[Figure, ...]
    halvings: tuple[Block, ...]
    tables: tuple[Block, ...]
    gallery_note: str
    models: tuple[str, ...]
    conditions: tuple[tuple[str, str], ...]
    prompts: tuple[str, ...]
    floors: tuple[tuple[str, float, float], ...]
    undecided: tuple[dict[str, Any], ...]
    blind: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]
    sessions: tuple[dict[str, str], ...]
    data: dict[str, Any] = field(repr=False)
    paired: bool = False

    def of_kind(self, kind: str) -> list[Figure]:
        """The charts of which there may be several, by what their keys begin with."""
        return [figure for figure in self.figures if figure.key.startswith(f"{kind}-")]


def html_of(page: Page, follow: Mapping[str, Any] | None = None) -> str:
    """`follow`: how much of the run is there, of a page that a server gives: it asks that server for pictures, and
    whether there is more now. Any other page asks for nothing."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    def printed(value: Any) -> Any:
        """Harmful characters of any text are written out, before it is escaped."""
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=FunctionLoader(read),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        finalize=printed,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = page_scripts()
    data = page.data | {
        "follow": follow,
        "figures": {one.key: {"spec": one.spec, "rows": one.rows, "title": one.title} for one in page.figures},
    }
    return environment.get_template("report.html").render(
        page=page,
        figures={one.key: one for one in page.figures},
        policy=Markup(policy_for(scripts, served=follow is not None)),
        style=Markup(read("report.css")),
        scripts=[Markup(harmless_in_script(script)) for script in scripts],
        data=Markup(json_in_html(data)),
    )


def read(name: str) -> str:
    return (files("divlens.pages") / "templates" / name).read_text(encoding="utf-8")


def page_scripts() -> list[str]:
    """The scripts of every page, in their order."""
    return [chart_library(), read("report.js")]


@cache
def chart_library() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script (BSD-3-Clause), as vl-convert brings them."""
    import vl_convert

    return vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks the default


def harmless_in_script(script: str) -> str:
    """No script ends the element that it stands in."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def json_in_html(data: Any) -> str:
    """As JSON that stands in a script element: no text in it can end that element. Raises ValueError for NaN."""
    text = json.dumps(shown(data), allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def policy_for(scripts: list[str], served: bool = False) -> str:
    """Pictures that stand in the page, its own styles and exactly these scripts; nothing is asked for from anywhere or,
    of a page that is `served`, from its own server alone."""
    hashes = " ".join(f"'sha256-{hash_of(harmless_in_script(script))}'" for script in scripts)
    own = ("'self' ", "connect-src 'self'; ") if served else ("", "")
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src {own[0]}data: blob:; {own[1]}"
        "base-uri 'none'; form-action 'none'"
    )


def hash_of(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
