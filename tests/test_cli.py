"""The command line: what it prints and writes, how it refuses, how quickly it starts."""

import pytest

import divlens
from divlens import __version__
from divlens.models.toy import ToyModel
from oracles.run_folders import record_of, request_of, samples_of, table_of
from oracles.screen import but_for_the_note

# What it does


def test_probe_prints_the_table_and_writes_what_was_drawn(run, tmp_path):
    (tmp_path / "prompts.txt").write_text("red heart\n# not this one\na cat\nblue sky\n")
    code, out, err = run(
        "probe", "toy/ar", "toy/mim", "--prompts", "prompts.txt", "--limit", 2, "-n", 3, "--out", "out"
    )
    assert (code, but_for_the_note(err)) == (0, "")
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    conditions = ["baseline", "subset", "argmax", "paraphrase", "enhanced"]
    assert [
        line.split()[0] for line in out.splitlines() if line.split()[:1] and line.split()[0] in conditions
    ] == conditions * 2
    assert list(table_of(tmp_path / "out", "probe")["condition"]) == conditions * 2
    samples = samples_of(tmp_path / "out")
    assert len(samples) == 2 * 5 * 2 * 3
    assert set(samples["prompt"]) == {"red heart", "a cat"}
    request, (session,) = request_of(tmp_path / "out", "probe"), record_of(tmp_path / "out")["sessions"]
    assert (request["command"], request["n"], request["seed"]) == ("probe", 3, 0)
    assert session["versions"]["divlens"] == __version__
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_probe_uses_the_first_twelve_of_the_default_prompts(run, tmp_path):
    assert run("probe", "toy/ar", "-n", 2, "--out", "out")[0] == 0
    prompts = table_of(tmp_path / "out", "probe", "per_prompt")["prompt"].unique()
    assert len(prompts) == 12
    assert prompts[0] == "red heart"


def test_the_options_reach_the_conditions(run, tmp_path):
    options = ("--subset", 0.7, "--disable-top", 0.4, "--seed", 5)
    assert run("probe", "toy/ar", "--limit", 2, "-n", 2, "--out", "out", *options)[0] == 0
    request = request_of(tmp_path / "out", "probe")
    assert "Subset(fraction=0.7" in request["conditions"]["subset"]
    assert "DisableTop(fraction=0.4" in request["conditions"]["enhanced"]
    assert request["seed"] == 5


def test_enhance_prints_the_table_and_writes_pictures(run, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "red heart", "paraphrases": ["red icon"]}\n{"prompt": "a cat"}\n')
    code, out, err = run("enhance", "toy/mim", "--prompts", "p.jsonl", "-n", 3, "--out", "out")
    assert (code, err) == (0, "")
    assert "before" in out and "after" in out and "LPIPS diversity" in out
    names = {path.name for path in (tmp_path / "out" / "tables" / "enhance").iterdir()}
    pictures = {"before", "after", "before.png", "after.png"}
    tables = {f"{name}.{kind}" for name in ("table", "per_prompt") for kind in ("csv", "parquet")}
    assert names == {*pictures, *tables}
    wordings = samples_of(tmp_path / "out").query("condition == 'after'")["wording"]
    assert "red icon" in set(wordings)


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
    names = {path.name for path in (tmp_path / "out" / "tables" / "information").iterdir()}
    tables = ("table", "per_prompt", "steps", "maps", "tightness")
    assert names == {"maps.png", *(f"{name}.{kind}" for name in tables for kind in ("csv", "parquet"))}
    table = table_of(tmp_path / "out", "information")
    assert table[["condition", "interventions"]].drop_duplicates().to_numpy().tolist() == [
        ["baseline", "none"],
        ["argmax", "Argmax(scope='tokens')"],
    ]
    argmax = table.query("quantity == 'execution' and condition == 'argmax'")
    assert argmax["bits_per_image"].tolist() == [0, 0]
    maps = table_of(tmp_path / "out", "information", "maps")
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
    assert request_of(tmp_path / "out", "information")["effort"] == {
        "paths": 4,
        "path_samples": 6,
        "mixture_samples": 5,
    }
    table = table_of(tmp_path / "out", "information")
    notes = dict(zip(table["quantity"], table["note"], strict=True))
    assert notes["conditional_lower"] == "own path among 4 paths per grid, 12 grids"
    assert notes["mutual_upper"] == "I(X;T) of whole records T, 10 samples"
    assert "8: " in run("information", "toy/mim", "--limit", 2, "-n", 8)[1]


