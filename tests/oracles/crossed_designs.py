"""Variance components of crossed designs, by pairs of pictures and by a simulation of the toy from its chances."""

import itertools
import math

import numpy as np
import torch

from divlens.diversity.anova import sources_of
from divlens.experiment.design import FACTORS
from divlens.models import load
from divlens.models.toy import CODES, POSITIONS, ToyModel
from divlens.planning import Reading
from divlens.run import Row, fill
from divlens.types import Prompt
from oracles.toy_grids import MASK, STATES, chances, posterior

PROMPTS = ("red heart", "a cat", "blue sky over the sea")
SOURCES = [":".join(FACTORS[f] for f in source) for source in sources_of(range(3))[1:]]
MIXED = [
    Prompt("red heart", ("love", "a big heart", "small heart that is red", "the heart of a person in love")),
    Prompt("cat", ("a kitten", "some old cat", "an animal that says meow", "one more cat of many cats here")),
]
COLUMNS = ["source", "component", "low", "high", "share", "share_low", "share_high"]


def colours(images):
    """The toy's tokens as one-hot vectors: two pictures are 2 apart for each position that differs."""
    return images[:, :, 16, 16::32].flatten(1).double()


def by_source(result):
    return dict(zip(result.sources, result.components.mean(0), strict=True))


def components_by_pairs(features):
    """From the features of a whole design, the levels of each factor and then d, by the definition."""
    levels = features.shape[:-1]
    factors = range(len(levels))
    apart: dict[tuple[int, ...], list[float]] = {tuple(factors): [0.0]}
    for i, j in itertools.combinations(itertools.product(*map(range, levels)), 2):
        shared = tuple(f for f in factors if i[f] == j[f])
        apart.setdefault(shared, []).append(float((features[i] - features[j]).square().sum()))
    mean = {shared: np.mean(distances) for shared, distances in apart.items()}
    return [
        sum(-((-1) ** (len(source) - len(part))) * mean[part] for part in sources_of(source))
        for source in sources_of(factors)[1:]
    ]


def features_by_hand(model, prompt, wordings, levels, seed, features, interventions=()):
    """Every picture of a prompt's design, drawn with the sampler."""
    reading = Reading(model, 7)
    noise = list(itertools.product(range(levels[1]), range(levels[2])))
    rows = [Row(prompt, wording, path, execution) for wording in wordings for path, execution in noise]
    tokens = [filled.tokens for filled in fill(reading.run(rows, reading.settings(interventions), seed))]
    with torch.inference_mode():
        return torch.cat([features(model.decode(some)) for some in tokens]).double().view(*levels, -1)


def mean_distance(features):
    flat = features.reshape(-1, features.shape[-1])
    return float(torch.stack([(a - b).square().sum() for a, b in itertools.combinations(flat, 2)]).mean())


def outcomes(family, tables, uniform, path):
    """Final grids (wordings, draws, positions) for execution uniforms and path noise, both (draws, steps, positions).

    `tables`: per wording, p(x0 | state) for all states, (states, positions, codes).
    """
    wordings, draws = len(tables), len(uniform)
    state = np.full((wordings, draws, POSITIONS), MASK)
    place = np.array([(CODES + 1) ** 2, CODES + 1, 1])
    which = np.arange(wordings)[:, None]
    where = np.arange(POSITIONS)
    rule = load(family).rule
    for step in range(rule.steps):
        p = tables[which, state @ place]  # (wordings, draws, positions, codes)
        drawn = (p.cumsum(-1) <= uniform[None, :, step, :, None]).sum(-1).clip(max=CODES - 1)
        if family == "toy/ar":
            state = np.where(where == step, drawn, state)
        elif family == "toy/mim":
            chance = np.take_along_axis(p, drawn[..., None], -1)[..., 0]
            gumbel = -np.log(-np.log(path[None, :, step, :, 0]))
            score = np.where(state == MASK, np.log(chance) + (2.0, 1.0, 0.0)[step] * gumbel, -np.inf)
            best = score.argmax(-1)[..., None] == where  # three steps, one more position at each
            state = np.where(best, drawn, state)
        elif step == rule.steps - 1:
            state = drawn
        else:
            state = reversed_step(rule, rule.steps - step, state, drawn, path[None, :, step])
    return state


def reversed_step(rule, time, state, drawn, path):
    """x_{t-1} from Bayes' posterior: first whether the token stays or takes x_0, else which of the other codes."""
    q = np.nan_to_num(posterior(rule, time))
    codes = np.arange(CODES)
    stay, take = q[drawn, state, state], np.where(drawn == state, 0.0, q[drawn, state, drawn])
    others = (codes != drawn[..., None]) & (codes != state[..., None])
    index = np.floor(path[..., 1] * others.sum(-1))[..., None]
    other = (others & (others.cumsum(-1) - 1 == index)).argmax(-1)
    event = path[..., 0]
    return np.where(event < stay, state, np.where(event < stay + take, drawn, other))


def true_components(family, wordings, draws=20_000, seed=0):
    """The mean of each component over the wordings' pairs, and its standard error."""
    model, generator = load(family), np.random.default_rng(seed)
    assert isinstance(model, ToyModel)
    tables = np.array([[chances(model, wording, state) for state in STATES] for wording in wordings])
    steps = model.rule.steps
    uniform = generator.random((2, draws, steps, POSITIONS))
    path = generator.random((2, draws, steps, POSITIONS, 2))
    grids = {(p, e): outcomes(family, tables, uniform[e], path[p]) for p in range(2) for e in range(2)}
    apart = {}
    for shared in sources_of(range(3)):
        one, other = grids[0, 0], grids[int(1 not in shared), int(2 not in shared)]
        pairs = [(i, j) for i in range(len(wordings)) for j in range(len(wordings)) if (i == j) == (0 in shared)]
        apart[shared] = np.mean([2 * (one[i] != other[j]).sum(-1) for i, j in pairs], axis=0)
    found = np.array(
        [
            sum(-((-1) ** (len(source) - len(part))) * apart[part] for part in sources_of(source))
            for source in sources_of(range(3))[1:]
        ]
    )
    return found.mean(1), found.std(1) / math.sqrt(draws)
