"""Sweeps: what is written becomes conditions that carry their dose, and what makes no sense is refused in a line."""

import math

import pytest

import divlens
from divlens import Argmax, DisableTop, Freeze, Guidance, Paraphrase, Subset, Temperature, TopK, TopP
from divlens.errors import DivlensError
from divlens.interventions import apply_all
from divlens.notation import interventions_described
from divlens.paths import ConfidenceUnmasking
from divlens.settings import Settings
from divlens.sweeps import DOSES, Swept, conditions_of_sweep, sweep, swept_in, with_sweeps
from divlens.types import Prompt

WRITTEN = {
    "Subset=1,0.5,0.1": {"Subset=1": Subset(1), "Subset=0.5": Subset(0.5), "Subset=0.1": Subset(0.1)},
    " Subset( by = 'random' ) = .5, 0.25": {
        "Subset(by='random')=0.5": Subset(0.5, "random"),
        "Subset(by='random')=0.25": Subset(0.25, "random"),
    },
    "Subset(by='frequency')=1,0.5": {"Subset=1": Subset(1), "Subset=0.5": Subset(0.5)},
    "Argmax=0,0.5": {"Argmax=0": Argmax(share=0), "Argmax=0.5": Argmax(share=0.5)},
    "Paraphrase(lengths='mixed')=1,16": {
        "Paraphrase(lengths='mixed')=1": Paraphrase(1, "mixed"),
        "Paraphrase(lengths='mixed')=16": Paraphrase(16, "mixed"),
    },
    "DisableTop()=0,0.1": {"DisableTop=0": DisableTop(0), "DisableTop=0.1": DisableTop(0.1)},
    "Temperature=0.5,2": {"Temperature=0.5": Temperature(0.5), "Temperature=2": Temperature(2)},
    "TopK=5,2": {"TopK=5": TopK(5), "TopK=2": TopK(2)},
    "TopP=0.9,1e-3": {"TopP=0.9": TopP(0.9), "TopP=0.001": TopP(0.001)},
    "Guidance=1,3": {"Guidance=1": Guidance(1), "Guidance=3": Guidance(3)},
}


@pytest.mark.parametrize("text", WRITTEN)
def test_a_sweep_is_a_condition_a_dose(text):
    assert conditions_of_sweep(text) == {name: (one,) for name, one in WRITTEN[text].items()}


@pytest.mark.parametrize("text", WRITTEN)
def test_what_a_condition_is_a_dose_of_is_found_again_in_the_text_of_a_run(text):
    found = [swept_in(*interventions_described(repr(one))) for one in WRITTEN[text].values()]
    assert len({swept for swept, _ in found}) == 1  # type: ignore[misc]
    for (swept, dose), (name, one) in zip(found, WRITTEN[text].items(), strict=True):  # type: ignore[misc]
        assert swept.at(dose) == one and name == f"{swept.name}={dose:g}"


def test_other_fields_make_another_sweep_and_what_has_no_dose_makes_none():
    assert swept_in(Subset(0.5)) == swept_in(Subset(0.5, "frequency")) != swept_in(Subset(0.5, "mass"))
    assert swept_in(Argmax(share=0.5)) != swept_in(Argmax("all", 0.5))
    assert swept_in(Freeze("path")) is None and swept_in(Paraphrase()) is None


def test_the_dose_of_no_effect_has_none():
    settings = Settings(ConfidenceUnmasking(4), 3.0, top_k=7)

    def asked():
        raise AssertionError("no calibration run is needed")

    for kind, dose in DOSES.items():
        if kind is Paraphrase:
            prompt = Prompt("a cat", ("cat", "this is a cat"))
            assert Paraphrase(1).wordings(prompt, lambda p: (p.text, *p.paraphrases)) == ("a cat",)
            mixed = Paraphrase(1, "mixed").wordings(prompt, lambda p: (p.text, *p.paraphrases))
            assert mixed == ("cat",) and Swept(kind, (("lengths", "mixed"),)).none == -math.inf
        elif math.isfinite(dose.none):
            assert apply_all([Swept(kind).at(dose.none)], settings, asked) == settings
    silent = Swept(Argmax, (("scope", "all"),))  # the control: its path has no noise at any dose
    assert apply_all([silent.at(0)], settings, asked) != settings and silent.none == -math.inf


