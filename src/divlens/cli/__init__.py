"""The command line. Thin: it reads arguments, calls the library, prints. torch is loaded when a command needs it."""

from __future__ import annotations

import errno
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

import click

from divlens import __version__
from divlens.cli import commands, runs
from divlens.cli.calibrate import calibrate
from divlens.cli.existing import diversity
from divlens.cli.merge import merge
from divlens.cli.report import report
from divlens.cli.reword import reword
from divlens.cli.study import study
from divlens.cli.verdict import doses, verdict
from divlens.cli.view import view
from divlens.errors import DivlensError
from divlens.report.terminal import discard, is_full, put
from divlens.showing import visible
from divlens.store.stopping import STOPPING

LONGEST = 1000  # characters of a message
INTERRUPTED, TERMINATED, PIPE_BROKEN = 130, 143, 141  # as a shell says it: 128 and the number of the signal

Show = Callable[..., None]


class LazyZoo(click.Group):
    """`divlens zoo`: its commands need torch and more, so they are imported when one of them is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from divlens.zoo.commands import zoo

        return zoo.list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from divlens.zoo.commands import zoo

        return zoo.get_command(ctx, cmd_name)


def help_alone() -> None:
    """Of a group: without a command, its help."""
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Where the diversity of discrete-latent image generators comes from, and how to get more of it."""
    help_alone()


zoo = LazyZoo(
    "zoo",
    help="The built-in laboratory: draw its sprites, train it, measure it.",
    invoke_without_command=True,
    callback=help_alone,
)
COMPARING = (commands.probe, commands.enhance, commands.frontier)
MEASURING = (*COMPARING, commands.information, commands.decompose, study, commands.resume)
READING = (runs.score, runs.compare, verdict, doses, report, view, runs.sample, diversity)
for command in (zoo, *MEASURING, merge, calibrate, reword, *READING, commands.models):
    cli.add_command(command)


class Terminated(KeyboardInterrupt):
    """SIGTERM: a scheduler wants the machine. It ends a run as Ctrl-C does."""


def terminate(number: int, frame: object) -> NoReturn:
    raise Terminated


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Bad input, a full disk or device: one line on stderr, exit code 2. Interrupted: 130.

    A reader that closes the pipe has seen enough: that is no error, and ends with 141 and without a word.
    """
    stdout, stderr = sys.stdout, sys.stderr
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminate)
        with warnings.catch_warnings():
            warnings.showwarning = one_line(warnings.showwarning)
            cli.main(args=None if arguments is None else list(arguments), prog_name="divlens", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        if isinstance(error.__cause__, EOFError):  # click takes it for the end of what is typed, but nothing is asked
            raise error.__cause__ from None
        if arguments is None:  # the process ends now, and another Ctrl-C would only litter the screen
            for number in STOPPING:
                signal.signal(number, signal.SIG_IGN)
        sys.exit(
            TERMINATED if isinstance(error, Terminated) or isinstance(error.__context__, Terminated) else INTERRUPTED
        )
    except SystemExit:
        if sys.stdout is stdout:
            raise
        sys.stdout, sys.stderr = stdout, stderr  # click puts others in their place when a pipe is broken
        discard(stdout)
        sys.exit(PIPE_BROKEN)
    except click.ClickException as error:
        fail(error.format_message())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        fail(f"cannot write: {error.strerror}")
    except DivlensError as error:
        fail(str(error))
    except Exception as error:
        from divlens.types import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        fail(f"out of memory: try a smaller --batch-size, or auto ({' '.join(str(error).split())[:200]})")


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
    """One harmless line on stderr, where that takes it."""
    try:
        put(f"divlens: {kind}: {shorten(visible(' '.join(message.split())))}\n", sys.stderr)
    except OSError:
        discard(sys.stderr)


def shorten(message: str) -> str:
    """What an argument of many thousand characters leaves of a message is its beginning and its end."""
    return message if len(message) <= LONGEST else f"{message[: LONGEST // 2]} ... {message[-LONGEST // 2 :]}"


def fail(message: str) -> NoReturn:
    """One line on stderr, exit code 2."""
    say("error", message)
    if is_full(sys.stdout):
        discard(sys.stdout)
    sys.exit(2)
