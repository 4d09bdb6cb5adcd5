"""Writes docs/commands.md, the reference of the command line, from the commands themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from divlens.cli import cli

PAGE = Path(__file__).with_suffix(".md")
INTRODUCTION = """# Commands

What `divlens COMMAND --help` says of every command, on one page. `python docs/commands.py` writes it.
"""
EXTRA = re.compile(r"\s*\[((?:default: |required|\d*<?=?x).*)\]$", re.DOTALL)  # what click puts behind the text


def walk(command: click.Command, parent: click.Context | None, name: str) -> Iterator[click.Context]:
    """The contexts of a command and of all commands below it, in alphabetical order."""
    # Its own settings, too: a command keeps the help option that it is first asked for.
    context = click.Context(command, parent=parent, info_name=name, **command.context_settings)
    yield context
    if isinstance(command, click.Group):
        for child in sorted(command.list_commands(context)):
            found = command.get_command(context, child)
            assert found
            yield from walk(found, context, child)


def escaped(text: str) -> str:
    """Plain text as Markdown, in a table too. What stands in backticks is code, and a page of docs/ becomes a link."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    parts[::2] = [re.sub(r"([*<\\])", r"\\\1", part).replace("|", "\\|") for part in parts[::2]]
    return re.sub(r"\bdocs/(\w+\.md)", r"[\1](\1)", "".join(parts))


def code(text: str) -> str:
    """Code in a table. A bar in it would end the cell, in one way of reading Markdown or the other."""
    if "|" in text:
        return f"<code>{text.replace('<', '&lt;').replace('|', '&#124;')}</code>"
    return f"`{text}`" if text else ""


def paragraphs(command: click.Command) -> str:
    text = inspect.cleandoc(command.help or "")
    return "\n\n".join(escaped(paragraph) for paragraph in text.split("\n\n"))


def row(option: click.Option, context: click.Context) -> str | None:
    """The line of an option in the table; None for an option that is not shown."""
    record = option.get_help_record(context)
    if record is None:
        return None
    names = ", ".join((*option.opts, *option.secondary_opts))
    value = "" if option.is_flag else record[0].rpartition(option.opts[-1])[2].strip()
    extra = EXTRA.search(record[1])
    text = record[1][: extra.start()] if extra else record[1]
    parts = extra[1].split("; ") if extra else []
    limits = "".join(f", {escaped(part)}" for part in parts if re.match(r"\d*<?=?x", part))
    default = "".join(part.removeprefix("default: ") for part in parts if part.startswith(("default: ", "required")))
    return f"| {code(names)} | {code(value)}{limits} | {escaped(text)} | {escaped(default)} |"


def section(context: click.Context) -> str:
    """A command: how it is called, what it does, and its options or the commands below it."""
    command = context.command
    usage = " ".join((context.command_path, *command.collect_usage_pieces(context)))
    parts = [f"## {context.command_path}", f"    {usage}", paragraphs(command)]
    options = [one for one in command.get_params(context) if isinstance(one, click.Option)]
    rows = [line for option in options if "--help" not in option.opts and (line := row(option, context))]
    if rows:
        parts.append("\n".join(("| option | value | what it does | default |", "|---|---|---|---|", *rows)))
    if isinstance(command, click.Group):
        parts.append("\n".join(lines_of_commands(command, context)))
    return "\n\n".join(parts)


def lines_of_commands(group: click.Group, context: click.Context) -> Iterator[str]:
    yield from ("| command | what it does |", "|---|---|")
    for below in list(walk(group, context.parent, str(context.info_name)))[1:]:
        if below.parent and below.parent.command is group:
            anchor = below.command_path.replace(" ", "-")
            yield f"| [{below.info_name}](#{anchor}) | {escaped(below.command.get_short_help_str(limit=1000))} |"


def page() -> str:
    return "\n\n".join((INTRODUCTION.rstrip(), *map(section, walk(cli, None, "divlens")))) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
