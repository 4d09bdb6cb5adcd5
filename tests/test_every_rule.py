"""One battery for every path rule that `divlens.paths` exports: what a rule owes the loop, whatever its path.

What only one rule does, its chances or its agreement with published code, is tested in the files of `paths`.
"""

import pickle
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from divlens import paths
from divlens.interventions import Argmax, Freeze, Subset
from divlens.models.toy import CODES, RULES, ToyModel
from divlens.noise import CounterNoise
from divlens.paths import (
    ChooseThenSample,
    ConfidenceUnmasking,
    Draws,
    FixedOrder,
    MaskReplaceDiffusion,
    PathRule,
    RandomOrder,
    Raster,
)
from divlens.sampler import sample

POSITIONS, ROWS, MASK = 3, 64, CODES
EVERY_RULE: dict[str, Any] = {
    "raster": Raster(POSITIONS),
    "confidence unmasking": ConfidenceUnmasking(3, (2.0, 0.0)),
    "confidence unmasking in two steps": ConfidenceUnmasking(2, (1.0, 1.0), "linear"),
    "diffusion": RULES["diffusion"],
    "diffusion that never replaces": MaskReplaceDiffusion((1.0, 0.6, 0.3, 0.0), (0.0, 0.4, 0.7, 1.0), CODES),
    "choose, then sample": ChooseThenSample(3, (2.0, 0.0), "linear"),
    "random order": RandomOrder(3, "linear"),
    "fixed order": FixedOrder((2, 0, 1), 3, schedule="linear"),
    "fixed order from anywhere": FixedOrder((2, 0, 1), 3, roll=True, schedule="linear"),
}
CERTAIN = ("raster", "fixed order")  # whose path has no noise
POOL = ["red heart", "a cat", "three green apples", "blue sky", "snow"]
fixed = settings(derandomize=True, deadline=None)  # the same examples every time, however busy the machine

every_rule = pytest.mark.parametrize("name", EVERY_RULE)


def noise_of(seed: int, rows: int = ROWS) -> CounterNoise:
    return CounterNoise.of(seed, ["a cat"] * rows, range(rows), range(rows))


def drawn_codes(step: int, rows: int = ROWS) -> torch.Tensor:
    """A draw for every position, another at each step."""
    return torch.randint(CODES, (ROWS, POSITIONS), generator=torch.Generator().manual_seed(step))[:rows]


def law_of_draws(step: int, rows: int = ROWS) -> torch.Tensor:
    """log p of every code at every position, another at each step. The codes that are drawn do not follow it."""
    random = torch.Generator().manual_seed(100 + step)
    return torch.randn(ROWS, POSITIONS, CODES, generator=random)[:rows].log_softmax(-1)


def walked(rule: Any, seed: int = 0, rows: int = ROWS, mask: int = MASK) -> list[Any]:
    """(view, draws, result) of each step, from a masked grid."""
    tokens, found = torch.full((rows, POSITIONS), mask), []
    for step in range(rule.steps):
        view = rule.view(tokens, step)
        codes = drawn_codes(step, rows)[:, view.first : view.first + view.count]
        law = law_of_draws(step, rows)[:, view.first : view.first + view.count]
        draws = Draws(codes, torch.zeros(codes.shape) - 1 - codes, law)
        found.append((view, draws, rule.advance(view, draws, mask, noise_of(seed, rows))))
        tokens = found[-1][2].tokens
    return found


def states(rule: Any, **how: Any) -> torch.Tensor:
    return torch.stack([result.tokens for _, _, result in walked(rule, **how)])


def test_every_rule_that_is_exported_has_a_line():
    exported = [getattr(paths, name) for name in paths.__all__]
    rules = {kind for kind in exported if isinstance(kind, type) and kind is not PathRule and hasattr(kind, "silenced")}
    assert {type(rule) for rule in EVERY_RULE.values()} == rules


@every_rule
def test_it_is_a_record(name):
    rule = EVERY_RULE[name]
    assert rule == pickle.loads(pickle.dumps(rule)) and hash(rule) == hash(pickle.loads(pickle.dumps(rule)))
    with pytest.raises(FrozenInstanceError):
        setattr(rule, fields(rule)[0].name, None)
    assert isinstance(rule, PathRule)


@every_rule
@pytest.mark.parametrize("silent", [False, True], ids=["as it is", "silenced"])
def test_a_walk_fills_the_grid_with_what_was_drawn(name, silent):
    rule = EVERY_RULE[name].silenced() if silent else EVERY_RULE[name]
    before = torch.full((ROWS, POSITIONS), MASK)
    for step, (view, draws, result) in enumerate(walked(rule)):
        assert view.step == step and torch.equal(view.tokens, before)
        assert view.first >= 0 and view.first + view.count <= POSITIONS
        assert rule.drawn(view, MASK).shape == draws.tokens.shape
        moved = result.tokens != before
        assert result.committed.shape == before.shape and result.committed[moved].all()
        chance = result.path_log_probability
        assert chance.shape == (ROWS,) and (chance.nan_to_num() <= 0).all()
        no_closed_form = isinstance(rule, ConfidenceUnmasking | ChooseThenSample)
        assert no_closed_form or not chance.isnan().any()
        before = result.tokens
    assert before.min() >= 0 and before.max() < CODES
    with_others = walked(rule)[-1]  # the control: the last step takes what is drawn at it, where it is still drawn
    assert (with_others[2].tokens != with_others[0].tokens).any()


