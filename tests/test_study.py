"""`divlens study`: what a study file may hold, what is refused with its line, and one run that has all parts."""

import json
import shutil
import warnings
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import divlens
from divlens.conditions import default_conditions
from divlens.errors import DivlensError, DivlensWarning
from divlens.interventions import Argmax, Subset, Temperature
from divlens.study.protocol import protocol_in
from oracles import tiny_diffusers, tiny_llamagen
from oracles.colour_network import colour_network
from oracles.run_folders import files_in, record_of, samples_of
from oracles.runs_in_folders import interrupted_after, refused

STUDIES = Path(__file__).parents[1] / "studies"
SEVEN = "prompts: everyday\nlimit: 7\n"
TOYS = f"""\
models: [toy/ar, toy/mim]
{SEVEN}n: 2
sweeps: ["Subset=0.75,0.5"]
information: {{limit: 2, paths: 0, mixture_samples: 1}}
decompose: {{limit: 2, wordings: 2, paths: 2, executions: 2}}
measures: [token_entropy]
"""
pytestmark = pytest.mark.usefixtures("colours_for_lpips", "one_thread")


def written(text: str, name: str = "study.yaml") -> Path:
    path = Path(name)
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# What a file may hold


def test_what_a_file_does_not_say_is_as_the_verbs_have_it():
    protocol = protocol_in(written("models: [toy/ar]\nprompts: [a cat, a dog]\ninformation: true\ndecompose: false\n"))
    assert [prompt.text for prompt in protocol.prompts] == ["a cat", "a dog"]
    assert dict(protocol.conditions) == default_conditions()
    assert (protocol.n, protocol.seed, protocol.margin, protocol.decompose) == (8, 0, 0.1, None)
    assert protocol.information is not None and protocol.information.effort == divlens.Effort()
    assert protocol.information.under == ("baseline",) and protocol.information.n is None
    protocol = protocol_in(written("models: [toy/ar]\nprompts: [a cat]\ndecompose: {paths: 2, decoders: 3}\n"))
    assert protocol.decompose is not None and protocol.decompose.levels == (3, 2, 4, 3)


def test_conditions_are_written_as_python_writes_them_and_sweeps_stand_beside_them():
    lines = 'conditions: {hot: "Temperature(1.3), Argmax()"}\nsweeps: ["Subset=1,0.5"]\n'
    conditions = protocol_in(written(f"models: [toy/ar]\nprompts: [a cat]\n{lines}")).conditions
    assert list(conditions)[:2] == ["baseline", "hot"]
    assert tuple(conditions["hot"]) == (Temperature(1.3), Argmax())
    assert {tuple(one) for one in list(conditions.values())[2:]} == {(Subset(1),), (Subset(0.5),)}


def test_without_any_condition_baseline_is_left():
    conditions = protocol_in(written("models: [toy/ar]\nprompts: [a cat]\nconditions: {}\n")).conditions
    assert dict(conditions) == {"baseline": ()}


def test_a_prompt_file_stands_beside_the_study_file():
    Path("sub").mkdir()
    Path("sub/my.jsonl").write_text('{"prompt": "a cat", "paraphrases": ["one cat"], "category": "animals"}\n')
    protocol = protocol_in(written("models: [toy/ar]\nprompts: my.jsonl\n", "sub/study.yaml"))
    assert protocol.prompts == (divlens.Prompt("a cat", ("one cat",)),)


def test_the_studies_that_come_with_the_project_can_be_read():
    for name, models in (("paper", ["llamagen", "amused", "vq-diffusion"]), ("lab", ["zoo/ar", "zoo/mim"])):
        protocol = protocol_in(STUDIES / f"{name}.yaml")
        assert [model.partition(":")[0] for model in protocol.models][: len(models)] == models
        assert protocol.information and protocol.decompose and set(default_conditions()) < set(protocol.conditions)
    assert len(protocol_in(STUDIES / "paper.yaml").prompts) == 100


# What is refused, with its line


