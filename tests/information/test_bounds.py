"""H(Z|X), H(Z), I(X;Z) and I(Z;Y) against the enumerated distribution of grids."""

import itertools
import math
import pickle
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from divlens import models
from divlens.information import Effort, information
from divlens.information.accounting import QUANTITIES, Tally
from divlens.information.api import TRIVIAL
from divlens.information.conditional_entropy import conditional_entropy, controlled
from divlens.information.estimates import Estimate
from divlens.information.kept import Kept, per_prompt
from divlens.information.laws import law_of
from divlens.information.mutual_information import DOUBT, LEAST, classified, density, mixed, mutual_information
from divlens.information.one_pass import MIXTURE, chosen, collect, kept_of
from divlens.information.rare import RareDraws
from divlens.information.relevance import Readings, concepts_of, information_per_prompt, labels_of
from divlens.information.replay import (
    ALLOWED,
    importance_log_weights,
    log_mean_exp,
    sandwich,
)
from divlens.information.strata import Strata, Sums
from divlens.interventions import Argmax, Freeze, Paraphrase, Temperature
from divlens.loop import Moment
from divlens.models.toy import ToyModel
from divlens.noise import CounterNoise
from divlens.paraphrase import wordings_of
from divlens.paths import ConfidenceUnmasking, Draws, MaskReplaceDiffusion, Raster
from divlens.run import Reading, Row, plan
from divlens.sampler import sample
from divlens.types import DivlensError, Prompt
from oracles.interventions import rule_of
from oracles.small_models import Small
from oracles.transcripts import Case, entropy, truth

PROMPTS = ["red heart", "a cat", "blue sky"]
REWORDED = [Prompt(text, paraphrases=(f"{text} icon",)) for text in PROMPTS]
FAMILIES = ("ar", "mim", "diffusion")
SIGMAS = 5  # false-alarm rate 6e-7 each


def toy(family: str, seed: int = 0) -> ToyModel:
    model = models.load(f"toy/{family}:{seed}")
    assert isinstance(model, ToyModel)
    return model


@cache
def grids(family: str, seed: int = 0) -> np.ndarray:
    """The exact distribution of grids for each prompt, (prompts, 27)."""
    found = [truth(Case(toy(family, seed), text)).grids for text in PROMPTS]
    keys = sorted(found[0])
    return np.array([[one[key] for key in keys] for one in found])


@cache
def exact_numbers(family: str, seed: int = 0) -> tuple[float, float, float]:
    """H(Z|X), H(Z), I(X;Z)."""
    p = grids(family, seed)
    conditional = float(np.mean([entropy(list(row)) for row in p]))
    whole = entropy(list(p.mean(0)))
    return conditional, whole, whole - conditional


@cache
def measured(family: str, seed: int = 0):
    return information(toy(family, seed), PROMPTS, n=160, seed=seed, effort=Effort(paths=8, path_samples=80))


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("family", FAMILIES)
def test_brackets_hold_the_truth(family, seed):
    found = measured(family, seed)
    for name, exact in zip(("conditional", "sequence", "mutual"), exact_numbers(family, seed), strict=True):
        lower, upper = getattr(found, f"{name}_lower"), getattr(found, f"{name}_upper")
        assert lower.value - SIGMAS * lower.mc_error < exact < upper.value + SIGMAS * upper.mc_error, name
        if family == "ar":
            assert lower == upper and abs(lower.value - exact) < SIGMAS * lower.mc_error
    assert found.ceiling.value == math.log2(3)
    assert found.mutual_upper.value <= found.ceiling.value
    assert found.conditional_lower.value >= found.trajectory_execution.value - 1e-9


def test_the_exact_numbers_of_ar_would_show_other_weights():
    found, other = measured("ar", 0), exact_numbers("ar", 7)
    assert abs(found.conditional_lower.value - other[0]) > SIGMAS * found.conditional_lower.mc_error


@pytest.mark.parametrize("family", FAMILIES)
def test_importance_weights_are_unbiased_for_the_probability_of_a_grid(family):
    model, text = toy(family), PROMPTS[0]
    exact = truth(Case(model, text)).grids
    repeats = 400
    run = plan(model, [Prompt(text)], 1, 1, batch_size=repeats)
    for grid in sorted(exact, key=lambda key: -exact[key])[:3]:
        keys = [str(i) for i in range(repeats)]
        log_w = importance_log_weights(run, [text] * repeats, torch.tensor([grid] * repeats), keys)
        weights = log_w.exp()
        error = float(weights.std()) / math.sqrt(repeats)
        assert abs(float(weights.mean()) - exact[grid]) < SIGMAS * error + 1e-6 * exact[grid]
        if family == "ar":
            assert float(weights.std()) < 1e-6


