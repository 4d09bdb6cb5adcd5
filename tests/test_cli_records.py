"""What the command line leaves behind: the record of a run, whole results or none, one line where a disk is full."""

import errno
import io
import json
import os
import sys
from importlib import import_module

import pytest
import torch


def snapshot(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


RUNS = {
    "probe": ("probe", "toy/ar", "--limit", 2, "-n", 2),
    "enhance": ("enhance", "toy/ar", "red heart", "-n", 2),
    "information": ("information", "toy/ar", "--limit", 2, "-n", 2, "--under", "baseline", "--under", "paraphrase"),
    "decompose": ("decompose", "toy/ar", "--limit", 2, "--wordings", 2, "--executions", 2),
}
BEFORE_DRAWING = "divlens.run.steps"


@pytest.mark.parametrize("command", RUNS)
def test_a_run_leaves_a_record_and_goes_on_with_what_contains_it_only(command, run, tmp_path, monkeypatch):
    same = (*RUNS[command], "--batch-size", 7, "--seed", 3)
    assert run(*same, "--out", "out")[0] == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    about, found = record["requests"][command], record["found"][command]
    assert (about["command"], about["models"], about["seed"]) == (command, ["toy/ar:0"], 3)
    how = {"device": "cpu", "dtype": "float64", "batch_size": 7, "compiled": False}
    assert found["drawn_with"] == {"toy/ar:0": how} and about["setup"] == {"toy/ar:0": how | {"truncate": False}}
    paraphrases = 0 if command == "enhance" else 8  # a text of the command line, or the prompts that ship
    assert about["prompts"][0]["text"] == "red heart" and len(about["prompts"][0]["paraphrases"]) == paraphrases
    assert "none" in about["conditions"].values()
    assert set(found["wordings"]["toy/ar:0"]) == set(about["conditions"])
    for used in found["wordings"]["toy/ar:0"].values():
        assert set(used) == {prompt["text"] for prompt in about["prompts"]}
    (session,) = record["sessions"]
    assert {"divlens", "python", "torch", "numpy", "pandas"} <= set(session["versions"])
    assert (session["how"], session["started"][:2]) == ("finished", "20")
    assert session["samples_drawn"] > 0 and record["complete"] == [command]

    tables, samples = ({path: path.read_bytes() for path in folder.rglob("*.parquet")} for folder in folders(tmp_path))
    (tmp_path / "out" / "tables" / command / "table.csv").write_text("old")
    monkeypatch.setattr(BEFORE_DRAWING, lambda *arguments: pytest.fail("work was begun"))
    if command == "information":  # its bounds are computed again
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
    assert run(*same, "--out", "out")[0] == 0
    assert (tmp_path / "out" / "tables" / command / "table.csv").read_text() != "old"
    assert [{path: path.read_bytes() for path in folder.rglob("*.parquet")} for folder in folders(tmp_path)] == [
        tables,
        samples,
    ]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["sessions"][1]["samples_drawn"] == 0

    before = snapshot(tmp_path)
    monkeypatch.setattr(BEFORE_DRAWING, lambda *arguments: pytest.fail("work was begun"))
    code, out, err = run(*same, "--seed", 1, "--out", "out")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert f"holds `divlens {command}` asked for differently: seed was 3, now 1" in err
    assert snapshot(tmp_path) == before


def folders(tmp_path):
    return tmp_path / "out" / "tables", tmp_path / "out" / "samples"


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
    assert (code, err) == (141, "")  # a reader that leaves is no error
    monkeypatch.undo()
    assert json.loads((tmp_path / "out" / "run.json").read_text())["complete"] == [command]


def test_a_table_that_cannot_be_shown_is_told_after_the_results_are_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Stream(errno.ENOSPC))
    code, _, err = run(*RUNS["enhance"], "--out", "out")
    monkeypatch.undo()
    said = "cannot write the table to stdout: No space left on device; the results are in out"
    assert (code, err) == (2, f"divlens: error: {said}\n")
    assert (tmp_path / "out" / "tables" / "enhance" / "table.csv").exists()


def test_results_that_cannot_be_written_are_printed(run, monkeypatch):
    table = run(*RUNS["enhance"])[1]
    assert "LPIPS diversity" in table

    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(import_module("divlens.enhance"), "write_tables", full_disk)
    code, out, err = run(*RUNS["enhance"], "--out", "out")
    assert (code, out) == (2, table) and "No space left on device" in err


def test_a_full_device_is_told_in_one_line(run, monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore of it.")

    monkeypatch.setattr(BEFORE_DRAWING, full)
    code, out, err = run("probe", "toy/ar", "--limit", 2, "-n", 2)
    assert (code, out) == (2, "")
    assert err.startswith("divlens: error: out of memory: try a smaller --batch-size, or auto") and err.count("\n") == 1
