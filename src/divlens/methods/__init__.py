"""Methods that may raise diversity at inference time: interventions like any other, by the place of the loop.

What each does, its law and its source stand in docs/diversity.md.
"""

from divlens.methods.condition import ConditionNoise
from divlens.methods.noise import RepulseTokens, StratifiedNoise
from divlens.methods.path import ChooseThenSample, FixedOrder, PathTemperature, RandomOrder
from divlens.methods.tokens import EntropyTemperature, GuidanceInterval, MinP

__all__ = [
    "ChooseThenSample",
    "ConditionNoise",
    "EntropyTemperature",
    "FixedOrder",
    "GuidanceInterval",
    "MinP",
    "PathTemperature",
    "RandomOrder",
    "RepulseTokens",
    "StratifiedNoise",
]
