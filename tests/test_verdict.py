"""Which strategy a model has: patterns, chances under resampling, pictures that broke, and the verdicts of probes, of
the runs they write, and of the command line."""

import json
import math
import re
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import divlens
from divlens import Argmax, Paraphrase, Subset, Temperature, probe
from divlens.errors import DivlensError
from divlens.statistics import Interval
from divlens.verdict import Verdict
from divlens.verdict.evidence import Figures, evidence_of, figures_of, interventions_alone
from divlens.verdict.exact import agrees, exact_answers
from divlens.verdict.result import why_no_decision
from divlens.verdict.strategy import MIXED, OPEN, PATTERNS, chances_of, name_of, strategy_of
from oracles.colour_network import colour_network

PROMPTS = ("a cat", "a dog", "red heart", "sky", "sea", "sun", "snow")
CONDITIONS = {"baseline": [], "subset": [Subset(0.5)], "greedy": [Argmax()], "both": [Argmax(), Subset(0.5)]}


def test_every_strategy_has_its_pattern_and_nothing_else_is_one():
    kinds = ("zero", "drop", "rise", "equivalent", "undecided")
    names = {(a, s): name_of({"Argmax": a, "Subset": s}) for a in kinds for s in kinds}
    for name, pattern in PATTERNS.items():
        assert [pair for pair, found in names.items() if found == name] == [(pattern["Argmax"], pattern["Subset"])]
    assert names["rise", "drop"] == MIXED
    assert names["zero", "undecided"] == names["undecided", "drop"] == OPEN
    assert names["undecided", "rise"] == MIXED  # no strategy has it


def test_chances_follow_the_prompts():
    baseline = np.full(12, 0.2)
    half = {"Argmax": baseline * np.repeat([0.5, 1.0], 6), "Subset": baseline * 0.5}
    found = chances_of(baseline, half, {"Argmax": False, "Subset": False}, 0.1, 0)
    # Argmax drops by more than 10% unless fewer than 3 of 12 draws are of the first half: 1.9%, with a standard error
    # of 0.3% in 2000 resamples; 4 of these are a false alarm in 16,000.
    assert found["decoupled"] == pytest.approx(0.019, abs=0.013)
    assert found["diversity-prioritized"] == pytest.approx(1 - 0.019, abs=0.013)
    assert sum(found.values()) == pytest.approx(1)
    gone = chances_of(np.zeros(12), half, {"Argmax": False, "Subset": False}, 0.1, 0)
    assert all(map(math.isnan, gone.values()))


def figures(diversity, kept=None, right=None, only_duplicates=False):
    unknown = np.full(len(diversity), np.nan)
    return Figures(diversity, unknown if kept is None else kept, unknown if right is None else right, only_duplicates)