@pytest.mark.parametrize("family", ["mim", "diffusion"])
def test_more_paths_tighten_both_bounds(family):
    found = information(
        toy(family), PROMPTS[:1], n=100, effort=Effort(paths=32, path_samples=100, mixture_samples=0)
    ).tightness
    assert [each.paths for each in found] == [1, 2, 4, 8, 16, 32]
    # All bounds are from the same grids, so their noise is shared; 0.05 bits is a tenth of what the paths bring.
    assert all(b.upper < a.upper + 0.05 for a, b in itertools.pairwise(found))
    assert found[-1].lower > found[0].lower
    exact = truth(Case(toy(family), PROMPTS[0])).conditional
    assert abs(found[-1].upper - exact) < abs(found[0].upper - exact)
    if family == "mim":
        assert abs(found[-1].upper - exact) < 0.1 + SIGMAS * found[-1].upper_mc_error


def test_the_sandwich_is_exact_when_every_weight_is_the_probability():
    log_p = torch.tensor([-1.0, -2.0], dtype=torch.float64)
    for each in sandwich(log_p[:, None].expand(2, 5), log_p, torch.zeros_like(log_p)):
        torch.testing.assert_close(each.below, log_p)
        torch.testing.assert_close(each.above, -((1 - ALLOWED) * (-log_p).exp() + ALLOWED).log())


@pytest.mark.parametrize("q", [(0.5, 0.3, 0.2), (0.5, 0.5, 0.0), (0.0, 0.0, 1.0)])
def test_the_sandwich_holds_the_probability_whatever_the_proposal_misses(q):
    """Expectations by enumeration: a grid that has three paths, the own one drawn from their posterior."""
    p, q = (torch.tensor(values, dtype=torch.float64) for values in ((0.2, 0.1, 0.3), q))
    exact, expected = math.log(p.sum()), torch.zeros(3, 2, dtype=torch.float64)
    for own, *others in itertools.product(range(3), repeat=5):
        chance = float(p[own] / p.sum() * q[others].prod())
        if chance == 0:
            continue
        log_w = (p.log() - q.log())[others][None]
        for row, each in enumerate(sandwich(log_w, p.log()[own : own + 1], q.log()[own : own + 1])):
            assert math.isfinite(each.below) and math.isfinite(each.above)
            expected[row] += chance * torch.cat([each.below, each.above])
    below, above = expected.T
    assert (below < exact).all() and (above > exact).all()
    assert (below.diff() > 0).all() or float(q[2]) != 0.2  # more paths are better where all are reached
    assert float(above[0]) > 2 or float(q[2]) != 0.0  # all that is left is that no grid has more than 1


def test_committed_tokens_of_a_diffusion_say_more_than_its_grid():
    """A token that is replaced later was drawn all the same: H(Z||P|X) of the schedule can exceed H(Z|X)."""
    exact = truth(Case(toy("diffusion"), PROMPTS[0]))
    assert exact.execution > exact.conditional > exact.trajectory_execution
    found = measured("diffusion")
    assert found.conditional_lower.value < found.execution.value


def test_without_noise_in_the_draws_the_bracket_is_that_of_the_path():
    model: Any = Small(ConfidenceUnmasking(3), codes=3)
    found = information(model, PROMPTS, n=60, interventions=[Argmax()])
    exact = [truth(Case(model, text, greedy=True)) for text in PROMPTS]
    conditional = np.mean([one.conditional for one in exact])
    lower, upper = found.conditional_lower, found.conditional_upper
    assert found.execution.value == 0
    assert lower.value - SIGMAS * lower.mc_error <= conditional <= upper.value + SIGMAS * upper.mc_error
    assert upper.value <= found.joint.value + 1e-9


def test_a_temperature_moves_the_exact_numbers_with_it():
    model = toy("ar")
    found = information(model, PROMPTS, n=200, interventions=[Temperature(0.5)], effort=Effort(paths=0))
    p = [truth(Case(model, text, transform=lambda logits: logits / 0.5)).grids for text in PROMPTS]
    exact = float(np.mean([entropy(list(one.values())) for one in p]))
    assert abs(found.conditional_lower.value - exact) < SIGMAS * found.conditional_lower.mc_error
    assert exact < exact_numbers("ar")[0] - 0.3


def test_frozen_noise_leaves_likelihoods_undefined_and_says_so():
    found = information(toy("mim"), PROMPTS, n=20, interventions=[Freeze("path")])
    for name in ("mutual_lower", "mutual_upper", "sequence_lower", "sequence_upper"):
        assert math.isnan(getattr(found, name).value) and "Freeze" in getattr(found, name).note
    assert "frozen path" in found.path.note and "frozen path" in found.conditional_upper.note
    assert found.conditional_lower.value <= found.conditional_upper.value


def test_wordings_widen_the_upper_bound_by_their_entropy():
    effort = Effort(paths=0, mixture_samples=0)
    plain = information(toy("ar"), REWORDED, n=16, effort=effort)
    worded = information(toy("ar"), REWORDED, n=16, interventions=[Paraphrase(2, "mixed")], effort=effort)
    assert plain.conditional_lower == plain.conditional_upper
    assert abs(worded.conditional_upper.value - worded.conditional_lower.value - 1) < 1e-9
    assert any("at most includes" in note for note in worded.notes)


