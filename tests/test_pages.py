"""The pages of the repository: links lead somewhere, and what they show of Python and of the command line exists.

Code that takes a moment runs as it stands, but for toys in place of larger models, and few samples.
"""

import ast
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click
import pytest
from markdown_it import MarkdownIt

from divlens.cli import cli
from oracles.documentation import ROOT

PAGES = sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
MARKDOWN = MarkdownIt().enable("table")


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


# Links


class Addresses(HTMLParser):
    """What the links and pictures of a page point to."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(MARKDOWN.render(markdown))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("href", "src") and value]


def anchors_in(markdown: str) -> set[str]:
    """The anchors of the headings, as GitHub makes them: small letters, spaces to hyphens, other signs away."""
    tokens, found, seen = MARKDOWN.parse(markdown), set(), Counter()
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            parts = tokens[place + 1].children or []
            heading = "".join(part.content for part in parts if part.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return found


def broken_links(markdown: str, folder: Path) -> list[str]:
    """The relative addresses in a page of a folder that lead nowhere."""
    broken = []
    for address in Addresses(markdown).found:
        parts = urlsplit(address)
        if parts.scheme:
            continue
        target = folder / unquote(parts.path)
        text = markdown if not parts.path else target.read_text() if target.suffix == ".md" and target.exists() else ""
        if not target.exists() or (parts.fragment and parts.fragment not in anchors_in(text)):
            broken.append(address)
    return broken


@pytest.mark.parametrize("page", NAMES)
def test_every_relative_link_leads_somewhere(page):
    assert not broken_links(text_of(page), (ROOT / page).parent)


@pytest.mark.parametrize(
    ("address", "leads"),
    [
        ("runs.md", True),
        ("runs.md#run.json", False),
        ("runs.md#runjson", True),
        ("theory.md#5-hzx-the-entropy-of-the-images-of-a-prompt", True),
        ("../CONTRIBUTING.md#a-study-or-a-benchmark", True),
        ("../studies/lab.yaml", True),
        ("nowhere.md", False),
        ("runs.md#nowhere", False),
        ("#here", True),
        ("#there", False),
        ("https://example.invalid/nowhere", True),
    ],
)
def test_a_link_that_leads_nowhere_is_found(address, leads):
    assert broken_links(f"# Here\n\n[link]({address}) ![picture]({address})", ROOT / "docs") == (
        [] if leads else [address] * 2
    )


def test_two_headings_of_one_name_have_anchors_of_their_own():
    assert anchors_in("# A `b` (c)\n\n## A b c\n\n## A b c\n") == {"a-b-c", "a-b-c-1", "a-b-c-2"}


def test_the_pages_that_the_code_names_are_there():
    named = {name for path in (ROOT / "src").rglob("*.py") for name in re.findall(r"docs/\w+\.md", path.read_text())}
    assert "docs/runs.md" in named
    assert not [name for name in named if not (ROOT / name).exists()]


# Python


@dataclass(frozen=True)
class Block:
    """A block of Python in a page: the line on which it begins, and the code."""

    page: str
    line: int
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str) -> list[Block]:
    fences = [token for token in MARKDOWN.parse(text_of(page)) if token.type == "fence"]
    return [Block(page, fence.map[0] + 2, fence.content) for fence in fences if fence.map and fence.info == "python"]


BLOCKS = [block for page in NAMES for block in blocks_of(page)]


def dotted(node: ast.AST) -> str:
    """`divlens.paths.Raster` of an expression that is a name of divlens; else nothing."""
    if isinstance(node, ast.Name):
        return node.id if node.id == "divlens" else ""
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f"{left}.{node.attr}"
    return ""


def found_at(place: str) -> Any:
    """A module, or what stands in one. Raises ImportError or AttributeError."""
    module, _, name = place.rpartition(".")
    if not module:
        return import_module(place)
    outer = found_at(module)
    try:
        return getattr(outer, name)
    except AttributeError:
        return import_module(place)


def names_in(tree: ast.AST) -> list[str]:
    """The dotted names of divlens that a block uses or imports."""
    names = []
    for node in ast.walk(tree):
        names.append(dotted(node))
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.partition(".")[0] == "divlens"]
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "divlens":
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name]


def exists(name: str) -> bool:
    try:
        found_at(name)
    except (ImportError, AttributeError):
        return False
    return True


def faults_in(code: str) -> list[str]:
    """What a block says of divlens that is not so: names that do not exist, arguments that a function does not take."""
    tree = ast.parse(code)
    faults = [name for name in names_in(tree) if not exists(name)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) and exists(dotted(node.func)):
            given = {word.arg: None for word in node.keywords if word.arg}
            try:
                inspect.signature(found_at(dotted(node.func))).bind(*node.args, **given)
            except TypeError as error:
                faults.append(f"{dotted(node.func)}: {error}")
    return faults


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_python_in_a_page_names_what_exists(block):
    assert not faults_in(block.code)


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("import divlens.nothing", "divlens.nothing"),
        ("from divlens.paths import Rasters", "divlens.paths.Rasters"),
        ("divlens.prob('zoo/ar')", "divlens.prob"),
        ("divlens.probe('zoo/ar', [], samples=8)", "divlens.probe: got an unexpected keyword argument 'samples'"),
        ("divlens.probe('zoo/ar')", "divlens.probe: missing a required argument: 'prompts'"),
    ],
)
def test_python_that_names_what_does_not_exist_is_found(code, fault):
    assert fault in faults_in(code)
    assert not faults_in("from divlens.paths import Raster\nimport divlens\ndivlens.probe('zoo/ar', ['fox'], n=8)")


# What is not run, by how its first line begins, and why.
NOT_RUN = {
    "import torch": "tests/test_registry.py runs it",
    "from diffusers import AmusedPipeline": "a model of the hub, on a GPU",
    "from diffusers import Transformer2DModel": "a model of the hub, part by part",
    'model = divlens.load("amused:': "models of the hub",
    "model = divlens.wrap(network, processor)": "a network of Janus, tests/test_drop_in_generation.py has one",
    "source = divlens.Endpoint(": "a language model that answers",
    "found = divlens.frontier(": "two minutes",
    "found = divlens.study(": "minutes",
    'out = divlens.sample("studio/mosaics"': "tests/test_own_model.py installs the model",
}


def reason_not_to_run(block: Block) -> str | None:
    first = next(line for line in block.code.splitlines() if line and line != "import divlens")
    return next((reason for beginning, reason in NOT_RUN.items() if first.startswith(beginning)), None)


def with_toys(code: str) -> str:
    """The block with toys in place of the zoo and of aMUSEd, by the names that they give themselves, and 8 samples."""
    code = re.sub(r'"zoo/(\w+)"', r'"toy/\1:0"', code).replace('"amused"', '"toy/mim:0"')
    return re.sub(r"\bn=\d+", "n=8", code)


RUN = {str(block): with_toys(block.code) for block in BLOCKS if not reason_not_to_run(block)}


@pytest.fixture(scope="module")
def raised():
    """What each block raises, by its place; nothing where it runs. The last one is the control."""
    blocks = {**RUN, "wrong": "out = divlens.probe('toy/ar', ['fox'], n=2)\nout.figures"}
    paths = [str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    outcome = subprocess.run(
        [sys.executable, "-m", "oracles.blocks_of_pages"],
        input=json.dumps(blocks),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
    )
    assert outcome.returncode == 0, outcome.stderr
    return json.loads(outcome.stdout)


@pytest.mark.parametrize("block", list(RUN))
def test_python_in_a_page_runs(block, raised):
    assert not raised[block]


def test_python_that_does_not_run_is_found(raised):
    assert "has no attribute 'figures'" in raised["wrong"]


def test_every_reason_not_to_run_is_that_of_a_block():
    assert {reason_not_to_run(block) for block in BLOCKS} == {None, *NOT_RUN.values()}


# The command line


def command_lines(page: str) -> list[str]:
    """The command lines of divlens in the code of a page, without what stands behind # in them."""
    blocks = [token.content for token in MARKDOWN.parse(text_of(page)) if token.type in ("fence", "code_block")]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line.strip() for line in lines if line.strip().startswith("divlens ") and "[OPTIONS]" not in line]


def check_line(line: str) -> None:
    """Raises click's own error for a command or an option that does not exist, and for a missing argument."""
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = cli
    context = click.Context(cli, info_name="divlens", **cli.context_settings)  # a command keeps its help option
    while isinstance(command, click.Group) and words:
        _, found, words = command.resolve_command(context, words)
        assert found
        command = found
        context = click.Context(command, parent=context, info_name=command.name, **command.context_settings)
    command.make_parser(context).parse_args(args=words)


LINES = [(page, line) for page in NAMES for line in command_lines(page)]


def test_the_pages_have_command_lines():
    assert len(LINES) > 50


@pytest.mark.parametrize(("page", "line"), LINES)
def test_a_command_line_in_a_page_is_one_that_divlens_takes(page, line):
    check_line(line)


@pytest.mark.parametrize("line", ["divlens prob zoo/ar", "divlens probe zoo/ar --samples 8", "divlens zoo trains"])
def test_a_command_line_that_divlens_does_not_take_is_found(line):
    with pytest.raises(click.UsageError):
        check_line(line)
