"""What the command line leaves behind: the record of a run, whole results or none, one line where a disk is full."""

import errno
import io
import os
import sys
from importlib import import_module

import pytest
import torch

from oracles.run_folders import files_in, record_of, samples_of, snapshot
from oracles.screen import but_for_the_note

pytestmark = pytest.mark.usefixtures("colours_for_lpips")

RUNS = {
    "probe": ("probe", "toy/ar", "--limit", 2, "-n", 2),
    "enhance": ("enhance", "toy/ar", "rocket", "-n", 2),
    "frontier": ("frontier", "toy/ar", "--limit", 4, "-n", 2, "--method", "top-p"),
    "information": ("information", "toy/ar", "--limit", 2, "-n", 2, "--under", "baseline", "--under", "paraphrase"),
    "decompose": ("decompose", "toy/ar", "--limit", 2, "--wordings", 2, "--executions", 2),
}
BEFORE_DRAWING = "divlens.run.steps"


@pytest.mark.parametrize("command", RUNS)
def test_a_run_leaves_a_record(command, run, tmp_path):
    assert run(*RUNS[command], "--batch-size", 7, "--seed", 3, "--out", "out")[0] == 0
    record = record_of(tmp_path / "out")
    assert list(record["requests"]) == list(record["found"]) == record["complete"] == [command]
    request, found, (session,) = record["requests"][command], record["found"][command], record["sessions"]
    assert (request["command"], request["models"], request["seed"]) == (command, ["toy/ar:0"], 3)
    how = {"device": "cpu", "dtype": "float64", "batch_size": 7, "compiled": False}
    assert found["drawn_with"] == {"toy/ar:0": how} and request["setup"] == {"toy/ar:0": how | {"truncate": False}}
    paraphrases = 0 if command == "enhance" else 9  # a text of the command line, or the prompts that ship
    assert request["prompts"][0]["text"] == "rocket" and len(request["prompts"][0]["paraphrases"]) == paraphrases
    assert "none" in request["conditions"].values()
    assert set(found["wordings"]["toy/ar:0"]) == set(request["conditions"])
    for used in found["wordings"]["toy/ar:0"].values():
        assert set(used) == {prompt["text"] for prompt in request["prompts"]}
    assert list(record["models"]) == ["toy/ar:0"] and record["models"]["toy/ar:0"]["content"]
    assert {"divlens", "python", "torch", "numpy", "pandas"} <= set(session["versions"])
    assert session["how"] == "finished" and session["started"][:2] == session["ended"][:2] == "20"


@pytest.mark.parametrize("command", RUNS)
def test_the_same_request_again_draws_nothing_and_writes_the_same_tables(command, run, tmp_path, monkeypatch):
    assert run(*RUNS[command], "--out", "out")[0] == 0
    before = files_in(tmp_path / "out")
    (tmp_path / "out" / "tables" / command / "table.csv").write_text("old")
    assert files_in(tmp_path / "out") != before  # the control
    monkeypatch.setattr(BEFORE_DRAWING, lambda *arguments: pytest.fail("something was drawn"))
    for otherwise in ((), ("--batch-size", 5)):  # how many are drawn at a time is no part of what is asked
        assert run(*RUNS[command], *otherwise, "--out", "out")[0] == 0
        assert files_in(tmp_path / "out") == before
    assert [session["samples_drawn"] > 0 for session in record_of(tmp_path / "out")["sessions"]] == [True, False, False]


OTHERWISE = {
    "probe": {
        ("--limit", 1): "prompts 'fox, blue background' no longer asked for",
        ("--subset", 0.7): "conditions 'subset' no longer",
        ("--lpips", "alex"): "lpips was 'stlpips', now 'alex'",
    },
    "enhance": {("--disable-top", 0.5): "conditions 'after' no longer"},
    "frontier": {("--lpips", "alex"): "lpips was 'stlpips', now 'alex'"},
    "information": {
        ("--reading", "trajectory"): "reading was 'schedule', now 'trajectory'",
        ("--paths", 2): "effort was ",
    },
    "decompose": {
        ("--length-control",): "length control was False, now True",
        ("--executions", 3): "levels 'toy/ar:0' no longer asked for, or otherwise",
    },
}
FEWER = {command: {("-n", 2): "n was 3, now 2"} for command in ("probe", "enhance", "frontier", "information")}