def reworded_numbers() -> tuple[float, float, float]:
    """H(Z|X,W), H(Z|X) and I(X;Z) of the toy under two wordings of each prompt, enumerated."""
    found = [[truth(Case(toy("ar"), text)).grids for text in (p.text, *p.paraphrases)] for p in REWORDED]
    p = np.array([[[one[key] for key in sorted(one)] for one in row] for row in found])  # (prompts, wordings, 27)
    given, conditional = (np.mean([entropy(list(row)) for row in q]) for q in (p.reshape(-1, p.shape[-1]), p.mean(1)))
    return float(given), float(conditional), entropy(list(p.mean((0, 1)))) - float(conditional)


def test_h_of_z_given_the_prompt_is_exact_for_ar_under_wordings():
    given, conditional, mutual = reworded_numbers()
    found = information(toy("ar"), REWORDED, n=1024, interventions=[Paraphrase(2, "mixed")])
    for name, exact in (("conditional", conditional), ("mutual", mutual), ("sequence", conditional + mutual)):
        lower, upper = getattr(found, f"{name}_lower"), getattr(found, f"{name}_upper")
        assert lower == upper and abs(lower.value - exact) < SIGMAS * lower.mc_error, name
    assert abs(found.conditional_lower.value - given) > SIGMAS * found.conditional_lower.mc_error  # it can fail
    assert not any("at most" in note for note in found.notes)


def test_what_the_posterior_tells_has_a_fraction_of_the_error_of_likelihood_ratios():
    """The same mean as that of log p(z|x) - log p(z), and never more than there is to tell."""
    exact, found = exact_numbers("ar")[2], information(toy("ar"), PROMPTS, n=200, effort=Effort(mixture_samples=200))
    p = grids("ar")
    ratios = np.log2(p / p.mean(0))
    variance = (p * ratios**2).sum(1) - (p * ratios).sum(1) ** 2
    plain = math.sqrt((variance / 200).sum()) / 3
    assert abs(found.mutual_lower.value - exact) < SIGMAS * found.mutual_lower.mc_error
    assert found.mutual_lower.mc_error < plain / 2


def two_prompts(model: Small) -> tuple[float, float]:
    """I(X;Z) and H(Z), enumerated."""
    p = [truth(Case(model, text, guidance=1.0)).grids for text in PROMPTS[:2]]
    whole = entropy([(p[0][grid] + p[1][grid]) / 2 for grid in p[0]])
    return whole - float(np.mean([entropy(list(one.values())) for one in p])), whole


@pytest.mark.parametrize(
    ("model", "side"),
    [
        (Small(Raster(3), codes=4, sharpness=4.0, guidance=1.0), "low"),
        (Small(Raster(3), codes=4, sharpness=3.0, guidance=1.0, stateless=True, seed=3), "low"),
        (Small(ConfidenceUnmasking(1), codes=4, sharpness=4.0, guidance=1.0), "low"),
        (Small(ConfidenceUnmasking(1), codes=4, positions=1, sharpness=4.0, guidance=1.0), "high"),
        (Small(Raster(1), codes=4, positions=1, sharpness=4.0, guidance=1.0), "high"),
    ],
)
def test_intervals_allow_for_grids_that_were_not_seen(model, side):
    """Two prompts that nearly every grid tells apart, or nearly none. 60 intervals, of which 1.5 are expected to miss
    the truth on that side; 9 or more have a chance of 4e-5. Student's alone do so more often."""
    mutual, sequence = two_prompts(model)
    runs = [information(model, PROMPTS[:2], n=24, seed=seed, effort=Effort(paths=0)) for seed in range(60)]

    def missed(name: str, exact: float) -> list[int]:
        """How often the interval misses, and how often Student's alone."""
        found = [getattr(run, name) for run in runs]
        sign = 1 if side == "low" else -1
        ends = [[getattr(one, f"mc_{side}"), one.value - sign * 2.07 * one.mc_error] for one in found]
        return [sum(sign * (end[i] - exact) > 1e-6 for end in ends) for i in (0, 1)]

    own, student = missed("mutual_upper", mutual)  # of one step it is I(X;Z) itself, which is that of the record
    assert own <= 8 < student
    if model.stateless:  # so that nothing but I(X;Z) has a spread in H(Z)
        own, student = missed("sequence_upper", sequence)
        assert own <= 8 < student


def test_long_grids_tell_the_prompts_apart_and_no_more_than_that():
    """24 tokens: every grid is certain of its prompt, so each sample tells log2(3) bits, less some 1e-6."""
    model: Any = Small(Raster(24), codes=4, positions=24, sharpness=2.0, guidance=1.0)
    found = information(model, PROMPTS, n=24)
    assert math.log2(3) - 1e-3 < found.mutual_lower.value <= math.log2(3)
    assert max(found.mutual_lower.per_prompt) <= math.log2(3) + 1e-12
    assert abs(found.sequence_lower.value - found.conditional_lower.value - found.mutual_lower.value) < 1e-9


