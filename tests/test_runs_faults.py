"""What can go wrong with the folder of a run: each is one line, and what was stored stays."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

import divlens
from divlens.errors import DivlensError
from divlens.models.toy import ToyModel
from divlens.store import record, shards
from divlens.store.folder import RunFolder, writing_run
from divlens.store.place import Place
from divlens.store.shards import Shards
from oracles.killed_runs import contents
from oracles.small_disk import small_disk

pytestmark = pytest.mark.usefixtures("colours_for_lpips", "one_thread")

PROMPTS = ("red heart", "a cat", "snow")
PROBE = ("probe", "toy/mim", "--limit", "2", "--batch-size", "2", "--condition", "hot=Temperature(1.3)")
N = ("-n", "8")


def refused(answer, *words):
    """The exit code is 2, and one line holds the words."""
    code, out, err = answer
    assert (code, out) == (2, "")
    assert err.startswith("divlens: error: ") and err.count("\n") == 1
    for word in words:
        assert str(word) in err


def about(folder) -> dict:
    return json.loads((Path(folder) / "run.json").read_text())


def how_it_ended(folder) -> list[str]:
    return [session["how"] for session in about(folder)["sessions"]]


def files_of(folder, table="samples") -> list[Path]:
    return sorted((Path(folder) / table).glob("*.parquet"))


def tokens_in(folder) -> dict[int, list[int]]:
    tables = [pq.read_table(file, columns=["cell", "tokens"]).to_pydict() for file in files_of(folder)]
    pairs = [pair for table in tables for pair in zip(table["cell"], table["tokens"], strict=True)]
    assert len(dict(pairs)) == len(pairs)  # no sample is there twice
    return dict(pairs)


def tables_in(folder) -> dict[str, bytes]:
    return {name: content for name, content in contents(Path(folder)).items() if name.startswith("tables/")}


def snapshot(folder) -> dict[str, bytes]:
    """All files but that of the lock, and who held it last."""
    files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
    return {str(path): path.read_bytes() for path in files if path.name not in (".lock", ".holder.json")}


@pytest.fixture
def counted(monkeypatch):
    """The samples that were drawn for folders, batch by batch, as numbers of rows."""
    from divlens.store import draw

    drawn, fill = [], draw.fill

    def counting(run):
        for batch in fill(run):
            drawn.append(len(batch.rows))
            yield batch

    monkeypatch.setattr(draw, "fill", counting)
    return drawn


# --- stopped --------------------------------------------------------------------------------------------------------


def process(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


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


@contextmanager
def interrupted_after(batches, monkeypatch):
    """While the block runs, Ctrl-C comes as soon as so many batches are stored."""
    add, stored = RunFolder.add, []

    def interrupted(*arguments):
        add(*arguments)
        stored.append("")
        if len(stored) == batches:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "add", interrupted)
        yield


def test_a_run_that_is_stopped_before_anything_is_asked_says_nothing_of_going_on(run, monkeypatch):
    monkeypatch.setattr("divlens.store.folder.fingerprint_of", lambda model: (_ for _ in ()).throw(KeyboardInterrupt))
    code, _, err = run(*PROBE, *N, "--out", "run")
    assert code == 130 and "resume" not in err


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


# --- asked for otherwise --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--seed", "1"), ("seed was 0, now 1",)),
        (("--lpips", "alex"), ("lpips was 'stlpips', now 'alex'",)),
        (("-n", "3"), ("n was 8, now 3",)),
        (("--limit", "1"), ("prompts", "cat face", "no longer asked for")),
        (("-n", "3", "--lpips", "alex"), ("n was 8, now 3", "lpips was")),
    ],
)
def test_a_request_asked_for_differently_names_the_fields_and_changes_nothing(arguments, words, run):
    run(*PROBE, *N, "--out", "run")
    before = snapshot("run")
    refused(run(*PROBE, *N, *arguments, "--out", "run"), "asked for differently", *words)
    assert snapshot("run") == before


def test_a_condition_that_is_another_is_named_and_changes_nothing(run):
    run(*PROBE, *N, "--out", "run")
    before = snapshot("run")
    refused(run(*PROBE[:-1], "hot=Temperature(2.0)", *N, "--out", "run"), "asked for differently", "conditions 'hot'")
    assert snapshot("run") == before


def test_another_model_in_its_place_is_named_and_changes_nothing(run):
    run(*PROBE, *N, "--out", "run")
    before = snapshot("run")
    refused(run("probe", "toy/ar", *PROBE[2:], *N, "--out", "run"), "models 'toy/mim:0' no longer asked for")
    assert snapshot("run") == before


def test_a_model_of_another_content_under_the_same_name_is_refused(tmp_path):
    from dataclasses import replace

    from oracles.toy_grids import toy

    arguments = {"n": 2, "conditions": {"baseline": ()}, "out": tmp_path / "run"}
    divlens.probe(toy("mim"), PROMPTS, **arguments)
    before = snapshot(tmp_path)
    other = replace(toy("mim"), guidance=2.0)
    with pytest.raises(DivlensError, match=r"holds samples of toy/mim:0 with the content .* weights or settings"):
        divlens.probe(other, PROMPTS, **arguments)
    assert snapshot(tmp_path) == before
    divlens.probe(replace(toy("mim")), PROMPTS, **arguments)  # the control


def test_another_precision_is_named(tmp_path, monkeypatch):
    from oracles.toy_grids import toy

    arguments = {"n": 2, "conditions": {"baseline": ()}, "out": tmp_path / "run"}
    divlens.probe(toy("mim"), PROMPTS, **arguments)
    monkeypatch.setattr(ToyModel, "dtype", "float32", raising=False)
    with pytest.raises(DivlensError, match="dtype of toy/mim:0 was 'float64', now 'float32'"):
        divlens.probe(toy("mim"), PROMPTS, **arguments)


# --- more of it -----------------------------------------------------------------------------------------------------

FIRST = {"models": ["toy/mim"], "prompts": PROMPTS[:2], "n": 4, "conditions": {"baseline": ()}}
MORE = {
    "nothing": ({}, 0),
    "samples": ({"n": 7}, 2 * 3),
    "prompts": ({"prompts": PROMPTS}, 4),
    "prompts in another order": ({"prompts": PROMPTS[::-1]}, 4),
    "conditions": ({"conditions": {"baseline": (), "hot": divlens.Temperature(1.3)}}, 2 * 4),
    "models": ({"models": ["toy/ar", "toy/mim"]}, 2 * 4),
    "batches": ({"batch_size": 3}, 0),
    "all": (
        {
            "models": ["toy/ar", "toy/mim"],
            "prompts": PROMPTS,
            "n": 5,
            "conditions": {"baseline": (), "hot": divlens.Temperature(1.3)},
        },
        2 * 2 * 3 * 5 - 2 * 4,
    ),
}


@pytest.mark.parametrize("what", MORE)
@pytest.mark.parametrize("folded", [2, 64])
def test_of_more_only_what_is_missing_is_drawn(what, folded, tmp_path, counted, monkeypatch):
    monkeypatch.setattr(shards, "FOLDED", folded)
    more, missing = MORE[what]
    divlens.probe(**FIRST, batch_size=2, out=tmp_path / "run")
    first = tokens_in(tmp_path / "run")
    assert sum(counted) == len(first) == 8
    request = {**FIRST, "batch_size": 2, **more}
    result = divlens.probe(**request, out=tmp_path / "run")
    assert sum(counted) == 8 + missing
    stored = tokens_in(tmp_path / "run")
    assert first.items() <= stored.items() and len(stored) == 8 + missing
    alone = divlens.probe(**request)
    pd.testing.assert_frame_equal(result.table, alone.table)
    pd.testing.assert_frame_equal(result.per_prompt, alone.per_prompt)
    assert [one.tokens for one in result.samples] == [one.tokens for one in alone.samples]
    assert not (missing and first.items() == stored.items())  # the control


# --- memory ---------------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_prompts():
    """`benchmarks/run_memory.py`, which fails by itself, with few samples."""
    script = Path(__file__).parent.parent / "benchmarks" / "run_memory.py"
    arguments = ("--prompts", "4", "--samples", "512", "--times", "10")
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    few, many = (int(line.split()[0]) for line in done.stdout.splitlines()[1:3])
    assert (few, many) == (4, 40)
