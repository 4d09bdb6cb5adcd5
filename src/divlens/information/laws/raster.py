"""Raster: one path, and one token a step."""

from __future__ import annotations

from divlens.information.laws.chosen_first import ChosenFirst
from divlens.paths import Raster


def raster_law(rule: Raster) -> ChosenFirst:
    return ChosenFirst()
