"""divlens: where the diversity of discrete-latent image generators comes from, and how to get more of it.

Public names are loaded when they are first used, so that `import divlens` is quick and needs no torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from divlens.calibrate import calibrate
    from divlens.compare import compare
    from divlens.conditions import default_conditions, enhancer
    from divlens.decompose import decompose
    from divlens.diversity import load_network, lpips_diversity
    from divlens.doses import doses
    from divlens.drop_in.generation import logits_processor
    from divlens.drop_in.pipelines import apply
    from divlens.enhance import enhance
    from divlens.errors import DivlensError
    from divlens.existing import diversity
    from divlens.experiment.measures import Gauge, Look, Measure
    from divlens.experiment.probe import probe
    from divlens.fidelity.judge import load_judge
    from divlens.frontier import frontier
    from divlens.information import Effort, information
    from divlens.interventions import (
        Argmax,
        Detailed,
        DisableTop,
        Freeze,
        Guidance,
        Paraphrase,
        Subset,
        Temperature,
        TopK,
        TopP,
    )
    from divlens.merge import merge
    from divlens.methods import (
        ChooseThenSample,
        ConditionNoise,
        EntropyTemperature,
        FixedOrder,
        GuidanceInterval,
        MinP,
        PathTemperature,
        RandomOrder,
        RepulseTokens,
        StratifiedNoise,
    )
    from divlens.models import load
    from divlens.models.wrap import wrap
    from divlens.models.zoo.prompts import default_prompts
    from divlens.pages.report import report
    from divlens.prompts import read_prompts
    from divlens.results import save
    from divlens.resume import resume
    from divlens.sampler import sample
    from divlens.score import score
    from divlens.select import select
    from divlens.store.reader import open_run
    from divlens.study import study
    from divlens.sweeps import sweep
    from divlens.types import Prompt
    from divlens.until_decided import probe_until_decided
    from divlens.verdict import verdict
    from divlens.wordings.asking import reworded
    from divlens.wordings.endpoint import Endpoint
    from divlens.wordings.rewriting import Rewriting
    from divlens.wordings.similarity import similarity_of
    from divlens.wordings.sources import LocalModel

_PLACES = {
    "DivlensError": "errors",
    "Endpoint": "wordings.endpoint",
    "Effort": "information",
    "Gauge": "experiment.measures",
    "LocalModel": "wordings.sources",
    "Look": "experiment.measures",
    "Measure": "experiment.measures",
    "Prompt": "types",
    "Rewriting": "wordings.rewriting",
    "apply": "drop_in.pipelines",
    "calibrate": "calibrate",
    "compare": "compare",
    "decompose": "decompose",
    "default_conditions": "conditions",
    "default_prompts": "models.zoo.prompts",
    "diversity": "existing",
    "doses": "doses",
    "enhance": "enhance",
    "enhancer": "conditions",
    "frontier": "frontier",
    "information": "information",
    "load": "models",
    "load_judge": "fidelity.judge",
    "load_network": "diversity",
    "logits_processor": "drop_in.generation",
    "lpips_diversity": "diversity",
    "merge": "merge",
    "open_run": "store.reader",
    "probe": "experiment.probe",
    "probe_until_decided": "until_decided",
    "read_prompts": "prompts",
    "report": "pages.report",
    "resume": "resume",
    "reworded": "wordings.asking",
    "sample": "sampler",
    "save": "results",
    "score": "score",
    "select": "select",
    "similarity_of": "wordings.similarity",
    "sweep": "sweeps",
    "study": "study",
    "verdict": "verdict",
    "wrap": "models.wrap",
    **dict.fromkeys(
        (
            "Argmax",
            "Detailed",
            "DisableTop",
            "Freeze",
            "Guidance",
            "Paraphrase",
            "Subset",
            "Temperature",
            "TopK",
            "TopP",
        ),
        "interventions",
    ),
    **dict.fromkeys(
        (
            "ChooseThenSample",
            "ConditionNoise",
            "EntropyTemperature",
            "FixedOrder",
            "GuidanceInterval",
            "MinP",
            "PathTemperature",
            "RandomOrder",
            "RepulseTokens",
            "StratifiedNoise",
        ),
        "methods",
    ),
}

__all__ = [
    "Argmax",
    "ChooseThenSample",
    "ConditionNoise",
    "Detailed",
    "DisableTop",
    "DivlensError",
    "Effort",
    "Endpoint",
    "EntropyTemperature",
    "FixedOrder",
    "Freeze",
    "Gauge",
    "Guidance",
    "GuidanceInterval",
    "LocalModel",
    "Look",
    "Measure",
    "MinP",
    "Paraphrase",
    "PathTemperature",
    "Prompt",
    "RandomOrder",
    "RepulseTokens",
    "Rewriting",
    "StratifiedNoise",
    "Subset",
    "Temperature",
    "TopK",
    "TopP",
    "apply",
    "calibrate",
    "compare",
    "decompose",
    "default_conditions",
    "default_prompts",
    "diversity",
    "doses",
    "enhance",
    "enhancer",
    "frontier",
    "information",
    "load",
    "load_judge",
    "load_network",
    "logits_processor",
    "lpips_diversity",
    "merge",
    "open_run",
    "probe",
    "probe_until_decided",
    "read_prompts",
    "report",
    "resume",
    "reworded",
    "sample",
    "save",
    "score",
    "select",
    "similarity_of",
    "study",
    "sweep",
    "verdict",
    "wrap",
]


class _Package(ModuleType):
    """`divlens.enhance` is the function, also after the submodule of that name has been imported.

    The import system puts every submodule into its package; where a public name stands, it is not let in.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _PLACES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'divlens' has no attribute {name!r}")
    value = getattr(import_module(f"divlens.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
