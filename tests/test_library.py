"""The library by hand: names and objects, conditions of any natural shape, models that misfit, what results show."""

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import divlens
from divlens.cli import main
from divlens.diversity import FeatureNetwork
from divlens.errors import DivlensError
from divlens.interventions import Argmax, DisableTop, Subset, Temperature
from divlens.models.toy import RULES, ToyModel
from divlens.planning import Reading
from divlens.showing import interval_text
from divlens.statistics import Interval
from oracles.colour_network import colour_network
from oracles.run_folders import files_in, record_of, request_of

PROMPTS = ["a cat", "<b>snow</b>"]
NO_BOUNDS = divlens.Effort(paths=0, path_samples=0, mixture_samples=0)
SMALL: dict[str, Any] = dict(
    wordings=1, paths=2, executions=2, features=lambda images: images[:, :, 16, 16::32].flatten(1)
)


@pytest.fixture(scope="module", autouse=True)
def quick_network():
    """LPIPS on three pixels, for speed."""
    network = colour_network(smallest=21)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("divlens.experiment.comparison.load_network", lambda name: network)
        yield


# Names and objects


def test_every_verb_takes_a_name_or_an_object():
    named, object_ = "toy/ar", divlens.load("toy/ar")
    for verb in (
        lambda model: divlens.sample(model, PROMPTS, n=9).tokens.numpy(),
        lambda model: divlens.probe(model, PROMPTS, n=9, conditions=[]).samples.parts[0].loaded().tokens.numpy(),
        lambda model: divlens.enhance(model, PROMPTS, n=9).tokens.numpy(),
        lambda model: divlens.information(model, PROMPTS, n=2, effort=NO_BOUNDS).execution_map,
        lambda model: divlens.decompose(model, PROMPTS, **SMALL).components,
    ):
        assert np.array_equal(verb(named), verb(object_))
        assert not np.array_equal(verb(named), verb("toy/ar:7"))  # the control


@pytest.mark.parametrize("verb", ["sample", "enhance", "information", "decompose"])
def test_a_verb_of_one_model_refuses_several_in_one_line(verb):
    with pytest.raises(DivlensError, match=r"^expected one model, got a list of 2: call it once for each$"):
        getattr(divlens, verb)(["toy/ar", "toy/mim"], PROMPTS)
    with pytest.raises(DivlensError, match="expected a list of prompts, got 'a cat'"):
        getattr(divlens, verb)("toy/ar", "a cat")
    with pytest.raises(DivlensError, match="expected a model, got 3, which lacks"):
        getattr(divlens, verb)(3, PROMPTS)


def test_a_probe_takes_one_model_or_several():
    one = divlens.probe("toy/mim", PROMPTS, n=2)
    both = divlens.probe(("toy/ar", divlens.load("toy/mim")), PROMPTS, n=2)
    assert list(one.table["model"].unique()) == ["toy/mim:0"]
    assert list(both.table["model"].unique()) == ["toy/ar:0", "toy/mim:0"]
    own = both.table.query("model == 'toy/mim:0'")["diversity"].to_numpy()
    assert own == pytest.approx(one.table["diversity"].to_numpy(), abs=1e-6)
    with pytest.raises(DivlensError, match="expected a model, got 3, which lacks"):
        divlens.probe(["toy/ar", 3], PROMPTS)  # type: ignore[list-item]


# Conditions


HOT = Temperature(2.0)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"baseline": (), "hot": HOT}, {"baseline": "none", "hot": repr(HOT)}),
        ({"hot": [HOT, Argmax()], "baseline": []}, {"hot": f"{HOT!r} + {Argmax()!r}", "baseline": "none"}),
        ([HOT, Argmax()], {"baseline": "none", repr(HOT): repr(HOT), repr(Argmax()): repr(Argmax())}),
        ([[HOT, Argmax()], []], {"baseline": "none", f"{HOT!r} + {Argmax()!r}": f"{HOT!r} + {Argmax()!r}"}),
        (HOT, {"baseline": "none", repr(HOT): repr(HOT)}),
        ([], {"baseline": "none"}),
    ],
)
def test_conditions_come_in_any_natural_shape(conditions, expected):
    result = divlens.probe("toy/ar", PROMPTS, n=2, conditions=conditions)
    assert dict(result.conditions) == expected
    assert list(result.table["condition"]) == list(expected)
    alone = divlens.sample("toy/ar", PROMPTS, n=2, interventions=[HOT]).tokens.flatten(0, 1).flatten(1).tolist()
    hot = [list(s.tokens) for s in result.samples if result.conditions[s.condition] == repr(HOT)]
    assert hot == (alone if repr(HOT) in expected.values() else [])


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ("argmax", "conditions expect interventions by name, such as .*, or a list, got 'argmax'"),
        (3, "conditions expect interventions by name, .*got 3"),
        (Argmax, "conditions expect interventions by name"),
        ([Argmax], "interventions expects a list"),
        (["argmax"], "interventions expects a list"),
        ({"baseline": None}, "interventions expects a list"),
        ({"baseline": (), "hot": "hot"}, "interventions expects a list"),
        ({"baseline": (), 3: Argmax()}, "conditions expect texts as names, got 3"),
        ({"hot": HOT}, 'conditions expect a "baseline", got hot'),
    ],
)
def test_conditions_of_another_shape_are_refused_in_one_line(conditions, message):
    with pytest.raises(DivlensError, match=message) as caught:
        divlens.probe("toy/ar", PROMPTS, n=2, conditions=conditions)
    assert "\n" not in str(caught.value)


