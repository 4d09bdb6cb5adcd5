"""The law of the tokens, for whoever draws them: guided logits in, the log-probabilities of the draw out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from divlens.errors import DivlensError
from divlens.interventions import Frequencies, Intervention, OnSettings, apply_all, check_interventions
from divlens.settings import Settings, filter_logits

# What `filter_logits` reads of the settings, and the draw itself. A new setting of the law needs its name here.
LAW = frozenset({"temperature", "by_entropy", "allowed", "log_factors", "top_k", "top_p", "min_p", "greedy"})
POSSIBLE = "Subset, DisableTop, Temperature, EntropyTemperature, TopK, TopP, MinP and Argmax()"


def law_settings(
    verb: str, interventions: Sequence[Intervention], defaults: Settings, codes: int, frequencies: Frequencies
) -> Settings:
    """The default settings, changed by the interventions in order.

    Raises DivlensError, before any calibration run, for an intervention that changes anything but the law of the
    tokens. `verb` begins the message.
    """
    check_interventions(interventions)
    for intervention in interventions:
        if not changes_law_alone(intervention, defaults, codes):
            raise DivlensError(
                f"{verb} expects interventions on the law of the tokens ({POSSIBLE}), got {intervention!r}: prompts, "
                "guidance and noise are those of your own call"
            )
    return apply_all(interventions, defaults, frequencies)


def changes_law_alone(intervention: Intervention, defaults: Settings, codes: int) -> bool:
    """Whether an intervention leaves every other setting the very object that it was.

    It is tried on settings whose guidance is no number, so that one which asks for the default guidance is seen, too.
    A greedy share below 1 depends on the step, which a law does not know.
    """
    if not isinstance(intervention, OnSettings):
        return False
    clustered = None if defaults.clustered is None else lambda: torch.arange(codes)
    before = replace(defaults, guidance=math.nan, clustered=clustered)
    after = intervention.apply(before, lambda: torch.full((codes,), 1 / codes, dtype=torch.float64))
    changed = {
        field.name for field in fields(Settings) if getattr(after, field.name) is not getattr(before, field.name)
    }
    return changed <= LAW and after.greedy in (0, 1)


def log_law(logits: Float[Tensor, "batch m codes"], settings: Settings) -> Float[Tensor, "batch m codes"]:
    """Natural logarithms of the probabilities that each token is drawn with, float32: the loop's own, and all on the
    most probable token where the draw is greedy."""
    log_p = filter_logits(logits, settings)
    if not settings.greedy:
        return log_p
    return torch.full_like(log_p, -math.inf).scatter(-1, log_p.argmax(-1, keepdim=True), 0.0)
