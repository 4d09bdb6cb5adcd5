"""What is wrong with what was asked for, and what is worth knowing of it: each is one line. Without torch, so that
whoever imports nothing else is quick."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TypeGuard


class DivlensError(Exception):
    """Bad input: one line that says what was expected and what came. The command line exits with code 2."""


class DivlensWarning(UserWarning):
    """What is worth knowing and changes no result: one line. The command line shows it on stderr."""


def shown(value: object) -> str:
    """A value as Python writes it, for a message; its kind where it has more digits than Python writes."""
    try:
        return repr(value)
    except ValueError:
        return f"one of type {type(value).__name__} with too many digits"


def is_whole(value: object) -> TypeGuard[int]:
    """Whether it is an integer of any kind, but True and False, which Python takes for 1 and 0."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite real number, but True and False."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # of an integer
        return False


def check_whole(name: str, value: object, least: int) -> None:
    if not is_whole(value) or value < least:
        raise DivlensError(f"{name} expects a whole number of at least {least}, got {shown(value)}")


def check_text(name: str, value: object) -> None:
    """Raises DivlensError for what is no text: another type, or half a surrogate pair, which no file can hold.

    Python makes such halves of bytes on the command line that are not UTF-8.
    """
    if not isinstance(value, str):
        raise DivlensError(f"{name} expects a text, got {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DivlensError(f"{name} expects Unicode text (UTF-8), got {value!r}") from None
