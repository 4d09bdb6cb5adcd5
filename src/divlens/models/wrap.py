"""Models that the user has already loaded with diffusers or transformers, under the loop."""

from __future__ import annotations

import importlib
from typing import Any

from divlens.errors import DivlensError
from divlens.models.failures import one_line
from divlens.models.loading import Options
from divlens.models.protocol import Model

# By class name, so that neither package is imported before it is needed.
PIPELINES = {
    "AmusedPipeline": "divlens.models.amused",
    "AmusedImg2ImgPipeline": "divlens.models.amused",
    "AmusedInpaintPipeline": "divlens.models.amused",
    "VQDiffusionPipeline": "divlens.models.vq_diffusion",
    "GlmImagePipeline": "divlens.models.glm_image",
}
NETWORKS = {
    "JanusForConditionalGeneration": "divlens.models.janus",
    "Emu3ForConditionalGeneration": "divlens.models.emu3",
}


def wrap(loaded: Any, processor: Any = None, *, truncate: bool = False, compile: bool = False) -> Model:
    """The divlens model of a diffusers pipeline (aMUSEd, VQ-Diffusion, GLM-Image) or a transformers one (Janus, Emu3).

    Nothing is moved or cast: it runs where and as it is. `processor`: the processor or tokenizer of a transformers
    model; a pipeline brings its own. `truncate`, `compile`: as for `divlens.load`. Raises DivlensError for an object of
    another class, and for a transformers model without its processor.
    """
    kind, options = type(loaded).__name__, Options(truncate=truncate, compile=compile)
    if kind in PIPELINES:
        with one_line(f"wrap expects a {kind} whose parts fit each other"):
            return importlib.import_module(PIPELINES[kind]).from_pipeline(loaded, options)
    if kind not in NETWORKS:
        known = ", ".join((*PIPELINES, *NETWORKS))
        raise DivlensError(f"wrap expects one of {known}, got {kind}")
    if processor is None:
        raise DivlensError(f"wrap expects the processor of a {kind} as its second argument, got none")
    with one_line(f"wrap expects a {kind} that fits its processor"):
        return importlib.import_module(NETWORKS[kind]).from_model(loaded, processor, options)
