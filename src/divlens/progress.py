"""How far a run is: told to whoever asks, shown as a bar on a terminal, as lines in a log, and as JSON in a file."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any, Protocol, runtime_checkable

from divlens.errors import DivlensError
from divlens.showing import visible

OnBatch = Callable[[int], None]
EVERY = 60.0  # seconds between two lines of a log
RECENT = 30.0  # seconds whose rate is shown


@dataclass(frozen=True)
class State:
    """`done` of `total` samples are there after `seconds`, lately `rate` a second; `what` says which."""

    what: str
    done: int
    total: int
    seconds: float = 0.0
    rate: float = 0.0

    @property
    def left(self) -> float | None:
        """Seconds until the end at this rate, None while there is none."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None


@runtime_checkable
class Reporter(Protocol):
    """Shows how far a run is. It is told at the begin, after every batch, and at the end."""

    def begin(self, state: State) -> None: ...

    def update(self, state: State) -> None: ...

    def end(self, state: State) -> None: ...


ShowProgress = bool | Reporter | None


@dataclass(frozen=True)
class Progress:
    """`advance`: how many more samples are there. `describe`: what comes next."""

    advance: OnBatch
    describe: Callable[[str], None]


@contextmanager
def followed(progress: ShowProgress, on_batch: OnBatch | None, total: int, what: str) -> Iterator[Progress]:
    """While `total` samples are drawn, `on_batch` is told of them, and a reporter shows them.

    `progress`: a reporter, or True for the usual one on stderr, which is a bar on a terminal, wiped when all is done,
    and elsewhere a line a minute.

    Raises DivlensError for an `on_batch` that cannot be called, and for a `progress` that is not True, False, None or a
    reporter.
    """
    if not (on_batch is None or callable(on_batch)):
        raise DivlensError(f"on_batch expects a function of the number of samples, or None, got {on_batch!r}")
    if not (progress is None or isinstance(progress, bool | Reporter)):
        raise DivlensError(f"progress expects True, False, None or a reporter, got {progress!r}")
    tell = on_batch or (lambda count: None)
    reporter: Reporter = Several(()) if not progress else usual_reporter(True) if progress is True else progress
    start, state = time.monotonic(), State(what, 0, total)
    recent = deque([(0.0, 0)])  # how many samples there were when: the rate is that of the last seconds
    reporter.begin(state)

    def told(done: int, text: str) -> None:
        nonlocal state
        seconds = time.monotonic() - start
        recent.append((seconds, done))
        while len(recent) > 2 and seconds - recent[0][0] > RECENT:
            recent.popleft()
        then, before = recent[0]
        passed = seconds - then
        state = State(text, done, total, seconds, (done - before) / passed if passed > 0 else 0.0)
        reporter.update(state)

    def advance(count: int) -> None:
        told(state.done + count, state.what)
        tell(count)

    try:
        yield Progress(advance, lambda text: told(state.done, text))
    finally:
        reporter.end(state)


def usual_reporter(always: bool = False) -> Reporter:
    """For stderr, as it is; `always`: see `Lines`."""
    from rich.console import Console

    console = Console(stderr=True)
    return Bar(console) if console.is_terminal or console.is_jupyter else Lines(sys.stderr, always=always)


class Bar:
    """A bar that is wiped when all is done."""

    def __init__(self, console: Any) -> None:
        from rich import progress as bars

        self.bars = bars.Progress(
            bars.TextColumn("{task.description}", markup=False),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[rate]}", markup=False),
            bars.TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    def begin(self, state: State) -> None:
        self.bars.start()
        self.task = self.bars.add_task(visible(state.what), total=state.total, rate="")

    def update(self, state: State) -> None:
        self.bars.update(self.task, description=visible(state.what), completed=state.done, rate=rate_text(state))

    def end(self, state: State) -> None:
        self.bars.stop()
        self.bars.remove_task(self.task)


class Lines:
    """A line a minute, and where there was one, another at the end; plain text, for a file or the log of a machine.

    `always`: a line at the end of a short run, too.
    """

    def __init__(self, stream: IO[str], every: float = EVERY, always: bool = False) -> None:
        self.stream, self.every, self.last, self.ending = stream, every, 0.0, always

    def begin(self, state: State) -> None:
        self.last = time.monotonic()

    def update(self, state: State) -> None:
        if time.monotonic() - self.last >= self.every:
            self.write(state)

    def end(self, state: State) -> None:
        if self.ending:
            self.write(state)

    def write(self, state: State) -> None:
        self.last, self.ending = time.monotonic(), True
        left = "" if state.left is None or state.done >= state.total else f", {duration(state.left)} left"
        text = f"{visible(state.what)}: {state.done:,} of {state.total:,} samples, {rate_text(state)}{left}\n"
        with suppress(OSError):
            self.stream.write(text)
            self.stream.flush()


class JsonLines:
    """One JSON object a line for every batch."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    def write(self, event: str, state: State) -> None:
        now = datetime.now().astimezone().isoformat(" ", "milliseconds")
        found = {"time": now, "event": event, "what": state.what, "done": state.done, "total": state.total}
        left = None if state.left is None else round(state.left, 1)
        rates = {"seconds": round(state.seconds, 3), "samples_per_second": round(state.rate, 2), "seconds_left": left}
        self.stream.write(json.dumps(found | rates) + "\n")
        self.stream.flush()

    def begin(self, state: State) -> None:
        self.write("begin", state)

    def update(self, state: State) -> None:
        self.write("progress", state)

    def end(self, state: State) -> None:
        self.write("end", state)


@dataclass(frozen=True)
class Several:
    """All of these reporters."""

    reporters: Sequence[Reporter]

    def begin(self, state: State) -> None:
        for reporter in self.reporters:
            reporter.begin(state)

    def update(self, state: State) -> None:
        for reporter in self.reporters:
            reporter.update(state)

    def end(self, state: State) -> None:
        for reporter in self.reporters:
            reporter.end(state)


def rate_text(state: State) -> str:
    return f"{state.rate:.3g} samples/s" if state.rate < 100 else f"{state.rate:,.0f} samples/s"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