BAD = {
    "an unknown field": ("n: 2\nmodells: [toy/ar]", 4, "no field is called 'modells'; did you mean models?"),
    "a field twice": ("n: 2\nseed: 1\nn: 3", 5, "the field 'n' is already on line 3"),
    "an unknown option": ("information:\n  limit: 2\n  path: 3", 5, "no field is called 'path'; did you mean paths?"),
    "an option twice": ("decompose:\n  paths: 2\n  paths: 3", 5, "the field 'paths' is already on line 4"),
    "a condition twice": ("conditions:\n  hot: TopK(2)\n  hot: TopK(3)", 5, "'hot' is already on line 4"),
    "a text for a number": ("n: eight", 3, "n expects a whole number of at least 2, got the text 'eight'"),
    "a fraction": ("n: 2.5", 3, "n expects a whole number of at least 2, got 2.5"),
    "one sample": ("n: 1", 3, "n expects a whole number of at least 2, got 1"),
    "true for a number": ("seed: true", 3, "seed expects a whole number of at least 0, got true"),
    "a number with a tag": ("seed: !!int eight", 3, "seed expects a whole number of at least 0, got eight"),
    "a number too great": (f"seed: {2**64}", 3, "seed expects at most 18,446,744,073,709,551,615"),
    "nothing": ("n:", 3, "n expects a whole number of at least 2, got nothing"),
    "an empty number": ("seed: !!int ''", 3, "seed expects a whole number of at least 0, got"),
    "a list for a text": ("device: [cpu]", 3, "device expects a text, got a list"),
    "an own kind": ("device: !thing cpu", 3, "device expects a text, got cpu"),
    "a margin of 1": ("margin: 1.0", 3, "margin expects a number between 0 and 1, got 1.0"),
    "an unknown network": ("lpips: resnet", 3, "lpips expects one of stlpips, alex, vgg, got the text 'resnet'"),
    "a part that is a text": ("decompose: please", 3, "decompose expects true or false, got the text 'please'"),
    "no sweeps": ("sweeps: []", 3, "sweeps expects a list of sweeps, not empty, got a list"),
    "a sweep twice": ("sweeps:\n- Subset=1\n- Subset=1", 5, "'Subset=1' is already on line 4"),
    "a dose twice": ("sweeps:\n- DisableTop=0.1,0.2\n- Subset=1,1", 5, "twice"),
    "a dose that is none": ("sweeps:\n- Subset=1,2", 4, "Subset.* got 2"),
    "an unknown intervention": ("conditions:\n  hot: Heat(2)", 4, "no intervention is called 'Heat'"),
    "another baseline": ("conditions:\n  baseline: TopK(2)", 4, "'baseline' is always there, without interventions"),
    "an unknown condition": ("information:\n  under: [hot]", 4, "expects conditions of the study, .*, got 'hot'"),
    "an unknown measure": ("measures: [vendy]", 3, "no measure is called 'vendy'; did you mean vendi?"),
    "a measure without weights": ("measures:\n- clip:nowhere", 4, "nowhere"),
    "no YAML": ("n: [2", 4, "expected YAML: expected ',' or ']'"),
    "an alias of nothing": ("n: *two", 3, "expected YAML: found undefined alias"),
    "two documents": ("---\nn: 2", 3, "expected YAML: but found another document"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_as_expected_is_refused_with_its_line(name, run):
    lines, line, message = BAD[name]
    text = f"models: [toy/ar]\nprompts: everyday\n{lines}\n"
    with pytest.raises(DivlensError, match=rf"^study.yaml, line {line}: .*{message}") as caught:
        divlens.study(written(text), out="out")
    assert "\n" not in str(caught.value) and not Path("out").exists()
    if name == "an unknown field":
        refused(run("study", "study.yaml", "--out", "out"), "study.yaml, line 4", "modells")


HEADS = {
    "": "study.yaml: the study file is empty",
    "# no more\n": "study.yaml: the study file is empty",
    "- a\n": "study.yaml, line 1: study file expects fields, a `name: value` each, got a list",
    "models: [toy/ar]\n": "study.yaml: expected the field prompts, which is missing",
    "prompts: everyday\n": "study.yaml: expected the field models, which is missing",
    "prompts: everyday\nmodels: [toy/ar, toy/min]\n": "line 2: no model is called 'toy/min'; did you mean 'toy/mim'",
    "prompts: everyday\nmodels: toy/ar\n": "line 2: models expects a list of models, not empty, got the text 'toy/ar'",
    "models: [toy/ar]\nprompts: everyda\n": "line 2: prompts expects a list, a file, or one of everyday, zoo",
    "models: [toy/ar]\nprompts: [a cat, 7]\n": r"line 2: .* expects a text \(in quotes, .*\), got 7",
    "models: [toy/ar]\nprompts:\n- a cat\n- a cat\n": "line 4: 'a cat' is already on line 3",
    "models: [toy/ar]\nprompts: [a cat]\n3: 4\n": "line 3: the name of a field expects a text .*, got 3",
    "\x00": "study.yaml: expected YAML: unacceptable character",
    "[" * 1500: "study.yaml: expected YAML: it is nested too deeply",
}


@pytest.mark.parametrize("text", HEADS, ids=range(len(HEADS)))
def test_what_every_file_needs(text):
    with pytest.raises(DivlensError, match=HEADS[text]) as caught:
        protocol_in(written(text))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(run):
    refused(run("study", "none.yaml", "--out", "out"), "study file not found: none.yaml")
    Path("folder.yaml").mkdir()
    refused(run("study", "folder.yaml", "--out", "out"), "cannot read the study file")


# Before anything is drawn


def test_too_few_prompts_for_any_decision_is_said_before_a_model_is_loaded(monkeypatch):
    def loaded(*arguments, **options):
        raise KeyError("a model was loaded")

    monkeypatch.setattr(import_module("divlens.study.conduct"), "load", loaded)  # divlens.study is a function
    few = written("models: [toy/ar]\nprompts: [a cat, a dog]\n")
    with (
        pytest.warns(DivlensWarning, match="with 2 prompts no drop or rise .* at least 7 prompts"),
        pytest.raises(KeyError),
    ):
        divlens.study(few, out="out")
    enough = written(f"models: [toy/ar]\n{SEVEN}")
    with warnings.catch_warnings(), pytest.raises(KeyError):  # the control
        warnings.simplefilter("error")
        divlens.study(enough, out="out")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("decompose: {wordings: 9}", "at least 9 wordings of"),  # of the last part
        ("decompose: {wordings: 1, paths: 1, executions: 1}", "at least 2 wordings, paths, executions or decoders"),
    ],
)
def test_nothing_is_drawn_before_every_part_is_checked(lines, message, monkeypatch):
    drawn = []
    monkeypatch.setattr("divlens.run.steps", lambda *arguments: drawn.append(arguments))
    text = f"models: [toy/ar, toy/mim]\n{SEVEN}n: 2\ninformation: true\n"
    with pytest.raises(DivlensError, match=message):
        divlens.study(written(text + lines), out="out")
    assert not drawn and not Path("out").exists()


