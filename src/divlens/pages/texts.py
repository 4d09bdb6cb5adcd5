"""Text of any origin where it goes into a page, a file name or a command: it shows as text and does nothing."""

from __future__ import annotations

import re
import shlex
from typing import Any

from divlens.showing import HARMFUL, visible

LONGEST_NAME = 60  # characters of a file's name
NO_NAME = "run"


def shown(value: Any) -> Any:
    """The same lists and mappings, in all of whose texts harmful characters are written as Python writes them."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(str(key)): shown(each) for key, each in value.items()}
    return [shown(each) for each in value] if isinstance(value, list | tuple) else value


def file_name(text: str) -> str:
    """A part of a file's name that every system takes: of letters, digits, dots, dashes and underscores."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")
    return plain[:LONGEST_NAME] or NO_NAME


def command_line(words: list[str]) -> str:
    """Words as a shell reads them, on one line that shows all that is in them."""
    return " ".join(map(shell_word, words))


def shell_word(word: str) -> str:
    r"""A word with harmful characters is written as bash, zsh and ksh read it: $'\x1b'."""
    if not HARMFUL.search(word):
        return shlex.quote(word)
    return "$'" + visible(word.replace("\\", "\\\\").replace("'", "\\'")) + "'"
