"""Runs that are stopped, two processes that write one run, and what a run holds in memory."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from divlens.errors import DivlensError
from divlens.store.folder import writing_run
from oracles.runs_in_folders import (
    PROBE,
    N,
    about,
    contents,
    files_of,
    how_it_ended,
    interrupted_after,
    process,
    refused,
    tokens_in,
)

pytestmark = pytest.mark.usefixtures("colours_for_lpips", "one_thread")

# --- stopped --------------------------------------------------------------------------------------------------------


def wait_for(reached, running):
    while not reached():
        assert running.poll() is None, running.communicate()
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_a_run_which_says_how_to_go_on(number, code, tmp_path):
    """Sent again and again while it stops, which does no harm."""
    folder = tmp_path / "a run"
    running = process("-m", "divlens", *PROBE, "-n", "3000", "--out", folder)
    wait_for(lambda: len(files_of(folder)) > 2, running)
    while running.poll() is None:
        running.send_signal(number)
        time.sleep(0.005)
    out, err = running.communicate()
    assert (running.returncode, out) == (code, "")
    (line,) = err.split("\n\n")[0].splitlines()
    assert line.endswith(f"To go on: divlens resume '{folder}'")
    assert how_it_ended(folder) == ["stopped"]
    assert about(folder)["sessions"][0]["samples_drawn"] in (len(tokens_in(folder)), len(tokens_in(folder)) - 2)


def test_stopped_in_the_middle_a_run_goes_on(run, tmp_path, monkeypatch, counted):
    run(*PROBE, *N, "--out", "whole")
    before = len(counted)
    with interrupted_after(5, monkeypatch):
        assert run(*PROBE, *N, "--out", "stopped")[0] == 130
    assert how_it_ended("stopped") == ["stopped"] and about("stopped")["complete"] == []
    assert about("stopped")["sessions"][0]["samples_drawn"] == 2 * 5
    assert run("resume", "stopped")[0] == 0
    assert how_it_ended("stopped") == ["stopped", "finished"]
    assert contents(Path("stopped")) == contents(Path("whole")) and sum(counted[before:]) == 32
    code, out, _ = run("resume", "stopped")
    assert code == 0 and out.startswith("complete") and sum(counted[before:]) == 32


def test_a_run_that_is_stopped_before_anything_is_asked_says_nothing_of_going_on(run, monkeypatch):
    monkeypatch.setattr("divlens.store.folder.fingerprint_of", lambda model: (_ for _ in ()).throw(KeyboardInterrupt))
    code, _, err = run(*PROBE, *N, "--out", "run")
    assert code == 130 and "resume" not in err


# --- two processes --------------------------------------------------------------------------------------------------

HOLDER = """
import os, sys, time
from divlens.store.lock import only_writer
from divlens.store.place import Place
with only_writer(Place(sys.argv[1])):
    if "fork" in sys.argv and not os.fork():
        print(os.getpid(), flush=True)
        time.sleep(600)
    if "fork" not in sys.argv:
        print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def held(folder, *arguments):
    with process("-c", HOLDER, folder, *arguments) as holder:
        try:
            assert holder.stdout is not None
            yield holder, holder.stdout.readline().strip()
        finally:
            holder.kill()


def test_a_second_process_is_refused_and_a_dead_one_holds_nothing(run):
    with held("run") as (holder, said):
        assert said == "held"
        since = json.loads(Path("run/.holder.json").read_text())["since"]
        refused(run(*PROBE, *N, "--out", "run"), f"process {holder.pid}", os.uname().nodename, since)
        assert not Path("run/run.json").exists()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert run(*PROBE, *N, "--out", "run")[0] == 0


def test_a_child_of_a_process_that_was_killed_holds_nothing(run):
    with held("run", "fork") as (holder, child):
        refused(run(*PROBE, *N, "--out", "run"), f"process {holder.pid}")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        try:
            os.kill(int(child), 0)  # it is there
            assert run(*PROBE, *N, "--out", "run")[0] == 0
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_one_process_does_not_write_a_run_twice_at_once(tmp_path):
    with (
        writing_run(tmp_path / "run"),
        pytest.raises(DivlensError, match=f"is being written by process {os.getpid()}"),
        writing_run(tmp_path / "run"),
    ):
        pass
    with writing_run(tmp_path / "run"):  # the control
        pass


# --- memory ---------------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_prompts():
    """`benchmarks/run_memory.py`, which fails by itself, with few samples."""
    script = Path(__file__).parent.parent / "benchmarks" / "run_memory.py"
    arguments = ("--prompts", "4", "--samples", "512", "--times", "10")
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    few, many = (int(line.split()[0]) for line in done.stdout.splitlines()[1:3])
    assert (few, many) == (4, 40)
