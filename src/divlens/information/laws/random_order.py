"""Random order: all sets of masked positions that have the size given by the schedule are equally likely."""

from __future__ import annotations

from divlens.information.laws.chosen_first import ChosenFirst, orders
from divlens.paths import RandomOrder


def random_order_law(rule: RandomOrder) -> ChosenFirst:
    return ChosenFirst(None if rule.silent or rule.steps == 1 else orders(rule))
