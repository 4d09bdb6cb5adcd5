"""What a user sees of a table: what `rich` prints on a screen of so many columns."""

import io
from typing import Any

from rich.console import Console


def printed(renderable: Any, width: int = 80) -> str:
    written = io.StringIO()
    Console(width=width, file=written).print(renderable)
    assert max(map(len, written.getvalue().splitlines())) <= width
    return written.getvalue()


def words_of(renderable: Any, width: int = 80) -> str:
    """In one line, wherever the screen broke it."""
    return " ".join(printed(renderable, width).split())


def but_for_the_note(err):
    """What is on stderr beside the line that prompts are too few for a verdict, as those of a test often are."""
    return "".join(line for line in err.splitlines(keepends=True) if not line.startswith("divlens: note: with "))
