"""The decoder of GLM-Image: a diffusion transformer (DiT) that turns codes and Gaussian noise into a picture.

It agrees with `diffusers.GlmImagePipeline` of diffusers 0.42 on the same noise, at its defaults: 50 steps and guidance
1.5. Everything after the noise is deterministic.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.errors import DivlensError, is_number, is_whole
from divlens.models.fingerprint import all_but

STEPS, GUIDANCE = 50, 1.5  # the defaults of GlmImagePipeline.__call__
LONGEST_GLYPHS = 2048  # tokens; the default of its max_sequence_length
UPSAMPLED = 2  # a code stands for so many of the transformer's patches in a row
SHIFT = {"base_image_seq_len": 256, "base_shift": 0.25, "max_shift": 0.75}  # of a scheduler that does not say


@dataclass(frozen=True)
class DiffusionDecoder:
    """From codes and noise to pixels.

    glyphs: what the transformer is told of the letters in the picture, the same for every picture: the embedding of an
    empty text, which the pipeline uses for a prompt without anything in quotes.
    """

    transformer: Any
    vae: Any
    scheduler: Any
    glyphs: Float[Tensor, "one words d"]
    steps: int = STEPS
    guidance: float = GUIDANCE

    def identity(self) -> Mapping[str, object]:
        kept = {key: value for key, value in self.scheduler.config.items() if not key.startswith("_")}
        return all_but(self, "scheduler") | {"scheduler": kept | {"kind": type(self.scheduler)}}

    @property
    def pixels(self) -> int:
        """The side of what a number of a latent stands for."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Of the noise (channels, H, W) for a picture of `size` codes."""
        side = UPSAMPLED * self.transformer.config.patch_size
        return self.transformer.config.in_channels, size[0] * side, size[1] * side

    @torch.no_grad()
    def pictures(
        self, codes: Int[Tensor, "batch h w"], noise: Float[Tensor, "batch channels H W"]
    ) -> Float[Tensor, "batch 3 Y X"]:
        """Pixels, in [-1, 1] but for rounding, of as many codes and standard normal noise of the shape for them."""
        scheduler, latents = self.scheduled(noise), noise.to(self.transformer.device)
        prior = codes.repeat_interleave(UPSAMPLED, 1).repeat_interleave(UPSAMPLED, 2).flatten(1)
        for time in scheduler.timesteps.to(latents.device):
            # The conditional branch is told the codes, the other is not; neither is told a letter.
            found = self.velocity(latents, prior, time, told=True)
            if self.guidance > 1:
                without = self.velocity(latents, prior, time, told=False)
                found = without + self.guidance * (found - without)
            latents = scheduler.step(found, time, latents, return_dict=False)[0]
        own = self.vae.config
        mean, std = (torch.tensor(of)[:, None, None].to(latents) for of in (own.latents_mean, own.latents_std))
        return self.vae.decode((latents * std + mean).to(self.vae.dtype), return_dict=False)[0]

    def scheduled(self, noise: Float[Tensor, "batch channels H W"]) -> Any:
        """A scheduler of its own, for it counts steps, set to the times of the pipeline for noise of this shape."""
        scheduler = copy.deepcopy(self.scheduler)
        trained = scheduler.config.num_train_timesteps
        times = np.linspace(trained, 1.0, self.steps + 1)[:-1].astype(np.int64).astype(np.float32)
        base, least, most = (scheduler.config.get(key, usual) for key, usual in SHIFT.items())
        patches = noise.shape[-2] * noise.shape[-1] // self.transformer.config.patch_size**2
        mu = (patches / base) ** 0.5 * most + least
        scheduler.set_timesteps(timesteps=times, sigmas=times / trained, device=self.transformer.device, mu=mu)
        return scheduler

    def velocity(
        self, latents: Float[Tensor, "batch c H W"], prior: Int[Tensor, "batch n"], time: Float[Tensor, ""], told: bool
    ) -> Float[Tensor, "batch c H W"]:
        """What the transformer predicts, float32. `told`: whether it is told the codes."""
        batch, dtype, device = len(latents), self.transformer.dtype, latents.device
        size = [side * self.pixels for side in latents.shape[-2:]]
        dropped: Bool[Tensor, "batch n"] = torch.full_like(prior, not told, dtype=torch.bool)
        return self.transformer(
            hidden_states=latents.to(dtype),
            encoder_hidden_states=self.glyphs.expand(batch, -1, -1),
            prior_token_id=prior,
            prior_token_drop=dropped,
            timestep=time.expand(batch) - 1,
            target_size=torch.tensor([size], dtype=dtype, device=device).expand(batch, -1),
            crop_coords=torch.zeros(batch, 2, dtype=dtype, device=device),
            return_dict=False,
        )[0].float()


def decoder_of(name: str, parts: Mapping[str, Any]) -> DiffusionDecoder:
    """The decoder of the parts of a pipeline. Raises DivlensError for parts that do not fit each other."""
    transformer, vae, scheduler = parts["transformer"], parts["vae"], parts["scheduler"]
    if getattr(scheduler.config, "stochastic_sampling", False):
        raise DivlensError(f"{name} expects a scheduler that draws no noise, got one with stochastic_sampling")
    own = vae.config
    for field in ("latents_mean", "latents_std"):
        values = getattr(own, field)
        listed = isinstance(values, list | tuple) and all(map(is_number, values))
        if not listed or len(values) != own.latent_channels:
            raise DivlensError(f"{name} expects {field} of its vae as {own.latent_channels} numbers, got {values!r}")
    if not is_whole(transformer.config.patch_size) or transformer.config.patch_size < 1:
        raise DivlensError(f"{name} expects a patch_size of at least 1, got {transformer.config.patch_size!r}")
    channels = {"transformer": transformer.config.in_channels, "vae": own.latent_channels}
    if len(set(channels.values())) > 1:
        raise DivlensError(f"{name} expects one number of channels of its latents, got {channels}")
    glyphs = empty_glyphs(parts["tokenizer"], parts["text_encoder"])
    return DiffusionDecoder(transformer, vae, scheduler, glyphs.to(transformer.device, transformer.dtype))


@torch.no_grad()
def empty_glyphs(tokenizer: Any, text_encoder: Any) -> Float[Tensor, "one words d"]:
    """The embedding of a text without letters."""
    ids = tokenizer([""], max_length=LONGEST_GLYPHS, truncation=True).input_ids
    return text_encoder(torch.tensor(ids, device=text_encoder.device)).last_hidden_state
