"""Raster order: there is only one path, and each step draws one token."""

from __future__ import annotations

from divlens.information.laws.chosen_first import ChosenFirst
from divlens.paths import Raster


def raster_law(rule: Raster) -> ChosenFirst:
    return ChosenFirst()
