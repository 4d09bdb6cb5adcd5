"""How far a run is: told to whoever asks, and shown as a bar on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from divlens.errors import DivlensError
from divlens.showing import visible

OnBatch = Callable[[int], None]


@dataclass(frozen=True)
class Progress:
    """`advance`: how many more samples are done. `describe`: what comes next."""

    advance: OnBatch
    describe: Callable[[str], None]


@contextmanager
def followed(progress: bool | None, on_batch: OnBatch | None, total: int, what: str) -> Iterator[Progress]:
    """While `total` samples are drawn, `on_batch` is told of them, and where `progress` is true a bar on stderr shows
    them with the remaining time. On a terminal it is wiped when all is done; elsewhere its last state is written.

    Raises DivlensError for an `on_batch` that cannot be called, and for a `progress` that is not True, False or None.
    """
    if not (on_batch is None or callable(on_batch)):
        raise DivlensError(f"on_batch expects a function of the number of samples, or None, got {on_batch!r}")
    if not (progress is None or isinstance(progress, bool)):
        raise DivlensError(f"progress expects True, False or None, got {progress!r}")
    tell = on_batch or (lambda count: None)
    if not progress:
        yield Progress(tell, lambda text: None)
        return
    from rich import progress as bars
    from rich.console import Console

    console = Console(stderr=True)
    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console, transient=console.is_terminal) as bar:
        task = bar.add_task(visible(what), total=total)

        def advance(count: int) -> None:
            bar.advance(task, count)
            tell(count)

        yield Progress(advance, lambda text: bar.update(task, description=visible(text)))
