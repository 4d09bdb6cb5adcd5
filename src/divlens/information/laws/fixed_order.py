"""A fixed order: one path, or with a roll as many as there are positions, of which the first step chooses."""

from __future__ import annotations

from divlens.information.laws.chosen_first import ChosenFirst, orders
from divlens.paths import FixedOrder


def fixed_order_law(rule: FixedOrder) -> ChosenFirst:
    return ChosenFirst(orders(rule) if rule.roll and rule.steps > 1 else None)
