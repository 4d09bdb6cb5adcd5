"""Results on disk: whole or not at all, never over somebody else's files, nothing lost."""

import json
import math
import sys
import tempfile

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from divlens import output
from divlens.errors import DivlensError
from divlens.experiment.measures import usual_measures
from divlens.experiment.result import ProbeResult
from divlens.experiment.samples import PromptSamples, SampleRecord, Samples, write_samples
from divlens.types import DrawnWith, Prompt

LARGEST_SEED = 2**64 - 1
TABLES = {f"{name}.{kind}" for name in ("table", "per_prompt") for kind in ("csv", "parquet")}


def record(sample=0, **changes):
    values = {
        "model": "toy/ar:0",
        "condition": "baseline",
        "prompt": "a fox",
        "sample": sample,
        "seed": LARGEST_SEED,
        "wording": "fox icon",
        "tokens": (2, 0, 16_383),
        "judged": None,
    }
    return SampleRecord(**(values | changes))


def request(**changes):
    return {
        "command": "probe",
        "models": ["toy/ar:0"],
        "prompts": [{"text": "a fox", "paraphrases": ["fox icon"], "concept": None}],
        "conditions": {"baseline": "none"},
        "seed": LARGEST_SEED,
        "setup": {"toy/ar:0": {"device": "cpu", "dtype": "float64", "batch_size": 96}},
        "n": 1,
        "lpips": "alex",
    } | changes


def result(asked=None):
    one = record()
    whose, tokens = (one.model, one.condition, one.prompt, one.seed), torch.tensor([one.tokens], dtype=torch.int16)
    part = PromptSamples(*whose, tokens, [one.wording], [one.judged], {})
    return ProbeResult(
        request=asked or request(),
        table=pd.DataFrame({"model": ["toy/ar:0"], "condition": ["baseline"], "n": [1], "diversity": [math.nan]}),
        per_prompt=pd.DataFrame({"model": ["toy/ar:0"], "prompt": ["a fox"], "diversity": [math.nan]}),
        samples=Samples((part,)),
        prompts=(Prompt("a fox", ("fox icon",)),),
        conditions={"baseline": "none"},
        seed=LARGEST_SEED,
        n=1,
        lpips="alex",
        drawn_with={"toy/ar:0": DrawnWith("cpu", "float64", 96)},
        measures=usual_measures(None),
    )


