"""The probability laws of the path rules. All that `information` knows about a particular rule is in this folder.

To support another rule, write its law (`law.Law`) in a new file and add it to `LAWS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from divlens.information.laws.choose_then_sample import ChoiceLaw
from divlens.information.laws.confidence_unmasking import UnmaskingLaw
from divlens.information.laws.fixed_order import fixed_order_law
from divlens.information.laws.law import Law, StepEntropies
from divlens.information.laws.mask_replace_diffusion import DiffusionLaw
from divlens.information.laws.random_order import random_order_law
from divlens.information.laws.raster import raster_law
from divlens.information.laws.unknown import UnknownLaw
from divlens.paths import (
    ChooseThenSample,
    ConfidenceUnmasking,
    FixedOrder,
    MaskReplaceDiffusion,
    PathRule,
    RandomOrder,
    Raster,
)

LAWS: Mapping[type, Callable[[Any], Law]] = {
    Raster: raster_law,
    ConfidenceUnmasking: UnmaskingLaw,
    MaskReplaceDiffusion: DiffusionLaw,
    RandomOrder: random_order_law,
    FixedOrder: fixed_order_law,
    ChooseThenSample: ChoiceLaw,
}


def law_of(rule: PathRule) -> Law:
    """The law of a rule. A subclass of a rule is another rule, and has no law of its own (`Law.known` is False)."""
    law = LAWS.get(type(rule))
    return UnknownLaw() if law is None else law(rule)


__all__ = ["LAWS", "Law", "StepEntropies", "law_of"]