def test_a_token_that_rounding_put_outside_of_its_law_leaves_the_prompt_known():
    """Under Argmax a near tie may fall the other way in another batch; one improbable token is not what decides."""
    model: Any = Small(Raster(6), codes=5, positions=6, stateless=True, guidance=1.0)
    turned = sample(model, PROMPTS[:1], n=1, interventions=[Argmax()]).tokens.view(1, 6)
    turned[0, 2] = (turned[0, 2] + 1) % 5
    run = plan(model, [Prompt(text) for text in PROMPTS[:2]], 1, 0, [Argmax()])
    own, other = (float(importance_log_weights(run, [text], turned, ["0"])) for text in PROMPTS[:2])
    assert math.isfinite(own) and own > other + 30


@pytest.mark.parametrize(("n", "wordings", "kept"), [(12, 8, 2), (3, 2, 2), (17, 3, 5), (24, 8, 8)])
def test_kept_samples_stand_for_all_wordings_by_their_shares(n, wordings, kept):
    """One grid for each wording, and nothing else to tell: H(Z|X) is the entropy of the wordings' shares."""
    model: Any = Small(Raster(3), codes=64, sharpness=1e4, guidance=1.0)
    prompts = [Prompt(f"{a} 0", paraphrases=tuple(f"{a} {i}" for i in range(1, wordings))) for a in "abcdef"]
    change, effort = [Paraphrase(wordings, "mixed")], Effort(mixture_samples=kept)
    found = information(model, prompts, n=n, interventions=change, effort=effort)
    used = plan(model, prompts[:1], n, 0, change).wordings[0]
    share = np.array([used.count(text) for text in set(used)]) / n
    exact = float(-(share * np.log2(share)).sum())
    assert found.conditional_lower.value == pytest.approx(exact, abs=1e-6)
    assert found.mutual_lower.value == pytest.approx(math.log2(6), abs=1e-6)


def test_prompts_do_not_all_keep_the_same_wordings():
    stratum = np.arange(32) % 8
    kept = {text: tuple(chosen(stratum, 9, 0, text).nonzero()[0]) for text in ("a cat", "a dog", "a hat")}
    assert len(set(kept.values())) == 3
    assert all(len(one) == 9 and len({i % 8 for i in one}) == 8 for one in kept.values())
    assert tuple(chosen(stratum, 9, 0, "a cat").nonzero()[0]) == kept["a cat"]
    used = [tuple(stratum[chosen(stratum, 11, 0, text)]) for text in kept]
    assert len({tuple(sorted(one)) for one in used}) == 3  # which of the wordings come twice


@pytest.mark.parametrize(("n", "wordings", "keep"), [(12, 8, 4), (10, 8, 2), (10, 8, 8), (11, 3, 4)])
def test_the_mean_of_kept_samples_is_unbiased_however_few_they_are(n, wordings, keep):
    """Values that are those of the wording, whose shares differ; the mean over 2000 choices, within 5 errors."""
    stratum = np.arange(n) % wordings
    values = torch.from_numpy(stratum.astype(float) ** 2)
    strata = Strata(torch.zeros(wordings, dtype=torch.long), torch.from_numpy(np.bincount(stratum)))
    prompt, means = torch.zeros(keep, dtype=torch.long), []
    for seed in range(2000):
        which = torch.from_numpy(chosen(stratum, keep, seed, "a cat").nonzero()[0])
        kept = Kept([], prompt, torch.from_numpy(stratum)[which], strata, [], [], values[which])
        means.append(per_prompt(values[which], kept, 100.0, "").value)
    error = np.std(means) / math.sqrt(len(means))
    assert abs(np.mean(means) - float(values.mean())) < SIGMAS * error + 1e-9
    least_seen = float(values[:wordings].mean())  # had the shares not counted
    assert abs(least_seen - float(values.mean())) > SIGMAS * error


def test_prompts_without_noise_tell_as_much_as_there_are_different_grids():
    """Of AR under Argmax: log2 of the prompts, less what those that give the same grid leave open."""
    model: Any = Small(Raster(3), codes=2, guidance=1.0)
    texts = [f"thing {i}" for i in range(12)]
    grids = sample(model, texts, n=1, interventions=[Argmax()]).tokens.flatten(1)
    count = np.array([int((grids == grid).all(1).sum()) for grid in grids])
    assert 1 < count.max() < 12
    found = information(model, texts, n=8, interventions=[Argmax()])
    assert abs(found.mutual_lower.value - np.log2(12 / count).mean()) < 1e-9
    assert found.mutual_lower.mc_error < 1e-9


