"""`logits_processor`: interventions in `generate` of transformers, for Janus, Emu3 and GLM-Image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.drop_in.law import law_settings, log_law
from divlens.errors import DivlensError
from divlens.interventions import Intervention
from divlens.models.emu3 import Emu3Model
from divlens.models.glm_image import GlmImageModel
from divlens.models.janus import JanusModel
from divlens.models.protocol import Model
from divlens.planning import Reading
from divlens.settings import Settings


@dataclass(frozen=True)
class TokenLaw:
    """A logits processor. `words`: which of the scores are those of the codes; None for all of them, in order."""

    settings: Settings
    words: Int[Tensor, " codes"] | None

    def __call__(self, input_ids: Tensor, scores: Float[Tensor, "rows words"]) -> Float[Tensor, "rows words"]:
        if len(scores) != len(input_ids):
            raise DivlensError(
                f"logits_processor expects guided scores, a row for each of {len(input_ids)}, got {len(scores)}: hand "
                "what it returns to generate(logits_processor=...) as it is, not within another list"
            )
        if self.words is None:
            return log_law(scores[:, None], self.settings)[:, 0]
        return self.among_words(scores.float(), self.words.to(scores.device))

    def among_words(
        self, scores: Float[Tensor, "rows words"], words: Int[Tensor, " codes"]
    ) -> Float[Tensor, "rows words"]:
        """The codes share among them what they had together, so other words stay as probable as they were. A row in
        which no code may come, such as the end of a line, stays as it is."""
        codes = scores[:, words]
        together = codes.logsumexp(-1, keepdim=True)
        possible = together.isfinite().flatten()
        if not possible.any():
            return scores
        changed = scores.clone()
        changed[possible.nonzero(), words] = log_law(codes[possible, None], self.settings)[:, 0] + together[possible]
        return changed


class BehindGuidance(list[Any]):
    """What transformers takes as `logits_processor`: a list whose last member stays the last.

    `generate` of Janus appends its guidance to the list that it is handed, where it would come too late. Each call
    appends one anew, so that of an earlier call goes."""

    def append(self, processor: Any) -> None:
        self[:] = [other for other in self[:-1] if type(other) is not type(processor)] + [processor] + self[-1:]


def logits_processor(interventions: Sequence[Intervention], model: Model) -> BehindGuidance:
    """Interventions in `generate` of transformers, to be handed to it: `generate(..., logits_processor=...)`.

    `interventions`: on the law of the tokens: Subset, DisableTop, Temperature, TopK, TopP, Argmax(). They act behind
    the guidance and before `generate`'s own temperature, top-k and top-p; an empty list changes nothing. `model`: what
    `divlens.wrap` or `divlens.load` gives for Janus, Emu3 or GLM-Image. As in the loop its published top-k is kept:
    2048 for Emu3, none for Janus, whose `generate` keeps 50 codes unless it is called with `top_k=0`. GLM-Image has its
    law in its generation config, which `generate` follows after the interventions: Temperature(1.5) comes out as 1.35.
    For the law of the interventions alone it is to be called with `temperature=1.0, top_p=1.0, top_k=0`.

    Raises DivlensError for another model, for other interventions, and where no code would be left.
    """
    if not isinstance(model, JanusModel | Emu3Model | GlmImageModel):
        raise DivlensError(
            "logits_processor expects a Janus, an Emu3 or a GLM-Image of divlens.wrap or divlens.load, got "
            f"{getattr(model, 'name', type(model).__name__)!r:.80}"
        )
    reading, words = Reading(model), model.words if isinstance(model, Emu3Model) else None
    defaults = reading.defaults
    if isinstance(model, GlmImageModel):
        # Applied twice, a temperature would be another one, and so would a top-p.
        defaults, words = replace(defaults, temperature=1.0, top_p=1.0, top_k=0), torch.arange(model.codes)
    settings = law_settings("logits_processor", interventions, defaults, model.codes, reading.frequencies)
    return BehindGuidance([TokenLaw(settings, words)] if interventions else [])
