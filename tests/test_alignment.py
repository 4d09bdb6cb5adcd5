"""Diversity at kept fidelity by alignment: which pictures are left out, of planted scores and of a tiny CLIP."""

import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import divlens
from divlens.errors import DivlensError
from divlens.experiment.alignment import LOST, Alignment, bars_of
from divlens.experiment.measures import Look
from divlens.types import Prompt
from oracles import tiny_features
from oracles.colour_network import colour_network

PROMPTS, N = ("red heart", "a cat", "snow", "sky", "sun", "sea", "tree"), 6
CONDITIONS = {"baseline": [], "same": [], "subset": [divlens.Subset(0.5)], "argmax": [divlens.Argmax()]}
pytestmark = pytest.mark.usefixtures("colours_for_lpips", "one_thread")


def scores(seed, prompts=100, n=8, noise=1.0):
    """Cosines as CLIP gives them: prompts differ more than pictures of a prompt do."""
    random = np.random.default_rng(seed)
    return (
        0.25
        + 0.05 * np.random.default_rng(0).normal(size=(prompts, 1))
        + 0.01 * noise * random.normal(size=(prompts, n))
    )


def lost(baseline, other):
    return (other < bars_of(baseline)).mean()


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_where_nothing_changed_as_many_are_lost_as_of_baseline(n):
    baseline = scores(1, n=n, prompts=1600 // n)
    assert 0.045 < lost(baseline, baseline) <= LOST / 100
    # 1600 pictures that are lost with a chance of 5% are 0.55% off as a rule, and so is the 5th percentile itself; they
    # share the means of baseline's: half as much again. Three of these, 3.5%, are a false alarm in 400.
    assert lost(baseline, scores(2, n=n, prompts=1600 // n)) == pytest.approx(0.05, abs=0.035)


def test_the_plain_ways_fail_where_this_does_not():
    """The controls: one bar for all loses whole prompts, and the percentile of a prompt's eight pictures is its
    least, below which one of nine new pictures is."""
    baseline, other = scores(1), scores(2)
    for_all = other < np.percentile(baseline, LOST)
    assert (for_all.mean(1) > 0.5).sum() >= 3 and ((other < bars_of(baseline)).mean(1) > 0.5).sum() == 0
    of_each = other < np.percentile(baseline, LOST, axis=1, method="lower", keepdims=True)
    assert of_each.mean() == pytest.approx(1 / 9, abs=0.033)  # 800 pictures: 1.1%; three of these
    assert lost(baseline, other) < 0.085


def test_broken_pictures_are_left_out_and_scores_that_say_nothing_leave_out_5_percent():
    baseline, condition = scores(1), scores(2)
    broken = np.arange(8) < 3
    condition[:, broken] -= 0.06
    out = condition < bars_of(baseline)
    assert out[:, broken].mean() > 0.98 and out[:, ~broken].mean() < 0.085
    nothing = scores(3)  # whichever are broken, the scores are those of any
    out = nothing < bars_of(baseline)
    assert out[:, broken].mean() == pytest.approx(out[:, ~broken].mean(), abs=0.05)


def test_duplicates_are_all_kept_and_a_single_sample_has_no_bar():
    same = np.repeat(scores(1, n=1), 5, axis=1)
    assert lost(same, same + 1e-7 * np.random.default_rng(0).normal(size=same.shape)) == 0
    assert lost(same, same - 1e-3) == 1  # the control
    assert np.isnan(bars_of(scores(1, n=1))).all()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_features.clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def run_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("divlens.experiment.comparison.load_network", lambda name=None: colour_network())
        divlens.probe("toy/ar", PROMPTS, N, conditions=CONDITIONS, out=folder)
    return folder


@pytest.fixture
def run_of_toy(run_once, tmp_path):
    return Path(shutil.copytree(run_once, tmp_path / "run"))


def of(scored, condition, name):
    table = scored.per_prompt
    return table[table["condition"] == condition][name].to_numpy()


def test_it_is_what_its_definition_says(run_of_toy, clip):
    """Held against CLIPScore picture by picture, and LPIPS pair by pair."""
    name = f"kept:clipscore:{clip}"
    found, network = divlens.score(run_of_toy, [name, f"clipscore:{clip}"]), colour_network()
    stored, alignment = divlens.open_run(run_of_toy), Alignment.named(name)

    def seen(prompt, condition):
        pictures = stored.images(prompt, condition)
        look = Look(Prompt(prompt), pictures, "toy", network, None)
        return alignment.scores(look), network(pictures)

    baseline = np.stack([seen(prompt, "baseline")[0] for prompt in PROMPTS])
    np.testing.assert_allclose(
        (100 * baseline).clip(0).mean(1), of(found, "baseline", f"clipscore:{clip}"), atol=1e-3
    )  # float32, in batches of another size
    deviations = np.array(
        [[row[i] - np.delete(row, i).mean() for i in range(N)] for row in baseline]  # each by itself
    )
    worst = np.sort(deviations.flatten())[math.floor(0.05 * (deviations.size - 1))]
    for condition in CONDITIONS:
        for place, prompt in enumerate(PROMPTS):
            cosines, features = seen(prompt, condition)
            bars = np.array([np.delete(baseline[place], i).mean() for i in range(N)]) + worst - 1e-5
            right = features[torch.from_numpy(cosines >= bars)].double()
            pairs = [(a - b).square().sum() for i, a in enumerate(right) for b in right[:i]]
            expected = float(torch.stack(pairs).mean()) if pairs else math.nan
            np.testing.assert_allclose(of(found, condition, name)[place], expected, rtol=1e-5)
            share = of(found, condition, f"lost:clipscore:{clip}")[place]
            assert share == pytest.approx((cosines < bars).mean(), abs=1e-12)
    lost_there = of(found, "baseline", f"lost:clipscore:{clip}")
    assert 0 < lost_there.mean() <= LOST / 100
    assert lost_there.tolist() == of(found, "same", f"lost:clipscore:{clip}").tolist()
    text = " ".join(str(found).split())
    assert "kept:clipscore:" in text and "share of samples that are left out for that" in text


def test_what_is_stored_is_found_without_a_look_and_other_pictures_of_baseline_count_anew(
    run_of_toy, clip, monkeypatch
):
    name = f"kept:clipscore:{clip}"
    first = divlens.score(run_of_toy, name).per_prompt
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["divlens.score"], "looks", lambda *arguments: pytest.fail("it looked"))
        patch.setattr("divlens.experiment.alignment.looks", lambda *arguments: pytest.fail("it looked"))
        assert divlens.score(run_of_toy, name).per_prompt.equals(first)
    divlens.probe("toy/ar", [*PROMPTS, "moon"], N, conditions=CONDITIONS, out=run_of_toy)  # one prompt more
    looked = []
    keep = Alignment.kept
    monkeypatch.setattr(Alignment, "kept", lambda self, look, bars: looked.append(look) or keep(self, look, bars))
    assert len(divlens.score(run_of_toy, name).per_prompt) == len(first) + len(CONDITIONS)
    assert len({look.prompt.text for look in looked}) == len(PROMPTS) + 1


REFUSED = {
    "kept": "kept expects kept:clipscore:PLACE, got 'kept'",
    "kept:vendi": "kept expects kept:clipscore:PLACE, got 'kept:vendi'",
    "kept:clipscore": "clipscore expects a folder or a repository on the model hub after a colon, got none",
    "kept:clipscore:a@stlpips": "clipscore is a network of its own and expects none after @",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_alignment_is_refused(name, tmp_path):
    with pytest.raises(DivlensError) as error:
        divlens.score(tmp_path / "nothing", name)
    assert REFUSED[name] in str(error.value)


def test_without_baseline_there_is_nothing_to_hold_pictures_against(tmp_path, clip):
    divlens.probe("toy/ar", PROMPTS[:2], 2, conditions={"baseline": [divlens.Argmax()]}, out=tmp_path / "run")
    with pytest.raises(DivlensError, match="expects a condition without interventions to hold pictures against"):
        divlens.score(tmp_path / "run", f"kept:clipscore:{clip}")
    with pytest.raises(DivlensError, match="so it is measured of a run, by divlens score RUN"):
        divlens.probe("toy/ar", PROMPTS[:2], 2, measures=[f"kept:clipscore:{clip}"])


class TestPlanted:
    """Of each prompt's pictures under a condition every third broke: it is noise, where the others are one grey or
    another."""

    broken = np.arange(12) % 3 == 0

    def pictures(self, seed, broken):
        random = torch.Generator().manual_seed(seed)
        greys = torch.rand(12, 1, 1, 1, generator=random).expand(-1, 3, 8, 8).clone()
        greys[torch.from_numpy(broken)] = torch.rand(int(broken.sum()), 3, 8, 8, generator=random)
        return greys

    def values(self, monkeypatch, score):
        """Of the condition, the kept diversity and the lost share of every prompt; and its pictures. `score`: of which
        pictures broke, how much less they fit."""
        random = np.random.default_rng(0)
        monkeypatch.setattr(Alignment, "digits", "")
        baseline = 0.3 + 0.01 * random.normal(size=(len(PROMPTS), 12))
        bars = dict(zip(PROMPTS, bars_of(baseline), strict=True))
        scores = baseline + 0.001 * random.normal(size=baseline.shape) - score(random)
        monkeypatch.setattr(
            Alignment, "scores", lambda self, look: scores[PROMPTS.index(look.prompt.text)][look.first :]
        )
        kept, lost = Alignment("planted").measures(lambda prompt: bars[prompt.text])
        looks = [
            Look(prompt, self.pictures(seed, self.broken), "toy", colour_network(), None)
            for seed, prompt in enumerate(map(Prompt, PROMPTS))
        ]
        found = []
        for look in looks:
            gauges = kept.gauge(look.prompt), lost.gauge(look.prompt)
            for gauge in gauges:
                gauge.add(look)
            found.append([gauge.value() for gauge in gauges])
        return np.array(found).T, torch.stack([look.pictures for look in looks])

    def test_the_pictures_that_broke_are_left_out(self, monkeypatch):
        (kept, lost), pictures = self.values(monkeypatch, lambda random: 0.1 * self.broken)
        assert lost.min() >= self.broken.mean() and lost.mean() < self.broken.mean() + 2 * LOST / 100
        good = divlens.lpips_diversity(pictures[:, ~self.broken], colour_network()).numpy()
        everything = divlens.lpips_diversity(pictures, colour_network()).numpy()
        whole = lost == self.broken.mean()  # no good picture was left out with them
        assert whole.sum() >= 2
        np.testing.assert_allclose(kept[whole], good[whole], rtol=1e-5)
        assert np.abs(everything / good - 1).min() > 0.02  # what broke shows in the diversity of all

    def test_where_alignment_says_nothing_they_are_not(self, monkeypatch):
        blind = lambda random: 0.1 * random.permuted(np.tile(self.broken, (len(PROMPTS), 1)), axis=1)  # noqa: E731
        (kept, lost), pictures = self.values(monkeypatch, blind)
        good = divlens.lpips_diversity(pictures[:, ~self.broken], colour_network()).numpy()
        assert lost.mean() == pytest.approx(1 / 3, abs=0.1) and np.abs(kept / good - 1).max() > 0.02


def test_a_verdict_rests_on_alignment_where_no_judge_knows_the_prompts(run_of_toy, clip, tmp_path, run):
    name = f"kept:clipscore:{clip}"
    without = divlens.verdict(run_of_toy)
    assert (without.strategies["toy/ar:0"].kept, without.strategies["toy/ar:0"].right_by) == ({}, "")
    divlens.score(run_of_toy, "vendi")
    assert str(divlens.verdict(run_of_toy)) == str(without)
    scored = divlens.score(run_of_toy, name)
    divlens.score(run_of_toy, "rke")  # of another call; the figures stay
    found = divlens.verdict(run_of_toy)
    strategy = found.strategies["toy/ar:0"]
    assert strategy.right_by == name and set(strategy.kept) == {"Argmax", "Subset"}
    for kind, condition in {"Argmax": "argmax", "Subset": "subset"}.items():
        share = of(scored, condition, f"lost:clipscore:{clip}").mean()
        assert strategy.kept[kind].wrong == pytest.approx(share)
        assert strategy.kept[kind].wrong_before == pytest.approx(
            of(scored, "baseline", f"lost:clipscore:{clip}").mean()
        )
    text = " ".join(str(found).split())
    assert "No judge, but alignment with the prompt tells which pictures are right (kept:clipscore:clip" in text
    assert "the pictures whose alignment with the prompt is near baseline's, which decides" in text
    assert "No judge knows these prompts" not in text and "the judge names right" not in text
    assert all(len(line) <= 80 for line in str(found).splitlines())
    assert set(found.table["right_by"]) == {name}
    code, out, _ = run("verdict", run_of_toy, "--kept", name)
    assert code == 0 and text.endswith(" ".join(out.split()))
    code, out, err = run("verdict", run_of_toy, "--kept", "kept:clipscore:nowhere")
    assert (code, out, err.count("\n")) == (2, "", 1) and "kept expects a measure that the run has of all" in err
    other = tiny_features.clip(tmp_path / "other", seed=1)
    divlens.score(run_of_toy, f"kept:clipscore:{other}")
    several = divlens.verdict(run_of_toy)
    assert several.strategies["toy/ar:0"].kept == {}
    assert "names the one that is to tell" in " ".join(str(several).split())
    assert str(divlens.verdict(run_of_toy, kept=name)) == str(found)
    divlens.probe("toy/ar", [*PROMPTS, "moon"], N, conditions=CONDITIONS, out=run_of_toy)
    grown = divlens.verdict(run_of_toy)  # one prompt has not been scored
    assert grown.strategies["toy/ar:0"].kept == {}