def test_the_samples_that_are_kept_do_not_prefer_a_wording():
    """Only the first two of 4 wordings tell the prompts apart, and the 2 samples of lowest index always have those."""
    model, effort = toy("ar"), Effort(0, 0, 2)
    texts = [(word, f"{word} {word} {word} {word}", "blue sky", "a small thing") for word in ("heart", "cat", "sea")]
    prompts = [Prompt(used[0], paraphrases=used[1:]) for used in texts]
    assert plan(model, prompts[:1], 2, 0, [Paraphrase(4, "mixed")]).wordings[0] == texts[0][:2]
    p = np.array([[sorted(truth(Case(model, text)).grids.items()) for text in used] for used in texts], object)
    by_wording = p[..., 1].astype(float)  # (prompts, wordings, 27)
    by_prompt = by_wording.mean(1, keepdims=True)
    bits = (by_wording * np.log2(by_prompt / by_prompt.mean(0))).sum(-1)
    values = [
        information(model, prompts, n=8, seed=seed, interventions=[Paraphrase(4, "mixed")], effort=effort).mutual_lower
        for seed in range(100)
    ]
    mean = np.mean([found.value for found in values])
    error = np.std([found.value for found in values]) / math.sqrt(len(values))
    assert abs(mean - bits.mean()) < SIGMAS * error
    assert abs(mean - bits[:, :2].mean()) > SIGMAS * error


def stratified_errors(strata: Strata, repeats: int) -> dict[str, float]:
    """Reported error over true scatter, of a weighed bound and of I(X;Z), for 24 samples of which 12 are kept.

    Two prompts with two wordings whose means are 4 apart, with a standard deviation of 1 within each; the joint and the
    control have the same mean, as they should.
    """
    random, maps = torch.Generator().manual_seed(0), torch.zeros(1, 1)
    wording, prompt = torch.arange(24) % 2, torch.arange(2).repeat_interleave(24)
    stratum = (2 * prompt + wording.repeat(2)) if len(strata) == 4 else prompt
    chosen = torch.cat([torch.arange(12), torch.arange(24, 36)])
    found: dict[str, list[Estimate]] = {"bound": [], "mutual": []}
    for _ in range(repeats):
        noise = torch.randn(3, 48, generator=random, dtype=torch.float64)
        joint = 20 + 4 * wording.repeat(2) + noise[0]
        control = joint + noise[1]
        values = 0.5 * control + 2 * wording.repeat(2) + noise[2]
        sums = Sums.of(joint[:, None].expand(48, len(QUANTITIES))).gathered(stratum, len(strata))
        kept = Kept([], prompt[chosen], stratum[chosen], strata, [], [], joint[chosen])
        tally = Tally(strata, sums, RareDraws.empty(len(strata)), maps, maps)
        found["bound"].append(controlled(tally, kept, values[chosen], control[chosen], 0.5, ""))
        found["mutual"].append(per_prompt(values[chosen], kept, 1.0, ""))
    return {
        name: math.sqrt(np.mean([one.mc_error**2 for one in each]) / np.var([one.value for one in each]))
        for name, each in found.items()
    }


def test_errors_of_bounds_are_those_of_samples_stratified_by_wording():
    """The scatter of 400 repetitions has an error of 3.5%: 20% is more than 5 of them."""
    four = Strata(torch.tensor([0, 0, 1, 1]), torch.tensor([12] * 4))
    for name, ratio in stratified_errors(four, 400).items():
        assert 0.8 < ratio < 1.2, name
    # It can fail: the spread between wordings is no chance.
    for name, ratio in stratified_errors(Strata(torch.tensor([0, 1]), torch.tensor([24] * 2)), 400).items():
        assert ratio > 1.5, name


def test_a_mixture_of_wordings_is_that_of_all_samples():
    wordings = [["a", "b", "a", "a", "c"], ["b", "d", "b", "d", "b"]]
    run, rows = asked_of(2, 1)[0], []
    for prompt, used in zip("xy", wordings, strict=True):
        rows += [Row(Prompt(prompt), wording, i, i) for i, wording in enumerate(used)]
    run = replace(run, rows=tuple(rows))
    by_wording = {text: torch.randn(7, dtype=torch.float64) * 30 for text in "abcd"}
    every = torch.stack([log_mean_exp(torch.stack([by_wording[text] for text in used]), 0) for used in wordings], 1)
    torch.testing.assert_close(mixed(run, by_wording), every, atol=1e-12, rtol=0)


def asked_of(n: int, keep: int):
    """A run of the toy with two wordings per prompt, of which `keep` samples are kept."""
    model, change = toy("diffusion"), [Paraphrase(2)]
    run = plan(model, [Prompt(text) for text in PROMPTS], n, 0, change, batch_size=24)
    return run, collect(run, (keep, keep), None, lambda count: None)


class Largest(TorchFunctionMode):
    """The size of the largest tensor that any call into torch gave."""

    numel = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else [result]:
            if isinstance(each, torch.Tensor):
                self.numel = max(self.numel, each.numel())
        return result


