"""Entropies of generations: exact where the path rule allows it, an honest bracket where it does not."""

from divlens.information.api import information
from divlens.information.estimates import Estimate
from divlens.information.plan import Effort
from divlens.information.result import Information

__all__ = ["Effort", "Estimate", "Information", "information"]
