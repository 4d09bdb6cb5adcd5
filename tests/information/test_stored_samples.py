"""Several wordings, and the few samples that bounds are taken from: shares, errors, memory."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from divlens.information import Effort, information
from divlens.information.accounting import QUANTITIES, Tally
from divlens.information.conditional_entropy import conditional_entropy, estimate_with_control
from divlens.information.estimates import Estimate
from divlens.information.mutual_information import log_p_of_prompts, mutual_information
from divlens.information.one_pass import MIXTURE, choice_of_samples, collect, stored_for
from divlens.information.rare import RareDraws
from divlens.information.replay import (
    log_mean_exp,
)
from divlens.information.stored import StoredSamples, estimate_of_stored
from divlens.information.strata import Strata, Sums
from divlens.interventions import Paraphrase
from divlens.paraphrase import wordings_of
from divlens.paths import Raster
from divlens.planning import plan
from divlens.run import Row
from divlens.types import Prompt
from oracles.small_models import Small
from oracles.toy_bits import PROMPTS
from oracles.toy_grids import toy
from oracles.transcripts import Case, entropy, truth

REWORDED = [Prompt(text, paraphrases=(f"{text} icon",)) for text in PROMPTS]
SIGMAS = 5  # false-alarm rate 6e-7 each


def test_wordings_widen_the_upper_bound_by_their_entropy():
    effort = Effort(paths=0, mixture_samples=0)
    plain = information(toy("ar"), REWORDED, n=16, effort=effort)
    worded = information(toy("ar"), REWORDED, n=16, interventions=[Paraphrase(2, "mixed")], effort=effort)
    assert plain.conditional_lower == plain.conditional_upper
    assert abs(worded.conditional_upper.value - worded.conditional_lower.value - 1) < 1e-9
    assert any("at most includes" in note for note in worded.remarks)


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
    assert not any("at most" in note for note in found.remarks)


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
    kept = {text: tuple(choice_of_samples(stratum, 9, 0, text).nonzero()[0]) for text in ("a cat", "a dog", "a hat")}
    assert len(set(kept.values())) == 3
    assert all(len(one) == 9 and len({i % 8 for i in one}) == 8 for one in kept.values())
    assert tuple(choice_of_samples(stratum, 9, 0, "a cat").nonzero()[0]) == kept["a cat"]
    used = [tuple(stratum[choice_of_samples(stratum, 11, 0, text)]) for text in kept]
    assert len({tuple(sorted(one)) for one in used}) == 3  # which of the wordings come twice


@pytest.mark.parametrize(("n", "wordings", "keep"), [(12, 8, 4), (10, 8, 2), (10, 8, 8), (11, 3, 4)])
def test_the_mean_of_kept_samples_is_unbiased_however_few_they_are(n, wordings, keep):
    """Values that are those of the wording, whose shares differ; the mean over 2000 choices, within 5 errors."""
    stratum = np.arange(n) % wordings
    values = torch.from_numpy(stratum.astype(float) ** 2)
    strata = Strata(torch.zeros(wordings, dtype=torch.long), torch.from_numpy(np.bincount(stratum)))
    prompt, means = torch.zeros(keep, dtype=torch.long), []
    for seed in range(2000):
        which = torch.from_numpy(choice_of_samples(stratum, keep, seed, "a cat").nonzero()[0])
        kept = StoredSamples([], prompt, torch.from_numpy(stratum)[which], strata, [], [], values[which])
        means.append(estimate_of_stored(values[which], kept, 100.0, "").value)
    error = np.std(means) / math.sqrt(len(means))
    assert abs(np.mean(means) - float(values.mean())) < SIGMAS * error + 1e-9
    least_seen = float(values[:wordings].mean())  # had the shares not counted
    assert abs(least_seen - float(values.mean())) > SIGMAS * error


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
        sums = Sums.of(joint[:, None].expand(48, len(QUANTITIES)), stratum, len(strata))
        kept = StoredSamples([], prompt[chosen], stratum[chosen], strata, [], [], joint[chosen])
        tally = Tally(strata, sums, RareDraws.empty(len(strata)), maps, maps)
        found["bound"].append(estimate_with_control(tally, kept, values[chosen], control[chosen], 0.5, ""))
        found["mutual"].append(estimate_of_stored(values[chosen], kept, 1.0, ""))
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
    torch.testing.assert_close(log_p_of_prompts(run, by_wording), every, atol=1e-12, rtol=0)


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
        kept = stored_for(MIXTURE, collected)
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