def test_what_the_bounds_hold_depends_on_the_kept_samples_only():
    def largest(n: int, keep: int) -> int:
        run, collected = asked_of(n, keep)
        kept = kept_of(collected, MIXTURE)
        assert kept is not None
        for row, i in zip(kept.rows, kept.stratum.tolist(), strict=True):
            assert Paraphrase(2).wordings(row.prompt, wordings_of)[i % 2] == row.wording
        with Largest() as seen:
            mutual_information(run, kept)
            conditional_entropy(run, collected.tally, kept, 2, "")
        return seen.numel

    few, many = largest(12, 8), largest(60, 8)
    assert few == many < 3 * 8 * 60  # the kept samples of all prompts times all samples of one
    assert largest(60, 24) > many  # it can grow


def silent_moment(time: int, grid: torch.Tensor, state: torch.Tensor) -> Moment:
    """A step of the toy's silent rule from `state` with the draws `grid`, whose law is random but fixed."""
    model = toy("diffusion")
    rule = model.rule.silenced()
    settings = Reading(model).settings([Argmax(scope="all")])
    random = torch.Generator().manual_seed(time)
    law = torch.randn(1, 3, 3, generator=random, dtype=torch.float64).log_softmax(-1).expand(len(grid), 3, 3)
    view = rule.view(state.expand_as(grid), rule.steps - 1 - time)
    draws = Draws(grid, law.gather(-1, grid[..., None])[..., 0])
    noise = CounterNoise.of(0, [], [], [])
    result = rule.advance(view, draws, model.mask, noise)
    return Moment(view, law, rule.drawn(view, model.mask), draws, result, settings, model.mask, noise)


@pytest.mark.parametrize("time", [0, 1, 2, 3])
def test_a_silent_diffusion_is_weighed_by_its_own_law(time):
    """The chance of a state is that of all draws that lead to it; given the draws it is 1 or 0."""
    law = law_of(toy("diffusion").rule.silenced())
    grid = torch.tensor(list(itertools.product(range(3), repeat=3)))
    merged = 0
    for state in itertools.product(range(4), repeat=3):
        moment = silent_moment(time, grid, torch.tensor(state))
        chance = moment.draws.log_probability.sum(1).exp()
        after = moment.result.tokens
        same = (after[:, None] == after[None]).all(-1)
        merged += int(same.sum()) - len(grid)
        torch.testing.assert_close(law.log_probability(moment, None).exp(), (same * chance).sum(1))
        assert (law.proposal_log_probability(moment) == 0).all()
        other = silent_moment(time, grid.flip(0), torch.tensor(state)).draws
        crossed = law.proposal_log_probability(replace(moment, draws=other))
        assert torch.equal(crossed == 0, (after == after.flip(0)).all(1))
        assert (crossed[crossed != 0] == -math.inf).all()
    assert (merged > 0) == (time > 0)


def test_grids_without_any_noise_tell_as_much_as_there_are_different_ones():
    model = toy("diffusion")
    found = information(model, PROMPTS, n=8, interventions=[Argmax(scope="all")])
    grids = sample(model, PROMPTS, n=1, interventions=[Argmax(scope="all")]).tokens.flatten(1)
    count = np.array([int((grids == grid).all(1).sum()) for grid in grids])
    exact = float(np.log2(len(PROMPTS) / count).mean())
    assert found.mutual_lower.value <= exact + 1e-6
    assert exact - 1e-6 <= found.mutual_upper.value <= math.log2(3)
    assert found.conditional_upper.value == 0
    assert abs(found.sequence_upper.value - found.mutual_upper.value) < 1e-9


@pytest.mark.parametrize(
    ("family", "interventions", "same"),
    [
        ("mim", [Argmax(), Freeze("execution")], [Argmax()]),
        ("ar", [Freeze("path")], []),
        ("diffusion", [Argmax("all"), Freeze("path"), Freeze("execution")], [Argmax("all")]),
    ],
)
def test_a_freeze_of_what_has_no_noise_changes_nothing(family, interventions, same):
    frozen, free = (information(toy(family), PROMPTS, n=12, interventions=used) for used in (interventions, same))
    assert math.isfinite(frozen.mutual_lower.value) and math.isfinite(frozen.sequence_upper.value)
    assert frozen.notes == free.notes
    for name, found in free.estimates.items():
        np.testing.assert_equal(frozen.estimates[name], found)


def test_no_bound_is_weaker_than_what_everyone_knows():
    """I(X;Z) >= 0, and a grid has at most N log2(codes) bits. A handful of samples puts some of 20 bounds below."""
    runs = [information(toy("mim"), PROMPTS, n=6, seed=seed, effort=Effort(0, 0, 3)) for seed in range(20)]
    assert all(run.mutual_lower.value >= 0 for run in runs)
    below = [run for run in runs if run.mutual_lower.note == TRIVIAL]
    assert below and len(below) < len(runs)
    assert all(math.isclose(run.sequence_lower.value, run.conditional_lower.value) for run in below)
    flat: Any = Small(ConfidenceUnmasking(3), codes=3, sharpness=0.4)
    runs, most = [information(flat, PROMPTS, n=20, seed=seed) for seed in range(4)], 3 * math.log2(3)
    beyond = [run for run in runs if run.conditional_upper.value + run.mutual_upper.value > most + 0.01]
    assert beyond and all(run.sequence_upper.value == most for run in beyond)


