"""Brute force on the toy: the exact distribution of final grids, written apart from the library's loop.

Only the toy's logits are taken from the library. Guidance, the schedules, the Plackett-Luce chances of confidence
unmasking and the transition matrices of the diffusion are written again here, from the papers.
"""

import itertools
import math
from functools import cache

import numpy as np
import torch

from divlens import models
from divlens.models.toy import CODES, POSITIONS, ToyModel
from divlens.types import View

MASK = CODES
GRIDS = list(itertools.product(range(CODES), repeat=POSITIONS))
STATES = list(itertools.product(range(CODES + 1), repeat=POSITIONS))


def toy(family: str, seed: int = 0) -> ToyModel:
    model = models.load(f"toy/{family}:{seed}")
    assert isinstance(model, ToyModel)
    return model


def chances(model: ToyModel, prompt: str, state: tuple[int, ...], guidance: float | None = None) -> np.ndarray:
    """p(x0 | state, prompt), float64 (positions, codes), after guidance."""
    predictor = model.predictor(model.encode([prompt]), guided=True)
    conditional, unconditional = predictor(View(0, torch.tensor([state]), 0, POSITIONS, 0))
    assert unconditional is not None
    scale = model.guidance if guidance is None else guidance
    logits = (unconditional + scale * (conditional - unconditional))[0].numpy()
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)


def exact(model: ToyModel, prompt: str) -> np.ndarray:
    """The chance of each of the 27 grids, in the order of GRIDS."""
    return {"ar": exact_ar, "mim": exact_mim, "diffusion": exact_diffusion}[model.family](model, prompt)


def exact_ar(model: ToyModel, prompt: str) -> np.ndarray:
    result = []
    for grid in GRIDS:
        parts = [chances(model, prompt, (*grid[:i], *[MASK] * (POSITIONS - i)))[i, grid[i]] for i in range(POSITIONS)]
        result.append(math.prod(parts))
    return np.array(result)


def selection_chance(chosen: tuple[int, ...], weights: dict[int, float]) -> float:
    """That adding Gumbel noise to log weights puts exactly `chosen` on top: Plackett-Luce, summed over its orders."""
    total = 0.0
    for order in itertools.permutations(chosen):
        left, chance = sum(weights.values()), 1.0
        for position in order:
            chance *= weights[position] / left
            left -= weights[position]
        total += chance
    return total


def exact_mim(model: ToyModel, prompt: str, temperature: tuple[float, float] = (2.0, 0.0)) -> np.ndarray:
    """Three steps that leave floor(3 cos(pi/6)) = 2, floor(3 cos(pi/3)) = 1 and then no position masked."""
    remaining = [2, 1, 0]

    def reach(step: int, state: tuple[int, ...]) -> dict[tuple[int, ...], float]:
        if step == len(remaining):
            return {state: 1.0}
        p = chances(model, prompt, state)
        open_positions = [i for i in range(POSITIONS) if state[i] == MASK]
        tau = temperature[0] + (temperature[1] - temperature[0]) * step / (len(remaining) - 1)
        total: dict[tuple[int, ...], float] = {}
        for draws in itertools.product(range(CODES), repeat=len(open_positions)):
            drawn = dict(zip(open_positions, draws, strict=True))
            chance_of_draws = math.prod(p[i, code] for i, code in drawn.items())
            for chosen in itertools.combinations(open_positions, len(open_positions) - remaining[step]):
                everything = len(chosen) == len(open_positions)
                weights = {} if everything else {i: p[i, code] ** (1 / tau) for i, code in drawn.items()}
                chance = chance_of_draws * (1.0 if everything else selection_chance(chosen, weights))
                following = tuple(drawn[i] if i in chosen else state[i] for i in range(POSITIONS))
                for grid, rest in cached(step + 1, following).items():
                    total[grid] = total.get(grid, 0.0) + chance * rest
        return total

    cached = cache(reach)
    found = cached(0, (MASK,) * POSITIONS)
    return np.array([found.get(grid, 0.0) for grid in GRIDS])


def forward(kept: float, masked: float, codes: int = CODES) -> np.ndarray:
    """Transition matrix [from, to] of the forward chain; the mask is the last state and is never left."""
    matrix = np.full((codes + 1, codes + 1), (1 - kept - masked) / codes)
    matrix[np.arange(codes), np.arange(codes)] += kept
    matrix[:, codes] = masked
    matrix[codes] = 0.0
    matrix[codes, codes] = 1.0
    return matrix


def posterior(model_rule: object, time: int, codes: int = CODES) -> np.ndarray:
    """q(x_{t-1} | x_t, x_0) as [x_0, x_t, x_{t-1}], by Bayes from the forward matrices; NaN where impossible."""
    kept, masked = model_rule.kept, model_rule.masked  # type: ignore[attr-defined]
    before, now = forward(kept[time - 1], masked[time - 1], codes), forward(kept[time], masked[time], codes)
    one = forward(
        kept[time] / kept[time - 1], 1 - (1 - masked[time]) / (1 - masked[time - 1]), codes
    )  # the step between
    np.testing.assert_allclose(before @ one, now, atol=1e-12)
    with np.errstate(invalid="ignore", divide="ignore"):
        return before[:codes, None, :] * one.T[None] / now[:codes, :, None]


def exact_diffusion(model: ToyModel, prompt: str) -> np.ndarray:
    """The whole chain over all 64 states, position by position the reverse step sum_x0 p(x0) q(x_{t-1} | x_t, x0)."""
    steps = model.rule.steps
    mass = {(MASK,) * POSITIONS: 1.0}
    for time in range(steps, 0, -1):
        q = np.nan_to_num(posterior(model.rule, time))
        following: dict[tuple[int, ...], float] = {}
        for state, chance in mass.items():
            p = chances(model, prompt, state)
            rows = [p[i] @ q[:, state[i], :] for i in range(POSITIONS)]
            for target in STATES:
                step = math.prod(rows[i][target[i]] for i in range(POSITIONS))
                following[target] = following.get(target, 0.0) + chance * step
        mass = {state: chance for state, chance in following.items() if chance > 0}
    return np.array([mass.get(grid, 0.0) for grid in GRIDS])


def counts_of(tokens: torch.Tensor) -> np.ndarray:
    """How often each grid of GRIDS occurs in tokens (..., 1, 3)."""
    index = tokens.reshape(-1, POSITIONS) @ torch.tensor([CODES**2, CODES, 1])
    return np.bincount(index.numpy(), minlength=len(GRIDS)).astype(float)


def chi_square_p(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """P-value of Pearson's test; cells that expect fewer than 5 are pooled."""
    expected = probabilities * counts.sum()
    rare = expected < 5
    if rare.any():
        counts = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    keep = expected > 0
    if (counts[~keep] > 0).any():
        return 0.0
    statistic = float(((counts[keep] - expected[keep]) ** 2 / expected[keep]).sum())
    freedom = torch.tensor((keep.sum() - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, torch.tensor(statistic / 2, dtype=torch.float64)))
