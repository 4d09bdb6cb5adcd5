"""A whole protocol as one call: what a study file asks for goes into one run."""

from divlens.study.conduct import study
from divlens.study.result import Study

__all__ = ["Study", "study"]