def test_one_prompt_has_no_mutual_information():
    found = information(toy("mim"), PROMPTS[:1], n=20)
    assert found.ceiling.value == found.mutual_lower.value == found.mutual_upper.value == 0


def test_a_deterministic_grid_per_prompt_reaches_the_ceiling():
    rule = MaskReplaceDiffusion((1.0, 0.5, 0.0), (0.0, 0.5, 1.0), 4)
    model: Any = Small(rule, codes=4, positions=6, sharpness=1e4, stateless=True)
    found = information(model, PROMPTS, n=8)
    assert abs(found.mutual_upper.value - math.log2(3)) < 1e-6
    assert abs(found.mutual_lower.value - math.log2(3 - 2 * DOUBT)) < 1e-6
    assert found.conditional_upper.value < -math.log2(1 - ALLOWED)


def test_density_and_classifier_by_hand():
    log_p = torch.tensor([[0.5, 0.25], [0.1, 0.3]], dtype=torch.float64).log()
    prompt = torch.tensor([0, 1])
    expected = torch.tensor([0.5 / 0.375, 0.3 / 0.2], dtype=torch.float64).log2()
    torch.testing.assert_close(density(log_p, prompt), expected)
    # Noise that says nothing is turned down to about 0 bits, which its full posterior would miss by far.
    noise = 10 * torch.randn(200, 3, dtype=torch.float64)
    own = torch.arange(200) % 3
    assert float(density(noise, own).mean()) < -2
    assert abs(float(classified(noise, own).mean())) < 0.2
    apart = noise + 30 * torch.eye(3, dtype=torch.float64)[own]
    assert float(classified(apart, own).mean()) > 1.3
    # A grid that is certain and wrong costs no more than the doubt allows.
    wrong = own.clone()
    wrong[:2] = (wrong[:2] + 1) % 3
    assert float(density(apart, wrong).min()) < -20
    assert LEAST <= float(classified(apart, wrong).min()) < LEAST + 0.01


# --- I(Z;Y) ---------------------------------------------------------------------------------------------------------


def readings(labels: np.ndarray) -> Readings:
    """labels (prompts, samples)."""
    found = Readings()
    for prompt, row in enumerate(labels):
        found.add(torch.from_numpy(row), np.full(len(row), prompt), np.arange(len(row)))
    return found


def test_readings_merge():
    labels = np.random.default_rng(0).integers(5, size=(3, 20))
    one, other = readings(labels), readings(labels[:, ::-1].copy())
    merged = pickle.loads(pickle.dumps(one)).merged(other)  # as from another process
    assert sum(merged.counts.values()) == 120
    assert all(count == one.counts.get(key, 0) + other.counts.get(key, 0) for key, count in merged.counts.items())
    assert readings(labels).counts == one.counts and merged.counts != one.counts


@pytest.mark.parametrize("n", [6, 8, 16])
def test_neither_a_group_of_samples_nor_a_half_is_that_of_a_wording(n):
    """Every wording gives one grid: that it was that wording is no chance, and each half of a fit has seen it."""
    model: Any = Small(Raster(3), codes=16, sharpness=1e4, guidance=1.0)
    prompts = [Prompt(text, paraphrases=(f"{text} icon",)) for text in ("red heart", "a cat")]

    def judge(images: torch.Tensor) -> torch.Tensor:
        return (images[:, 0].flatten(1) * 16).round().long() @ torch.tensor([1, 16, 256])

    found = information(model, prompts, n=n, interventions=[Paraphrase(2)], judge=judge)
    assert found.conditional_lower.value == pytest.approx(1, abs=1e-6)
    assert found.token_miller_madow.mc_error < 1e-9 and found.token_miller_madow.value > 3
    assert found.relevant.value > 0.4


def bits(labels: np.ndarray, prompts: list[Prompt]) -> float:
    return float(information_per_prompt(readings(labels), concepts_of(prompts, ())).mean.mean())


def test_relevant_information_of_a_perfect_a_blind_and_a_noisy_judge():
    prompts = [Prompt(f"thing {i}") for i in range(4)]
    perfect = np.repeat(np.arange(4)[:, None], 400, 1)
    assert 1.98 < bits(perfect, prompts) <= 2.0
    random = np.random.default_rng(0)
    runs = [bits(random.integers(50, size=(4, 40)), prompts) for _ in range(40)]
    assert np.mean(runs) < 3 * np.std(runs) / math.sqrt(40)  # no information: below zero but for chance
    noisy = np.where(random.random((4, 4000)) < 0.7, np.arange(4)[:, None], random.integers(4, size=(4, 4000)))
    right = 0.7 + 0.3 / 4
    exact = 2 + right * math.log2(right) + (1 - right) * math.log2((1 - right) / 3)
    assert exact - 0.06 < bits(noisy, prompts) < exact + 0.06  # 16,000 readings: standard error below 0.015