def test_in_python_an_intervention_and_its_doses():
    expected = {"baseline": (), **conditions_of_sweep("Subset(by='random')=1,0.5")}
    for asked in (Subset(0.3, by="random"), "Subset(by='random')"):
        assert sweep(asked, [1, 0.5]) == expected
    assert sweep(Subset, (1, 0.5)) == {"baseline": (), **conditions_of_sweep("Subset=1,0.5")} != expected
    assert sweep(Paraphrase(), [1, 4]) == {"baseline": (), **conditions_of_sweep("Paraphrase=1,4")}
    assert divlens.sweep is sweep


REFUSED = {
    "": "expected a sweep such as",
    "Subset": "expected a sweep such as .* got 'Subset'",
    "Subset=": "got 'Subset=', which has no doses",
    "Subset=0.5": "a sweep of Subset expects at least two doses, got 0.5",
    "=1,2": "expected a sweep such as",
    "Subset=1,0.5,0.5": "a sweep of Subset expects every dose once, got 0.5 twice",
    "Subset=1,1.0": "a sweep of Subset expects every dose once, got 1.0 twice",
    "Subset=1,2": r"Subset expects a fraction in \(0, 1\], got 2",
    "Argmax=0,1.1": r"Argmax\(share=...\) expects a share of the steps in \[0, 1\], got 1.1",
    "Paraphrase=1,2.5": "expects a whole number of at least 1, got 2.5",
    "Sbset=1,0.5": r"no intervention is called 'Sbset' \(did you mean Subset\?\)",
    "Freeze=1,2": "expects an intervention that has a dose .*, got Freeze",
    "Subset(0.5)=1,0.5": "the fraction is what varies, got 'Subset",
    "Subset(fraction=1)=1,0.5": "the fraction is what varies, got 'Subset",
    "Subset(by='colour')=1,0.5": 'expects "frequency", "mass", "random" or "cluster", got \'colour\'',
    "Subset(to='random')=1,0.5": "Subset expects fraction, by, got to, fraction",
    "Subset(by=random)=1,0.5": "Subset expects numbers and texts in quotes",
    "Subset(by='random'=1,0.5": "expected a sweep such as",
    "Subset=1,half": "numbers that commas part, got 'half'",
    "Subset=1,0.5,": "numbers that commas part, got ''",
    "Subset=True,0.5": "numbers that commas part, got 'True'",
    "Subset=1,[0.5]": "numbers that commas part",
    "Subset=0.5,1e999": "numbers that commas part, got '1e999'",
    "a b=1,2": "expected a sweep such as",
}


@pytest.mark.parametrize("text", REFUSED)
def test_anything_else_is_refused_in_a_line(text):
    with pytest.raises(DivlensError, match=REFUSED[text]) as caught:
        conditions_of_sweep(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "doses", "message"),
    [
        (Freeze("path"), [1, 2], "that has a dose .*, got Freeze"),
        (7, [1, 2], "that has a dose .*, got int"),
        (Subset, [], "at least two doses, got none"),
        (Subset, "1,0.5", "expects a list of doses"),
        (Subset, 0.5, "expects a list of doses"),
        (Subset, [1, None], "expects numbers as doses, got None"),
        (Paraphrase, [1, None], "expects numbers as doses, got None"),
        (Subset, [0.5, 0.5], "every dose once, got 0.5 twice"),
    ],
)
def test_so_is_it_in_python(asked, doses, message):
    with pytest.raises(DivlensError, match=message):
        sweep(asked, doses)


def test_two_sweeps_may_not_have_a_condition_in_common():
    both = with_sweeps({"baseline": ()}, ["Subset=1,0.5", "Subset(by='mass')=1,0.5"])
    assert list(both) == ["baseline", "Subset=1", "Subset=0.5", "Subset(by='mass')=1", "Subset(by='mass')=0.5"]
    with pytest.raises(DivlensError, match=r"under a name of its own, got 'Subset=0.5' twice"):
        with_sweeps({"baseline": ()}, ["Subset=1,0.5", "Subset=0.5,0.1"])


@pytest.mark.parametrize("text", ["Subset=1,0.5,0.5", "Subset=1,7", "Sbset=1,2", "Subset=", "Freeze=1,2"])
def test_the_command_line_refuses_with_2_before_anything_is_loaded(text, capsys, monkeypatch):
    monkeypatch.setattr("divlens.models.registry.load", lambda *a, **b: pytest.fail("it loaded a model"))
    from divlens.cli import main

    with pytest.raises(SystemExit) as left:
        main(["probe", "toy/ar", "--sweep", text])
    said = capsys.readouterr()
    assert (left.value.code, said.out, said.err.count("\n")) == (2, "", 1) and said.err.startswith("divlens: error: ")