def snapshot(folder):
    """Every file below a folder, hidden ones too, with its content."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_probe_is_written_whole(tmp_path):
    out = tmp_path / "a" / "b"
    result().save(out)
    assert {path.name for path in out.iterdir()} == {*TABLES, "samples.parquet", "run.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]  # nothing temporary is left
    about = json.loads((out / "run.json").read_text())
    assert about["written by"] == "divlens"
    assert about["conditions"] == {"baseline": "none"}
    assert about["seed"] == LARGEST_SEED
    how = {"device": "cpu", "dtype": "float64", "batch_size": 96, "compiled": False}
    assert about["drawn_with"] == {"toy/ar:0": how}
    assert {"divlens", "torch", "python"} <= set(about["versions"])


def test_undefined_stays_nan(tmp_path):
    result().save(tmp_path / "out")
    assert (tmp_path / "out" / "table.csv").read_text().splitlines()[1].endswith(",NaN")
    assert pd.read_csv(tmp_path / "out" / "table.csv")["diversity"].isna().tolist() == [True]


def test_samples_come_back_as_they_were(tmp_path):
    records = [record(), record(1, tokens=(), judged=("fox", "noto"), seed=0)]
    write_samples(records, tmp_path / "samples.parquet")
    table = pq.read_table(tmp_path / "samples.parquet")
    assert [str(table.schema.field(name).type) for name in ("seed", "tokens")] == ["uint64", "list<element: int32>"]
    rows = table.to_pylist()
    lists = [{"tokens": tuple(row["tokens"]), "judged": row["judged"] and tuple(row["judged"])} for row in rows]
    assert [SampleRecord(**row | found) for row, found in zip(rows, lists, strict=True)] == records


def test_a_later_run_takes_the_place_of_an_earlier_one(tmp_path):
    out = tmp_path / "out"

    def earlier(folder):
        (folder / "pictures").mkdir()
        (folder / "pictures" / "0.png").write_text("old")

    output.write_output(out, request(), {}, earlier)
    output.check_output(out, request())
    result().save(out)
    assert not (out / "pictures").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


OTHERS = [
    (request(models=["toy/ar:0", "toy/mim:0"]), "with other models"),
    (request(n=2), "with other n:"),
    (request(seed=1, lpips="vgg"), "with other seed, lpips:"),
    (request(setup={"toy/ar:0": {"device": "cuda"}}), "with other setup:"),
    (request(command="enhance"), r"\d\d:\d\d[^,]*: name another"),
    (request(prompts=[], conditions={"baseline": "Argmax()"}), "with other prompts, conditions"),
]


@pytest.mark.parametrize(("other", "said"), OTHERS, ids=[said for _, said in OTHERS])
def test_the_results_of_another_run_are_refused_and_stay(other, said, tmp_path):
    out = tmp_path / "out"
    result().save(out)
    before = snapshot(tmp_path)
    for attempt in (
        lambda: output.check_output(out, other),
        lambda: result(other).save(out),
    ):
        with pytest.raises(DivlensError, match=rf"holds those of `divlens probe` of toy/ar:0, \d+.*{said}") as caught:
            attempt()
        assert "name another folder, or remove this one" in str(caught.value)
    assert snapshot(tmp_path) == before


def test_a_request_holds_all_that_results_follow_from(tmp_path):
    result().save(tmp_path / "out")
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert request().items() <= about.items()
    assert about["prompts"] == [{"text": "a fox", "paraphrases": ["fox icon"], "concept": None}]
    assert about["wordings"] == {"toy/ar:0": {"baseline": {"a fox": ["fox icon"]}}}


def test_versions_are_of_what_was_imported(monkeypatch):
    import transformers

    assert output.versions()["transformers"] == transformers.__version__
    assert {"divlens", "python", "torch", "numpy", "pandas"} <= set(output.versions())
    monkeypatch.delitem(sys.modules, "transformers")
    left = {name: module for name, module in sys.modules.items() if not name.startswith("transformers.")}
    monkeypatch.setattr(output.sys, "modules", left)
    assert "transformers" not in output.versions()  # the control


def test_the_parquet_tables_are_those_of_the_csv_files_with_their_types(tmp_path):
    formula = ["=1+1", "@x", "-y", '+z "q"', "NaN"]
    table = pd.DataFrame({"prompt": formula, "value": [0.1, math.nan, 1 / 3, -1e-300, 2.0], "count": range(5)})
    nothing = table.head(0).astype(object)
    output.write_tables({"table": [table.head(2), nothing, table.tail(3)], "none": [nothing, nothing]}, tmp_path)
    read = pq.read_table(tmp_path / "table.parquet")
    assert [str(kind) for kind in read.schema.types] == ["string", "double", "int64"]
    assert read.column("prompt").to_pylist() == formula
    assert read.column("value").null_count == 0 and math.isnan(read.column("value")[1].as_py())
    assert read.column("value")[2].as_py() == 1 / 3
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0
    again = pd.read_csv(tmp_path / "table.csv", keep_default_na=False)
    assert list(again["prompt"]) == formula


@pytest.mark.parametrize("name", ["loop", "loop/x", "x" * 300, "/".join(["y" * 200] * 25), "a\0b"])
def test_a_name_that_no_folder_can_have_is_refused(name, tmp_path):
    (tmp_path / "loop").symlink_to("pool")
    (tmp_path / "pool").symlink_to("loop")
    (tmp_path / "there").symlink_to("here")
    output.check_output(tmp_path / "there", request())  # the control: a link to what is not there yet
    with pytest.raises(DivlensError, match="results need a folder that can be made, got"):
        output.check_output(tmp_path / name, request())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop", "pool", "there"]


def test_a_record_that_nobody_could_read_is_not_ours(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("[" * 100_000)
    with pytest.raises(DivlensError, match=r"holds run\.json"):
        output.check_output(tmp_path / "out", request())


def test_an_empty_folder_is_fine(tmp_path):
    (tmp_path / "out").mkdir()
    result().save(tmp_path / "out")
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
        output.check_output(tmp_path / "out", request())
    with pytest.raises(DivlensError):
        result().save(tmp_path / "out")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["notes.txt", "pictures/notes.txt"])
def test_what_a_user_added_to_our_folder_is_not_lost(name, tmp_path):
    out = tmp_path / "out"
    result().save(out)
    output.check_output(out, request())  # the control
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    with pytest.raises(DivlensError, match=f"holds {name}"):
        output.check_output(out, request())


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DivlensError, match="results need a folder, got the file"):
        output.check_output(tmp_path / "file", request())
    with pytest.raises(DivlensError, match="cannot be written to"):
        output.check_output(tmp_path / "file" / "out", request())


def test_a_place_where_no_folder_can_be_made_is_refused_whatever_its_permissions_say(tmp_path, monkeypatch):
    output.check_output(tmp_path / "out", request())  # the control
    assert list(tmp_path.iterdir()) == []
    output.check_output(tmp_path / ("x" * 250), request())

    def refuse(*arguments, **names):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(DivlensError, match="cannot be written to"):
        output.check_output(tmp_path / "out", request())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("a bug"), KeyboardInterrupt()])
def test_a_failure_leaves_things_as_they_were(error, tmp_path):
    out = tmp_path / "out"
    result().save(out)
    before = snapshot(tmp_path)

    def fail(folder):
        (folder / "half.csv").write_text("half")
        raise error

    for target in (out, tmp_path / "new" / "out"):
        with pytest.raises((DivlensError, ValueError, KeyboardInterrupt)) as caught:
            output.write_output(target, request(), {}, fail)
        if isinstance(error, OSError):
            assert str(caught.value) == f"cannot write to {target}: No space left on device"
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_a_rename_that_fails_brings_the_earlier_run_back(tmp_path, monkeypatch):
    out, replace = tmp_path / "out", output.os.replace
    result().save(out)
    before = snapshot(tmp_path)

    def failing(source, target):
        if source.name == "new":
            raise OSError(16, "Device or resource busy")
        replace(source, target)

    monkeypatch.setattr(output.os, "replace", failing)
    with pytest.raises(DivlensError, match="Device or resource busy"):
        result().save(out)
    assert snapshot(tmp_path) == before


def test_tables_that_differ_in_the_sign_of_nan_alone_are_the_same_files(tmp_path):
    nan = np.array([np.nan, 1.0])
    written = []
    for name, values in {
        "one": nan,
        "other": np.copysign(nan, [-1.0, 1.0]),
        "control": np.array([np.nan, 2.0]),
    }.items():
        (tmp_path / name).mkdir()
        output.write_tables({"table": [pd.DataFrame({"value": values})]}, tmp_path / name)
        written.append((tmp_path / name / "table.parquet").read_bytes())
    assert written[0] == written[1] != written[2]
