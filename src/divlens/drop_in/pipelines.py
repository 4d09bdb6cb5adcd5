"""`apply`: interventions in a diffusers pipeline, for as long as a `with` block lasts.

Each pipeline hands its guided logits to one function, that of its scheduler or one of its own, or draws its codes by
one, `generate` of transformers. `apply` puts a function in its place that changes the logits first; all else is the
pipeline's own code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.overrides import TorchFunctionMode

from divlens.drop_in.law import law_settings, log_law
from divlens.errors import DivlensError
from divlens.interventions import Intervention, check_interventions
from divlens.models.failures import one_line
from divlens.models.glm_image import published_law
from divlens.models.loading import Options
from divlens.paths import ConfidenceUnmasking
from divlens.planning import Reading
from divlens.settings import Settings, filter_logits


class GreedyDraw(TorchFunctionMode):
    """While it is entered, `torch.multinomial` gives the most probable of each row."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.multinomial:
            return args[0].argmax(-1, keepdim=True)
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Hook:
    """What stands in the place of a function of the pipeline: `usual` is that function, `interventions` all that were
    asked for, those of the blocks around this one first, `codes` the size of the codebook."""

    usual: Callable[..., Any]
    interventions: tuple[Intervention, ...]
    settings: Settings
    codes: int


@dataclass(frozen=True)
class UnmaskingHook(Hook):
    """For `AmusedScheduler.step`, which is given (batch, codes, h, w), and draws and orders by the same softmax.

    A greedy draw keeps its probability, for the order depends on it: so the logits are filtered, and the draw changed.
    """

    def __call__(self, model_output: Float[Tensor, "batch codes h w"], *others: Any, **named: Any) -> Any:
        if not self.interventions:
            return self.usual(model_output, *others, **named)
        log_p = filter_logits(model_output.flatten(2).transpose(1, 2), self.settings)
        changed = log_p.transpose(1, 2).reshape(model_output.shape)
        if not self.settings.greedy:
            return self.usual(changed, *others, **named)
        with GreedyDraw():
            return self.usual(changed, *others, **named)


@dataclass(frozen=True)
class DiffusionHook(Hook):
    """For `VQDiffusionPipeline.truncate`, which is given guided log-probabilities (batch, codes, n) of x_0.

    Before the truncation, whose codes would come back at a high temperature. The pipeline then lifts all logarithms to
    -70: too little for any draw in float32."""

    def __call__(self, log_p_x_0: Float[Tensor, "batch codes n"], truncation_rate: float) -> Tensor:
        if self.interventions:
            log_p_x_0 = log_law(log_p_x_0.transpose(1, 2), self.settings).transpose(1, 2)
        return self.usual(log_p_x_0, truncation_rate)


@dataclass(frozen=True)
class CodesLaw:
    """A logits processor that leaves the first words, those of the codes, and gives them the law of the settings."""

    settings: Settings
    codes: int

    def __call__(self, input_ids: Tensor, scores: Float[Tensor, "rows words"]) -> Float[Tensor, "rows words"]:
        law = log_law(scores[:, None, : self.codes], self.settings)[:, 0]
        return pad(law, (0, scores.shape[1] - self.codes), value=-math.inf)


@dataclass(frozen=True)
class GenerationHook(Hook):
    """For `generate` of the network that writes the codes of a `GlmImagePipeline`.

    The settings hold the temperature, top-p and top-k of its generation config, or those of the interventions, so that
    `generate` has none of its own to add. Only codes can be drawn, as in the loop."""

    def __call__(self, *others: Any, **named: Any) -> Any:
        if not self.interventions:
            return self.usual(*others, **named)
        law = [*(named.get("logits_processor") or ()), CodesLaw(self.settings, self.codes)]
        return self.usual(*others, **named | {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "logits_processor": law})