# Models that misfit


@dataclass(frozen=True)
class Misfit(ToyModel):
    rows: object = field(default=lambda rows: rows, kw_only=True)
    shares: object = field(default=None, kw_only=True)
    prompts: object = field(default=("a cat",), kw_only=True)

    def encode(self, wordings):
        return self.rows(super().encode(wordings))  # type: ignore[operator]

    def frequencies(self):
        return self.shares

    def calibration_prompts(self):
        return self.prompts


def misfit(**parts) -> Any:
    return Misfit("ar", RULES["ar"], **parts)


ENCODED = {
    "a row too few": (
        lambda rows: rows[1:],
        r"encode \d wordings? as a tensor with a row for each, got shape \([01], 6\)",
    ),
    "a row too many": (lambda rows: rows.repeat(2, 1), r"got shape \([24], 6\)"),
    "no rows": (lambda rows: rows.sum(), r"got shape \(\)"),
    "a list": (lambda rows: rows.tolist(), "got list"),
    "nothing": (lambda rows: None, "got NoneType"),
    "NaN": (lambda rows: rows / 0 * 0, "encode wordings as numbers, got NaN"),
}
FREQUENCIES = {
    "a code too few": (
        torch.ones(2),
        r"a tensor \(3,\) of numbers of at least 0, not all 0, got float32 of shape \(2,\)",
    ),
    "a table": (torch.ones(1, 3), r"shape \(1, 3\)"),
    "an array": (np.ones(3), "got ndarray"),
    "a list": ([1, 1, 1], "got list"),
    "NaN": (torch.tensor([1.0, float("nan"), 0.0]), "got values in"),
    "below 0": (torch.tensor([1.0, -1.0, 0.0]), r"got values in \[-1, 1\]"),
    "nothing came out": (torch.zeros(3), r"got values in \[0, 0\]"),
    "complex": (torch.ones(3, dtype=torch.complex64), "got complex64"),
}


@pytest.mark.parametrize("name", ENCODED)
def test_conditions_that_misfit_are_refused_in_one_line(name):
    rows, message = ENCODED[name]
    for verb in (divlens.sample, divlens.information, divlens.probe):
        with pytest.raises(DivlensError, match=f"^toy/ar:0 expects to .*{message}") as caught:
            verb(misfit(rows=rows), PROMPTS)
        assert "\n" not in str(caught.value)
    assert divlens.sample(misfit(), PROMPTS, n=2).tokens.shape == (2, 2, 1, 3)  # the control


def test_conditions_whose_shape_depends_on_what_they_are_asked_with_are_refused():
    wide = misfit(rows=lambda rows: torch.nn.functional.pad(rows, (0, len(rows) - 1)))
    reading = Reading(wide)
    reading.read(["a cat", "snow"])
    with pytest.raises(DivlensError, match=r"every wording in one shape, got \(6,\) after \(7,\)"):
        reading.read(["a fox"])
    reading.read(["a fox", "a dog"])  # the control
    assert {tuple(row.shape) for row in reading.conditions.values()} == {(7,)} and len(reading.conditions) == 4


@pytest.mark.parametrize("name", FREQUENCIES)
def test_frequencies_that_misfit_are_refused_in_one_line(name):
    shares, message = FREQUENCIES[name]
    with pytest.raises(DivlensError, match=f"^toy/ar:0 expects frequencies as .*{message}") as caught:
        divlens.sample(misfit(shares=shares), PROMPTS, interventions=[Subset(0.5)])
    assert "\n" not in str(caught.value)
    counts = misfit(shares=torch.tensor([7, 0, 2]))  # the control: counts will do
    assert 0 not in divlens.sample(counts, PROMPTS, interventions=[DisableTop(0.3)]).tokens


