"""The command line. Thin: it reads arguments, calls the library, prints. torch is loaded when a command needs it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence

import click

from divlens import __version__
from divlens.cli import commands

Show = Callable[..., None]


class LazyZoo(click.Group):
    """`divlens zoo`: its commands need torch and more, so they are imported when one of them is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from divlens.zoo.commands import zoo

        return zoo.list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from divlens.zoo.commands import zoo

        return zoo.get_command(ctx, cmd_name)


@click.group(invoke_without_command=True)
@click.version_option(__version__)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Where the diversity of discrete-latent image generators comes from, and how to get more of it."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


cli.add_command(LazyZoo("zoo", help="The built-in laboratory: fetch its data, train it, measure it."))
for measure in (commands.probe, commands.enhance, commands.information, commands.decompose, commands.models):
    cli.add_command(measure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Bad input: one line on stderr, exit code 2. Interrupted: 130."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = one_line(warnings.showwarning)
            cli.main(args=None if arguments is None else list(arguments), prog_name="divlens", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        if isinstance(error.__cause__, EOFError):  # click takes it for the end of what is typed, but nothing is asked
            raise error.__cause__ from None
        sys.exit(130)
    except click.ClickException as error:
        fail(error.format_message())
    except Exception as error:
        from divlens.types import DivlensError

        if not isinstance(error, DivlensError):
            raise
        fail(str(error))


def one_line(usual: Show) -> Show:
    """How warnings are shown: those of divlens in one line, said once and without the place in its code; others as
    usual."""
    said: set[str] = set()

    def show(message: Warning, category: type[Warning], *place: object, **others: object) -> None:
        if category.__module__.partition(".")[0] != "divlens":
            usual(message, category, *place, **others)
        elif str(message) not in said:
            said.add(str(message))
            say("warning", str(message))

    return show


def say(kind: str, message: str) -> None:
    click.echo(f"divlens: {kind}: {' '.join(message.split())}", err=True)


def fail(message: str) -> None:
    say("error", message)
    sys.exit(2)
