"""From changes to judgements: what a contrast shows, and which strategy a model has."""

from divlens.verdict.contrasts import Contrast, Outcome, contrasts_of
from divlens.verdict.strategy import Strategy, Verdict, verdict

__all__ = ["Contrast", "Outcome", "Strategy", "Verdict", "contrasts_of", "verdict"]