def test_decompose_prints_shares_that_add_up_and_writes_tables(run, tmp_path):
    code, out, err = run("decompose", "toy/mim", "--limit", 3, "--length-control", "--out", "out")
    assert (code, err) == (0, "")
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    assert "wording.length: what filling a wording up" in out
    table = table_of(tmp_path / "out", "decompose")
    assert table["share"].to_numpy().sum() == pytest.approx(1)
    assert list(table["source"][:2]) == ["wording.meaning", "wording.length"]
    per_prompt = table_of(tmp_path / "out", "decompose", "per_prompt")
    assert len(per_prompt) == 3
    assert per_prompt[list(table["source"])].sum(axis=1).to_numpy() == pytest.approx(per_prompt["total"].to_numpy())


def test_decompose_takes_several_models(run, tmp_path):
    sizes = ("--limit", 2, "--wordings", 2, "--paths", 2, "--executions", 2)
    code, out, err = run("decompose", "toy/mim", "toy/ar", *sizes, "--out", "out")
    assert (code, err) == (0, "")
    table = table_of(tmp_path / "out", "decompose").set_index("model")
    assert out.index("toy/mim:0") < out.index("toy/ar:0") and set(table.index) == {"toy/mim:0", "toy/ar:0"}
    alone = run("decompose", "toy/ar", *sizes)[1]
    assert alone.split("\n\n")[0] in out and alone.split("\n\n")[1].strip() in out  # the table, and its notes
    per_prompt = table_of(tmp_path / "out", "decompose", "per_prompt")
    assert list(per_prompt["model"]) == ["toy/mim:0"] * 2 + ["toy/ar:0"] * 2


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
        assert record_of(tmp_path / command)["found"][command]["templated"] == ["a dog"]
    assert run("enhance", "toy/ar", *prompts, "-n", 2, "--out", "enhance")[0] == 0
    assert record_of(tmp_path / "enhance")["found"]["enhance"]["templated"] == ["a dog"]
    samples = samples_of(tmp_path / "enhance").query("condition == 'after'")
    used = set(samples.query("prompt == 'a dog'")["wording"])
    assert used == {"a dog", "the following is a description of what can be seen in this picture: a dog"}
    assert run("information", "toy/ar", *prompts, "-n", 2, "--out", "plain")[0] == 0  # the control: nothing reworded
    assert record_of(tmp_path / "plain")["found"]["information"]["templated"] == []


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
    samples = {name: samples_of(tmp_path / name) for name in ("both", "file")}
    assert list(samples["both"]["prompt"].unique()) == ["red heart", "a cat"]
    assert list(samples["file"]["prompt"].unique()) == ["a cat"]
    assert set(samples["file"]["wording"]) == {"a cat", "cat icon"}


def test_the_enhancer_without_disabled_codes_is_the_wordings_alone(run, tmp_path):
    drawn = {}
    for share in ("0", "0.4"):
        assert run("enhance", "toy/ar", "a cat", "-n", 4, "--disable-top", share, "--out", share)[0] == 0
        samples = samples_of(tmp_path / share).query("condition == 'after'")
        assert len(set(samples["wording"])) == 4
        drawn[share] = [list(tokens) for tokens in samples["tokens"]]
    wordings = [divlens.Paraphrase(lengths="mixed")]
    alone = divlens.sample(divlens.load("toy/ar"), ["a cat"], n=4, interventions=wordings).tokens
    assert drawn["0"] == alone.flatten(2)[0].tolist()
    assert drawn["0"] != drawn["0.4"]


def test_version(run):
    assert run("--version") == (0, f"divlens, version {__version__}\n", "")


def test_a_terminal_sees_how_far_it_is(run, monkeypatch):
    assert but_for_the_note(run("probe", "toy/ar", "--limit", 2, "-n", 2)[2]) == ""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # rich then takes any stream for a terminal
    code, _, err = run("probe", "toy/ar", "--limit", 2, "-n", 2)
    assert code == 0
    assert "20/20" in err
