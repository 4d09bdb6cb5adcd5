"""Failures of other packages as one line: what a network, a tokenizer or a factory raises becomes a `DivlensError`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from divlens.errors import DivlensError
from divlens.types import is_out_of_memory

Method = TypeVar("Method", bound=Callable[..., Any])
PANIC = "PanicException"  # what a package written in Rust raises where it should not have come; it is no Exception
LONGEST = 200  # characters of another package's message


def reason_of(error: BaseException) -> str:
    """The kind of an error and the beginning of what it says, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST]}"


@contextmanager
def one_line(expectation: str) -> Iterator[None]:
    """Any failure inside is a DivlensError: `expectation`, then what came; the failure itself is its cause.

    What is a DivlensError already passes, and so does a device that is out of memory, for which a smaller batch helps.
    """
    try:
        yield
    except DivlensError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != PANIC:
            raise  # a key that interrupts, an exit
        if is_out_of_memory(error):
            raise
        raise DivlensError(f"{expectation}, got {reason_of(error)}") from error


def reported(part: str) -> Callable[[Method], Method]:
    """For a method of a record that has a `name`: a failure of it is one line that says which `part` of which model.

    A configuration may fit the weights and still ask for what cannot be computed; that shows when it is computed.
    """

    def decorated(method: Method) -> Method:
        @functools.wraps(method)
        def call(self: Any, *arguments: Any, **named: Any) -> Any:
            with one_line(f"{self.name} expects a {part} that works as it is configured"):
                return method(self, *arguments, **named)

        return call  # type: ignore[return-value]

    return decorated
