"""From changes to judgements: what a contrast shows, and which strategy a model has."""

from divlens.verdict.result import Verdict, verdict

__all__ = ["Verdict", "verdict"]