@dataclass(frozen=True)
class Kind:
    """A kind of pipeline. `module`: that of its divlens model. `part`, `function`: what is given the guided logits, or
    draws the codes, a function of this part, or of the pipeline itself where it is empty. `codes`: of a pipeline, the
    codebook's size. `law`: of a pipeline, the published settings of its law that are not those of a plain draw."""

    module: str
    part: str
    function: str
    hook: type[UnmaskingHook | DiffusionHook | GenerationHook]
    codes: Callable[[Any], int]
    law: Callable[[Any], Mapping[str, Any]] = lambda pipe: {}


UNMASKING = Kind(
    "divlens.models.amused", "scheduler", "step", UnmaskingHook, lambda pipe: pipe.transformer.config.codebook_size
)
DIFFUSION = Kind(
    "divlens.models.vq_diffusion",
    "",
    "truncate",
    DiffusionHook,
    lambda pipe: pipe.transformer.config.num_vector_embeds - 1,
)
GENERATION = Kind(
    "divlens.models.glm_image",
    "vision_language_encoder",
    "generate",
    GenerationHook,
    lambda pipe: pipe.vision_language_encoder.config.vq_config.num_embeddings,
    lambda pipe: published_law("apply", pipe.vision_language_encoder.generation_config),
)
# By class name, so that diffusers is not imported before it is needed.
KINDS = {
    "AmusedPipeline": UNMASKING,
    "AmusedImg2ImgPipeline": UNMASKING,
    "AmusedInpaintPipeline": UNMASKING,
    "VQDiffusionPipeline": DIFFUSION,
    "GlmImagePipeline": GENERATION,
}
# What the interventions change; the pipeline has a path and a guidance of its own, which these stand for.
DEFAULTS = Settings(ConfidenceUnmasking(), guidance=1.0)


@contextmanager
def apply(pipe: Any, interventions: Sequence[Intervention]) -> Iterator[Any]:
    """A diffusers pipeline under interventions while a block lasts: `with divlens.apply(pipe, [...]): pipe(...)`.

    `interventions`: on the law of the tokens: Subset, DisableTop, Temperature, TopK, TopP, Argmax(). They act on the
    guided logits, as in the loop; prompts, guidance, steps and generators are those of your own call. Of a block within
    a block, those of the outer one come first. An empty list changes nothing. Subset and DisableTop ask how often the
    model uses each code: that is calibrated once and kept (`divlens.calibrate`).

    The pipeline is as it was when the block ends, however that happens. Raises DivlensError for a pipeline of another
    class, for other interventions, and where no code would be left.
    """
    kind = KINDS.get(type(pipe).__name__)
    if kind is None:
        raise DivlensError(f"apply expects one of {', '.join(KINDS)}, got {type(pipe).__name__}")
    holder = getattr(pipe, kind.part) if kind.part else pipe
    own = vars(holder)
    before = own.get(kind.function)
    usual = before.usual if isinstance(before, Hook) else getattr(holder, kind.function)
    check_interventions(interventions)
    asked = (*before.interventions, *interventions) if isinstance(before, Hook) else tuple(interventions)
    codes, law = kind.codes(pipe), kind.law(pipe)
    defaults = replace(DEFAULTS, clustered=lambda: of_model(pipe, kind, Reading.clustered), **law)
    settings = law_settings("apply", asked, defaults, codes, lambda: of_model(pipe, kind, Reading.frequencies))
    own[kind.function] = kind.hook(usual, asked, settings, codes)
    try:
        yield pipe
    finally:
        if before is None:
            del own[kind.function]
        else:
            own[kind.function] = before


def of_model(pipe: Any, kind: Kind, told: Callable[[Reading], Tensor]) -> Tensor:
    """What the pipeline's model tells of its codes. Its networks are in evaluation for that, and then as they were."""
    networks = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    modes = [(module, module.training) for network in networks for module in network.modules()]
    try:
        with one_line(f"apply expects a {type(pipe).__name__} whose parts fit each other"):
            return told(Reading(import_module(kind.module).from_pipeline(pipe, Options())))
    finally:
        for module, training in modes:
            module.training = training
