"""What can go wrong with the folder of a run: each is one line, and what was stored stays."""

import json
import os
import resource
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import divlens
from divlens.errors import DivlensError
from divlens.store import record, shards
from divlens.store.place import Place
from divlens.store.shards import Shards
from oracles.runs_in_folders import (
    PROBE,
    N,
    about,
    contents,
    files_of,
    how_it_ended,
    interrupted_after,
    refused,
    snapshot,
    tables_in,
    tokens_in,
)
from oracles.small_disk import small_disk

pytestmark = pytest.mark.usefixtures("colours_for_lpips", "one_thread")

PROMPTS = ("red heart", "a cat", "snow")


# --- disks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mounted", [True, False])
def test_a_full_disk_keeps_what_was_stored_and_with_room_the_run_goes_on(mounted, run, tmp_path):
    n = ("-n", "40")
    run(*PROBE, *n, "--out", "whole")
    with small_disk(tmp_path / "disk", 240, mounted=mounted) as disk:
        folder = disk.path / "run"
        refused(run(*PROBE, *n, "--out", folder), "cannot write to", "No space left on device")
        there, whole = tokens_in(folder), tokens_in("whole")
        assert 0 < len(there) < len(whole) and there.items() < whole.items()
        assert Shards(Place(folder), "samples").damaged() == []
        assert not list(folder.rglob(".divlens-*"))  # nothing is left half-written
        refused(run("resume", folder), "No space left on device")
        disk.grow()
        assert run("resume", folder)[0] == 0
        assert tokens_in(folder) == whole and tables_in(folder) == tables_in("whole")


