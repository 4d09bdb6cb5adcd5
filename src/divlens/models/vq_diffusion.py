"""VQ-Diffusion under the one loop (Gu et al., 2022): a transformer that predicts x_0, CLIP text, a VQ decoder.

`vq-diffusion:microsoft/vq-diffusion-ithq`, or a local folder in the same layout. Agrees with
`diffusers.VQDiffusionPipeline` token for token under `ReferenceNoise`, which makes the reference's calls. Two things
differ by design:

- Fewer steps stride over the trained ones, because the rule's chances are cumulative (`rule_of`). The reference takes
  the *first* trained timesteps instead: its network sees an empty grid and is told that it is almost complete.
- The reference's default truncation rate, 1.0, drops codes once their running sum has rounded up to 1 in float32: up to
  about 1e-5 of the probability. Here nothing is dropped at 1; `TopP` keeps the same codes as the reference below it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.errors import DivlensError
from divlens.models.clip_text import DECODED_AT_ONCE, ClipText, clip_text_of, nearest_codes
from divlens.models.failures import reported
from divlens.models.fingerprint import all_but
from divlens.models.guidance import branches_of, for_branches
from divlens.models.loading import Options, check_equal, pictures_of
from divlens.models.open_domain import OpenDomain
from divlens.models.pipeline_parts import Layout, load_parts, packages_for, wrapped_parts
from divlens.paths import MaskReplaceDiffusion
from divlens.paths.reverse_step import reverse_step
from divlens.types import View

PUBLISHED = "microsoft/vq-diffusion-ithq"
GUIDANCE = 5.0  # the default of VQDiffusionPipeline.__call__
LEARNED = "learned_classifier_free_sampling_embeddings"


def layout() -> Layout:
    diffusers, transformers = packages_for("vq-diffusion")
    from divlens.models.learned_embeddings import LearnedClassifierFreeSamplingEmbeddings

    parts = {
        "tokenizer": transformers.CLIPTokenizer,
        "text_encoder": transformers.CLIPTextModel,
        "vqvae": diffusers.VQModel,
        "transformer": diffusers.Transformer2DModel,
        "scheduler": diffusers.VQDiffusionScheduler,
        LEARNED: LearnedClassifierFreeSamplingEmbeddings,
    }
    return Layout("vq-diffusion", "VQDiffusionPipeline", parts, PUBLISHED)


@cache
def strided(steps: int, trained: int) -> tuple[int, ...]:
    """The trained timesteps that `steps` steps visit, rising, spread evenly, the last included."""
    if not 1 <= steps <= trained:
        raise DivlensError(f"vq-diffusion expects 1 to {trained} steps, as many as it was trained with, got {steps}")
    return tuple(torch.linspace(trained - 1, 0, steps, dtype=torch.float64).round().long().flip(0).tolist())


def rule_of(scheduler: Any, steps: int | None = None) -> MaskReplaceDiffusion:
    """The path rule of a `VQDiffusionScheduler`, which is trained with linear cumulative chances.

    `steps`: how many of the trained steps are taken (None: all); the chances of a strided chain are exact.
    """
    config = scheduler.config
    trained = config.num_train_timesteps
    times = strided(steps or trained, trained)

    def chances(first: float, last: float) -> list[float]:
        return torch.linspace(first, last, trained, dtype=torch.float64)[list(times)].tolist()

    kept = (1.0, *chances(config.alpha_cum_start, config.alpha_cum_end))
    masked = (0.0, *chances(config.gamma_cum_start, config.gamma_cum_end))
    return MaskReplaceDiffusion(kept, masked, config.num_vec_classes - 1)


@dataclass(frozen=True)
class Backbone:
    """The parts of a `Transformer2DModel` over codes, up to its logits.

    The transformer's own call would go on to a float64 log-softmax, which guidance undoes and the loop repeats, and
    would put the codes before the positions, so that every position's probabilities lay scattered in memory.
    """

    transformer: Any

    def logits(
        self, ids: Int[Tensor, "rows n"], hidden: Float[Tensor, "rows words d"], timestep: Int[Tensor, ""]
    ) -> Float[Tensor, "rows n codes"]:
        """Logits of p(x_0), which differ from its logarithm by a number per position."""
        x = self.transformer.latent_image_embedding(ids)
        for block in self.transformer.transformer_blocks:
            x = block(x, encoder_hidden_states=hidden, timestep=timestep)
        return self.transformer.out(self.transformer.norm_out(x))


@dataclass(frozen=True)
class VQDiffusionPredictor:
    """Logits of p(x_0) at all positions; both branches of guidance in one pass, the unconditional first.

    The reference guides log-probabilities and normalises them again: the same as to guide logits and normalise them,
    as the loop does. `trained`: the number of timesteps the network knows.
    """

    name: str
    network: Callable[..., Tensor]
    hidden: Float[Tensor, "rows words hidden"]
    trained: int
    guided: bool

    @reported("transformer")
    def __call__(self, view: View) -> tuple[Float[Tensor, "batch m codes"], Float[Tensor, "batch m codes"] | None]:
        ids = for_branches(view.tokens, self.guided)
        # A view's step and time add up to the last step of its rule.
        time = strided(view.step + view.time + 1, self.trained)[view.time]
        logits = self.network(ids, self.hidden, torch.tensor(time, device=ids.device))
        return branches_of(logits, self.guided, unconditional_first=True)


@dataclass(frozen=True)
class VQDiffusionModel(OpenDomain):
    """VQ-Diffusion, ready for the loop.

    A condition is (limit, d): CLIP's last hidden states, each divided by its length. `learned` is the unconditional
    one; where none was learned, it is that of the empty text.
    """

    name: str
    text: ClipText
    text_encoder: Any
    vqvae: Any
    network: Callable[..., Tensor]
    codes: int
    grid: tuple[int, int]
    rule: MaskReplaceDiffusion
    trained: int
    learned: Float[Tensor, "words d"] | None
    guidance: float = GUIDANCE

    def identity(self) -> Mapping[str, object]:
        return all_but(self, "name")

    @property
    def mask(self) -> int:
        return self.codes

    @cached_property
    def unconditional(self) -> Float[Tensor, "words d"]:
        return self.encode([""])[0] if self.learned is None else self.learned

    @property
    def code_vectors(self) -> Float[Tensor, "codes d"]:
        return self.vqvae.quantize.embedding.weight

    @property
    def limit(self) -> int:
        return self.text.limit

    @reported("tokenizer")
    def lengths(self, wordings: Sequence[str]) -> list[int]:
        return self.text.lengths(wordings)

    @reported("text encoder")
    def encode(self, wordings: Sequence[str]) -> Float[Tensor, "wordings words d"]:
        return conditions_of(self.text, self.text_encoder, wordings)

    @reported("transformer")
    def predictor(self, conditions: Float[Tensor, "batch words d"], guided: bool) -> VQDiffusionPredictor:
        if guided:
            conditions = torch.cat([self.unconditional.expand_as(conditions), conditions])
        return VQDiffusionPredictor(self.name, self.network, conditions, self.trained, guided)

    @reported("decoder")
    def decode(self, tokens: Int[Tensor, "batch h w"]) -> Float[Tensor, "batch 3 H W"]:
        channels = self.vqvae.quantize.vq_embed_dim

        def pictures(part: Tensor) -> Tensor:
            embedded = self.vqvae.quantize.get_codebook_entry(part, shape=(*part.shape, channels))
            return self.vqvae.decode(embedded, force_not_quantize=True).sample

        return pictures_of(self.name, tokens, pictures, DECODED_AT_ONCE, lambda pixels: pixels / 2 + 0.5)

    @reported("encoder")
    def encode_pictures(self, pictures: Float[Tensor, "batch 3 H W"]) -> Int[Tensor, "batch h w"]:
        return nearest_codes(self.vqvae, pictures * 2 - 1)


@torch.no_grad()
def conditions_of(text: ClipText, text_encoder: Any, wordings: Sequence[str]) -> Float[Tensor, "wordings words d"]:
    """CLIP's last hidden states, each of length 1."""
    hidden = text_encoder(text.ids(wordings).to(text_encoder.device)).last_hidden_state
    return hidden / hidden.norm(dim=-1, keepdim=True)