@pytest.mark.parametrize("prompts", ["a cat", [], None, 3, ["a cat", ""], ["a cat", 3]])
def test_calibration_prompts_that_misfit_are_refused_in_one_line(prompts):
    with pytest.raises(DivlensError, match=r"^toy/ar:0 expects calibration prompts as a list of texts, got"):
        divlens.sample(misfit(prompts=prompts), PROMPTS, interventions=[Subset(0.5)])
    assert divlens.sample(misfit(), PROMPTS, interventions=[Subset(0.5)]).tokens.shape == (2, 8, 1, 3)  # the control


# What results show


@pytest.fixture(scope="module")
def results():
    return {
        "sample": divlens.sample("toy/mim", PROMPTS, n=60),
        "probe": divlens.probe("toy/mim", PROMPTS, n=60),
        "enhance": divlens.enhance("toy/mim", PROMPTS, n=60),
        "information": divlens.information("toy/mim", PROMPTS, n=60, effort=NO_BOUNDS),
        "decompose": divlens.decompose("toy/mim", PROMPTS, **SMALL),
    }


FIGURES = {"sample": "different_grids", "probe": "LPIPS diversity", "enhance": "change", "information": "path"}


def test_a_result_is_a_line_and_shows_its_table(results):
    for verb, result in results.items():
        assert len(repr(result)) < 150 and "\n" not in repr(result) and "2 prompts" in repr(result)
        assert type(result).__name__ in repr(result)
        text, page = str(result), result._repr_html_()
        assert len(text) < 5000 and max(map(len, text.splitlines())) < 200
        assert FIGURES.get(verb, "path:execution") in text and FIGURES.get(verb, "path:execution") in page
        assert "<table" in page and "<b>snow</b>" not in page
    assert "&lt;b&gt;snow&lt;/b&gt;" in results["sample"]._repr_html_()
    row = results["probe"].table.iloc[0]
    cell = interval_text(Interval(row["diversity"], row["diversity_low"], row["diversity_high"]))
    assert cell in str(results["probe"]) and cell in results["probe"]._repr_html_()
    assert len(repr(results["enhance"].before)) < 300 and len(repr(results["probe"].samples)) < 50


def test_a_number_without_an_interval_says_why():
    one = divlens.probe("toy/mim", ["a cat"], n=1, conditions={"baseline": ()})
    assert "they need at least 2" in str(one) and "undefined (NaN) for fewer than 2 samples" in str(one)
    assert "no judge knows what is asked for" in str(one)
    assert "they need at least 2" in str(divlens.information("toy/mim", ["a cat"], n=2, effort=NO_BOUNDS))
    assert "they need at least 2" in str(divlens.enhance("toy/mim", ["a cat"], n=2))
    assert "they need at least 2" in str(divlens.decompose("toy/mim", ["a cat"], **SMALL))
    two = divlens.probe("toy/mim", PROMPTS, n=2, conditions={"baseline": ()})
    assert "they need at least 2" not in str(two) and "fewer than 2" not in str(two)  # the control


# Progress


CALLS = {
    "sample": (lambda **told: divlens.sample("toy/mim", PROMPTS, n=3, **told), 6),
    "probe": (lambda **told: divlens.probe("toy/mim", PROMPTS, n=3, conditions=[Argmax()], **told), 12),
    "enhance": (lambda **told: divlens.enhance("toy/mim", PROMPTS, n=3, **told), 12),
    "information": (lambda **told: divlens.information("toy/ar", PROMPTS, n=3, effort=NO_BOUNDS, **told), 6),
    "decompose": (lambda **told: divlens.decompose("toy/mim", PROMPTS, **SMALL, **told), 8),
}