class TestPicturesThatBreak:
    """Half of the codebook breaks pictures of this model: they differ, and the right ones are as they were."""

    random = np.random.default_rng(0)
    before = random.gamma(20, 0.01, 12)
    noise = 1 + 0.02 * random.normal(size=(3, 12))
    right = np.full(12, 0.97)
    baseline = figures(before, before, right)
    silent = figures(0 * before, 0 * before, right, only_duplicates=True)
    broken = figures(1.3 * before * noise[0], before * noise[1], np.full(12, 0.72))

    def strategy(self, subset, baseline=None):
        conditions = {"Argmax": self.silent, "Subset": subset}
        return strategy_of("m", baseline or self.baseline, conditions, margin=0.1, n=100, seed=0)

    def test_the_pictures_that_are_right_decide(self):
        found = self.strategy(self.broken)
        assert found.contrasts["Subset"].outcome == "rise"
        assert found.kept["Subset"].contrast.outcome == "equivalent"
        assert found.name == "compression-prioritized" and found.chances[found.name] == 1
        (line,) = (line for line in found.reasons if line.startswith("Subset"))
        assert "28% of the pictures are wrong, 3% at baseline" in line
        assert line.endswith("all pictures show a rise, those that are right equivalence, and the latter counts.")

    def test_without_a_judge_they_cannot(self):
        unjudged = figures(self.broken.diversity)
        found = self.strategy(unjudged, figures(self.before))
        assert (found.name, found.kept) == (MIXED, {})
        assert found.reasons[-1] == "No judge knows these prompts: a rise may be of pictures that broke."

    def test_a_single_prompt_that_the_judge_knows_does_not_decide(self):
        one = np.where(np.arange(12) == 0, self.right, np.nan)
        found = self.strategy(replace(self.broken, right=one), replace(self.baseline, right=one))
        assert (found.name, found.kept) == (MIXED, {})

    def test_prompts_with_fewer_than_two_right_pictures_are_left_out_and_counted(self):
        kept = np.where(np.arange(12) < 3, np.nan, self.broken.kept)
        found = self.strategy(replace(self.broken, kept=kept))
        assert found.kept["Subset"].contrast.prompts == 9
        assert ", over 9 prompts; 28% of the pictures" in next(iter(found.reasons[1:]))

    def test_where_all_pictures_broke_nothing_is_decided(self):
        gone = replace(self.broken, kept=np.full(12, np.nan), right=np.zeros(12))
        found = self.strategy(gone)
        assert (found.kept["Subset"].contrast.outcome, found.name) == ("undecided", OPEN)
        assert "of the pictures that are right undecided (no prompt has a value on both sides)" in found.reasons[1]

    def test_where_fidelity_fell_a_rise_of_the_right_ones_is_not_called_one(self):
        """What the judge still recognises may be damaged, too."""
        found = self.strategy(replace(self.broken, kept=self.broken.diversity))
        assert found.kept["Subset"].fell and found.kept["Subset"].contrast.outcome == "undecided"
        assert found.name == OPEN and found.chances[MIXED] == 0
        assert found.reasons[1].endswith("Fidelity fell, so what is right may be damaged, too: no rise is claimed.")

    def test_nor_is_one_that_more_prompts_would_show(self):
        found = self.strategy(replace(self.broken, kept=self.before * np.tile([0.3, 2.3], 6)))
        kept = found.kept["Subset"]
        assert kept.fell and not kept.held_back and kept.contrast.change.value > 0.1
        assert math.isnan(kept.contrast.would_decide) and found.reasons[1].endswith("no rise is claimed.")

    def test_where_fidelity_is_as_it_was_a_rise_is_one(self):
        """The control: what tells breakage from diversity does not hide diversity."""
        found = self.strategy(replace(self.broken, kept=self.broken.diversity, right=self.right))
        assert not found.kept["Subset"].fell and found.kept["Subset"].contrast.outcome == "rise"
        assert found.name == MIXED and "Fidelity fell" not in found.reasons[1]


