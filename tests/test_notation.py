"""Interventions as text: what Python writes comes back, and nothing of the text is run."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import divlens
from divlens import interventions as module
from divlens import methods
from divlens.cli import main
from divlens.codebook import WAYS
from divlens.errors import DivlensError
from divlens.interventions import (
    Argmax,
    Detailed,
    DisableTop,
    Freeze,
    Guidance,
    OnPrompt,
    OnSettings,
    Paraphrase,
    Subset,
    Temperature,
    TopK,
    TopP,
)
from divlens.methods import (
    ChooseThenSample,
    ConditionNoise,
    EntropyTemperature,
    FixedOrder,
    GuidanceInterval,
    MinP,
    PathTemperature,
    RandomOrder,
    RepulseTokens,
    StratifiedNoise,
)
from divlens.notation import KNOWN, condition_from, conditions_from, example, interventions_from

fixed = settings(derandomize=True, deadline=None, max_examples=40)
fractions = st.floats(0.001, 1.0)
ONE = st.one_of(
    st.builds(Subset, fractions, st.sampled_from(WAYS)),
    st.builds(DisableTop, fractions, st.sampled_from(WAYS), st.floats(0, 1)),
    st.builds(MinP, st.floats(0, 1)),
    st.builds(EntropyTemperature, st.floats(0.1, 9), st.floats(0, 9), st.floats(0.1, 9)),
    st.builds(PathTemperature, st.floats(0, 9), st.sampled_from(["constant", "linear", "running product"])),
    st.builds(FixedOrder, st.sampled_from(["halton", "raster", (2, 0, 1)]), st.booleans()),
    st.builds(ConditionNoise, st.floats(0, 9), st.floats(0, 1), st.floats(0, 0.5), st.floats(0.5, 1)),
    st.builds(StratifiedNoise, st.integers(1, 64)),
    st.builds(RepulseTokens, st.floats(0, 100), st.integers(2, 64)),
    st.sampled_from([RandomOrder(), ChooseThenSample()]),
    st.builds(GuidanceInterval, st.floats(0, 0.5), st.floats(0.5, 1)),
    st.builds(Temperature, st.floats(1e-3, 1e3)),
    st.builds(TopK, st.integers(1, 10**6)),
    st.builds(TopP, fractions),
    st.builds(Guidance, st.floats(0, 100)),
    st.builds(Argmax, st.sampled_from(["tokens", "all"]), st.floats(0, 1)),
    st.builds(Freeze, st.sampled_from(["path", "execution"])),
    st.builds(Paraphrase, st.none() | st.integers(1, 9), st.sampled_from(["similar", "mixed", "short", "long"])),
    st.builds(
        Detailed,
        st.none() | st.integers(1, 4),
        st.integers(1, 64),
        st.integers(0, 9),
        st.sampled_from(["laboratory", "everyday"]),
    ),
)


@fixed
@given(st.lists(ONE, min_size=1, max_size=4))
def test_what_python_writes_comes_back(listed):
    assert interventions_from(", ".join(map(repr, listed))) == tuple(listed)


def test_every_intervention_has_its_word_and_an_example_that_works():
    public = {
        name
        for name, thing in vars(module).items()
        if isinstance(thing, type) and thing.__module__ == module.__name__ and hasattr(thing, "__dataclass_fields__")
    }
    assert public - {"Settings"} | set(methods.__all__) == set(KNOWN) and all(hasattr(divlens, name) for name in KNOWN)
    for name in KNOWN:
        (found,) = interventions_from(example(name))
        assert type(found).__name__ == name and isinstance(found, OnSettings | OnPrompt)


def test_nothing_of_a_text_is_run(tmp_path):
    marker = tmp_path / "ran"
    opened = f"open({str(marker)!r}, 'w')"
    for text in (opened, f"Subset({opened})", f"Subset(0.5) or {opened}"):
        with pytest.raises(DivlensError):
            interventions_from(text)
    assert not marker.exists()
    eval(f"{opened}.close()")  # the control: it could have been
    assert marker.exists()


REFUSED = {
    "": "expected interventions such as",
    "Argmax": "expected interventions such as .* got 'Argmax'",
    "Subset(0.5": "expected interventions such as",
    "Subset(0.5),": "expected interventions such as",
    "Temprature(2)": r"no intervention is called 'Temprature' \(did you mean Temperature\?\)",
    "os.remove('x')": "expected interventions such as",
    "Subset(x)": r"Subset expects numbers and texts in quotes, such as Subset\(0.5\)",
    "Subset(1, 2, 3)": r"Subset expects fraction, by: Subset\(0.5\)",
    "Argmax(depth=3)": r"Argmax expects scope, share: Argmax\(\)",
    "Subset(**{'fraction': 0.5})": "Subset expects fraction, by",
    "Temperature(-1)": "Temperature expects a number above 0",
    "(" * 3000: "expected interventions such as",
}


@pytest.mark.parametrize("text", REFUSED)
def test_anything_else_is_refused_in_one_line(text):
    with pytest.raises(DivlensError, match=f"^{REFUSED[text]}") as caught:
        interventions_from(text)
    assert "\n" not in str(caught.value)


def test_a_condition_may_have_a_name():
    assert condition_from("hot = Temperature(t=1.3)") == ("hot", (Temperature(1.3),))
    for text in ("Temperature(1.3), TopP(0.9)", "Temperature(t=1.30),TopP(p=0.9)"):  # without one it is what it does
        assert condition_from(text) == ("Temperature(t=1.3) + TopP(p=0.9)", (Temperature(1.3), TopP(0.9)))
    assert list(conditions_from(["hot=Temperature(2.0)", "Argmax()"], "baseline")) == [
        "baseline",
        "hot",
        "Argmax(scope='tokens')",
    ]
    for texts in (["=Argmax()"], ["a=Argmax()", "a=TopK(3)"], ["baseline=Argmax()"], ["a="]):
        with pytest.raises(DivlensError):
            conditions_from(texts, "baseline")


def test_the_commands_take_them(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def said(*words: str) -> tuple[int, str]:
        code = 0
        try:
            main([*words, "--limit", "2", *(() if words[0] == "decompose" else ("-n", "2"))])
        except SystemExit as left:
            code = int(left.code or 0)
        return code, capsys.readouterr().out

    code, table = said("probe", "toy/mim", "--condition", "hot=Temperature(9.0)")
    assert code == 0 and "baseline" in table and "hot" in table and "subset" not in table
    code, table = said("information", "toy/mim", "--intervene", "Argmax()", "--intervene", "TopK(2)")
    assert code == 0 and "Argmax(scope='tokens') TopK(k=2)" in table
    code, table = said("decompose", "toy/mim", "--intervene", "TopK(2)")
    assert code == 0 and "TopK(k=2)" in table
    assert said("decompose", "toy/mim", "--intervene", "TopK")[0] == 2
    assert said("information", "toy/mim", "--under", "subset", "--intervene", "TopK(2)")[0] == 2
