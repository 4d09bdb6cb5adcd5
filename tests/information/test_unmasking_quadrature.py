"""The chance of a selection: total probability, limits, size, and the quadrature against finer ones and simulation."""

import itertools
import math

import pytest
import torch

from divlens.information import mixtures
from divlens.information import unmasking as module
from divlens.information.mixtures import Direct, binned, bracketed, exceedance
from divlens.information.unmasking import event_log_probabilities, scores_of, selections, window


def logits(*shape: int, seed: int = 0, scale: float = 1.5) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=random, dtype=torch.float64) * scale).log_softmax(-1)


def every_event(log_p: torch.Tensor, count: int, tau: float, few_codes: int = 32, noise: torch.Tensor | None = None):
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
    return event_log_probabilities(scores, events, tau, shift, few_codes)


@pytest.mark.parametrize("few_codes", [32, 0], ids=["direct", "binned"])
@pytest.mark.parametrize("tau", [0.05, 0.3, 1.0, 2.0, 10.0])
@pytest.mark.parametrize(("n", "codes", "count"), [(4, 3, 2), (5, 2, 1), (3, 5, 2)])
def test_all_selections_with_all_tokens_sum_to_one(tau, few_codes, n, codes, count):
    for scale in (0.5, 4.0):
        path, joint = every_event(logits(n, codes, scale=scale), count, tau, few_codes)
        assert abs(float(joint.exp().sum()) - 1) < 1e-8
        assert abs(float(path.exp().sum()) / codes**count - 1) < 1e-8


def test_the_sum_would_show_coarse_nodes(monkeypatch):
    monkeypatch.setattr(module, "FEWEST_NODES_PER_TAU", 0.3)
    monkeypatch.setattr(module, "NODES_PER_ROOT", 0.1)
    _, joint = every_event(logits(4, 3), 2, 1.0)
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


def test_much_noise_is_the_limit_of_a_random_choice():
    log_p = logits(4, 3)
    path, joint = every_event(log_p, 2, 1e5)
    torch.testing.assert_close(path.exp(), torch.full_like(path, 1 / 6), atol=1e-4, rtol=0)
    # Given V the tokens are then independent draws.
    sums = (joint - path).exp().view(6, 9).sum(1)
    torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-4, rtol=0)


def one_event(n: int, codes: int, count: int, tau: float, samples: int = 3, seed: int = 0):
    """An event as the sampler would bring it about, float32 as in the loop."""
    random = torch.Generator().manual_seed(seed)
    log_p = (torch.randn(samples, n, codes, generator=random) * 2.5).log_softmax(-1)
    tokens = torch.multinomial(log_p.exp().flatten(0, 1), 1, generator=random).view(samples, n)
    gumbel = -torch.log(-torch.log(torch.rand(samples, n, generator=random)))
    score = log_p.gather(-1, tokens[..., None])[..., 0] + tau * gumbel
    committed = score.argsort(1).argsort(1) >= n - count
    opened = torch.ones_like(committed)
    return scores_of(log_p, opened, committed, tokens), samples


@pytest.mark.parametrize("tau", [0.05, 0.5, 2.0])
def test_binning_agrees_with_every_code_by_itself(tau):
    """To 1e-6 in log P: 40 factors, each changed by 3.3e-8 at most where it is of order 1."""
    scores, samples = one_event(40, 200, 4, tau)
    for a, b in zip(
        event_log_probabilities(scores, samples, tau),
        event_log_probabilities(scores, samples, tau, few_codes=10_000),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@pytest.mark.parametrize("tau", [0.1, 2.0])
def test_twice_the_nodes_and_bins_change_nothing(tau, monkeypatch):
    scores, samples = one_event(64, 512, 5, tau)
    usual = event_log_probabilities(scores, samples, tau)
    monkeypatch.setattr(module, "FEWEST_NODES_PER_TAU", 10.0)
    monkeypatch.setattr(module, "NODES_PER_ROOT", 2.4)
    monkeypatch.setattr(module, "BULK", 1e-13)
    monkeypatch.setattr(module, "NEGLIGIBLE", 40.0)
    monkeypatch.setattr(mixtures, "BINS_PER_TAU", 24)
    for a, b in zip(usual, event_log_probabilities(scores, samples, tau), strict=True):
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
    down, up = bracketed(weight, location, -8.0, 40)
    assert (down.log_below(nodes, tau) >= exact.log_below(nodes, tau) - 1e-12).all()
    assert (up.log_below(nodes, tau) <= exact.log_below(nodes, tau) + 1e-12).all()
    assert ((up.above(nodes, tau) - down.above(nodes, tau)) > 0).any()
    bins = binned(weight, location, -8.0, 0.0, tau)
    for power in range(6):
        moved = bins.weight[:, :-2] @ bins.location[:-2] ** power
        torch.testing.assert_close(moved, (weight * location**power).sum(1), rtol=1e-9, atol=1e-9)
    for method, scale in (("above", 1.0), ("density", tau)):
        gap = (getattr(bins, method)(nodes, tau) - getattr(exact, method)(nodes, tau)).abs().max()
        assert float(gap) * scale < 3.3e-8


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


def test_the_window_holds_the_integrand():
    scores, samples = one_event(20, 30, 2, 1.0)
    low, high = window(scores, samples, 1.0, direct=True)
    narrow, wide = (window(one_event(20, 30, 2, tau)[0], samples, tau, direct=True) for tau in (0.1, 2.0))
    assert low < high and wide[1] - wide[0] > narrow[1] - narrow[0]
