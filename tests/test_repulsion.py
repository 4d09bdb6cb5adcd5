"""Samples of a prompt that keep apart: their laws against brute force, and that a sample depends on nothing else."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import divlens
from divlens.errors import DivlensError
from divlens.interventions import Argmax, Freeze, Paraphrase, Temperature, TopK
from divlens.loop import guide
from divlens.methods import RepulseTokens
from divlens.models.toy import CODES, ToyModel
from divlens.noise import CounterNoise, stream_key
from divlens.planning import plan
from divlens.run import Row, fill
from divlens.sampler import sample
from divlens.types import Prompt
from oracles.toy_grids import GRIDS, chi_square_p, exact, toy

FAMILIES = ("ar", "mim", "diffusion")
PROMPTS = ["red heart", "a cat"]
every_family = pytest.mark.parametrize("family", FAMILIES)
STRENGTH, AMONG = 1.5, 4
APART = RepulseTokens(STRENGTH, among=AMONG)


def moments_of(model: ToyModel, *interventions: Any, n: int = 10) -> list[Any]:
    """All steps of the samples of one prompt, that fit into one batch."""
    seen: list[Any] = []
    run = plan(model, [Prompt("red heart")], n, 0, interventions)
    list(fill(run, lambda _, passing: seen.extend(passing)))
    return seen


def plain_logits(model: ToyModel, moment: Any) -> torch.Tensor:
    conditions = model.encode(["red heart"]).expand(len(moment.view.tokens), -1)
    return guide(*model.predictor(conditions, guided=True)(moment.view), model.guidance)


@every_family
def test_the_law_of_each_draw_is_what_a_plain_count_makes_of_it(family):
    """Sample by sample and position by position: the codes that those before it in its block of four hold."""
    model, repelled = toy(family), 0
    for moment in moments_of(model, APART):
        logits = plain_logits(model, moment)
        states = moment.view.tokens[:, moment.view.first : moment.view.first + moment.view.count]
        for row in range(len(logits)):
            for place in range(logits.shape[1]):
                expected = logits[row, place].double()
                for other in range(row - row % AMONG, row):
                    drawn = bool(moment.drawn[other, place])
                    held = int(moment.draws.tokens[other, place] if drawn else states[other, place])
                    if 0 <= held < CODES:
                        expected[held] -= STRENGTH
                        repelled += 1
                assert torch.allclose(moment.log_p[row, place].double(), expected.log_softmax(-1), atol=1e-5)
    assert repelled >= 39  # the control: of ten samples in blocks of four, at each of three positions 6 + 6 + 1


def test_two_samples_have_the_joint_law_that_follows():
    """Autoregressive, over 6,000 seeds: p(z0) times the product of the penalised laws of z1. Pearson's test rejects at
    1e-6, which is its false-alarm rate."""
    model, prompt = toy("ar"), Prompt("red heart")
    law, pairs = exact(model, "red heart"), np.zeros((len(GRIDS), len(GRIDS)))
    conditional = conditionals(model)
    for first in range(len(GRIDS)):
        for second, grid in enumerate(GRIDS):
            chance = 1.0
            for place, code in enumerate(grid):
                weights = conditional[tuple(grid[:place])].copy()
                weights[GRIDS[first][place]] *= math.exp(-STRENGTH)
                chance *= weights[code] / weights.sum()
            pairs[first, second] = law[first] * chance
    assert pairs.sum() == pytest.approx(1, abs=1e-5)
    place_of = {tuple(grid): number for number, grid in enumerate(GRIDS)}
    counts = np.zeros_like(pairs)
    rows = [Row(prompt, prompt.text, sample, sample) for sample in (0, 1)] * 6000
    run = plan(model, [prompt], 2, 0, [APART], batch_size=len(rows))

    def other_seeds(rows: Any, seed: int) -> CounterNoise:
        keys = tuple(stream_key(number // 2, prompt.text) for number in range(len(rows)))
        return CounterNoise(keys, (0, 1) * 6000, (0, 1) * 6000)

    (batch,) = fill(replace(run, rows=rows, whole=run.rows), noise=other_seeds)
    for one, other in batch.tokens.flatten(1).view(6000, 2, -1).tolist():
        counts[place_of[tuple(one)], place_of[tuple(other)]] += 1
    # By the second grid and whether the two share the first token: enough in every cell.
    share = np.array([[one[0] == other[0] for other in GRIDS] for one in GRIDS])
    found = np.concatenate([(counts * share).sum(0), (counts * ~share).sum(0)])
    expected = np.concatenate([(pairs * share).sum(0), (pairs * ~share).sum(0)])
    independent = np.outer(law, law)
    apart = np.concatenate([(independent * share).sum(0), (independent * ~share).sum(0)])
    assert chi_square_p(found, expected) > 1e-6
    assert chi_square_p(found, apart) < 1e-6  # the control


def conditionals(model: ToyModel) -> dict[tuple[int, ...], np.ndarray]:
    """The law of each next code given those before it, from the law of whole grids."""
    law = exact(model, "red heart")
    found: dict[tuple[int, ...], np.ndarray] = {}
    for length in range(len(GRIDS[0])):
        for before in {tuple(grid[:length]) for grid in GRIDS}:
            weights = np.zeros(CODES)
            for grid, chance in zip(GRIDS, law, strict=True):
                if tuple(grid[:length]) == before:
                    weights[grid[length]] += chance
            found[before] = weights / weights.sum()
    return found


@every_family
@pytest.mark.parametrize("others", [(), (Paraphrase(lengths="mixed"),), (Freeze("path"),), (TopK(2), Temperature(0.7))])
def test_a_sample_depends_on_neither_batch_nor_number_of_samples(family, others):
    model, asked = toy(family), [*others, APART]
    whole = sample(model, PROMPTS, 10, interventions=asked).tokens
    for batch_size in (1, 3, 7):
        assert torch.equal(sample(model, PROMPTS, 10, interventions=asked, batch_size=batch_size).tokens, whole)
    assert torch.equal(sample(model, PROMPTS, 6, interventions=asked).tokens, whole[:, :6])
    chosen = sample(model, PROMPTS[1:], interventions=asked, indices=[7, 2, 9]).tokens
    assert torch.equal(chosen, whole[1:, [7, 2, 9]])
    assert not torch.equal(whole, sample(model, PROMPTS, 10, interventions=others).tokens)  # the control


@every_family
def test_the_first_of_a_block_is_drawn_as_ever_and_the_trace_is_of_those_asked_for(family):
    model = toy(family)
    plain, apart = (sample(model, PROMPTS, 9, interventions=done).tokens for done in ([], [APART]))
    assert torch.equal(plain[:, ::AMONG], apart[:, ::AMONG])
    assert not torch.equal(plain, apart)
    found = sample(model, PROMPTS, interventions=[APART], indices=[6], trace=True)
    assert found.trace is not None
    assert torch.equal(found.trace.steps[-1].state.view(2, -1), found.tokens.flatten(1))
    assert torch.equal(found.tokens, apart[:, [6]])


def test_with_much_strength_three_samples_of_three_codes_share_none():
    apart = RepulseTokens(1000, among=3)
    grids = sample(toy("ar"), PROMPTS, 30, interventions=[apart]).tokens.flatten(2).view(2, 10, 3, -1)
    assert (grids.sort(2).values == torch.arange(3).view(1, 1, 3, 1)).all()
    plain = sample(toy("ar"), PROMPTS, 30).tokens.flatten(2).view(2, 10, 3, -1)
    assert not (plain.sort(2).values == torch.arange(3).view(1, 1, 3, 1)).all()  # the control


def test_greedy_draws_keep_apart_as_well():
    found = sample(toy("ar"), PROMPTS, 4, interventions=[Argmax(), RepulseTokens(1000)]).tokens.flatten(2)
    assert all(len(torch.unique(grids[:3], dim=0)) == 3 for grids in found)
    alike = sample(toy("ar"), PROMPTS, 4, interventions=[Argmax()]).tokens.flatten(2)
    assert all(len(torch.unique(grids, dim=0)) == 1 for grids in alike)  # the control


@pytest.mark.usefixtures("colours_for_lpips")
def test_a_run_that_grows_draws_what_one_of_full_size_does(tmp_path):
    conditions = {"baseline": [], "apart": [APART]}

    def tokens(folder: str, n: int) -> Any:
        divlens.probe("toy/mim", PROMPTS, n, conditions=conditions, out=tmp_path / folder)
        found: Any = divlens.open_run(tmp_path / folder).samples
        return found[["condition", "prompt", "sample", "cell"]], np.stack(found["tokens"])

    tokens("grown", 6)
    (grown, of_grown), (whole, of_whole) = tokens("grown", 9), tokens("whole", 9)
    assert grown.equals(whole) and np.array_equal(of_grown, of_whole)


def test_joint_samples_are_refused_where_samples_must_be_independent():
    for verb in (divlens.information, divlens.decompose):
        with pytest.raises(DivlensError, match=r"expects samples that are drawn apart from each other.*RepulseTokens"):
            verb("toy/mim", PROMPTS, interventions=[RepulseTokens()])
    with pytest.raises(DivlensError, match=r"expects interventions on the law of the tokens .* got RepulseTokens"):
        from oracles import tiny_diffusers

        with divlens.apply(tiny_diffusers.amused(), [RepulseTokens()]):
            pass