@pytest.mark.parametrize("verb", CALLS)
def test_progress_is_shown_on_a_terminal_when_it_is_asked_for(verb, monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # rich then takes any stream for a terminal
    call, total = CALLS[verb]
    counts: list[int] = []
    call(progress=True, on_batch=counts.append)
    shown = capsys.readouterr()
    assert f"{total}/{total}" in shown.err and shown.out == "" and sum(counts) == total
    for progress in (None, False):
        call(progress=progress, on_batch=None)
        assert capsys.readouterr() == ("", "")
    with pytest.raises(DivlensError, match="on_batch expects a function of the number of samples, or None, got 3"):
        call(on_batch=3)
    with pytest.raises(DivlensError, match="progress expects True, False, None or a reporter, got 'yes'"):
        call(progress="yes")


# Saving


BOUNDS = "--paths 0 --path-samples 0 --mixture-samples 0"
COMMANDS = {
    "probe": (["toy/mim"], "-n 3", lambda model, **out: divlens.probe(model, PROMPTS, 3, **out)),
    "enhance": (["toy/mim"], "-n 3", lambda model, **out: divlens.enhance(model, PROMPTS, 3, **out)),
    "information": (
        ["toy/diffusion", "toy/ar"],
        f"-n 3 {BOUNDS}",
        lambda model, **out: divlens.information(model, PROMPTS, 3, effort=NO_BOUNDS, **out),
    ),
    "decompose": (
        ["toy/mim", "toy/ar"],
        "--wordings 2 --paths 2 --executions 2",
        lambda model, **out: divlens.decompose(model, PROMPTS, 2, 2, 2, **out),
    ),
}


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("\n".join(PROMPTS))
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_result_is_saved_as_the_command_writes_it(command, in_folder, capsys):
    models, options, call = COMMANDS[command]
    line = [command, *models, "--prompts", "p.txt", *options.split()]
    main([*line, "--out", "command"])
    divlens.save([call(model) for model in models], "library")
    written, saved = files_in(in_folder / "command" / "tables" / command), files_in(in_folder / "library")
    assert {name: saved[name] for name in written} == written
    assert saved.keys() - written.keys() == ({"samples.parquet"} if command in ("probe", "enhance") else set())
    asked, found = (record_of(in_folder / "command")[part][command] for part in ("requests", "found"))
    about = record_of(in_folder / "library")
    assert {name: about[name] for name in asked | found} == asked | found
    main([*line, "--seed", "1", "--out", "other"])
    assert files_in(in_folder / "other" / "tables" / command) != written  # the control


@pytest.mark.parametrize("command", COMMANDS)
def test_the_run_of_a_call_is_that_of_the_command(command, in_folder, capsys):
    (model, *_), options, call = COMMANDS[command]
    line = [command, model, "--prompts", "p.txt", *options.split()]
    main([*line, "--out", "command"])
    result = call(model, out="library")
    assert files_in(in_folder / "command") == files_in(in_folder / "library")
    one, other = (record_of(in_folder / name) for name in ("command", "library"))
    parts = ("requests", "found", "models", "complete")
    assert [one[part] for part in parts] == [other[part] for part in parts]
    assert other["requests"][command] == result.request and str(result) == str(call(model))
    main([*line, "--seed", "1", "--out", "other"])
    assert files_in(in_folder / "command") != files_in(in_folder / "other")  # the control


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["sample", "sample"], "one Generation for a folder, got 2"),
        ([], "got none"),
        (["probe", "enhance"], "got ProbeResult, Enhanced"),
        (["probe", "probe"], "one ProbeResult for a folder, got 2"),
    ],
)
def test_what_is_no_result_is_not_saved(names, message, results, tmp_path):
    with pytest.raises(DivlensError, match=message):
        divlens.save([results[name] for name in names], tmp_path / "out")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_many_samples_is_read_back_from_its_folder(results, tmp_path):
    divlens.save(results["probe"], tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    pd.testing.assert_frame_equal(table, pd.read_csv(io.StringIO(results["probe"].table.to_csv(index=False))))
    kept = pd.read_parquet(tmp_path / "out" / "samples.parquet")
    assert [tuple(tokens) for tokens in kept["tokens"]] == [record.tokens for record in results["probe"].samples]


def test_a_result_is_saved_over_itself_and_not_over_another(tmp_path):
    prompts = [divlens.Prompt("red heart", ("heart icon",)), divlens.Prompt("a cat", ("cat icon",))]
    enhanced = divlens.enhance("toy/mim", prompts, 3)
    for _ in range(2):
        divlens.save(enhanced, tmp_path / "enhanced")
    one, other = (divlens.decompose("toy/mim", prompts, 1, paths, 2) for paths in (2, 3))
    for _ in range(2):
        divlens.save(one, tmp_path / "split")
    with pytest.raises(DivlensError, match="with other levels"):
        divlens.save(other, tmp_path / "split")


@pytest.mark.parametrize("verb", [divlens.probe, divlens.enhance, divlens.decompose])
def test_the_network_of_lpips_stands_where_the_model_runs(verb, monkeypatch):
    moved = []
    monkeypatch.setattr(FeatureNetwork, "to", lambda self, device: (moved.append(device), self)[1])
    verb("toy/mim", PROMPTS)
    assert moved and set(moved) == {torch.device("cpu")}


def test_models_with_prompts_of_their_own_are_asked_together(tmp_path, monkeypatch, capsys):
    """One text is one prompt for all: the paraphrases of the model that has it among its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("rocket\nred heart\n")
    for line in (f"information zoo/ar toy/mim -n 2 {BOUNDS}", "decompose zoo/ar toy/mim --wordings 2 --executions 2"):
        main([*line.split(), "--prompts", "p.txt", "--out", line.split()[0]])
        request = request_of(tmp_path / line.split()[0], line.split()[0])
        assert len(request["models"]) == 2 and len(request["prompts"][0]["paraphrases"]) > 2
    assert divlens.sample("toy/mim", ["rocket"], 2).prompts[0].paraphrases == ()  # the control: it has none of its own


@dataclass(frozen=True)
class WithPrompts(ToyModel):
    own_prompts: Any = ()


def test_own_prompts_that_misfit_are_refused_in_one_line():
    own = divlens.Prompt("a cat", ("kitten",))
    for wrong in (["a cat"], None, 3):
        with pytest.raises(DivlensError, match=r"expects own_prompts as a list of divlens\.Prompt, got"):
            divlens.sample(WithPrompts("ar", RULES["ar"], own_prompts=wrong), PROMPTS, 2)
    found = divlens.sample(WithPrompts("ar", RULES["ar"], own_prompts=[own]), ["a cat", divlens.Prompt("a dog")], 2)
    assert found.prompts == (own, divlens.Prompt("a dog"))


@dataclass(frozen=True)
class Rewording(ToyModel):
    known: Any = None

    def prompt_of(self, text):
        return self.known


def test_a_model_may_know_other_wordings_of_a_text():
    own = divlens.Prompt("a cat", ("kitten",), "cat")
    found = divlens.sample(Rewording("ar", RULES["ar"], known=own), ["a cat"], 2)
    assert found.prompts == (own,)
    asked = divlens.Prompt("a cat", ("my cat",))
    assert divlens.sample(Rewording("ar", RULES["ar"], known=own), [asked], 2).prompts == (asked,)  # as it was asked
    assert divlens.sample(Rewording("ar", RULES["ar"]), ["a cat"], 2).prompts == (divlens.Prompt("a cat"),)
    for wrong in (divlens.Prompt("a dog"), "a cat"):
        with pytest.raises(DivlensError, match=r"expects prompt_of to give a divlens\.Prompt of the same text, got"):
            divlens.sample(Rewording("ar", RULES["ar"], known=wrong), ["a cat"], 2)


def test_the_zoo_knows_other_wordings_of_all_that_the_laboratory_can_read():
    texts = ["small lion, top, noto style", "🚀 on a blue background", "a shiny rocket"]
    first, second, third = divlens.sample("zoo/mim", texts, 1).prompts
    assert first.concept == "lion" and "in the noto style" in " ".join(first.paraphrases)
    assert second.text == texts[1] and second.concept == "rocket" and "rocket, blue background" in second.paraphrases
    assert third == divlens.Prompt("a shiny rocket")  # it says what no caption says


def test_a_model_under_a_condition_is_saved_once_in_a_folder(tmp_path):
    cool, hot = (divlens.decompose("toy/mim", PROMPTS, **SMALL, interventions=[Temperature(t)]) for t in (0.5, 2.0))
    divlens.save([cool, hot], tmp_path / "both")
    table = pd.read_csv(tmp_path / "both" / "table.csv")
    assert set(table["condition"]) == {"Temperature(t=0.5)", "Temperature(t=2.0)"} and set(table["model"]) == {
        "toy/mim:0"
    }
    with pytest.raises(DivlensError, match=r"once, got toy/mim:0 under Temperature\(t=0.5\) twice"):
        divlens.save([cool, cool], tmp_path / "twice")


def test_text_of_a_result_is_plain_wherever_it_is(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    n: Any = np.int64(2)
    found = divlens.probe("toy/mim", PROMPTS, n=n, conditions={"a\x1b[31mb": (), "baseline": ()})
    assert "\x1b" not in str(found) and r"a\x1b[31mb" in str(found) and "baseline" in str(found)
    assert "\x1b" not in found._repr_html_() and "\x1b" not in repr(found)
    assert found.request["n"] == 2


def test_a_measure_that_is_unknown_for_a_prompt_says_so():
    def of_cats(look):
        return look.pictures.mean((1, 2, 3)) if look.prompt.text == "a cat" else torch.full((2,), float("nan"))

    mine = divlens.Measure("mine", of_cats)
    found = divlens.probe("toy/mim", ["a cat", "a dog"], 2, conditions={"baseline": ()}, measures=[mine])
    assert "mine: over 1 of 2 prompts, too few for an interval." in found.notes