def test_argmax_is_that_of_the_token_draw_and_nothing_else():
    done = {
        "both": "Argmax(scope='tokens') + Subset(fraction=0.5)",
        "silent": repr(Argmax("all")),
        "a": repr(Argmax()),
        "b": repr(Argmax()),
        "words": repr(Paraphrase(lengths="mixed")),
    }
    assert interventions_alone(done) == {"Argmax": "a", "Paraphrase": "words"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "run"


@pytest.fixture(scope="module")
def probed(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("divlens.experiment.comparison.load_network", lambda name=None: colour_network())
        return probe(["toy/ar", "toy/mim"], PROMPTS, n=3, conditions=CONDITIONS, out=folder)


@pytest.fixture
def copied(probed, folder, tmp_path):
    """A copy of the run, and a function that changes its record."""

    def change(edit):
        record = json.loads((tmp_path / "out" / "run.json").read_text())
        edit(record)
        (tmp_path / "out" / "run.json").write_text(json.dumps(record))
        return tmp_path / "out"

    shutil.copytree(folder, tmp_path / "out")
    return change


def test_a_probe_gets_a_verdict(probed):
    found = divlens.verdict(probed)
    assert isinstance(found, Verdict) and list(found.strategies) == ["toy/ar:0", "toy/mim:0"]
    ar = found.strategies["toy/ar:0"]
    assert ar.contrasts["Argmax"].outcome == "zero"
    assert set(ar.contrasts) == {"Argmax", "Subset"}  # there was no Paraphrase, and no mixture counts
    text = str(found)
    assert f"toy/ar:0 is {ar.name}" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert list(found.table["outcome"]) == [
        one.outcome for each in found.strategies.values() for one in each.contrasts.values()
    ]


def test_the_folder_of_its_run_gets_the_same_one_and_no_model_is_loaded(probed, folder, monkeypatch):
    monkeypatch.setattr("divlens.models.registry.load", lambda *a, **b: pytest.fail("it loaded a model"))
    expected = str(divlens.verdict(probed))
    for asked in (folder, str(folder), divlens.open_run(folder)):
        assert str(divlens.verdict(asked)) == expected
    assert str(divlens.verdict(folder, margin=0.5)) != expected


def test_two_pairs_of_duplicates_are_not_one(probed):
    evidence = evidence_of(probed)
    assert figures_of(evidence, "toy/ar:0")[1]["Argmax"].only_duplicates
    changed: Any = evidence.per_prompt.copy()
    changed.loc[changed["condition"] == "greedy", "diversity"] = 0.1
    assert not figures_of(replace(evidence, per_prompt=changed), "toy/ar:0")[1]["Argmax"].only_duplicates


def test_what_has_no_verdict_is_refused(probed, tmp_path):
    with pytest.raises(DivlensError, match=r"at least 2 prompts and 2 samples of each, got 1 prompt and 3 samples"):
        divlens.verdict(replace(probed, prompts=probed.prompts[:1]))
    hot = replace(probed, conditions={"baseline": "none", "hot": repr(Temperature(2.0))})
    with pytest.raises(DivlensError, match="got none of Argmax, Subset"):
        divlens.verdict(hot)
    with pytest.raises(DivlensError, match=r"what divlens.probe returns, or the folder of a run of it, got int"):
        divlens.verdict(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DivlensError, match=r"expected the folder of a run, got .*nothing"):
        divlens.verdict(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda record: record["complete"].clear(), "out is not complete: divlens resume"),
        (lambda record: record.update(shard=[1, 4]), "out holds shard 1/4 of a run: a verdict needs all"),
        (
            lambda record: record["requests"].update(enhance=record["requests"].pop("probe")),
            "verdict expects a run of probe, .*out has enhance",
        ),
    ],
)
def test_a_run_without_a_complete_probe_is_refused(copied, edit, message):
    assert divlens.verdict(copied(lambda record: None))  # the control
    with pytest.raises(DivlensError, match=message):
        divlens.verdict(copied(edit))


def test_a_run_whose_tables_lack_kept_diversity_says_what_to_do(copied):
    old = copied(lambda record: None)
    path = old / "tables" / "probe" / "per_prompt.parquet"
    pd.read_parquet(path).drop(columns="kept_diversity").to_parquet(path)
    with pytest.raises(DivlensError, match="measured by a divlens without kept_diversity: the command that made it"):
        divlens.verdict(old)


def test_too_few_prompts_are_known_before_anything_is_drawn():
    usual = divlens.default_conditions()
    assert why_no_decision(usual, 6).startswith("with 6 prompts no drop or rise of diversity can be shown")
    assert why_no_decision(usual, 6).endswith("on 3 contrasts takes at least 7 prompts")
    assert why_no_decision(usual, 7) == ""
    assert why_no_decision({"baseline": (), "hot": (Temperature(2.0),)}, 2) == ""  # no verdict was asked for


# Beside the exact shares


def test_a_run_with_exact_shares_says_them_beside_the_verdict(copied, colours_for_lpips):
    out = copied(lambda record: None)
    assert divlens.verdict(out).strategies["toy/mim:0"].exact == ()
    found = divlens.decompose("toy/mim", PROMPTS, wordings=1, paths=2, executions=2, out=out)
    (line,) = divlens.verdict(out).strategies["toy/mim:0"].exact
    execution, both = (found.column(name) for name in ("execution", "path:execution"))
    share = (execution + both).sum() / found.totals.sum()
    assert line.startswith(f"By decompose, {100 * share:.0f} [")
    bits = divlens.information("toy/mim", PROMPTS, n=4, out=out)
    *_, line = divlens.verdict(out).strategies["toy/mim:0"].exact
    of_all = bits.execution.value / (bits.path.value + bits.execution.value)
    assert line.startswith(f"By information, {100 * of_all:.0f} [")
    assert divlens.verdict(out).strategies["toy/ar:0"].exact == ()  # neither was asked about it
    assert line in divlens.verdict(out).strategies["toy/mim:0"].reasons


