"""The chance of a selection: total probability, limits, size, brute force, and the quadrature against finer ones and
simulation."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from divlens.information.laws import unmasking_events as module
from divlens.information.laws.gumbel_mixtures import (
    USUAL,
    Accuracy,
    Direct,
    Shared,
    enclosing_mixtures,
    exceedance,
    mixture_in_bins,
)
from divlens.information.laws.little_noise import Sorted, little_noise, nodes_around, scores_that_count
from divlens.information.laws.scores import scores_of
from divlens.information.laws.unmasking_events import Windows, event_log_probabilities, selections, windows
from oracles.unmasking_events import one_event


def logits(*shape: int, seed: int = 0, scale: float = 1.5) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=random, dtype=torch.float64) * scale).log_softmax(-1)


def every_event(log_p: torch.Tensor, count: int, tau: float, few_codes: int = 32, noise=None, accuracy=USUAL):
    """log P(V) and log P(V, z_V) of every V of `count` positions and every z_V."""
    n, codes = log_p.shape
    opened = torch.ones(n, dtype=torch.bool)
    chosen, tokens = [], []
    for which in selections(opened, count):
        for drawn in itertools.product(range(codes), repeat=count):
            token = torch.zeros(n, dtype=torch.long)
            token[which] = torch.tensor(drawn)
            chosen.append(which)
            tokens.append(token)
    events = len(chosen)
    scores = scores_of(
        log_p.expand(events, n, codes), opened.expand(events, n), torch.stack(chosen), torch.stack(tokens)
    )
    shift = None if noise is None else noise[scores.position]
    return event_log_probabilities(scores, events, tau, shift, few_codes, accuracy)


@pytest.mark.parametrize("few_codes", [32, 0], ids=["direct", "binned"])
@pytest.mark.parametrize("tau", [0.05, 0.3, 1.0, 2.0, 10.0])
@pytest.mark.parametrize(("n", "codes", "count"), [(4, 3, 2), (5, 2, 1), (3, 5, 2)])
def test_all_selections_with_all_tokens_sum_to_one(tau, few_codes, n, codes, count):
    for scale in (0.5, 4.0):
        path, joint = every_event(logits(n, codes, scale=scale), count, tau, few_codes)
        assert abs(float(joint.exp().sum()) - 1) < 1e-8
        assert abs(float(path.exp().sum()) / codes**count - 1) < 1e-8


def test_the_sum_would_show_coarse_nodes():
    _, joint = every_event(logits(4, 3), 2, 1.0, accuracy=Accuracy(nodes_per_tau=0.3, nodes_per_root=0.1))
    assert abs(float(joint.exp().sum()) - 1) > 1e-6


def test_atoms_sum_to_one_without_noise_and_with_known_noise():
    for log_p in (logits(4, 3), torch.full((4, 3), -math.log(3), dtype=torch.float64)):  # the second is all ties
        for noise in (None, torch.tensor([0.3, -1.2, 0.3, 2.0], dtype=torch.float64)):
            path, joint = every_event(log_p, 2, 0.0 if noise is None else 1.0, noise=noise)
            assert abs(float(joint.exp().sum()) - 1) < 1e-12
            assert abs(float(path.exp().sum()) / 9 - 1) < 1e-12


def test_two_positions_against_the_closed_form():
    """Position 0 alone of two, tokens a and b: Plackett-Luce, p_a^(1/tau) / (p_a^(1/tau) + p_b^(1/tau))."""
    log_p = logits(2, 3)
    for tau in (0.2, 1.0, 3.0):
        path, joint = every_event(log_p, 1, tau)
        p, weight = log_p.exp(), (log_p / tau).exp()
        pairs = weight[0][:, None] / (weight[0][:, None] + weight[1])
        torch.testing.assert_close(joint[:3].exp(), p[0] * (pairs * p[1]).sum(1), atol=1e-12, rtol=0)
        torch.testing.assert_close(path[0].exp(), (pairs * p[0][:, None] * p[1]).sum(), atol=1e-12, rtol=0)


def test_little_noise_is_the_limit_of_none():
    log_p = next(
        p for p in (logits(4, 3, seed=seed) for seed in range(100)) if p.flatten().sort()[0].diff().min() > 0.03
    )
    none, little = every_event(log_p, 2, 0.0), every_event(log_p, 2, 3e-4)
    for a, b in zip(little, none, strict=True):
        torch.testing.assert_close(a.exp(), b.exp(), atol=1e-7, rtol=0)
    assert (every_event(log_p, 2, 0.1)[1].exp() - none[1].exp()).abs().max() > 1e-3


def tied(n: int, codes: int, seed: int = 0) -> torch.Tensor:
    """Of which all different scores are more than 0.25 apart, and those of the first two positions the same."""
    found = (logits(n, codes, seed=at) for at in range(seed, seed + 1000))
    log_p = next(p for p in found if p[1:].flatten().sort()[0].diff().min() > 0.25)
    log_p[0] = log_p[1]
    return log_p


@pytest.mark.parametrize("count", [1, 2])
def test_with_little_noise_equal_scores_are_ranked_by_lot(count):
    """The general quadrature agrees, and so does every temperature below; without noise the position ranks them."""
    log_p = tied(3, 2)
    small, tiny, none = (every_event(log_p, count, tau) for tau in (2e-3, 1e-300, 0.0))
    n = len(small[0])
    opened = torch.ones(n, 3, dtype=torch.bool)
    chosen, tokens = [], []
    for which in selections(opened[0], count):
        for drawn in itertools.product(range(2), repeat=count):
            token = torch.zeros(3, dtype=torch.long)
            token[which] = torch.tensor(drawn)
            chosen.append(which)
            tokens.append(token)
    scores = scores_of(log_p.expand(n, 3, 2), opened, torch.stack(chosen), torch.stack(tokens))
    for found, same, general in zip(small, tiny, module.log_integrals(scores, n, 2e-3, 32), strict=True):
        torch.testing.assert_close(found.exp(), general.exp(), atol=1e-11, rtol=0)
        torch.testing.assert_close(found.exp(), same.exp(), atol=2e-7, rtol=0)  # thresholds are rounded to 1e-7 tau
    assert (small[1].exp() - none[1].exp()).abs().max() > 1e-5  # the control
    assert abs(float(small[1].exp().sum()) - 1) < 1e-11


def test_where_all_scores_are_equal_every_selection_is_as_likely():
    path, joint = every_event(torch.full((5, 2), -math.log(2), dtype=torch.float64), 2, 1e-12)
    torch.testing.assert_close(path.exp(), torch.full_like(path, 1 / 10), atol=1e-14, rtol=0)
    torch.testing.assert_close(joint.exp(), torch.full_like(joint, 1 / 40), atol=1e-14, rtol=0)


@pytest.mark.parametrize("tau", [1e-2, 3e-3])
def test_with_little_noise_hundreds_of_codes_have_the_chances_of_the_general_quadrature(tau):
    scores, samples = one_event(40, 200, 8, tau)
    found, general = little_noise(scores, samples, tau), module.log_integrals(scores, samples, tau, 32)
    for one, other in zip(found, general, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    none = event_log_probabilities(scores, samples, 0.0)
    assert max(float((one - other).abs().max()) for one, other in zip(found, none, strict=True)) > 1e-3  # the control


def test_the_cost_of_little_noise_does_not_grow_as_it_falls():
    scores, _ = one_event(40, 200, 8, 1e-3, samples=1)
    mixture = Sorted.of(scores.weight, scores.location)
    counts = [len(nodes_around(scores_that_count(scores, mixture, tau), tau / 8, tau)) for tau in (1e-3, 1e-6, 1e-12)]
    assert max(counts) < 2 * counts[0]
    limit, none = little_noise(scores, 1, 1e-9), event_log_probabilities(scores, 1, 0.0)
    for one, other in zip(limit, none, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)  # no two scores are so near each other


def test_much_noise_is_the_limit_of_a_random_choice():
    log_p = logits(4, 3)
    path, joint = every_event(log_p, 2, 1e5)
    torch.testing.assert_close(path.exp(), torch.full_like(path, 1 / 6), atol=1e-4, rtol=0)
    # Given V the tokens are then independent draws.
    sums = (joint - path).exp().view(6, 9).sum(1)
    torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("tau", "positions", "codes"), [(0.05, 40, 200), (0.5, 40, 200), (2.0, 40, 200), (0.5, 256, 512)]
)
def test_binning_agrees_with_every_code_by_itself(tau, positions, codes):
    """To 1e-6 in log P: each factor of order 1 is changed by 3.3e-8. studies/quadrature.py has 8192 codes."""
    scores, samples = one_event(positions, codes, 4, tau, samples=1 if positions > 40 else 3)
    for a, b in zip(
        event_log_probabilities(scores, samples, tau),
        event_log_probabilities(scores, samples, tau, few_codes=10_000),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@pytest.mark.parametrize("tau", [0.1, 2.0])
def test_twice_the_nodes_and_bins_change_nothing(tau):
    scores, samples = one_event(64, 512, 5, tau)
    usual = event_log_probabilities(scores, samples, tau)
    finer = event_log_probabilities(scores, samples, tau, accuracy=Accuracy(10.0, 2.4, 24, 1e-13, 40.0))
    assert not finer[0].equal(usual[0])  # the control: it is reached
    for a, b in zip(usual, finer, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@pytest.mark.parametrize("tau", [0.02, 2.0])
def test_a_grid_of_256_positions_and_8192_codes_stays_finite(tau):
    scores, samples = one_event(256, 8192, 9, tau, samples=1)
    path, joint = event_log_probabilities(scores, samples, tau)
    assert path.isfinite().all() and joint.isfinite().all()
    assert (joint <= path).all() and (path < 0).all()


def test_against_two_million_draws():
    """A frequency of 2 million draws has a standard error below 0.5 / sqrt(2e6): 5 of them is 1.8e-3."""
    log_p, tau, draws = logits(4, 3), 0.8, 2_000_000
    random = torch.Generator().manual_seed(0)
    tokens = torch.stack([torch.multinomial(row.exp(), draws, replacement=True, generator=random) for row in log_p])
    gumbel = -torch.log(-torch.log(torch.rand(4, draws, generator=random, dtype=torch.float64)))
    score = log_p.gather(1, tokens) + tau * gumbel
    top = score.topk(2, dim=0).indices.sort(0).values
    event = (top[0] * 4 + top[1]) * 9 + tokens.gather(0, top)[0] * 3 + tokens.gather(0, top)[1]
    found = torch.bincount(event, minlength=144).double() / draws
    _, joint = every_event(log_p, 2, tau)
    pairs = list(itertools.combinations(range(4), 2))
    for k, (a, b) in enumerate(pairs):
        expected = joint[9 * k : 9 * k + 9].exp()
        error = (expected * (1 - expected) / draws).sqrt()
        assert ((found[(a * 4 + b) * 9 :][:9] - expected).abs() < 5 * error).all()


def test_nothing_or_everything_committed_leaves_no_choice():
    log_p = logits(2, 3, 4)
    opened = torch.tensor([[True, True, False], [True, True, True]])
    committed = torch.tensor([[True, True, False], [False, False, False]])
    tokens = torch.zeros(2, 3, dtype=torch.long)
    path, joint = event_log_probabilities(scores_of(log_p, opened, committed, tokens), 2, 1.0)
    assert torch.equal(path, torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(joint, torch.stack([log_p[0, :2, 0].sum(), torch.tensor(0.0).double()]))


def test_banned_codes_have_no_chance_and_give_no_nan():
    log_p = torch.tensor([[[0.5, 0.5, 0.0], [0.2, 0.8, 0.0], [1.0, 0.0, 0.0]]]).log()
    opened = torch.ones(1, 3, dtype=torch.bool)
    committed = torch.tensor([[True, False, False]])
    for token, possible in ((0, True), (2, False)):
        scores = scores_of(log_p, opened, committed, torch.tensor([[token, 0, 0]]))
        path, joint = event_log_probabilities(scores, 1, 0.7)
        assert path.isfinite().all() and bool(joint.isfinite().all()) == possible and not joint.isnan().any()


def test_mixtures_enclose_and_the_stencil_keeps_polynomials():
    random = torch.Generator().manual_seed(0)
    location = -8 * torch.rand(5, 300, generator=random, dtype=torch.float64)
    weight = torch.rand(5, 300, generator=random, dtype=torch.float64).softmax(1)
    nodes, tau = torch.linspace(-9, 5, 50, dtype=torch.float64), 0.6
    exact = Direct(weight, location)
    low = torch.full((5,), -7.5, dtype=torch.float64)  # what lies outside has a bin of its own on either side
    down, up = enclosing_mixtures(weight, location, low, 7.0, 40)
    assert (down.log_below(nodes + 7.5, tau) >= exact.log_below(nodes, tau) - 1e-12).all()
    assert (up.log_below(nodes + 7.5, tau) <= exact.log_below(nodes, tau) + 1e-12).all()
    above, rate = exact.tail(nodes, tau)
    assert (down.tail(nodes + 7.5, tau)[0] <= above + 1e-12).all() and (up.tail(nodes + 7.5, tau)[0] >= above).all()
    bins = mixture_in_bins(weight, location, torch.full_like(low, -8.0), 0.0, tau)
    for power in range(6):
        moved = bins.weight[:, 1:-1] @ bins.location[1:-1] ** power
        torch.testing.assert_close(moved, (weight * location**power).sum(1), rtol=1e-9, atol=1e-9)
    bin_above, bin_rate = bins.tail(nodes, tau)
    assert float((bin_above.exp() - above.exp()).abs().max()) < 3.3e-8
    assert float((bin_above.exp() * bin_rate - above.exp() * rate).abs().max()) * tau < 3.3e-8


def test_bins_far_from_the_nodes_are_taken_together_without_loss():
    weight = torch.rand(3, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(1)
    location = torch.linspace(-300, 100, 400, dtype=torch.float64)
    shared, direct = Shared(weight, location), Direct(weight, location.expand(3, -1))
    for start in (-400.0, -100.0, 90.0, 200.0):
        nodes = start + torch.linspace(0, 3, 7, dtype=torch.float64)
        below = (mixture.log_below(nodes, 0.5).clamp(min=-600) for mixture in (shared, direct))
        torch.testing.assert_close(*below)
        for a, b in zip(shared.tail(nodes, 0.5), direct.tail(nodes, 0.5), strict=True):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


def test_the_sixth_derivatives_are_within_the_stated_bound():
    """200 / tau^6 for F, S and tau f of one Gumbel, by finite differences of order 6 on a fine grid."""
    x = torch.linspace(-4, 20, 24_001, dtype=torch.float64)
    e = exceedance(torch.zeros(1, dtype=torch.float64), x, 1.0)[0]
    step = 10  # 0.01: the truncation error is of order 1e-4, the rounding 1e-16 / 1e-12
    for values in (torch.exp(-e), e * torch.exp(-e)):
        difference = values[::step]
        for _ in range(6):
            difference = difference.diff()
        assert float(difference.abs().max()) / (0.01**6) < 200.0


def order_chance(scaled: torch.Tensor, chosen: list[int]) -> torch.Tensor:
    """log of the chance that `chosen` have the highest of scaled + Gumbel: Plackett-Luce, over all their orders."""
    ways = []
    for order in itertools.permutations(chosen):
        left, way = list(range(len(scaled))), torch.zeros((), dtype=torch.float64)
        for i in order:
            way = way + scaled[i] - scaled[left].logsumexp(0)
            left.remove(i)
        ways.append(way)
    return torch.stack(ways).logsumexp(0)


def certain_chances(location: torch.Tensor, committed: torch.Tensor, tau: float) -> torch.Tensor:
    tokens = torch.zeros_like(committed, dtype=torch.long)
    log_p = location[..., None].expand(-1, -1, 2)
    scores = scores_of(log_p, torch.ones_like(committed), committed, tokens, certain=tokens)
    return event_log_probabilities(scores, len(location), tau)[0]


def wide_events(reach: float):
    """20 samples of 5 positions, some far below the others, some with one position far from the rest."""
    random = torch.Generator().manual_seed(int(reach))
    location = -reach * torch.rand(20, 5, generator=random, dtype=torch.float64)
    location[::3] = -reach - torch.rand(7, 5, generator=random, dtype=torch.float64)
    location[::5, 0] = 0.0
    committed = torch.stack([torch.randperm(5, generator=random) for _ in range(20)]) < 2
    return location, committed


@pytest.mark.parametrize("reach", [1.0, 60.0, 800.0])
@pytest.mark.parametrize("tau", [0.05, 1.0, 10.0])
def test_far_scores_against_all_orders_alone_and_beside_others(tau, reach):
    location, committed = wide_events(reach)
    truth = [
        order_chance(row / tau, which.nonzero()[:, 0].tolist()) for row, which in zip(location, committed, strict=True)
    ]
    together = certain_chances(location, committed, tau)
    alone = torch.cat([certain_chances(location[i : i + 1], committed[i : i + 1], tau) for i in range(len(location))])
    torch.testing.assert_close(together, torch.stack(truth), atol=1e-10, rtol=1e-12)
    torch.testing.assert_close(together, alone, atol=1e-10, rtol=1e-12)


def test_one_position_high_and_one_of_two_far_below_it():
    location = torch.tensor([[0.0, -60.0, -61.0], [0.0, -60.0, -61.0], [0.0, -1.0, -2.0]], dtype=torch.float64)
    committed = torch.tensor([[True, True, False], [False, True, True], [True, True, False]])
    chances = certain_chances(location, committed, 1.0)
    # The first two are then as good as one race between -60 and -61, and one that both lose but for exp(-121).
    assert float(chances[0]) == pytest.approx(-math.log1p(math.exp(-1)), abs=1e-12)
    assert float(chances[1]) == pytest.approx(-121 + math.log(2), abs=1e-9)


@given(st.lists(st.floats(-800, 0), min_size=2, max_size=5), st.data(), st.sampled_from([0.05, 0.3, 1.0, 4.0]))
@settings(max_examples=60, deadline=None)
def test_any_scores_against_all_orders(values, data, tau):
    count = data.draw(st.integers(1, len(values) - 1))
    chosen = data.draw(st.permutations(range(len(values))))[:count]
    location = torch.tensor([values, [0.0] * len(values)], dtype=torch.float64)
    committed = torch.zeros(2, len(values), dtype=torch.bool)
    committed[:, chosen] = True
    truth = torch.stack([order_chance(row / tau, chosen) for row in location])
    torch.testing.assert_close(certain_chances(location, committed, tau), truth, atol=1e-10, rtol=1e-12)


@pytest.mark.parametrize(("few_codes", "error"), [(32, 1e-10), (0, 1e-6)], ids=["direct", "binned"])
@pytest.mark.parametrize(("tau", "scale"), [(0.3, 3.0), (0.3, 60.0), (1.0, 60.0), (3.0, 100.0)])
def test_sharp_mixtures_against_all_draws_and_orders(tau, scale, few_codes, error):
    log_p = logits(4, 3, scale=scale)
    path, joint = every_event(log_p, 2, tau, few_codes)
    draws = list(itertools.product(range(3), repeat=4))
    chances = torch.stack([log_p[range(4), draw] for draw in draws])
    for k, chosen in enumerate(itertools.combinations(range(4), 2)):
        terms = chances.sum(1) + torch.stack([order_chance(row / tau, list(chosen)) for row in chances])
        assert float(path[9 * k]) == pytest.approx(float(terms.logsumexp(0)), abs=error)
        for j, drawn in enumerate(itertools.product(range(3), repeat=2)):
            agree = [all(draw[i] == z for i, z in zip(chosen, drawn, strict=True)) for draw in draws]
            assert float(joint[9 * k + j]) == pytest.approx(float(terms[agree].logsumexp(0)), abs=error, rel=1e-12)


@pytest.mark.parametrize("tau", [0.02, 0.1, 1.0])
def test_a_position_without_a_likely_code_against_a_sure_one(tau):
    """Uniform over K codes, binned: one Gumbel at -log K; it beats one at 0 with chance 1 / (1 + K^(1 / tau))."""
    log_p = torch.full((1, 2, 100), -math.inf, dtype=torch.float64)
    log_p[0, 0], log_p[0, 1, 0] = -math.log(100), 0.0
    opened, tokens = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.long)
    path, joint = event_log_probabilities(scores_of(log_p, opened, torch.tensor([[True, False]]), tokens), 1, tau)
    truth = -math.log(100) / tau - math.log1p(100 ** (-1 / tau))
    assert float(path) == pytest.approx(truth, abs=1e-6)
    assert float(joint) == pytest.approx(truth - math.log(100), abs=1e-6)


def sharp_events(scale: float):
    """What weighing a given grid asks for: tokens that its model may find next to impossible."""
    random = torch.Generator().manual_seed(0)
    log_p = (torch.randn(8, 12, 40, generator=random) * scale).log_softmax(-1)
    tokens = torch.multinomial(log_p.flip(0).exp().flatten(0, 1), 1, generator=random).view(8, 12)
    committed = torch.stack([torch.randperm(12, generator=random) for _ in range(8)]) < 4
    return log_p, torch.ones_like(committed), committed, tokens


def gap_to_alone(scale: float, tau: float) -> float:
    event = sharp_events(scale)
    together = event_log_probabilities(scores_of(*event), 8, tau)
    each = [event_log_probabilities(scores_of(*(part[i : i + 1] for part in event)), 1, tau) for i in range(8)]
    alone = (torch.cat(parts) for parts in zip(*each, strict=True))
    return max(float((a - b).abs().max()) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("tau", [0.5, 2.0])
@pytest.mark.parametrize("scale", [2.0, 10.0, 20.0])
def test_a_sample_does_not_depend_on_its_batch(tau, scale):
    assert gap_to_alone(scale, tau) < 1e-9


def test_the_batch_would_show_in_the_window_of_one_of_it(monkeypatch):
    def shared(scores, samples, tau, direct, negligible):
        found = windows(scores, samples, tau, direct, negligible)
        return Windows(found.low[:1].expand(samples), found.high[:1].expand(samples), found.below)

    monkeypatch.setattr(module, "windows", shared)
    assert gap_to_alone(20.0, 0.5) > 1e-3
    location = torch.tensor([[0.0, -1.0], [-60.0, -61.0]], dtype=torch.float64)
    both = certain_chances(location, torch.tensor([[True, False]] * 2), 1.0)
    assert abs(float(both[0] - both[1])) > 1.0


def test_windows_hold_the_integrand_and_little_else():
    scores, samples = one_event(20, 30, 2, 1.0)
    found = windows(scores, samples, 1.0, direct=True)
    widths = [w.high - w.low for w in (windows(scores, samples, tau, direct=True) for tau in (0.1, 2.0))]
    assert (found.low < found.high).all() and (widths[1] > widths[0]).all()
    location, committed = wide_events(800.0)
    tokens = torch.zeros_like(committed, dtype=torch.long)
    far = scores_of(location[..., None], torch.ones_like(committed), committed, tokens, certain=tokens)
    for tau in (0.05, 1.0):
        found = windows(far, 20, tau, direct=True)
        # As narrow as a race of neighbours: some 35 tau, and two intervals of the search.
        assert float((found.high - found.low).max()) < 60 * tau