def load(checkpoint: str | None, options: Options) -> VQDiffusionModel:
    """VQ-Diffusion from a folder or a hub repository in the published layout (the ITHQ one when it is None).

    Raises DivlensError for missing packages, as `load_parts` does, and for parts that do not fit each other.
    """
    return assembled(*load_parts(checkpoint, layout(), options), options)


def from_pipeline(pipeline: Any, options: Options) -> VQDiffusionModel:
    """VQ-Diffusion from a loaded `diffusers.VQDiffusionPipeline`.

    Its networks are used as `wrapped_parts` says. Raises DivlensError as that does, and for parts that do not fit
    together.
    """
    return assembled(*wrapped_parts(pipeline, layout()), options)


def assembled(name: str, parts: Mapping[str, Any], options: Options) -> VQDiffusionModel:
    """The model of parts that are in place. Raises DivlensError for parts that do not fit each other."""
    transformer, vqvae, text_encoder = parts["transformer"], parts["vqvae"], parts["text_encoder"]
    scheduler, own, width = parts["scheduler"], transformer.config, text_encoder.config.hidden_size
    if own.num_vector_embeds is None:
        raise DivlensError(f"{name} expects a transformer over codes, got one without num_vector_embeds")
    sizes = {
        "transformer": own.num_vector_embeds - 1,
        "vqvae": vqvae.config.num_vq_embeddings,
        "scheduler": scheduler.config.num_vec_classes - 1,
    }
    check_equal(name, "codebook size", sizes)
    check_equal(name, "text width", {"transformer": own.cross_attention_dim, "text_encoder": width})
    trained = scheduler.config.num_train_timesteps
    check_equal(name, "number of steps", {"transformer": own.num_embeds_ada_norm, "scheduler": trained})
    # The reference cuts a long wording behind the 77th token, without an end token.
    text = clip_text_of(name, parts, options, keep_end=False)
    learned = parts[LEARNED].embeddings.detach() if parts[LEARNED].learnable else None
    if learned is not None and learned.shape != (text.limit, width):
        raise DivlensError(
            f"{name} expects a learned unconditional embedding of shape {(text.limit, width)}, "
            f"got {tuple(learned.shape)}"
        )
    return VQDiffusionModel(
        name=name,
        text=text,
        text_encoder=text_encoder,
        vqvae=vqvae,
        network=options.compiled(Backbone(transformer).logits),
        codes=sizes["transformer"],
        grid=(own.sample_size, own.sample_size),
        rule=rule_of(scheduler),
        trained=trained,
        learned=learned,
    )


