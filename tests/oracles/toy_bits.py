"""H(Z|X), H(Z) and I(X;Z) of the toys, from the enumerated distribution of their grids."""

from functools import cache

import numpy as np

from oracles.toy_grids import toy
from oracles.transcripts import Case, entropy, truth

PROMPTS = ["red heart", "a cat", "blue sky"]


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
