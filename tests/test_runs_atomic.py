"""Runs that are killed with SIGKILL: what is finished in the end is what an undisturbed run leaves, byte for byte."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

DRIVER = Path(__file__).parent / "oracles" / "killed_runs.py"
BATCH = 2


@pytest.fixture
def in_memory(tmp_path):
    """A folder whose disk is quick, where there is one: what a killed process wrote is there on any."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


def killed(folder, *arguments):
    command = [sys.executable, str(DRIVER), str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def probe(model, prompts, n):
    return "--", model, "--limit", prompts, "-n", n, "--batch-size", str(BATCH), "--condition", "hot=Temperature(1.3)"


def test_a_run_of_a_toy_that_is_killed_at_thirty_moments_is_as_if_nothing_had_happened(in_memory):
    found = killed(in_memory, "--quick", "--control", "--kills", "30", *probe("toy/mim", "3", "8"))
    assert found["kills"] == 30 and found["other"] == []
    assert len(set(found["stored"])) >= 5  # they came at very different moments
    # Lost is at most the batch in flight, and sometimes it is.
    assert max(found["drawn again"]) <= BATCH
    # The control: another seed gives other samples, scores and tables.
    parts = {name.partition("/")[0] for name in found["other with another seed"]}
    assert parts == {"run.json", "samples", "scores", "tables"}


def test_a_run_of_a_toy_that_is_killed_before_each_of_its_changes_is_as_if_nothing_had_happened(in_memory):
    found = killed(in_memory, "--quick", "--at-changes", *probe("toy/mim", "1", "8"))
    assert found["other"] == []
    assert found["kills"] >= found["files"]  # each file is put in its place by a change
    assert set(found["stored"]) == set(range(9))
    assert 0 < max(found["drawn again"]) <= BATCH


def test_a_run_of_the_zoo_that_is_killed_is_as_if_nothing_had_happened(in_memory):
    found = killed(in_memory, "--kills", "3", *probe("zoo/ar", "1", "4"))
    assert found["kills"] == 3 and found["other"] == []
    assert max(found["drawn again"]) <= BATCH
