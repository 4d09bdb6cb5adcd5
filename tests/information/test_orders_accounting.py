"""Random and fixed orders are accounted for exactly: against every transcript of small models."""

import ast
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from divlens.information import Effort, information
from divlens.information import laws as law_module
from divlens.interventions import Argmax, Freeze
from divlens.paths import ChooseThenSample, FixedOrder, RandomOrder
from oracles.small_models import Small
from oracles.transcripts import Case, Truth, entropy, truth

PROMPTS = ("red heart", "a cat")
ERRORS = 4.5  # standard errors: a false alarm in 1 of 150,000 comparisons
RULES = {
    "chosen first": ChooseThenSample(2),
    "chosen first, one a step": ChooseThenSample(3, (0.7, 0.3), "linear"),
    "chosen first, no noise": ChooseThenSample(3, (0.0, 0.0), "linear"),
    "random": RandomOrder(2),
    "random, one a step": RandomOrder(3, "linear"),
    "fixed": FixedOrder((2, 0, 1), 2),
    "rolled": FixedOrder((2, 0, 1), 2, roll=True),
    "rolled, arccos": FixedOrder((1, 2, 0), 3, roll=True, schedule="arccos"),
}


def truth_of(model: Any, prompt: str) -> Truth:
    """A rolled order is one of as many fixed ones as there are positions, all alike."""
    rule = model.rule
    if not getattr(rule, "roll", False):
        return truth(Case(model, prompt))
    count = rule.positions
    orders = [FixedOrder((*rule.order[k:], *rule.order[:k]), rule.steps, schedule=rule.schedule) for k in range(count)]
    each = [truth(Case(model, prompt, rule=order)) for order in orders]
    grids: dict[tuple[int, ...], float] = defaultdict(float)
    for one in each:
        for grid, chance in one.grids.items():
            grids[grid] += chance / count
    return Truth(math.log2(count), float(np.mean([one.execution for one in each])), grids=dict(grids))


def close(found: Any, exact: float) -> None:
    assert abs(found.value - exact) <= ERRORS * found.mc_error + 1e-5, (found.value, exact, found.mc_error)


@pytest.mark.parametrize("name", RULES)
def test_path_and_execution_are_those_of_all_transcripts(name):
    model: Any = Small(RULES[name], codes=3)
    exact = [truth_of(model, prompt) for prompt in PROMPTS]
    found = information(model, PROMPTS, n=400, effort=Effort(paths=4, path_samples=100, mixture_samples=60))
    for quantity in ("path", "execution", "joint"):
        close(getattr(found, quantity), float(np.mean([getattr(one, quantity) for one in exact])))
    conditional = float(np.mean([one.conditional for one in exact]))
    certain = name == "fixed"
    assert (found.path.value == 0) == (certain or name == "chosen first, no noise")
    assert (found.conditional_lower == found.conditional_upper) == certain
    if certain:  # the probability of a grid is that of its draws
        close(found.conditional_lower, conditional)
    assert found.conditional_lower.monte_carlo.low <= conditional <= found.conditional_upper.monte_carlo.high
    images: dict[tuple[int, ...], float] = defaultdict(float)
    for one in exact:
        for grid, chance in one.grids.items():
            images[grid] += chance / len(exact)
    mutual = entropy([*images.values()]) - conditional
    assert found.mutual_lower.monte_carlo.low <= mutual <= found.mutual_upper.monte_carlo.high
    # It can fail: the other order's law is another.
    other: Any = Small(FixedOrder((0, 1, 2), 3, schedule="linear"), codes=3)
    assert abs(truth_of(other, PROMPTS[0]).joint - exact[0].joint) > 0.05


def test_the_random_path_has_the_bits_of_its_choices_exactly():
    found = information(Small(RandomOrder(3, "linear"), codes=3), PROMPTS, n=8)  # type: ignore[arg-type]
    assert abs(found.path.value - math.log2(6)) < 1e-12 and found.path.mc_error < 1e-9
    assert np.allclose(found.path_map.sum((1, 2)), [math.log2(3), 1, 0])


@pytest.mark.parametrize("name", RULES)
def test_without_noise_nothing_is_left(name):
    for interventions in ([Argmax(scope="all")], [Freeze("path"), Argmax()], [Freeze("path"), Freeze("execution")]):
        found = information(Small(RULES[name], codes=3), PROMPTS, n=6, interventions=interventions)  # type: ignore
        assert found.joint.value == 0


@pytest.mark.parametrize("name", RULES)
def test_weights_are_unbiased(name):
    """The mean weight of a grid is its probability: over all grids they add up to 1."""
    import itertools

    from divlens.information.replay import importance_log_weights
    from divlens.planning import plan
    from divlens.types import Prompt

    model: Any = Small(RULES[name], codes=2)
    exact = truth_of(model, PROMPTS[0]).grids
    grids = torch.tensor(list(itertools.product(range(2), repeat=3)))
    times = 300
    every = grids.repeat_interleave(times, 0)
    run = plan(model, [Prompt(PROMPTS[0])], 1, 0)
    keys = [f"{i}" for i in range(len(every))]
    weights = importance_log_weights(run, [PROMPTS[0]] * len(every), every, keys).exp().view(-1, times)
    error = weights.std(1) / math.sqrt(times)
    for grid, mean, spread in zip(grids.tolist(), weights.mean(1), error, strict=True):
        assert abs(float(mean) - exact.get(tuple(grid), 0.0)) <= ERRORS * float(spread) + 1e-6


def test_only_a_rules_law_asks_which_rule_it_is():
    """The rest of the accounting works for any rule whose law stands in the folder of laws."""
    folder = Path(law_module.__file__).parent
    names = [rule.__name__ for rule in law_module.LAWS]

    def asks(file: Path) -> list[str]:
        tree = ast.parse(file.read_text())
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        return [name for name in names if name in used]

    assert {file.name: found for file in folder.parent.glob("*.py") if (found := asks(file))} == {}
    assert asks(folder / "__init__.py") == names  # it can fail
