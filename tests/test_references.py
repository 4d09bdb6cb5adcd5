"""The reference of the commands is what the code says, and that of Python has every public name once."""

import re
from importlib import import_module

import click
import pytest

import divlens
from divlens.cli import cli, commands
from oracles.documentation import ROOT, script

COMMANDS = script("commands")
CONTEXTS = list(COMMANDS.walk(cli, None, "divlens"))
ENTRY = re.compile(r"^::: (?P<place>[\w.]+)\n(?: +options:\n +heading: (?P<heading>[\w.]+)\n)?", re.MULTILINE)


def test_the_page_of_the_commands_is_what_the_code_gives():
    assert COMMANDS.PAGE.read_text() == COMMANDS.page(), "docs/commands.md is old: python docs/commands.py writes it"


def test_a_changed_option_changes_the_page(monkeypatch):
    (option,) = [one for one in commands.probe.params if one.name == "n"]
    before = COMMANDS.page().splitlines()
    monkeypatch.setattr(option, "default", 9)
    after = COMMANDS.page().splitlines()
    changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert changed == [tuple(f"| `-n` | `INTEGER` | Samples per prompt, at least 2. | {n} |" for n in (8, 9))]


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda context: context.command_path)
def test_a_command_has_its_section_with_every_option_explained(context):
    heading = f"\n## {context.command_path}\n"
    page = COMMANDS.page()
    assert page.count(heading) == 1
    section = page.partition(heading)[2].partition("\n## ")[0]
    rows = {line.split(" | ")[0]: line.strip("| ").split(" | ") for line in section.splitlines() if "`-" in line}
    shown = [one for one in context.command.params if isinstance(one, click.Option)]
    assert len(rows) == len(shown)
    for option in shown:
        row = rows[f"| `{', '.join(option.opts)}`"]
        assert row[2], f"{option.name} of {context.command_path} has no help"
        if option.show_default:
            assert row[3] == str(option.default)


def test_all_commands_are_there():
    assert {"divlens", "divlens probe", "divlens zoo", "divlens zoo train"} <= {one.command_path for one in CONTEXTS}
    assert len(CONTEXTS) == 1 + len(cli.commands) + len(import_module("divlens.zoo.commands").zoo.commands)


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("H(Z|X) * 2 < 3", r"H(Z\|X) \* 2 \< 3"),
        ("`a * b` of\n  docs/runs.md", "`a * b` of [runs.md](runs.md)"),
        ("RUN_A", "RUN_A"),
    ],
)
def test_plain_text_becomes_markdown_that_shows_it(text, markdown):
    assert COMMANDS.escaped(text) == markdown


# Python


def found_at(place):
    """What stands at a dotted place: the longest module of it, and attributes from there."""
    module, _, name = place.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError:
        return getattr(found_at(module), name)


def entries(text):
    """The place in the code of each entry of the page, by the name that a reader sees."""
    found = [(entry["heading"] or entry["place"], entry["place"]) for entry in ENTRY.finditer(text)]
    assert len(dict(found)) == len(found), "a name stands twice in docs/api.md"
    return dict(found)


def names_of_the_package(text):
    return sorted(name.removeprefix("divlens.") for name in entries(text) if name.count(".") == 1)


def test_every_public_name_is_in_the_reference_and_is_what_stands_there():
    text = (ROOT / "docs" / "api.md").read_text()
    assert names_of_the_package(text) == sorted(divlens.__all__)
    assert names_of_the_package(text.replace("::: divlens.probe\n", "")) != sorted(divlens.__all__)  # the control
    for name, place in entries(text).items():
        assert found_at(place) is found_at(name), f"{name} is not {place}"
        assert found_at(place).__doc__, f"{name} has no docstring"
