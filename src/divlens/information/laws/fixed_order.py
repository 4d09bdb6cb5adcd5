"""A fixed order. There is one path, or with a roll one for each position, and then the first step chooses the path."""

from __future__ import annotations

from divlens.information.laws.chosen_first import ChosenFirst, orders
from divlens.paths import FixedOrder


def fixed_order_law(rule: FixedOrder) -> ChosenFirst:
    return ChosenFirst(orders(rule) if rule.roll and rule.steps > 1 else None)