def test_the_prompts_of_all_models_are_read_before_code_frequencies_of_one_are_drawn(monkeypatch):
    calibrated = []
    monkeypatch.setattr("divlens.planning.Reading.calibrate", lambda reading: calibrated.append(reading))
    text = f"models: [toy/mim, zoo/ar]\nprompts: [a cat, {' '.join(['rocket'] * 25)}]\nn: 2\n"
    with pytest.warns(DivlensWarning), pytest.raises(DivlensError, match="up to 24 words"):
        divlens.study(written(text), out="out")
    assert not calibrated


# One run of all parts


@pytest.fixture(scope="module")
def made(tmp_path_factory, one_thread):
    """The study of the toys, and its folder."""
    network, folder = colour_network(), tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for module, loader in (("experiment.comparison", "load_network"), ("decompose", "network_of")):
            patch.setattr(import_module(f"divlens.{module}"), loader, lambda name=None: network)
        return divlens.study(written(TOYS), out="run"), folder


@pytest.fixture
def carried_out(made):
    """As `made`, in a copy of its folder."""
    found, folder = made
    shutil.copytree(folder, ".", dirs_exist_ok=True)
    return found


def tables_in(folder: str) -> dict[str, bytes]:
    """As CSV: the Parquet files also hold the sign of NaN, which is anything."""
    files = files_in(Path(folder)).items()
    return {name: content for name, content in files if name.startswith("tables/") and name.endswith(".csv")}


def test_one_run_has_all_parts_and_nothing_is_drawn_twice(carried_out, counted, run):
    about = record_of(Path("run"))
    assert set(about["requests"]) == set(about["complete"]) == {"probe", "information", "decompose"}
    assert {path.name for path in Path("run/tables").iterdir()} == {"probe", "information", "decompose", "score"}
    assert len(carried_out.of("information")) == len(carried_out.of("decompose")) == 2
    (probed,) = carried_out.of("probe")
    assert len(probed.table) == 2 * 7 and len(probed.prompts) == 7  # 5 conditions and 2 doses
    cells = samples_of(Path("run"))
    assert not cells.duplicated(["model", "condition", "cell"]).any()
    before = tables_in("run")
    code, out, err = run("study", "study.yaml", "--out", "run", "--quiet")
    assert (code, err, sum(counted)) == (0, "", 0) and tables_in("run") == before
    for title in (
        "probe: toy/ar:0",
        "information: toy/mim:0",
        "decompose: toy/ar:0",
        "score: ",
        "doses: toy/ar:0",
        "verdict: toy/mim:0",
    ):
        assert title in out
    assert max(map(len, out.splitlines())) <= 80 and out.endswith("written: run\n")
    assert str(carried_out).endswith(out[: out.rindex("written: ")].rstrip()[-200:])  # the library shows the same


