"""Which strategy a model has: patterns, chances under resampling, and the verdicts of probes of the toys."""

import numpy as np
import pytest

from divlens import Argmax, Subset, Temperature, probe
from divlens.errors import DivlensError
from divlens.verdict import verdict
from divlens.verdict.strategy import MIXED, PATTERNS, UNDECIDED, chances_of, name_of


def test_every_strategy_has_its_pattern_and_nothing_else_is_one():
    kinds = ("zero", "drop", "rise", "equivalent", "undecided")
    names = {(a, s): name_of({"Argmax": a, "Subset": s}) for a in kinds for s in kinds}
    for name, pattern in PATTERNS.items():
        assert [pair for pair, found in names.items() if found == name] == [(pattern["Argmax"], pattern["Subset"])]
    assert names["rise", "drop"] == MIXED
    assert names["zero", "undecided"] == names["undecided", "drop"] == UNDECIDED
    assert names["undecided", "rise"] == MIXED  # no strategy has it


def test_chances_follow_the_prompts():
    baseline = np.full(12, 0.2)
    half = {"Argmax": baseline * np.repeat([0.5, 1.0], 6), "Subset": baseline * 0.5}
    found = chances_of(baseline, half, {"Argmax": False, "Subset": False}, 0.1, 0)
    # Argmax drops by more than 10% unless fewer than 3 of 12 draws are of the first half: 1.9%.
    assert found["decoupled"] == pytest.approx(0.019, abs=0.013)
    assert found["diversity-prioritized"] == pytest.approx(1 - 0.019, abs=0.013)
    assert sum(found.values()) == pytest.approx(1)


@pytest.fixture(scope="module")
def probed():
    conditions = {"baseline": [], "subset": [Subset(0.5)], "greedy": [Argmax()], "both": [Argmax(), Subset(0.5)]}
    return probe(["toy/ar", "toy/mim"], ["a cat", "a dog", "red heart", "sky"], n=4, conditions=conditions)


def test_a_probe_gets_a_verdict(probed):
    found = verdict(probed)
    assert list(found.strategies) == ["toy/ar:0", "toy/mim:0"]
    ar = found.strategies["toy/ar:0"]
    assert ar.contrasts["Argmax"].outcome == "zero"
    assert set(ar.contrasts) == {"Argmax", "Subset"}  # there was no Paraphrase, and no mixture counts
    text = str(found)
    assert f"toy/ar:0 is {ar.name}" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_what_has_no_verdict_is_refused(probed):
    with pytest.raises(DivlensError, match=r"at least 2 prompts and 2 samples of each, got 1 prompt and 4 samples"):
        verdict(probe("toy/ar", ["a cat"], n=4))
    with pytest.raises(DivlensError, match="got none of Argmax, Subset"):
        verdict(probe("toy/ar", ["a cat", "a dog"], n=2, conditions=[Temperature(2.0)]))
    with pytest.raises(DivlensError, match=r"verdict expects what divlens.probe returns, got int"):
        verdict(3)  # pyright: ignore[reportArgumentType]