@pytest.mark.parametrize("command", RUNS)
def test_a_run_is_not_mixed_with_another(command, run, tmp_path, monkeypatch):
    more = ("-n", 3) if command in FEWER else ()
    assert run(*RUNS[command], *more, "--seed", 3, "--out", "out")[0] == 0
    before = snapshot(tmp_path)
    monkeypatch.setattr(BEFORE_DRAWING, lambda *arguments: pytest.fail("something was drawn"))
    refused = {("--seed", 1): "seed was 3, now 1"} | OTHERWISE[command] | FEWER.get(command, {})
    changed = []
    for other, said in refused.items():
        code, out, err = run(*RUNS[command], *more, "--seed", 3, *other, "--out", "out")
        assert (code, out) == (2, "") and err.count("\n") == 1
        assert f"out holds `divlens {command}` asked for differently: " in err and "name another folder" in err
        assert said in err
        changed += [other] if snapshot(tmp_path) != before else []
    assert changed == []


GROWN = {
    "probe": (("-n", 3), 5 * 2),  # under each of five conditions one more of each of two prompts
    "enhance": (("a cat",), 2 * 2),
    "frontier": (("--method", "subset"), 4 * 4 * 2),
    "information": (("-n", 5), 2 * 2 * 3),
    "decompose": (("--limit", 3), 2 * 2),  # toy/ar draws no path
}


@pytest.mark.parametrize("command", RUNS)
def test_a_run_grows(command, run, tmp_path):
    assert run(*RUNS[command], "--out", "out")[0] == 0
    first = samples_of(tmp_path / "out")
    more, drawn = GROWN[command]
    for folder in ("out", "at once"):
        assert run(*RUNS[command], *more, "--out", folder)[0] == 0
    whole, at_once = (samples_of(tmp_path / folder) for folder in ("out", "at once"))
    assert whole[: len(first)].equals(first) and len(whole) == len(first) + drawn == len(at_once)
    tables = [files_in(tmp_path / folder / "tables") for folder in ("out", "at once")]
    assert tables[0] == tables[1]
    assert record_of(tmp_path / "out")["sessions"][-1]["samples_drawn"] == drawn


def test_commands_share_a_folder(run, tmp_path):
    for command, arguments in RUNS.items():
        before = files_in(tmp_path / "out")
        assert run(*arguments, "--out", "out")[0] == 0
        assert before.items() <= files_in(tmp_path / "out").items()
        assert (tmp_path / "out" / "tables" / command / "table.csv").exists()
    assert list(record_of(tmp_path / "out")["requests"]) == list(RUNS)


class Stream(io.StringIO):
    """A stdout that takes nothing."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def write(self, text):
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("command", RUNS)
def test_results_are_written_before_they_are_shown(command, run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Stream(errno.EPIPE))
    code, _, err = run(*RUNS[command], "--out", "out")
    assert (code, but_for_the_note(err)) == (141, "")  # a reader that leaves is no error
    monkeypatch.undo()
    assert record_of(tmp_path / "out")["complete"] == [command]
    assert (tmp_path / "out" / "tables" / command / "table.csv").exists()


def test_a_table_that_cannot_be_shown_is_told_after_the_results_are_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Stream(errno.ENOSPC))
    code, _, err = run(*RUNS["enhance"], "--out", "out")
    monkeypatch.undo()
    said = "cannot write the table to stdout: No space left on device; the results are in out"
    assert (code, err) == (2, f"divlens: error: {said}\n")
    assert record_of(tmp_path / "out")["complete"] == ["enhance"]
    assert (tmp_path / "out" / "tables" / "enhance" / "table.csv").exists()


def test_results_that_cannot_be_written_are_printed(run, tmp_path, monkeypatch):
    table = run(*RUNS["enhance"])[1]
    assert "LPIPS diversity" in table

    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(import_module("divlens.enhance"), "write_tables", full_disk)
        code, out, err = run(*RUNS["enhance"], "--out", "out")
    assert (code, out, err) == (2, table, "divlens: error: cannot write to out: No space left on device\n")
    assert record_of(tmp_path / "out")["complete"] == [] and not (tmp_path / "out" / "tables").exists()
    assert run("resume", "out")[:2] == (0, f"{table}written: out\n")  # of samples that were stored
    assert record_of(tmp_path / "out")["sessions"][-1]["samples_drawn"] == 0


def test_a_full_device_is_told_in_one_line(run, monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore of it.")

    monkeypatch.setattr(BEFORE_DRAWING, full)
    code, out, err = run("probe", "toy/ar", "--limit", 2, "-n", 2)
    assert (code, out) == (2, "")
    err = but_for_the_note(err)
    assert err.startswith("divlens: error: out of memory: try a smaller --batch-size, or auto") and err.count("\n") == 1
