"""A fixed order: one path, or with a roll as many as there are positions, of which the first step chooses."""

from __future__ import annotations

import torch

from divlens.information.laws.chosen_first import ChosenFirst
from divlens.information.laws.random_order import DIVIDED
from divlens.paths import FixedOrder


def fixed_order_law(rule: FixedOrder) -> ChosenFirst:
    if not rule.roll:
        return ChosenFirst()
    return ChosenFirst(
        lambda moment: torch.full(
            (len(moment.view.tokens),),
            rule.log_choices(moment.view.step),
            dtype=torch.float64,
            device=moment.view.tokens.device,
        ),
        map_note=DIVIDED,
    )
