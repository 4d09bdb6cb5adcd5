"""Random and fixed orders: what they commit, what they refuse, and that they are what they say."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any, cast

import pytest
import torch

from divlens.errors import DivlensError
from divlens.noise import CounterNoise
from divlens.paths import Draws, FixedOrder, RandomOrder, halton_order
from oracles.toy_grids import chi_square_p

ALARM = 1e-6  # the false-alarm rate of a chi-square test over random seeds
MASK = 5


def walked(rule: Any, batch: int, positions: int, seed: int = 0) -> list[torch.Tensor]:
    """What each step commits, bool (batch, positions), with draws that are always code 1."""
    noise = CounterNoise.of(seed, ["a cat"] * batch, range(batch), range(batch))
    tokens, found = torch.full((batch, positions), MASK), []
    for step in range(rule.steps):
        view = rule.view(tokens, step)
        draws = Draws(torch.ones_like(tokens), torch.zeros(tokens.shape))
        result = rule.advance(view, draws, MASK, noise)
        assert torch.equal(result.tokens != tokens, result.committed)
        found.append(result.committed)
        tokens = result.tokens
    assert (tokens == 1).all()
    return found


@pytest.mark.parametrize("schedule", ["cosine", "linear", "arccos"])
@pytest.mark.parametrize("steps", [1, 2, 5, 12, 20])
def test_every_position_is_committed_once(steps, schedule):
    for rule in (RandomOrder(steps, schedule), FixedOrder(tuple(range(11, -1, -1)), steps, schedule=schedule)):
        for each in (rule, rule.silenced()):
            committed = torch.stack(walked(each, 3, 12))
            assert (committed.sum(0) == 1).all()
            assert steps > 12 or (committed.sum(2) > 0).all()


def test_all_sets_of_positions_are_alike():
    first = walked(RandomOrder(2, "linear"), 6000, 4)[0]
    counts = Counter(map(tuple, first.tolist()))
    assert len(counts) == math.comb(4, 2)
    expected = [1 / 6] * 6
    assert chi_square_p(torch.tensor([*counts.values()]).numpy(), torch.tensor(expected).numpy()) > ALARM
    # It can fail: an order that is the same for all has one set.
    assert len(Counter(map(tuple, walked(RandomOrder(2, "linear", silent=True), 60, 4)[0].tolist()))) == 1


def test_a_fixed_order_is_kept():
    order = (3, 0, 2, 1)
    for step, committed in enumerate(walked(FixedOrder(order, 4, schedule="linear"), 2, 4)):
        assert committed[:, order[step]].all() and committed.sum() == 2


def test_a_roll_begins_at_a_random_place_and_goes_round():
    order, batch = (3, 0, 2, 1), 4000
    steps = walked(FixedOrder(order, 4, roll=True, schedule="linear"), batch, 4)
    places = torch.stack([committed.int().argmax(1) for committed in steps], 1)
    starts = torch.tensor([order.index(int(place)) for place in places[:, 0]])
    for i, start in enumerate(starts.tolist()):
        assert places[i].tolist() == [*order[start:], *order[:start]]
    assert chi_square_p(starts.bincount().numpy(), torch.full((4,), 0.25).numpy()) > ALARM


def test_a_halton_order_begins_as_the_sequence_does():
    order = halton_order((4, 4))
    assert sorted(order) == list(range(16))
    # The points after the origin: (1/2, 1/3), (1/4, 2/3), (3/4, 1/9), (1/8, 4/9).
    assert order[:4] == (2 * 4 + 1, 1 * 4 + 2, 3 * 4 + 0, 0 * 4 + 1)
    tall = halton_order((5, 2))
    assert sorted(tall) == list(range(10)) and tall[0] == 2 * 2 + 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomOrder(0), "RandomOrder(steps=...) expects a whole number of at least 1, got 0"),
        (lambda: RandomOrder(3, cast(Any, "square")), 'expects one of "cosine", "linear", "arccos", got \'square\''),
        (lambda: FixedOrder((0, 2)), "every position of the grid once"),
        (lambda: FixedOrder((0, 0, 1)), "every position of the grid once"),
        (lambda: FixedOrder(cast(Any, "halton")), "every position of the grid once"),
        (lambda: FixedOrder(()), "every position of the grid once"),
    ],
)
def test_bad_orders_are_refused(make, message):
    with pytest.raises(DivlensError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_an_order_for_another_grid_is_refused():
    from divlens.models.protocol import check_model
    from oracles.small_models import Small

    model: Any = Small(FixedOrder((0, 1, 2)), codes=3)
    check_model(model)
    with pytest.raises(DivlensError, match="a rule for its 3 positions, got one for 4"):
        check_model(replace(model, rule=FixedOrder((0, 1, 2, 3))))
