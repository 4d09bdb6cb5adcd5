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
    "enhance": ("enhance", "toy/ar", "rocket", "-n", 2),
    "information": ("information", "toy/ar", "--limit", 2, "-n", 2, "--under", "baseline", "--under", "paraphrase"),
    "decompose": ("decompose", "toy/ar", "--limit", 2, "--wordings", 2, "--executions", 2),
}
BEFORE_DRAWING = "divlens.run.steps"


@pytest.mark.parametrize("command", RUNS)
def test_a_run_leaves_a_record_and_only_the_same_run_may_replace_its_results(command, run, tmp_path, monkeypatch):
    same = (*RUNS[command], "--batch-size", 7, "--seed", 3)
    assert run(*same, "--out", "out")[0] == 0
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (about["command"], about["models"], about["seed"]) == (command, ["toy/ar:0"], 3)
    how = {"device": "cpu", "dtype": "float64", "batch_size": 7, "compiled": False}
    assert about["drawn_with"] == {"toy/ar:0": how} and about["setup"] == {"toy/ar:0": how | {"truncate": False}}
    paraphrases = 0 if command == "enhance" else 9  # a text of the command line, or the prompts that ship
    assert about["prompts"][0]["text"] == "rocket" and len(about["prompts"][0]["paraphrases"]) == paraphrases
    assert "none" in about["conditions"].values()
    assert set(about["wordings"]["toy/ar:0"]) == set(about["conditions"])
    for used in about["wordings"]["toy/ar:0"].values():
        assert set(used) == {prompt["text"] for prompt in about["prompts"]}
    assert {"divlens", "python", "torch", "numpy", "pandas"} <= set(about["versions"])
    assert about["drawn_with"]["toy/ar:0"]["batch_size"] == 7
    assert about["date"][:2] == "20"

    (tmp_path / "out" / "table.csv").write_text("old")
    assert run(*same, "--out", "out")[0] == 0
    assert (tmp_path / "out" / "table.csv").read_text() != "old"

    before = snapshot(tmp_path)
    monkeypatch.setattr(BEFORE_DRAWING, lambda *arguments: pytest.fail("work was begun"))
    others = [(*same, "--seed", 1), (*same, "--batch-size", 5)]
    others += [arguments for name, arguments in RUNS.items() if name != command]
    for arguments in others:
        code, out, err = run(*arguments, "--out", "out")
        assert (code, out) == (2, "") and err.count("\n") == 1
        assert f"holds those of `divlens {command}` of toy/ar:0, 20" in err and "name another folder" in err
    assert snapshot(tmp_path) == before


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
    assert (tmp_path / "out" / "run.json").exists() and (tmp_path / "out" / "table.csv").exists()


def test_a_table_that_cannot_be_shown_is_told_after_the_results_are_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Stream(errno.ENOSPC))
    code, _, err = run(*RUNS["enhance"], "--out", "out")
    monkeypatch.undo()
    said = "cannot write the table to stdout: No space left on device; the results are in out"
    assert (code, err) == (2, f"divlens: error: {said}\n")
    assert (tmp_path / "out" / "run.json").exists() and (tmp_path / "out" / "table.csv").exists()


def test_results_that_cannot_be_written_are_printed(run, monkeypatch):
    table = run(*RUNS["enhance"])[1]
    assert "LPIPS diversity" in table

    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(import_module("divlens.enhance"), "write_samples", full_disk)
    code, out, err = run(*RUNS["enhance"], "--out", "out")
    assert (code, out) == (2, table) and "No space left on device" in err


def test_a_full_device_is_told_in_one_line(run, monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore of it.")

    monkeypatch.setattr(BEFORE_DRAWING, full)
    code, out, err = run("probe", "toy/ar", "--limit", 2, "-n", 2)
    assert (code, out) == (2, "")
    assert err.startswith("divlens: error: out of memory: try a smaller --batch-size, or auto") and err.count("\n") == 1