def test_more_of_it_draws_only_what_is_missing_and_something_else_is_refused(carried_out, counted, run):
    divlens.study(written(TOYS.replace("limit: 7", "limit: 8")), out="run")
    assert sum(counted) > 0
    assert len(samples_of(Path("run"))["prompt"].unique()) == 8
    refused(
        run("study", written(TOYS.replace("n: 2", "n: 2\nseed: 1")), "--out", "run"), "asked for differently", "seed"
    )


def test_the_parts_share_samples(carried_out):
    """What information drew at baseline is there for the probe, and the dose 0.5 for the condition `subset`."""
    cells = samples_of(Path("run"))
    drawn = record_of(Path("run"))["sessions"][0]["samples_drawn"]
    assert drawn < len(cells)
    own = cells[cells.condition == "subset"].set_index("cell").tokens
    dose = cells[cells.condition.str.contains("0.5")].set_index("cell").tokens
    assert set(own.index) == set(dose.index) and len(own) == 2 * 7 * 2
    assert drawn == len(cells) - len(own)  # and no sample beside these stands under two names


@pytest.mark.parametrize("go_on", [lambda: divlens.study("study.yaml", out="other"), lambda: divlens.resume("other")])
def test_a_study_that_was_stopped_goes_on_by_itself_or_by_resume(go_on, carried_out, monkeypatch):
    with interrupted_after(3, monkeypatch), pytest.raises(KeyboardInterrupt):
        divlens.study("study.yaml", out="other")
    stopped = record_of(Path("other"))
    assert stopped["sessions"][-1]["how"] == "stopped" and "probe" not in stopped["complete"]
    go_on()
    whole = tables_in("run")
    assert tables_in("other").items() <= whole.items()
    missing = whole.keys() - tables_in("other").keys()
    assert all(name.startswith("tables/score/") for name in missing)  # `resume` draws, and measures nothing beside


def test_shards_of_the_probe_become_one_run_in_which_the_study_goes_on(carried_out, run):
    for number in (1, 2):
        code, out, _ = run("study", "study.yaml", "--shard", f"{number}/2", "--out", f"part{number}", "--quiet")
        assert code == 0 and f"has shard {number}/2 of the probe" in out
    assert run("merge", "part1", "part2", "--out", "merged", "--quiet")[0] == 0
    divlens.study("study.yaml", out="merged")
    whole, merged = tables_in("run"), tables_in("merged")
    assert whole.keys() == merged.keys()
    for name in whole:  # the figures of `score` follow the order in which the commands were given
        assert sorted(whole[name].splitlines()) == sorted(merged[name].splitlines()), name


def test_without_the_conditions_of_a_verdict_the_study_says_so():
    text = f"models: [toy/ar]\n{SEVEN}n: 2\nconditions: {{hot: Temperature(2)}}\n"
    found = divlens.study(written(text), out="out")
    assert found.verdict is None and "No verdict: it takes conditions of Argmax and Subset alone" in str(found)


# The paper's study, on models of its kinds


def save_stand_ins() -> None:
    """Tiny models in the published layouts, in folders that are called as the registry calls them."""
    tiny_diffusers.saved(tiny_diffusers.amused(), Path("amused"))
    tiny_diffusers.saved(tiny_diffusers.vq_diffusion(steps=10), Path("vq-diffusion"))
    tiny_llamagen.save(Path("llamagen"))


@pytest.mark.filterwarnings("always::divlens.errors.DivlensWarning")  # the command line shows it
def test_paper_yaml_from_end_to_end_on_stand_ins_in_the_published_layouts(run):
    save_stand_ins()
    paper = yaml.safe_load((STUDIES / "paper.yaml").read_text())
    kinds = [model.partition(":")[0] for model in paper["models"]]
    paper |= {"models": [f"{kind}:{kind}" for kind in kinds]}
    paper |= {"n": 2, "limit": 2, "device": "cpu", "batch_size": 512}
    paper |= {"truncate": True}  # the tokenizer of this T5 makes a token of each letter
    paper["information"] |= {"limit": 1}
    paper["decompose"] |= {"limit": 1, "wordings": 2, "paths": 2, "executions": 2}
    Path("small.yaml").write_text(json.dumps(paper))  # JSON is YAML
    code, out, err = run("study", "small.yaml", "--out", "run", "--quiet")
    assert code == 0 and "divlens: warning: with 2 prompts no drop or rise of diversity can be shown" in err, err
    about = record_of(Path("run"))
    assert set(about["complete"]) == {"probe", "information", "decompose"}
    assert [name.partition(":")[0] for name in about["models"]] == kinds
    for part in ("probe", "information", "decompose", "verdict"):
        for model in about["models"]:
            assert f"{part}: {model}" in out
    judged = divlens.verdict("run")
    assert set(judged.strategies) == set(about["models"])
