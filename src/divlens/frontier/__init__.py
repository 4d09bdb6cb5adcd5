"""Diversity against fidelity: what each method of raising diversity reaches, and whether that is more than plain lower
guidance does."""

from divlens.frontier.api import frontier
from divlens.frontier.result import Frontier

__all__ = ["Frontier", "frontier"]