class ReferenceNoise:
    """For parity with VQDiffusionPipeline: its own `torch.rand` call at each step, from one generator.

    The reference draws x_{t-1} at once, with a Gumbel per class and position on log q(x_{t-1} | x_t). This source
    draws it in the same way, then answers the loop's two questions so that the same x_{t-1} comes out: it hands back
    x_{t-1} as the x_0 that was drawn, and a uniform for the path that says "take it" or "stay". It follows the state
    from the masked grid on, so it serves one run of the loop. All rows share `generator`.
    """

    def __init__(self, generator: torch.Generator, rule: MaskReplaceDiffusion, start: Int[Tensor, "batch n"]) -> None:
        self.generator, self.rule, self.state = generator, rule, start
        self.event = torch.zeros(start.shape, dtype=torch.float64, device=start.device)

    def draw(self, probabilities: Float[Tensor, "batch m codes"], step: int, first: int) -> Int[Tensor, "batch m"]:
        time, mask, now = self.rule.steps - step, self.rule.codes, self.state
        posterior = self.posterior(probabilities, time).transpose(1, 2)
        uniform = torch.rand(posterior.shape, device=self.generator.device, generator=self.generator)
        # The reference's float32 constants: they keep the two logarithms finite.
        gumbel = -torch.log(-torch.log(uniform + 1e-30) + 1e-30)
        chosen = (posterior.log() + gumbel.to(posterior.device)).argmax(1)
        origin = chosen.masked_fill(chosen == mask, 0)  # a position that stays masked may be offered any code
        if time > 1:
            stay, reveal, _, _ = self.rule.events(time, now == mask, now == origin)
            self.event = torch.where(chosen == now, stay / 2, stay + reveal / 2)
        self.state = chosen
        return origin

    def posterior(self, probabilities: Tensor, time: int) -> Float[Tensor, "batch m classes"]:
        """q(x_{t-1} | x_t) in float64, summed over x_0: over codes and the mask, at the last step over codes alone."""
        p = probabilities.double().clamp(min=math.exp(-70))  # the pipeline's floor
        return p if time == 1 else reverse_step(self.rule, time, self.state, self.rule.codes, p)

    def path_uniform(self, step: int, positions: int, device: torch.device) -> Float[Tensor, "batch n two"]:
        return torch.stack([self.event, torch.full_like(self.event, 0.5)], dim=-1).to(device)

    def path_gumbel(self, step: int, positions: int, device: torch.device) -> Float[Tensor, "batch n"]:
        raise DivlensError("the noise of VQDiffusionPipeline serves MaskReplaceDiffusion, which asks for no Gumbel")

    def condition_normal(self, step: int, numbers: int, device: torch.device) -> Float[Tensor, "batch numbers"]:
        raise DivlensError("VQDiffusionPipeline draws no noise for its conditions")
