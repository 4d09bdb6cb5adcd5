"""How far a run is: the bar on a terminal, the lines of a log, JSON in a file."""

import io
import json
import re

import pytest
from rich.console import Console

from divlens import probe
from divlens import progress as progresses
from divlens.errors import DivlensError
from divlens.progress import Bar, JsonLines, Lines, Several, State, duration, followed


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progresses.time, "monotonic", clock.monotonic)
    return clock


def test_the_rate_is_that_of_the_last_half_minute(clock):
    seen = io.StringIO()
    with followed(JsonLines(seen), None, 1000, "zoo/ar") as told:
        told.advance(500)  # what was stored is found at once
        for _ in range(40):
            clock.now += 1
            told.advance(2)
    last = json.loads(seen.getvalue().splitlines()[-2])
    assert (last["done"], last["total"], last["seconds"]) == (580, 1000, 40.0)
    assert last["samples_per_second"] == 2.0
    assert last["seconds_left"] == 210.0


def test_every_batch_is_an_object_a_line_and_the_end_is_told_after_an_error(clock):
    seen = io.StringIO()
    with pytest.raises(ZeroDivisionError), followed(JsonLines(seen), None, 4, "toy") as told:
        told.advance(2)
        told.describe("toy argmax")
        raise ZeroDivisionError
    found = [json.loads(line) for line in seen.getvalue().splitlines()]
    assert [each["event"] for each in found] == ["begin", "progress", "progress", "end"]
    assert found[-1]["done"] == 2 and found[-1]["what"] == "toy argmax"


def test_a_log_gets_a_line_a_minute_without_control_characters(clock):
    seen = io.StringIO()
    with followed(Lines(seen), None, 1000, "zoo/ar\x1b[31m") as told:
        for _ in range(150):
            clock.now += 1
            told.advance(4)
    lines = seen.getvalue().splitlines()
    assert len(lines) == 3  # after 60 and 120 seconds, and at the end
    assert lines[0] == "zoo/ar\\x1b[31m: 240 of 1,000 samples, 4 samples/s, 0:03:10 left"
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", seen.getvalue())


def test_a_short_run_leaves_no_line_in_a_log(clock):
    seen = io.StringIO()
    with followed(Lines(seen), None, 10, "toy") as told:
        told.advance(10)
    assert seen.getvalue() == ""


def test_the_bar_shows_samples_a_second_and_is_wiped(clock):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    bar = Bar(console)
    bar.begin(State("zoo/ar", 0, 100))
    bar.update(State("zoo/ar", 50, 100, 10.0, 5.0))
    shown = "".join(segment.text for line in console.render_lines(bar.bars) for segment in line)
    assert "50/100" in shown and "5 samples/s" in shown
    bar.end(State("zoo/ar", 100, 100, 20.0, 5.0))
    assert not bar.bars.tasks


def test_several_reporters_are_told_alike():
    one, other = io.StringIO(), io.StringIO()
    probe("toy/ar", ["a cat"], n=2, progress=Several([JsonLines(one), JsonLines(other)]))
    events = [[json.loads(line)["done"] for line in text.getvalue().splitlines()] for text in (one, other)]
    assert events[0] == events[1] and events[0][-1] == 10


def test_what_is_no_reporter_is_refused():
    with pytest.raises(DivlensError, match="progress expects True, False, None or a reporter, got 'yes'"):
        probe("toy/ar", ["a cat"], n=2, progress="yes")  # pyright: ignore[reportArgumentType]


def test_durations_are_hours_minutes_and_seconds():
    assert [duration(seconds) for seconds in (0, 59.6, 3599, 7322)] == ["0:00:00", "0:01:00", "0:59:59", "2:02:02"]
