"""Recipes of `enhance`: what is done for more diversity, by name, each at any strength from none to all of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from divlens.conditions import enhancer
from divlens.errors import DivlensError, is_number, shown
from divlens.interventions import Detailed, DisableTop, Intervention, Paraphrase, Temperature

PAPER, DETAILED, EVERYDAY = "paper", "detailed", "everyday"
DISABLED = 0.05  # of the codebook, by the paper
DETAILS, COOLEST = 4, 0.7  # attributes that are filled in, and the temperature that goes with all of them
WORDINGS = 8  # of a prompt, just below full strength


def paper(strength: float, disable_top: float = DISABLED) -> tuple[Intervention, ...]:
    """Mixed-length wordings and the most used codes disabled (arXiv 2512.01831). A smaller strength has fewer wordings,
    and makes these codes rarer in place of banning them."""
    if strength == 1:
        return enhancer(disable_top)
    wordings = 1 + round((WORDINGS - 1) * strength)
    reworded = (Paraphrase(wordings, "mixed"),) if wordings > 1 else ()
    return (*reworded, DisableTop(disable_top, strength=strength))


def detailed(strength: float, own_temperature: float = 1.0) -> tuple[Detailed, Temperature]:
    """What a prompt leaves open is filled in at random, and tokens are drawn at a lower temperature. A smaller strength
    fills in fewer attributes, and cools less. For models and prompts of the laboratory, whose law is known; there it is
    among what comes nearest to that law (docs/diversity.md)."""
    temperature = own_temperature * (1 - (1 - COOLEST) * strength)
    return Detailed(math.ceil(DETAILS * strength)), Temperature(round(temperature, 6))


def everyday(strength: float, own_temperature: float = 1.0) -> tuple[Detailed, Temperature]:
    """The same for any prompt: setting, light, view and kind of picture are filled in. Nothing says what should come
    out of such a prompt, so nobody can say how near to it this comes: the laboratory stands for it."""
    filled_in, cooler = detailed(strength, own_temperature)
    return replace(filled_in, words="everyday"), cooler


COOLED = {DETAILED: detailed, EVERYDAY: everyday}  # from the model's own temperature
RECIPES: Mapping[str, Callable[[float], tuple[Intervention, ...]]] = {PAPER: paper, **COOLED}


def recipe_at(
    name: str, strength: float = 1.0, disable_top: float | None = None, own_temperature: float = 1.0
) -> Sequence[Intervention]:
    """The interventions of a recipe at a strength in [0, 1], which only grow with it; at 0 there are none.

    `disable_top`: the share of the codebook that the paper's recipe disables, if not 0.05. `own_temperature`: that of
    the model, from which draws are cooled. Raises DivlensError for another name, a strength out of range, and a share
    for another recipe.
    """
    if name not in RECIPES:
        raise DivlensError(f"recipe expects one of {', '.join(RECIPES)}, got {shown(name)}")
    if not (is_number(strength) and 0 <= strength <= 1):
        raise DivlensError(f"strength expects a number in [0, 1], got {shown(strength)}")
    if disable_top is not None and name != PAPER:
        raise DivlensError(f"disable_top is that of the recipe {PAPER!r}, got it for {name!r}")
    if strength == 0:
        return ()
    if name == PAPER:
        return paper(strength, DISABLED if disable_top is None else disable_top)
    return COOLED[name](strength, own_temperature)