@every_rule
def test_a_draw_that_does_not_matter_does_not_matter(name):
    rule = EVERY_RULE[name]
    seen = False
    for view, draws, result in walked(rule):
        matters, laws = rule.drawn(view, MASK), (draws.log_probability, draws.log_p)
        others = Draws(torch.where(matters, draws.tokens, (draws.tokens + 1) % CODES), *laws)
        assert torch.equal(rule.advance(view, others, MASK, noise_of(0)).tokens, result.tokens)
        others = Draws((draws.tokens + 1) % CODES, *laws)
        seen |= not torch.equal(rule.advance(view, others, MASK, noise_of(0)).tokens, result.tokens)
    assert seen  # the control


@every_rule
def test_a_row_depends_neither_on_the_others_nor_on_the_id_of_the_mask(name):
    rule = EVERY_RULE[name]
    whole = states(rule)
    assert torch.equal(states(rule, rows=5), whole[:, :5])
    for mask in (-1, CODES + 7):
        other = states(rule, mask=mask)
        assert torch.equal(torch.where(other == mask, MASK, other), whole)
    assert not torch.equal(whole[:, 0], whole[:, 1])  # the control


@every_rule
def test_the_path_is_that_of_its_noise_and_a_silenced_one_has_none(name):
    rule = EVERY_RULE[name]
    silent = rule.silenced()
    assert silent.steps == rule.steps and silent.silenced() == silent
    assert torch.equal(states(silent), states(silent, seed=1))
    assert all((result.path_log_probability == 0).all() for _, _, result in walked(silent))
    assert torch.equal(states(rule), states(rule))
    assert torch.equal(states(rule), states(rule, seed=1)) == (name in CERTAIN)  # the control
    assert (silent == rule) == (name in CERTAIN)


# --- in the loop, with the toy --------------------------------------------------------------------------------------


def toy_with(name: str) -> ToyModel:
    return ToyModel("mim", EVERY_RULE[name])


def rows_of(out: Any, prompt: int) -> tuple[torch.Tensor, ...]:
    """Everything that belongs to one prompt's samples: tokens, pictures, and its rows of the trace."""
    n = out.tokens.shape[1]
    rows = slice(prompt * n, (prompt + 1) * n)
    steps = [
        torch.cat([s.log_probability, s.entropy, s.path_log_probability[:, None]], 1)[rows] for s in out.trace.steps
    ]
    return out.tokens[prompt], out.images[prompt], torch.stack(steps, 1)


@every_rule
@settings(fixed, max_examples=8)
@given(
    others=st.lists(st.sampled_from(POOL[1:]), max_size=3, unique=True),
    place=st.integers(0, 3),
    extra=st.integers(0, 5),
    batch_size=st.integers(1, 20),
    seed=st.sampled_from([0, 1, 2**64 - 1]),
)
def test_a_sample_depends_on_nothing_but_its_seed_prompt_and_index(name, others, place, extra, batch_size, seed):
    model = toy_with(name)
    alone = sample(model, [POOL[0]], n=4, seed=seed, trace=True)
    prompts = [*others[:place], POOL[0], *others[place:]]
    among = sample(model, prompts, n=4 + extra, seed=seed, batch_size=batch_size, trace=True)
    for expected, got in zip(rows_of(alone, 0), rows_of(among, prompts.index(POOL[0])), strict=True):
        assert torch.equal(expected.nan_to_num(-1), got[:4].nan_to_num(-1))


@every_rule
def test_prompts_and_seeds_differ(name):
    out, again = (sample(toy_with(name), POOL[:2], n=30, seed=seed) for seed in (0, 1))
    assert len(out.tokens[0].view(-1, POSITIONS).unique(dim=0)) > 3
    assert not torch.equal(out.tokens[0], out.tokens[1])
    assert not torch.equal(out.tokens, again.tokens)


@every_rule
def test_without_noise_one_grid_is_left(name):
    def found(*interventions: Any) -> int:
        grids = sample(toy_with(name), POOL[:1], n=40, interventions=interventions).tokens
        return len(grids.view(-1, POSITIONS).unique(dim=0))

    assert found(Argmax("all")) == 1
    assert found(Freeze("path"), Freeze("execution")) == 1
    assert found(Subset(0.34)) == 1  # one code of three
    assert (found(Argmax()) == 1) == (name in CERTAIN)  # the control: the path is still random
    assert found() > 3
