"""A probe that grows until its contrasts are decided: where it is looked at, what looking again costs, what is drawn at
each look, and that a run that was stopped ends as one that was not."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

import divlens
from divlens import Argmax, Subset
from divlens.errors import DivlensError
from divlens.verdict.contrasts import LEVEL, Look, contrasts_of, p_values, shared_among_looks
from divlens.verdict.looks import FIRST, planned_looks
from divlens.verdict.significance import fewest_prompts, holm
from oracles.runs_in_folders import contents, differing, snapshot

PROMPTS = [f"{size} {thing}" for size in ("red", "blue", "tall", "old") for thing in ("cat", "sea", "sun", "hat")]
CONDITIONS = {"baseline": [], "less": [Subset(0.1)], "greedy": [Argmax()]}
AR = {"models": ["toy/ar"], "prompts": PROMPTS, "n": 4, "conditions": CONDITIONS, "batch_size": 16}
# Of the second model Subset takes a second look, and Argmax a third.
BOTH = {**AR, "models": ["toy/ar", "toy/mim"], "conditions": {**CONDITIONS, "less": [Subset(0.5)]}}


# Where it is looked at


@pytest.mark.parametrize(
    ("prompts", "n", "budget", "looks"),
    [
        (24, 8, None, [(12, 8), (24, 8), (24, 16)]),
        (100, 8, 800, [(13, 8), (25, 8), (50, 8), (100, 8)]),
        (100, 8, 300, [(10, 8), (19, 8), (37, 8)]),  # fewer than all: samples are not doubled
        (16, 4, 256, [(16, 4), (16, 8), (16, 16)]),  # at 8 prompts a fourth of 5% decides nothing
        (7, 8, None, [(7, 16)]),  # with 7 prompts nothing but all of 5% does
    ],
)
def test_looks_are_at_all_prompts_and_at_halves_of_them(prompts, n, budget, looks):
    assert planned_looks(prompts, n, budget, 3) == tuple(looks)


@pytest.mark.parametrize("prompts", [7, 8, 9, 12, 23, 64, 1000])
@pytest.mark.parametrize("times", [1, 2, 5, 40])
def test_every_look_can_decide_and_none_is_beyond_the_budget(prompts, times):
    looks = planned_looks(prompts, 4, times * 4 * prompts, 3)
    samples = [look.prompts * look.n for look in looks]
    assert samples == sorted(set(samples)) and samples[-1] <= times * 4 * prompts < 2 * samples[-1]
    assert looks[0].prompts >= max(min(FIRST, prompts), fewest_prompts(3, LEVEL / len(looks)))


# What looking again costs


def test_looks_together_are_the_smallest_p_value_times_how_many_there_are():
    rng = np.random.default_rng(0)
    baseline, after = rng.gamma(8, 0.02, 40), rng.gamma(8, 0.02, (3, 40))
    found, raw = None, []
    for number, prompts in enumerate((10, 20, 40), 1):
        some = {str(i): row[:prompts] for i, row in enumerate(after)}
        found = contrasts_of(baseline[:prompts], some, {}, look=Look(number, 3), before=found)
        pair = np.broadcast_to(baseline[:prompts], (3, prompts)), after[:, :prompts]
        raw.append(holm(np.array(p_values(*pair, 0.1, 0))))
        expected = np.minimum(1, 3 * np.min(raw, 0))
        assert [one.of_no_change for one in found.values()] == expected[0].tolist()
        assert [one.of_equivalence for one in found.values()] == expected[1].tolist()


def test_what_a_look_decided_stands_and_it_says_which():
    rng = np.random.default_rng(1)
    baseline = rng.gamma(20, 0.01, 24)
    scatter = 1 + 0.05 * rng.normal(size=24)
    early = np.where(np.arange(24) < 12, 0.7, 1.3) * baseline * scatter
    open_ = baseline * (1 + 0.6 * rng.normal(size=24))

    def seen(prompts, look, before=None):
        some = {"early": early[:prompts], "open": open_[:prompts]}
        return contrasts_of(baseline[:prompts], some, {}, look=look, before=before)

    first = seen(12, Look(1, 2))
    last = seen(24, Look(2, 2), first)
    assert (first["early"].outcome, first["early"].look, first["open"].look) == ("drop", 1, 0)
    assert last["early"].look == 1 and last["early"].of_no_change == first["early"].of_no_change
    assert last["open"].outcome == "undecided" and last["open"].look == 0
    assert seen(24, Look(2, 2))["early"].outcome == "undecided"  # the control: alone the last look shows nothing
    assert seen(12, Look(1, 100))["early"].outcome == "undecided"  # nor do a hundred looks leave enough to the first


def test_wrong_decisions_stay_rare_over_all_looks():
    """Of 400 families of three contrasts without any change, at three looks, at most 5% may be wrong at any look: 36 or
    more of 400 come up in 1 of 1,400 suites if the rate is exactly 5%. Without parting the 5% it would be about 10%,
    and 28 or fewer come up in 1 of 50 suites if it is. studies/verdict_errors.py repeats it for many more cases."""
    rng = np.random.default_rng(3)
    shape = (400, 3, 12)
    own = rng.gamma(8, 0.02, size=(400, 1, 12))
    noisy = [np.abs(own * (1 + 0.2 * rng.normal(size=size))) for size in ((400, 1, 12), shape)]
    before, after = np.broadcast_to(noisy[0], shape), noisy[1]
    looks = np.array([holm(p_values(before[..., :k], after[..., :k], 0.1, 0)[0]) for k in (8, 10, 12)])
    parted, peeking = ((shared_among_looks(looks, planned).min(0) < LEVEL).any(1).sum() for planned in (len(looks), 1))
    assert 0 < parted < 36 and parted < peeking


# What is drawn

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def colours(colours_for_lpips):
    """LPIPS on the colours alone."""


def test_what_is_decided_draws_no_more(tmp_path, counted):
    result = divlens.probe_until_decided(**AR, out=tmp_path / "run")
    found = divlens.verdict(result)
    assert found.is_settled and {one.look for one in found.strategies["toy/ar:0"].contrasts.values()} == {1}
    assert (len(result.prompts), result.n) == (8, 4)
    assert sum(counted) == 3 * 8 * 4  # of four times as many that it might
    assert found.planned == 3 and found.looks == ((8, 4),)


def test_what_is_open_grows_and_each_look_draws_what_is_missing(tmp_path, counted):
    result = divlens.probe_until_decided(**BOTH, out=tmp_path / "run", budget=128)
    found = divlens.verdict(result)
    assert found.looks == ((8, 4), (16, 4), (16, 8))
    assert {kind: one.look for kind, one in found.strategies["toy/mim:0"].contrasts.items()} == {
        "Argmax": 3,
        "Subset": 2,
    }
    assert list(found.table["look"]) == [1, 1, 3, 2]
    assert sum(counted) == 2 * 3 * 128
    assert list(result.table["n"].unique()) == [8]
    assert str(divlens.verdict(tmp_path / "run")) == str(found)
    text = str(found)
    assert "look: the one that decided, of 3 that share the 5%; 8 prompts with 4 samples, 16 " in found.notes[0]
    assert max(map(len, text.splitlines())) <= 80
    # The figures of each look are those of a probe of its size.
    for look, (prompts, n) in enumerate(found.looks, 1):
        alone: pd.DataFrame = divlens.probe(**{**BOTH, "prompts": PROMPTS[:prompts], "n": n}).per_prompt
        mine: Any = result.per_look
        here = mine[mine["look"] == look].drop(columns="look").reset_index(drop=True)
        pd.testing.assert_frame_equal(here, alone)


def test_again_nothing_is_drawn_and_other_looks_are_refused(tmp_path, counted):
    first = divlens.probe_until_decided(**BOTH, out=tmp_path / "run")
    drawn, tables = sum(counted), snapshot(tmp_path / "run" / "tables")
    again = divlens.probe_until_decided(**BOTH, out=tmp_path / "run")
    assert sum(counted) == drawn and str(divlens.verdict(again)) == str(divlens.verdict(first))
    assert snapshot(tmp_path / "run" / "tables") == tables
    before = snapshot(tmp_path / "run" / "samples")
    with pytest.raises(DivlensError, match="asked for differently: until decided was"):
        divlens.probe_until_decided(**BOTH, out=tmp_path / "run", budget=256)
    assert snapshot(tmp_path / "run" / "samples") == before


@pytest.mark.parametrize("after", [100, 500])  # of 768 samples: in the first look, and in the last
def test_one_that_was_stopped_goes_on_and_ends_as_one_that_was_not(after, tmp_path):
    class Stop(Exception):
        pass

    done = 0

    def stop(count):
        nonlocal done
        done += count
        if done > after:
            raise Stop

    divlens.probe_until_decided(**BOTH, out=tmp_path / "whole")
    with pytest.raises(Stop):
        divlens.probe_until_decided(**BOTH, out=tmp_path / "run", on_batch=stop)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["complete"] == []
    (result,) = divlens.resume(tmp_path / "run")
    assert differing(contents(tmp_path / "run"), contents(tmp_path / "whole")) == set()
    assert str(divlens.verdict(result)) == str(divlens.verdict(tmp_path / "whole"))  # pyright: ignore[reportArgumentType]
    assert divlens.resume(tmp_path / "run") == []


# On the command line


def test_the_command_line_makes_the_same_call(run, tmp_path):
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    conditions = [f"--condition={name}={done[0]!r}" for name, done in CONDITIONS.items() if done]
    command = ("probe", "toy/ar", "--prompts", "prompts.txt", "-n", 4, "--batch-size", 16, *conditions)
    code, out, err = run(*command, "--until-decided", "--out", "run", "--quiet")
    assert (code, err) == (0, "") and "look: the one that decided, of 3 that" in out
    divlens.probe_until_decided(**AR, out=tmp_path / "library")
    assert differing(contents(tmp_path / "run"), contents(tmp_path / "library")) == set()
    assert run("verdict", "run")[1] in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--limit", 6, "--out", "run"), "until_decided expects at least 7 prompts, got 6"),
        (("--budget", 27, "-n", 4, "--out", "run"), "budget expects at least 28 samples of a model under a condition"),
        (("--budget", 0, "--out", "run"), "budget expects a whole number of at least 1, got 0"),
        (("--out", "run", "--condition", "Temperature(2)"), "until_decided expects conditions of Argmax and Subset"),
        ((), "--until-decided expects --out FOLDER"),
        (("--out", "run", "--shard", "1/2"), "--until-decided decides on the way what is drawn"),
    ],
)
def test_what_can_decide_nothing_is_refused_before_anything_is_drawn(run, tmp_path, counted, arguments, message):
    code, out, err = run("probe", "toy/ar", "--until-decided", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err
    assert not counted and not (tmp_path / "run" / "samples").exists()


def test_a_budget_without_it_is_refused(run):
    code, out, err = run("probe", "toy/ar", "--budget", 500)
    assert (code, out, err.count("\n")) == (2, "", 1) and "--budget is that of --until-decided" in err
