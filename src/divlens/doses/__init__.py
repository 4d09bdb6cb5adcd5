"""Dose and response: how diversity, openness and fidelity go with the dose of an intervention."""

from divlens.doses.result import Doses, doses

__all__ = ["Doses", "doses"]
