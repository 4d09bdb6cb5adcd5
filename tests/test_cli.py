"""The command line: what it prints and writes, how it refuses, how quickly it starts."""

import errno
import io
import json
import os
import subprocess
import sys
import time
import warnings

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import divlens
from divlens import __version__
from divlens.cli import main
from divlens.errors import DivlensError
from divlens.models.toy import ToyModel


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run the command line in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            code = leaving.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def snapshot(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


# What it does


def test_probe_prints_the_table_and_writes_what_was_drawn(run, tmp_path):
    (tmp_path / "prompts.txt").write_text("red heart\n# not this one\na cat\nblue sky\n")
    code, out, err = run(
        "probe", "toy/ar", "toy/mim", "--prompts", "prompts.txt", "--limit", 2, "-n", 3, "--out", "out"
    )
    assert (code, err) == (0, "")
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    conditions = ["baseline", "subset", "argmax", "paraphrase", "enhanced"]
    assert [
        line.split()[0] for line in out.splitlines() if line.split()[:1] and line.split()[0] in conditions
    ] == conditions * 2
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert list(table["condition"]) == conditions * 2
    samples = pq.read_table(tmp_path / "out" / "samples.parquet").to_pandas()
    assert len(samples) == 2 * 5 * 2 * 3
    assert set(samples["prompt"]) == {"red heart", "a cat"}
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (about["command"], about["n"], about["seed"]) == ("probe", 3, 0)
    assert about["versions"]["divlens"] == __version__
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_probe_uses_the_first_twelve_of_the_default_prompts(run, tmp_path):
    assert run("probe", "toy/ar", "-n", 2, "--out", "out")[0] == 0
    prompts = pd.read_csv(tmp_path / "out" / "per_prompt.csv")["prompt"].unique()
    assert len(prompts) == 12
    assert prompts[0] == "red heart"


def test_the_options_reach_the_conditions(run, tmp_path):
    options = ("--subset", 0.7, "--disable-top", 0.4, "--seed", 5)
    assert run("probe", "toy/ar", "--limit", 2, "-n", 2, "--out", "out", *options)[0] == 0
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert "Subset(fraction=0.7" in about["conditions"]["subset"]
    assert "DisableTop(fraction=0.4" in about["conditions"]["enhanced"]
    assert about["seed"] == 5


def test_enhance_prints_the_table_and_writes_pictures(run, tmp_path):
    code, out, err = run("enhance", "toy/mim", "red heart", "a cat", "-n", 3, "--out", "out")
    assert (code, err) == (0, "")
    assert "before" in out and "after" in out and "LPIPS diversity" in out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {"before", "after", "before.png", "after.png"}
    assert names == {*pictures, "table.csv", "table.parquet", "samples.parquet", "run.json"}
    wordings = pq.read_table(tmp_path / "out" / "samples.parquet").to_pandas().query("condition == 'after'")["wording"]
    assert "emotion, love, red heart" in set(wordings)  # a default prompt brings its own paraphrases


def test_information_prints_a_block_per_model_and_condition_and_writes_tables(run, tmp_path):
    conditions = ("--under", "baseline", "--under", "argmax")
    code, out, err = run("information", "toy/ar", "toy/diffusion", "--limit", 3, "-n", 4, *conditions, "--out", "out")
    assert (code, err) == (0, "")
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    titles = [line.strip() for line in out.splitlines() if line.startswith("toy/")]
    assert titles == [
        "toy/ar:0",
        "toy/ar:0 Argmax(scope='tokens')",
        "toy/diffusion:0",
        titles[1].replace("ar", "diffusion", 1),
    ]
    assert out.count("path, trajectory") == 2  # both readings of a diffusion's path, side by side
    assert out.count("plane (I(X;Z), I(Z;Y))") == 4
    names = {path.name for path in (tmp_path / "out").iterdir()}
    tables = ("table", "per_prompt", "steps", "maps", "tightness")
    assert names == {"maps.png", "run.json", *(f"{name}.{kind}" for name in tables for kind in ("csv", "parquet"))}
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert table[["condition", "interventions"]].drop_duplicates().to_numpy().tolist() == [
        ["baseline", "none"],
        ["argmax", "Argmax(scope='tokens')"],
    ]
    argmax = table.query("quantity == 'execution' and condition == 'argmax'")
    assert argmax["bits_per_image"].tolist() == [0, 0]
    maps = pd.read_csv(tmp_path / "out" / "maps.csv")
    for model in ("toy/ar:0", "toy/diffusion:0"):  # the maps add up to the totals
        of_model, own = (rows[(rows["model"] == model) & (rows["condition"] == "baseline")] for rows in (maps, table))
        own = own.set_index("quantity")
        assert sum(of_model["execution"]) == pytest.approx(own["bits_per_image"]["execution"])


def test_the_trajectory_reading_stands_beside_the_schedule(run):
    schedule = run("information", "toy/diffusion", "--limit", 2, "-n", 3)[1]
    trajectory = run("information", "toy/diffusion", "--limit", 2, "-n", 3, "--reading", "trajectory")[1]
    assert "path, trajectory" in schedule and "path, schedule" not in schedule
    assert "path, schedule" in trajectory and "path, trajectory" not in trajectory
    assert schedule.splitlines()[2] != trajectory.splitlines()[2]


def test_how_much_is_spent_on_the_bounds_is_an_option(run, tmp_path):
    effort = ("--paths", 4, "--path-samples", 6, "--mixture-samples", 5)
    out = " ".join(run("information", "toy/mim", "--limit", 2, "-n", 8, *effort, "--out", "out")[1].split())
    assert "1: " in out and "4: " in out and "8: " not in out
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert list(record["effort"].values()) == [4, 6, 5]
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    notes = dict(zip(table["quantity"], table["note"], strict=True))
    assert notes["conditional_lower"] == "own path among 4 paths per grid, 12 grids"
    assert notes["mutual_upper"] == "I(X;T) of whole records T, 10 samples"
    assert "8: " in run("information", "toy/mim", "--limit", 2, "-n", 8)[1]


def test_decompose_prints_shares_that_add_up_and_writes_tables(run, tmp_path):
    code, out, err = run("decompose", "toy/mim", "--limit", 3, "--length-control", "--out", "out")
    assert (code, err) == (0, "")
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    assert "wording.length: what filling a wording up" in out
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert table["share"].to_numpy().sum() == pytest.approx(1)
    assert list(table["source"][:2]) == ["wording.meaning", "wording.length"]
    per_prompt = pd.read_csv(tmp_path / "out" / "per_prompt.csv")
    assert len(per_prompt) == 3
    assert per_prompt[list(table["source"])].sum(axis=1).to_numpy() == pytest.approx(per_prompt["total"].to_numpy())


def test_decompose_takes_several_models(run, tmp_path):
    sizes = ("--limit", 2, "--wordings", 2, "--paths", 2, "--executions", 2)
    code, out, err = run("decompose", "toy/mim", "toy/ar", *sizes, "--out", "out")
    assert (code, err) == (0, "")
    table = pd.read_csv(tmp_path / "out" / "table.csv").set_index("model")
    assert out.index("toy/mim:0") < out.index("toy/ar:0") and set(table.index) == {"toy/mim:0", "toy/ar:0"}
    alone = run("decompose", "toy/ar", *sizes)[1]
    assert alone.strip() in out
    assert list(pd.read_csv(tmp_path / "out" / "per_prompt.csv")["model"]) == ["toy/mim:0"] * 2 + ["toy/ar:0"] * 2


def test_decompose_refuses_what_any_model_would_before_the_first_is_asked(run, monkeypatch):
    asked, predictor = [], ToyModel.predictor

    def counted(model, conditions, guided):
        asked.append(model.name)
        return predictor(model, conditions, guided)

    monkeypatch.setattr(ToyModel, "predictor", counted)
    nothing = ("--limit", 2, "--wordings", 1, "--executions", 1)
    code, out, err = run("decompose", "toy/mim", "toy/ar", *nothing)
    assert (code, out, asked) == (2, "", [])
    assert err == ("divlens: error: decompose finds nothing to vary: toy/ar:0 makes no draw of the factors asked for\n")
    assert run("decompose", "toy/mim", *nothing)[0] == 0 and set(asked) == {"toy/mim:0"}  # the control


def test_models_lists_the_known_ones(run):
    code, out, err = run("models")
    assert (code, err) == (0, "")
    assert {"toy/ar", "toy/mim", "zoo/ar", "zoo/mim", "zoo/diffusion"} <= set(out.split())
    assert max(map(len, out.splitlines())) <= 80
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert lines["amused"] == ["masked", "[diffusers]", "amused/amused-256"]
    assert lines["janus"] == ["autoregressive", "[transformers]", "deepseek-community/Janus-Pro-1B"]
    assert "toy/ar, toy/diffusion, toy/mim: tiny and enumerable, for tests and learning." in out


def test_models_tells_what_one_of_them_knows(run):
    code, out, err = run("models", "zoo/ar")
    assert (code, err) == (0, "") and "red heart" in out and "704 words" in out
    assert "zodiac" in run("models", "zoo/ar", "--words")[1] and "zodiac" not in out
    assert run("models", "amused")[1].startswith("amused: aMUSEd")
    for arguments in (("zoo/none",), ("amused", "--words"), ("--words",)):
        code, out, err = run("models", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)


def test_the_record_of_a_run_says_which_wordings_are_templates(run, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a cat", "paraphrases": ["cat"]}\n{"prompt": "a dog"}\n')
    prompts = ("--prompts", "prompts.jsonl")
    for command, options in {
        "probe": ("-n", 2),
        "information": ("-n", 2, "--under", "paraphrase"),
        "decompose": ("--wordings", 2, "--executions", 2),
    }.items():
        assert run(command, "toy/ar", *prompts, *options, "--out", command)[0] == 0
        assert json.loads((tmp_path / command / "run.json").read_text())["templated"] == ["a dog"]
    assert run("enhance", "toy/ar", "red heart", "a dog", "-n", 2, "--out", "enhance")[0] == 0
    assert json.loads((tmp_path / "enhance" / "run.json").read_text())["templated"] == ["a dog"]
    samples = pq.read_table(tmp_path / "enhance" / "samples.parquet").to_pandas().query("condition == 'after'")
    used = set(samples.query("prompt == 'a dog'")["wording"])
    assert used == {"a dog", "the following is a description of what can be seen in this picture: a dog"}
    assert run("information", "toy/ar", *prompts, "-n", 2, "--out", "plain")[0] == 0  # the control: nothing reworded
    assert json.loads((tmp_path / "plain" / "run.json").read_text())["templated"] == []


def test_zoo_commands_are_there_when_asked_for(run):
    code, out, _ = run("zoo", "--help")
    assert code == 0
    assert all(name in out for name in ("data", "train", "evaluate"))


def test_without_a_command_it_shows_its_help(run):
    code, out, err = run()
    assert (code, err) == (0, "")
    assert "Usage: divlens" in out and "probe" in out


@pytest.mark.parametrize("command", [(), ("probe",), ("zoo",), ("zoo", "train"), ("models",)])
def test_h_is_help(command, run):
    short, long = run(*command, "-h"), run(*command, "--help")
    assert short == long and short[0] == 0 and "Usage: divlens" in short[1]


def test_zoo_alone_shows_its_help(run):
    code, out, err = run("zoo")
    assert (code, err) == (0, "")
    assert "Usage: divlens zoo" in out and "train" in out


def test_enhance_takes_prompts_from_a_file_too(run, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a cat", "paraphrases": ["cat icon"]}\n')
    assert run("enhance", "toy/ar", "red heart", "--prompts", "prompts.jsonl", "-n", 2, "--out", "both")[0] == 0
    assert run("enhance", "toy/ar", "--prompts", "prompts.jsonl", "-n", 2, "--out", "file")[0] == 0
    samples = {name: pq.read_table(tmp_path / name / "samples.parquet").to_pandas() for name in ("both", "file")}
    assert list(samples["both"]["prompt"].unique()) == ["red heart", "a cat"]
    assert list(samples["file"]["prompt"].unique()) == ["a cat"]
    assert set(samples["file"]["wording"]) == {"a cat", "cat icon"}


def test_the_enhancer_without_disabled_codes_is_the_wordings_alone(run, tmp_path):
    drawn = {}
    for share in ("0", "0.4"):
        assert run("enhance", "toy/ar", "a cat", "-n", 4, "--disable-top", share, "--out", share)[0] == 0
        samples = pq.read_table(tmp_path / share / "samples.parquet").to_pandas().query("condition == 'after'")
        assert samples["wording"].nunique() == 4
        drawn[share] = [list(tokens) for tokens in samples["tokens"]]
    wordings = [divlens.Paraphrase(lengths="mixed")]
    alone = divlens.sample(divlens.load("toy/ar"), ["a cat"], n=4, interventions=wordings).tokens
    assert drawn["0"] == alone.flatten(2)[0].tolist() != drawn["0.4"]


RUNS = {
    "probe": ("probe", "toy/ar", "--limit", 2, "-n", 2),
    "enhance": ("enhance", "toy/ar", "red heart", "-n", 2),
    "information": ("information", "toy/ar", "--limit", 2, "-n", 2, "--under", "baseline", "--under", "paraphrase"),
    "decompose": ("decompose", "toy/ar", "--limit", 2, "--wordings", 2, "--executions", 2),
}
BEFORE_DRAWING = "divlens.run.steps"


@pytest.mark.parametrize("command", RUNS)
def test_a_run_leaves_a_record_and_only_the_same_run_may_replace_its_results(command, run, tmp_path, monkeypatch):
    same = (*RUNS[command], "--batch-size", 7, "--seed", 3)
    assert run(*same, "--out", "out")[0] == 0
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (about["command"], about["models"], about["seed"]) == (command, ["toy/ar"], 3)
    setup = {"device": "cpu", "dtype": "float32", "batch_size": 7, "truncate": False, "compile": False}
    assert setup.items() <= about.items()
    assert about["prompts"][0]["text"] == "red heart" and len(about["prompts"][0]["paraphrases"]) == 8
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
        assert f"holds those of `divlens {command}` of toy/ar, 20" in err and "name another folder" in err
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
    from divlens.experiment import store

    table = run(*RUNS["enhance"])[1]
    assert "LPIPS diversity" in table

    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "write_samples", full_disk)
    code, out, err = run(*RUNS["enhance"], "--out", "out")
    assert (code, out) == (2, table) and "No space left on device" in err


def test_a_full_device_is_told_in_one_line(run, monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore of it.")

    monkeypatch.setattr(BEFORE_DRAWING, full)
    code, out, err = run("probe", "toy/ar", "--limit", 2, "-n", 2)
    assert (code, out) == (2, "")
    assert err.startswith("divlens: error: out of memory: try a smaller --batch-size, or auto") and err.count("\n") == 1


def test_version(run):
    assert run("--version") == (0, f"divlens, version {__version__}\n", "")


def test_a_terminal_sees_how_far_it_is(run, monkeypatch):
    assert run("probe", "toy/ar", "--limit", 2, "-n", 2)[2] == ""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # rich then takes any stream for a terminal
    code, _, err = run("probe", "toy/ar", "--limit", 2, "-n", 2)
    assert code == 0
    assert "20/20" in err


# What it refuses: exit code 2, one line on stderr, nothing on stdout, nothing written

LONG = " ".join(["word"] * 40)
BAD = {
    "unknown model": (("probe", "toy/none", "--out", "out"), "no model is called 'toy/none'; .*known: .*zoo/mim"),
    "unknown model of enhance": (("enhance", "toy/none", "a cat", "--out", "out"), "known: .*zoo/mim"),
    "missing prompt file": (("probe", "toy/ar", "--prompts", "none.txt", "--out", "out"), "not found: none.txt"),
    "empty prompt file": (("probe", "toy/ar", "--prompts", "empty.txt", "--out", "out"), "at least one prompt"),
    "bytes that are no text": (("enhance", "toy/ar", "a \udcff"), r"Unicode text \(UTF-8\), got 'a \\udcff'"),
    "a model of such bytes": (("probe", "toy/ar:\udcff"), r"model's name expects Unicode text"),
    "a prompt file of such bytes": (("probe", "toy/ar", "--prompts", "latin.txt"), "cannot read the prompt file"),
    "a number without end": (("probe", "toy/ar", "--prompts", "digits.jsonl"), "line 1: .*too many digits"),
    "a seed without end": (("probe", f"toy/ar:{'9' * 5000}"), "expects a seed of up to 20 digits"),
    "paths without end": (("information", "toy/mim", "--paths", "9" * 12), "at most 1,000,000 paths"),
    "prompts where models stand": (("probe", "toy/ar", "red heart"), "no model is called 'red heart'.*--prompts FILE"),
    "a prompt alone": (("information", "red heart"), "prompts go into a file.*--prompts FILE"),
    "an unknown model after a long one": (("decompose", "zoo/ar", "toy/none"), "no model is called 'toy/none'"),
    "a name that is too long": (
        ("probe", "toy/ar", "--out", "x" * 300),
        "a folder that can be made, .*too long",
    ),
    "a link to itself": (("probe", "toy/ar", "--out", "loop"), "expects a folder that can be made, .*symbolic links"),
    "a prompt of both kinds": (
        ("enhance", "toy/ar", "a cat", "--prompts", "long.txt"),
        "different prompts, got 'a cat'",
    ),
    "bad JSONL": (("probe", "toy/ar", "--prompts", "bad.jsonl", "--out", "out"), "bad.jsonl, line 2: .*bad JSON"),
    "empty prompt in a file": (("probe", "toy/ar", "--prompts", "blank.jsonl", "--out", "out"), "line 3: .*is empty"),
    "empty prompt": (("enhance", "toy/ar", "", "--out", "out"), "a prompt is empty"),
    "repeated prompt": (("enhance", "toy/ar", "a cat", "a cat", "--out", "out"), "different prompts"),
    "repeated but for a space": (("enhance", "toy/ar", "a cat", "a cat "), "different prompts"),
    "long prompt": (("enhance", "toy/ar", LONG, "--out", "out"), "reads at most 32 words, got 40"),
    "long prompt in a file": (("probe", "toy/ar", "--prompts", "long.txt", "--out", "out"), "at most 32 words"),
    "subset of nothing": (("probe", "toy/ar", "--subset", "0", "--out", "out"), r"Subset .*\(0, 1\], got 0"),
    "subset above 1": (("probe", "toy/ar", "--subset", "1.5", "--out", "out"), r"Subset .*\(0, 1\], got 1.5"),
    "subset NaN": (("probe", "toy/ar", "--subset", "nan", "--out", "out"), r"Subset .*\(0, 1\], got nan"),
    "disable-top below 0": (("enhance", "toy/ar", "a cat", "--disable-top", "-1"), r"DisableTop .*\[0, 1\], got -1"),
    "nothing left": (("probe", "toy/ar", "--disable-top", "1", "--out", "out"), "leaves no code to draw"),
    "nothing left to enhance": (("enhance", "toy/ar", "a cat", "--disable-top", "1", "--out", "out"), "leaves no code"),
    "n of 1": (("probe", "toy/ar", "-n", "1", "--out", "out"), "at least 2 samples.*there is no LPIPS diversity"),
    "one sample to account for": (("information", "toy/ar", "-n", "1"), "at least 2 samples.*no Monte-Carlo error"),
    "nothing to vary": (("decompose", "toy/ar", "--wordings", "1", "--executions", "1"), "finds nothing to vary"),
    "no level": (("decompose", "toy/ar", "--paths", "0"), "paths expects a whole number of at least 1, got 0"),
    "batch size": (("probe", "toy/ar", "--batch-size", "some"), "'some' is not a valid integer"),
    "device": (("probe", "toy/ar", "--device", "abacus"), "device expects one that torch can use here, got 'abacus'"),
    "an option it has not": (("probe", "toy/ar", "--compile"), "toy/ar has no option compile"),
    "no such folder": (("probe", "llamagen:nowhere"), "cannot load 'nowhere'|expected"),
    "n of 0": (
        ("enhance", "toy/ar", "a cat", "-n", "0", "--out", "out"),
        "at least 2 samples.*there is no LPIPS diversity",
    ),
    "n no number": (("probe", "toy/ar", "-n", "many", "--out", "out"), "'many' is not a valid integer"),
    "negative seed": (("probe", "toy/ar", "--seed", "-1", "--out", "out"), "seed expects"),
    "the same model twice": (("probe", "toy/ar", "toy/ar", "--out", "out"), "different models"),
    "limit of 0": (("probe", "toy/ar", "--limit", "0", "--out", "out"), "limit"),
    "unknown network": (("probe", "toy/ar", "--lpips", "squeeze", "--out", "out"), "squeeze"),
    "something else there": (("probe", "toy/ar", "--out", "full"), "full holds thesis.txt"),
    "something else there for enhance": (("enhance", "toy/ar", "a cat", "--out", "full"), "full holds thesis.txt"),
    "a file there": (("probe", "toy/ar", "--out", "long.txt"), "expects a folder, got the file"),
    "no model": (("probe",), "Missing argument"),
    "no prompt": (("enhance", "toy/ar"), "Missing argument 'PROMPTS...': .*--prompts FILE"),
    "unknown option": (("probe", "toy/ar", "--colour"), "No such option"),
    "unknown command": (("paint",), "No such command"),
    "unknown zoo command": (("zoo", "paint"), "No such command"),
}


def bad_files(folder):
    (folder / "latin.txt").write_bytes(b"caf\xe9\n")
    (folder / "digits.jsonl").write_text('{"prompt": ' + "9" * 5000 + "}\n")
    (folder / "loop").symlink_to("loop")
    (folder / "empty.txt").write_text("\n# nothing\n")
    (folder / "bad.jsonl").write_text('{"prompt": "a cat"}\n{"prompt": \n')
    (folder / "blank.jsonl").write_text('{"prompt": "a cat"}\n\n{"prompt": " "}\n')
    (folder / "long.txt").write_text(f"a cat\n{LONG}\n")
    (folder / "full").mkdir()
    (folder / "full" / "thesis.txt").write_text("mine")


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(name, run, tmp_path):
    import re

    arguments, said = BAD[name]
    bad_files(tmp_path)
    before = snapshot(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("divlens: error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert re.search(said, err)
    assert snapshot(tmp_path) == before


def test_a_failure_on_the_way_leaves_nothing_behind(run, tmp_path, monkeypatch):
    from divlens.experiment import store

    def full_disk(samples, path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "write_samples", full_disk)
    code, _, err = run("probe", "toy/ar", "--limit", 2, "-n", 2, "--out", "out")
    assert (code, err) == (2, f"divlens: error: cannot write to {tmp_path / 'out'}: No space left on device\n")
    assert snapshot(tmp_path) == {}


def test_a_bug_is_no_bad_input(run, monkeypatch):
    def bug(*arguments, **options):
        raise ZeroDivisionError

    monkeypatch.setattr("divlens.experiment.probe.probe", bug)
    with pytest.raises(ZeroDivisionError):
        run("probe", "toy/ar")


def stopped_by(kind):
    def stop(*arguments, **options):
        raise kind

    return stop


def test_an_interrupt_is_exit_code_130(run, tmp_path, monkeypatch):
    monkeypatch.setattr("divlens.experiment.measure.fill", stopped_by(KeyboardInterrupt))
    code, out, err = run("probe", "toy/ar", "--out", "out")
    assert (code, out, err.strip()) == (130, "", "")
    assert snapshot(tmp_path) == {}


def test_a_file_that_ends_early_is_no_interrupt(run, monkeypatch):
    monkeypatch.setattr("divlens.experiment.probe.probe", stopped_by(EOFError))
    with pytest.raises(EOFError):
        run("probe", "toy/ar")


def test_warnings_of_others_are_shown_as_usual(run, monkeypatch):
    def warn(*arguments, **options):
        warnings.warn("from elsewhere", UserWarning, stacklevel=1)
        raise DivlensError("stopped")

    monkeypatch.setattr("divlens.experiment.probe.probe", warn)
    with pytest.warns(UserWarning, match="from elsewhere"):
        code, _, err = run("probe", "toy/ar")
    assert (code, err) == (2, "divlens: error: stopped\n")


# The process itself


def process(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)


def test_a_process_refuses_without_a_traceback(tmp_path):
    done = process("-m", "divlens", "probe", "toy/none", "--out", str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("divlens: error: no model is called 'toy/none'")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stdout", ["/dev/full", "|"])
def test_a_process_whose_stdout_takes_nothing_leaves_its_results(stdout, tmp_path):
    """Buffered, as a shell starts it: what cannot be written is still there when Python ends."""
    command = [sys.executable, "-m", "divlens", *map(str, RUNS["enhance"]), "--out", "out"]
    reader, writer = os.pipe() if stdout == "|" else (None, os.open(stdout, os.O_WRONLY))
    if reader is not None:
        os.close(reader)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)
    os.close(writer)
    assert (tmp_path / "out" / "run.json").exists()
    if stdout == "|":
        assert (done.returncode, done.stderr) == (141, "")
    else:
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and "the results are in out" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], [], ["--version"], ["probe", "--help"], ["models"], ["paint"]])
def test_what_needs_no_torch_loads_none(arguments):
    code = f"import sys, divlens.cli\ntry: divlens.cli.main({arguments})\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'diffusers', 'pandas') if name in sys.modules])"
    assert process("-c", code).stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "seconds"), [(["-c", "import divlens"], 0.5), (["-m", "divlens", "--help"], 0.7)]
)
def test_it_starts_quickly(arguments, seconds):
    def once():
        begun = time.perf_counter()
        assert process(*arguments).returncode == 0
        return time.perf_counter() - begun

    assert min(once() for _ in range(5)) < seconds  # the best of five: the machine may be busy


def test_public_names_are_all_there():
    import divlens

    assert all(getattr(divlens, name) is not None for name in divlens.__all__)
    assert set(divlens.__all__) <= set(dir(divlens))
    with pytest.raises(AttributeError, match="no attribute 'paint'"):
        _ = divlens.paint