def test_a_file_that_the_system_lets_grow_no_further_is_no_harm(run):
    """As a quota: each file of a process has a size at most."""
    probe = ("probe", "toy/mim", "--limit", "1", "-n", "2000", "--batch-size", "2000", "--condition", "few=TopK(2)")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, limits[1]))
    try:
        answer = run(*probe, "--out", "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    refused(answer, "cannot write to run", "File too large")
    assert files_of("run") == [] and how_it_ended("run") == ["failed"]
    assert run("resume", "run")[0] == 0 and len(tokens_in("run")) == 4000


@pytest.mark.parametrize("mounted", [True, False])
def test_a_folder_that_becomes_read_only(mounted, run, tmp_path):
    run(*PROBE, *N, "--out", "whole")
    with small_disk(tmp_path / "disk", 10_000, mounted=mounted) as disk:
        folder, closing = disk.path / "run", []

        def close(count):
            if len(files_of(folder)) == 3 and not closing:
                closing.append(disk.read_only(folder / "samples"))
                closing[0].__enter__()

        arguments = {"n": 8, "batch_size": 2, "conditions": {"baseline": (), "hot": divlens.Temperature(1.3)}}
        with pytest.raises(DivlensError, match=r"cannot write to .*Read-only file system"):
            divlens.probe("toy/mim", PROMPTS, out=folder, on_batch=close, **arguments)
        assert len(files_of(folder)) == 3 and how_it_ended(folder) == ["failed"]
        closing[0].__exit__(None, None, None)
        with disk.read_only(folder):
            before = snapshot(folder)
            refused(run("resume", folder), "Read-only file system")
            assert snapshot(folder) == before
        assert run("resume", folder)[0] == 0
        with disk.read_only(folder):  # what is complete can be read
            code, out, _ = run("resume", folder)
            assert code == 0 and out.startswith("complete")


# --- damaged files --------------------------------------------------------------------------------------------------


def cut(file):
    file.write_bytes(file.read_bytes()[:-100])


def alter(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(file):
    file.write_bytes(b"")


@pytest.mark.parametrize("table", ["samples", "scores/prompts", "scores/samples"])
@pytest.mark.parametrize("damage", [cut, alter, empty, Path.unlink])
@pytest.mark.parametrize("which", [0, -1])
def test_a_damaged_file_is_named_and_drawn_again_only_when_that_is_asked_for(table, damage, which, run, counted):
    run(*PROBE, "-n", "4", "--out", "run")
    whole, tables, file = tokens_in("run"), tables_in("run"), files_of("run", table)[which]
    lost = len(pq.read_table(file)) if table == "samples" else 0
    damage(file)
    name = f"{table}/{file.name[:6]}"
    for command in (("resume", "run"), (*PROBE, "-n", "4", "--out", "run")):
        before = snapshot("run")
        refused(run(*command), name, "--repair")
        assert snapshot("run") == before
    counted.clear()
    assert run("resume", "run", "--repair")[0] == 0
    assert sum(counted) == lost and tokens_in("run") == whole and tables_in("run") == tables
    assert run("resume", "run")[0] == 0


def test_several_damaged_files_of_folded_ones_are_drawn_again(run, monkeypatch, counted):
    monkeypatch.setattr(shards, "FOLDED", 3)
    run(*PROBE, *N, "--out", "run")
    whole, files = tokens_in("run"), files_of("run")
    assert any(file.name[:6] != file.name[7:13] for file in files)
    for file in files[:3]:
        cut(file)
    lost = len(whole) - sum(len(pq.read_table(file)) for file in files[3:])
    refused(run("resume", "run"), files[0].name, files[1].name, files[2].name)
    counted.clear()
    assert run("resume", "run", "--repair")[0] == 0
    assert 0 < sum(counted) == lost and tokens_in("run") == whole


def test_a_file_whose_name_was_changed_is_noticed(run):
    run(*PROBE, *N, "--out", "run")
    file = files_of("run")[1]
    file.rename(file.with_name("000001-000001-0123456789abcdef.parquet"))
    refused(run("resume", "run"), "000001-000001-0123456789abcdef", "not what was written")


# --- what stands there ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-1, 1000])
def test_a_clock_that_jumps_breaks_nothing(hours, run, monkeypatch):
    """At every look it is another hour."""
    run(*PROBE, *N, "--out", "whole")
    looks = []

    def jumping():
        looks.append("")
        return 1e9 + 3600 * hours * len(looks)

    class Jumping(record.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(jumping(), tz)

    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(record, "datetime", Jumping)
    with interrupted_after(5, monkeypatch):
        assert run(*PROBE, *N, "--out", "run")[0] == 130
    assert run("resume", "run")[0] == 0
    assert contents(Path("run")) == contents(Path("whole"))
    sessions = about("run")["sessions"]
    assert [session["how"] for session in sessions] == ["stopped", "finished"]
    assert all(0 <= session["seconds"] < 600 and session["samples_per_second"] > 0 for session in sessions)
    assert all((session["started"] > session["ended"]) == (hours < 0) for session in sessions)  # it did jump


def newer(text):
    return json.dumps(json.loads(text) | {"format": record.FORMAT + 1})


def without(name):
    return lambda text: json.dumps({key: value for key, value in json.loads(text).items() if key != name})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (newer, "was written by a newer divlens: format 2, this one reads 1"),
        (lambda text: text[: len(text) // 2], "is not the record of a run"),
        (lambda text: "", "is not the record of a run"),
        (lambda text: "[1, 2]", "is not the record of a run"),
        (lambda text: "{}", "is not the record of a run"),
        (lambda text: "\udcff", "is not the record of a run"),
        (lambda text: json.dumps({"written by": "divlens", "format": 3}), "holds results of divlens but no run"),
        (without("requests"), "requests is missing"),
        (without("stored"), "stored is missing"),
    ],
)
def test_a_record_that_is_another_is_refused(change, words, run):
    run(*PROBE, *N, "--out", "run")
    path = Path("run/run.json")
    path.write_bytes(change(path.read_text()).encode("utf-8", "surrogateescape"))
    before = snapshot("run")
    for command in (("resume", "run"), ("resume", "run", "--repair"), (*PROBE, *N, "--out", "run")):
        refused(run(*command), words)
    assert snapshot("run") == before


def test_what_is_no_run_is_refused(run, tmp_path):
    Path("empty").mkdir()
    Path("photos").mkdir()
    Path("photos/cat.png").write_text("")
    Path("file").write_text("")
    Path("odd/run.json").mkdir(parents=True)
    refused(run("resume", "empty"), "empty")
    refused(run("resume", "nowhere"), "nowhere")
    for name in ("photos", "file", "odd"):
        before = snapshot(".")
        for command in (("resume", name), (*PROBE, *N, "--out", name)):
            refused(run(*command), name)
        assert snapshot(".") == before
    assert not Path("nowhere").exists() and os.listdir("empty") == []
    assert run(*PROBE, *N, "--out", "empty")[0] == 0  # the control
