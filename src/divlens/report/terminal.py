"""What goes to the screen: text of any origin made harmless, and streams that are closed or full. Loads no torch."""

from __future__ import annotations

import io
import os
import sys
from typing import IO, Any

from divlens.showing import visible


def put(text: str, stream: IO[str] | None = None) -> None:
    """Write to stdout, or `stream`, at once; a character that its encoding lacks is escaped.

    Raises OSError when the stream does not take it; one that was closed from the start takes nothing.
    """
    stream = stream or sys.stdout
    if stream is not None:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()


def show(renderable: Any, width: int = 80) -> None:
    """Print with rich, harmful characters escaped; `width` columns wide where the output is no terminal."""
    from rich.console import Console

    # Written by us, not by rich, which takes a broken pipe for the end of the process.
    written = io.StringIO()
    width_of_terminal = None if sys.stdout and sys.stdout.isatty() else width
    console = Console(file=written, width=width_of_terminal, force_terminal=Console().is_terminal)
    console.print(escaped(renderable))
    put(written.getvalue())


def escaped(renderable: Any) -> Any:
    """The same for rich, with the harmful characters of its text escaped when it is rendered."""
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.segment import Segment

    class Escaped:
        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            for text, style, control in console.render(renderable, options):
                lines = text if control else "\n".join(map(visible, text.split("\n")))
                yield Segment(lines, style, control)

    return Escaped()


def is_full(stream: IO[str] | None) -> bool:
    """Whether the stream holds text that it cannot get rid of: its disk is full, or nobody reads."""
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):
        return True
    return False


def discard(stream: IO[str] | None) -> None:
    """Send what the stream still holds, and all that follows, nowhere: Python would complain of it at the end."""
    try:
        if stream is not None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    except (OSError, ValueError):
        pass  # it is no file
