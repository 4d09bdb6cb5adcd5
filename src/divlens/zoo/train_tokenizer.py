"""The tokenizer: a VQ-VAE with an EMA codebook, k-means start and revival of unused codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from divlens.models.zoo.networks import Codec, Tokenizer
from divlens.pictures import pictures_from_bytes
from divlens.zoo.data import Pictures
from divlens.zoo.training import Recipe, fit

RECIPE = Recipe(steps=3000, batch=64, rate=8e-4, warmup=100, decay=0.5, averaging=0.998)
QUANTISE_FROM = 200  # steps; before that the codebook would be fitted to noise
COMMITMENT = 0.25


def jitter(images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 3 h w"]:
    """Random mirror, zoom and shift on white: more pictures without another meaning."""
    batch = len(images)
    zoom = torch.empty(batch, device=images.device).uniform_(0.92, 1.12)
    mirror = torch.where(torch.rand(batch, device=images.device) < 0.5, -1.0, 1.0)
    moved = torch.rand(batch, device=images.device) < 0.7
    shift = torch.empty(batch, 2, device=images.device).uniform_(-0.12, 0.12) * moved[:, None]
    zoom = torch.where(moved, zoom, torch.ones_like(zoom))
    theta = torch.zeros(batch, 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = zoom * mirror, zoom, shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return 1 + F.grid_sample(images - 1, grid, align_corners=False)


class MovingCodebook:
    """Exponential moving averages of what is assigned to each code (van den Oord et al., 2017, appendix A.1).

    A code that is used less often than `rare` times the mean starts anew at a random feature; with `far`, features
    far from their code are the likelier ones (as in k-means++), for where most features are alike.
    """

    def __init__(self, tokenizer: Codec, decay: float = 0.99, rare: float = 0.15, far: bool = False) -> None:
        self.tokenizer, self.decay, self.rare, self.far = tokenizer, decay, rare, far
        self.codes = len(tokenizer.codebook)
        self.counts = torch.ones(self.codes, device=tokenizer.codebook.device)

    def start(self, features: Float[Tensor, "n c"], rounds: int = 10) -> None:
        """k-means from random features."""
        codebook = self.tokenizer.codebook
        codebook.copy_(features[torch.randperm(len(features), device=features.device)[: self.codes]])
        for _ in range(rounds):
            self.update(features, self.tokenizer.quantise(features), decay=0.0)
        self.counts.fill_(len(features) / self.codes)

    @torch.no_grad()
    def update(self, features: Float[Tensor, "n c"], ids: Int[Tensor, " n"], decay: float | None = None) -> None:
        decay = self.decay if decay is None else decay
        codebook = self.tokenizer.codebook
        counts = torch.bincount(ids, minlength=self.codes).to(features.dtype)
        sums = torch.zeros_like(codebook).index_add_(0, ids, features)
        total = decay * self.counts + (1 - decay) * counts
        mixed = decay * self.counts[:, None] * codebook + (1 - decay) * sums
        codebook.copy_(torch.where(total[:, None] > 1e-6, mixed / total.clamp(min=1e-6)[:, None], codebook))
        self.counts.copy_(total)
        dead = torch.nonzero(self.counts < self.rare * len(features) / self.codes).flatten()
        if len(dead):
            codebook[dead] = features[self.fresh(features, ids, len(dead))]
            self.counts[dead] = 0.5 * len(features) / self.codes

    def codes_of(
        self, features: Float[Tensor, "batch gh gw c"], since: int
    ) -> tuple[Float[Tensor, "batch gh gw c"], Float[Tensor, ""]]:
        """What the decoder gets for an encoder's output, with the gradient of the latter, and the commitment loss.

        `since`: steps since quantising began, at 0 with k-means; before that it is the output itself.
        """
        if since < 0:
            return features, features.square().mean() * 0.01
        flat = features.detach().reshape(-1, features.shape[-1])
        if since == 0:
            self.start(flat)
        ids = self.tokenizer.quantise(flat)
        self.update(flat, ids)
        nearest = self.tokenizer.codebook[ids].view_as(features)
        return features + (nearest - features).detach(), F.mse_loss(features, nearest)

    def fresh(self, features: Float[Tensor, "n c"], ids: Int[Tensor, " n"], count: int) -> Int[Tensor, " count"]:
        """Which features codes start anew at."""
        if not self.far:
            return torch.randint(len(features), (count,), device=features.device)
        distance = (features - self.tokenizer.codebook[ids]).square().sum(1)
        return torch.multinomial(distance + 1e-9, count, replacement=count > len(features))


Trained = TypeVar("Trained", bound=Codec)
Loss = Callable[[int], tuple[Tensor, Mapping[str, float]]]


def fitted(
    name: str,
    tokenizer: Trained,
    codebook: MovingCodebook,
    loss: Loss,
    recipe: Recipe,
    folder: Path,
    device: torch.device,
) -> Trained:
    """The trained tokenizer. `folder/name.pt` is the checkpoint, which holds how often codes are used, too."""
    tokenizer.register_buffer("usage", codebook.counts, persistent=True)
    state = fit(name, tokenizer, loss, recipe, folder, device=device)
    state.pop("usage")
    del tokenizer.usage
    tokenizer.load_state_dict(state)
    return tokenizer.eval()


def train(pictures: Pictures, folder: Path, device: torch.device, recipe: Recipe = RECIPE) -> Tokenizer:
    """Half of each batch is zoo concepts, half any other emoji; held-out pictures are never seen."""
    torch.manual_seed(recipe.seed)
    tokenizer = Tokenizer().to(memory_format=torch.channels_last).to(device)
    codebook = MovingCodebook(tokenizer)
    known = ~pictures.held_out
    pools = [
        torch.from_numpy(pictures.images[known & (pictures.concept >= 0)]),
        torch.from_numpy(pictures.images[known & (pictures.concept < 0)]),
    ]

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        rows = [pool[torch.randint(len(pool), (recipe.batch // 2,))] for pool in pools]
        images = pictures_from_bytes(torch.cat(rows).to(device))
        with torch.autocast(device.type, enabled=False):
            images = jitter(images)
        codes, commitment = codebook.codes_of(tokenizer.features(images).float(), step - QUANTISE_FROM)
        error = (tokenizer.decode_features(codes).float() - images).square().mean((1, 2, 3))
        figures = {"psnr": float(-10 * error.detach().log10().mean()), "used": perplexity(codebook.counts)}
        # The logarithm weighs every picture alike: it is, up to a factor, the mean PSNR.
        return (error + 1e-4).log().mean() + COMMITMENT * commitment, figures

    return fitted("tokenizer", tokenizer, codebook, loss, recipe, folder, device)


def perplexity(counts: Float[Tensor, " codes"]) -> float:
    share = counts / counts.sum()
    return float(torch.special.entr(share).sum().exp())