@pytest.mark.parametrize(
    ("low", "high", "disagrees_with"),
    [
        (0.2, 0.9, {"equivalent"}),
        (0.0, 0.05, {"drop", "zero"}),
        (0.05, 0.3, set()),
        (math.nan, math.nan, set()),  # one prompt
    ],
)
def test_a_share_of_the_token_draws_disagrees_with_an_argmax_that_it_rules_out(low, high, disagrees_with):
    outcomes = ("zero", "drop", "rise", "equivalent", "undecided")
    share = Interval((low + high) / 2, low, high)
    assert {outcome for outcome in outcomes if not agrees(share, outcome, 0.1)} == disagrees_with


def test_a_disagreement_is_a_plain_sentence():
    rows = pd.DataFrame(
        {"path": [0.1] * 8, "execution": np.linspace(0.1, 0.2, 8), "model": "m", "condition": "baseline"}
    )
    (line,) = exact_answers({"decompose": rows}, "m", "equivalent", 0.1)
    assert line.endswith(", which disagrees with Argmax: that leaves diversity as it is.")
    (line,) = exact_answers({"decompose": rows}, "m", "drop", 0.1)
    assert "disagrees" not in line
    assert list(exact_answers({"decompose": rows}, "other", "drop", 0.1)) == []


# On the command line


def test_a_probe_ends_with_the_verdict_and_the_run_gets_it_again(run, colours_for_lpips):
    code, out, err = run("probe", "toy/ar", "--limit", 7, "-n", 2, "--out", "out", "--quiet")
    assert (code, err) == (0, "")
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    tables, verdict = out[: out.rindex("toy/ar:0   ")], out[out.rindex("toy/ar:0   ") :]
    assert "Means over 7 prompts" in tables and "toy/ar:0 is " in verdict
    again = run("verdict", "out")
    assert again == (0, verdict.rsplit("written: out", 1)[0], "")
    assert run("verdict", "out", "--margin", 0.4)[1] != again[1]


@pytest.mark.parametrize(
    ("arguments", "said", "verdict"),
    [
        (("--limit", 3), True, "toy/ar:0 is"),
        (("--limit", 1), True, "No verdict: it takes at least 2 prompts and 2 samples of each, got 1 prompt"),
        (("--limit", 3, "--condition", "Temperature(2)"), False, None),
    ],
)
def test_too_few_prompts_are_said_in_one_line(run, arguments, said, verdict, colours_for_lpips):
    code, out, err = run("probe", "toy/ar", "-n", 2, "--quiet", *arguments)
    assert code == 0 and err.count("\n") == int(said) and err.startswith("divlens: note: with" if said else "")
    assert (verdict in out) if verdict else ("verdict" not in out and "toy/ar:0 is" not in out)


def test_it_is_said_before_sampling(run, monkeypatch, colours_for_lpips):
    def refuse(*arguments):
        raise DivlensError("not drawn")

    monkeypatch.setattr("divlens.experiment.comparison.Comparison.measured", refuse)
    code, out, err = run("probe", "toy/ar", "-n", 2, "--limit", 3)
    assert (code, out) == (2, "")
    assert re.fullmatch("divlens: note: with 3 prompts .*\ndivlens: error: not drawn\n", err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing argument 'RUN'"),
        (("nowhere",), "expected the folder of a run, got nowhere"),
        (("out", "--margin", "1"), r"margin expects a share of baseline in \(0, 1\), got 1"),
        (("out", "--margin", "nan"), r"margin expects a share of baseline in \(0, 1\), got nan"),
        (("out", "--margin", "some"), "'some' is not a valid float"),
    ],
)
def test_bad_input_is_one_line(run, arguments, message, copied):
    code, out, err = run("verdict", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and re.search(message, err)
