"""Results on disk: whole or not at all, never over somebody else's files, nothing lost."""

import json
import math
import tempfile

import pandas as pd
import pyarrow.parquet as pq
import pytest

from divlens.experiment import store
from divlens.experiment.measure import SampleRecord
from divlens.experiment.probe import ProbeResult
from divlens.types import DivlensError, DrawnWith

LARGEST_SEED = 2**64 - 1


def record(sample=0, **changes):
    values = {
        "model": "toy/ar:0",
        "condition": "baseline",
        "prompt": "a fox",
        "sample": sample,
        "seed": LARGEST_SEED,
        "wording": "fox icon",
        "tokens": (2, 0, 16_383),
        "judged_concept": None,
        "judged_style": None,
    }
    return SampleRecord(**(values | changes))


def result():
    figures = {"model": ["toy/ar:0"], "condition": ["baseline"], "prompts": [1], "n": [1], "diversity": [math.nan]}
    per_prompt = {"model": ["toy/ar:0"], "prompt": ["a fox"], "diversity": [math.nan]}
    conditions = {"baseline": "none"}
    how = {"toy/ar:0": DrawnWith("cpu", "float64", 96)}
    return ProbeResult(
        pd.DataFrame(figures), pd.DataFrame(per_prompt), (record(),), conditions, LARGEST_SEED, 1, "alex", how
    )


def snapshot(folder):
    """Every file below a folder, hidden ones too, with its content."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_probe_is_written_whole(tmp_path):
    out = tmp_path / "a" / "b"
    store.write_probe(result(), out)
    assert {path.name for path in out.iterdir()} == {"table.csv", "per_prompt.csv", "samples.parquet", "run.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]  # nothing temporary is left
    about = json.loads((out / "run.json").read_text())
    assert about["written by"] == "divlens"
    assert about["conditions"] == {"baseline": "none"}
    assert about["seed"] == LARGEST_SEED
    assert about["drawn_with"] == {"toy/ar:0": {"device": "cpu", "dtype": "float64", "batch_size": 96}}
    assert {"divlens", "torch", "python"} <= set(about["versions"])


def test_undefined_stays_nan(tmp_path):
    store.write_probe(result(), tmp_path / "out")
    assert (tmp_path / "out" / "table.csv").read_text().splitlines()[1].endswith(",NaN")
    assert pd.read_csv(tmp_path / "out" / "table.csv")["diversity"].isna().tolist() == [True]


def test_samples_come_back_as_they_were(tmp_path):
    records = [record(), record(1, tokens=(), judged_concept="fox", judged_style="noto", seed=0)]
    store.write_samples(records, tmp_path / "samples.parquet")
    table = pq.read_table(tmp_path / "samples.parquet")
    assert [str(table.schema.field(name).type) for name in ("seed", "tokens")] == ["uint64", "list<element: int32>"]
    assert [SampleRecord(**{**row, "tokens": tuple(row["tokens"])}) for row in table.to_pylist()] == records


def test_a_later_run_takes_the_place_of_an_earlier_one(tmp_path):
    out = tmp_path / "out"

    def earlier(folder):
        (folder / "pictures").mkdir()
        (folder / "pictures" / "0.png").write_text("old")

    store.write_output(out, {}, earlier)
    store.check_output(out)
    store.write_probe(result(), out)
    assert not (out / "pictures").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_fine(tmp_path):
    (tmp_path / "out").mkdir()
    store.write_probe(result(), tmp_path / "out")
    assert (tmp_path / "out" / "run.json").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("thesis.txt", "mine"),
        ("run.json", "{}"),
        ("run.json", "not json"),
        ("run.json", '{"written by": "another tool", "files": ["run.json"]}'),
        ("run.json", "[1, 2]"),
    ],
)
def test_a_folder_with_something_else_is_refused_and_left_alone(name, content, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text(content)
    before = snapshot(tmp_path)
    with pytest.raises(DivlensError, match=f"new or empty folder.* holds {name}"):
        store.check_output(tmp_path / "out")
    with pytest.raises(DivlensError):
        store.write_probe(result(), tmp_path / "out")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["notes.txt", "pictures/notes.txt"])
def test_what_a_user_added_to_our_folder_is_not_lost(name, tmp_path):
    out = tmp_path / "out"
    store.write_probe(result(), out)
    store.check_output(out)  # the control
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    with pytest.raises(DivlensError, match=f"holds {name}"):
        store.check_output(out)


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DivlensError, match="expects a folder, got the file"):
        store.check_output(tmp_path / "file")
    with pytest.raises(DivlensError, match="cannot be written to"):
        store.check_output(tmp_path / "file" / "out")


def test_a_place_where_no_folder_can_be_made_is_refused_whatever_its_permissions_say(tmp_path, monkeypatch):
    store.check_output(tmp_path / "out")  # the control
    assert list(tmp_path.iterdir()) == []
    store.check_output(tmp_path / ("x" * 250))

    def refuse(*arguments, **names):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(DivlensError, match="cannot be written to"):
        store.check_output(tmp_path / "out")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("a bug"), KeyboardInterrupt()])
def test_a_failure_leaves_things_as_they_were(error, tmp_path):
    out = tmp_path / "out"
    store.write_probe(result(), out)
    before = snapshot(tmp_path)

    def fail(folder):
        (folder / "half.csv").write_text("half")
        raise error

    for target in (out, tmp_path / "new" / "out"):
        with pytest.raises((DivlensError, ValueError, KeyboardInterrupt)) as caught:
            store.write_output(target, {}, fail)
        if isinstance(error, OSError):
            assert str(caught.value) == f"cannot write to {target}: No space left on device"
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_a_rename_that_fails_brings_the_earlier_run_back(tmp_path, monkeypatch):
    out, replace = tmp_path / "out", store.os.replace
    store.write_probe(result(), out)
    before = snapshot(tmp_path)

    def failing(source, target):
        if source.name == "new":
            raise OSError(16, "Device or resource busy")
        replace(source, target)

    monkeypatch.setattr(store.os, "replace", failing)
    with pytest.raises(DivlensError, match="Device or resource busy"):
        store.write_probe(result(), out)
    assert snapshot(tmp_path) == before