def test_prompts_of_one_concept_share_it():
    prompts = [Prompt("a cat", concept="cat"), Prompt("my cat", concept="cat"), Prompt("dog", concept="dog")]
    labels = np.repeat(np.array([[0], [0], [1]]), 1000, 1)
    third = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert abs(bits(labels, prompts) - third) < 0.01


def test_wordings_of_one_concept_share_it():
    def found(*texts: str, names: tuple[str, ...] = ()) -> list[str]:
        return concepts_of([Prompt(text) for text in texts], names)

    assert found("red heart", "a red heart", "A  Red Heart ", "The red heart") == ["red heart"] * 4
    others = ["hearty", "heart", "another red heart", "theatre", "a"]
    assert found(*others) == others  # the control: other words are others
    assert concepts_of([Prompt("my prompt", concept="A Red heart"), Prompt("red heart", concept="love")], ()) == [
        "red heart",
        "love",
    ]
    named = ("❤️", "a picture of a red heart", "A shiny rocket", "fire truck")
    names = ("red heart", "rocket")
    assert found(*named, names=names) == ["red heart", "red heart", "rocket", "fire truck"]
    assert len(set(found(*named))) == 4  # the control: a judge that names nothing


def test_an_article_brings_no_bits():
    """Every wording gives one grid, so that this judge tells all of them apart."""
    model: Any = Small(Raster(3), codes=16, sharpness=1e4, guidance=1.0)

    def judge(images: torch.Tensor) -> torch.Tensor:
        return (images[:, 0].flatten(1) * 16).round().long() @ torch.tensor([1, 16, 256])

    def told(text: str) -> float:
        return information(model, ["red heart", text], n=16, judge=judge, effort=Effort(0, 0, 0)).relevant.value

    assert told("A red heart") == 0
    assert told("old red heart") > 0.8  # the control; the prior of the fit takes the rest of 1 bit
    judge.concepts = ("red heart", "rocket")  # type: ignore[attr-defined]
    assert told("old red heart") == 0


def test_the_plane_has_a_point_with_a_judge_and_nan_without():
    def judge(images):
        return images.mean((2, 3)).argmax(1)

    found = information(toy("ar"), PROMPTS, n=60, judge=judge)
    assert found.plane == (found.mutual_lower.value, found.relevant.value)
    assert found.relevant.value <= found.mutual_lower.value + SIGMAS * found.mutual_lower.mc_error
    assert math.isnan(measured("ar").relevant.value) and "judge" in measured("ar").relevant.note


KNOWN: Any = ConfidenceUnmasking  # rules are final, which a type checker would say of a subclass


class Unknown(KNOWN):
    def tau(self, step: int) -> float:
        return super().tau(step) / 2


@pytest.mark.parametrize("family", ["mim", "diffusion"])
def test_prompts_are_told_apart_at_least_as_well_as_a_judge_tells_their_concepts(family):
    model: Any = Small(rule_of(family, 64), codes=64, sharpness=30.0, stateless=True, guidance=1.0)

    def judge(images: torch.Tensor) -> torch.Tensor:
        return (images[:, 0].flatten(1) * 64).round().long() @ torch.tensor([1, 64, 4096])

    blind, seen = (information(model, PROMPTS, n=16, effort=Effort(0, 0, 0), judge=each) for each in (None, judge))
    assert math.isnan(blind.mutual_lower.value) and seen.mutual_lower.value == seen.relevant.value > 1.2
    assert "I(Z;Y)" in seen.mutual_lower.note and seen.sequence_lower.value > 1.2
    better = information(model, PROMPTS, n=16, judge=judge)  # the judge's is not taken where the other says more
    assert better.mutual_lower.value > better.relevant.value and "I(Z;Y)" not in better.mutual_lower.note
    unknown = information(replace(model, rule=Unknown(3)), PROMPTS, n=16, judge=judge)
    assert unknown.mutual_lower.value == unknown.relevant.value > 1.2 and math.isnan(unknown.mutual_upper.value)


def test_a_judge_of_the_wrong_shape_is_refused():
    with pytest.raises(DivlensError, match=r"a label for each of 2 pictures, got shape \(3,\)"):
        labels_of(torch.zeros(3), 2)
    with pytest.raises(DivlensError, match="numbers as labels, got 'cat'"):
        labels_of("cat", 2)
    for other in (0.5, math.nan, math.inf):
        with pytest.raises(DivlensError, match="whole numbers as labels"):
            labels_of(torch.tensor([other, 1.0]), 2)
    for labels in (torch.tensor([2.0, 1.0]), torch.tensor([True, False]), torch.tensor([5, 3], dtype=torch.uint8)):
        assert labels_of(labels, 2).tolist() == labels.tolist()
    assert labels_of([2, 1], 2).tolist() == labels_of(np.array([2, 1]), 2).tolist() == [2, 1]
