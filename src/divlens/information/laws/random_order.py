"""Random order: all sets of masked positions of the schedule's size are alike."""

from __future__ import annotations

from divlens.information.laws.chosen_first import ChosenFirst
from divlens.paths import RandomOrder

DIVIDED = "maps: the bits of a step's choice are divided evenly over the positions it committed"


def random_order_law(rule: RandomOrder) -> ChosenFirst:
    if rule.silent:
        return ChosenFirst()
    return ChosenFirst(
        lambda moment: rule.log_choices(moment.view.step, moment.view.tokens == moment.mask), map_note=DIVIDED
    )
