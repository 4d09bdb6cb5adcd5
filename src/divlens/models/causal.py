"""What Janus, Emu3 and GLM-Image share: a causal transformer from `transformers`, asked for one code after another.

Rows of a batch that begin alike are prefilled once, into a static key-value cache that holds the whole picture.
transformers is optional; nothing here imports it before a model asks for it.
"""

from __future__ import annotations

import inspect
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.errors import DivlensError, is_number
from divlens.models.building import network_from
from divlens.models.failures import reported
from divlens.models.fingerprint import all_but, weights_digits
from divlens.models.guidance import branches_of, for_branches
from divlens.models.loading import (
    DTYPES,
    Options,
    check_lengths,
    find_files,
    json_object,
    needed,
    pictures_of,
    read_parts,
)
from divlens.models.special_tokens import refuse_special_tokens
from divlens.types import View

FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")  # and the weights
DECODED_AT_ONCE = 4  # pictures: the decoder's activations are far larger than its output


@dataclass(frozen=True)
class Published:
    """A kind of checkpoint: its name (and `model_type`), its classes in transformers, and where one can be had."""

    name: str
    network: str
    processor: str
    source: str

    def load(self, checkpoint: str | None, options: Options) -> tuple[str, Any, Any]:
        """The model's name, its network, in place, and its processor, from a folder or hub repository (None: `source`).
        The decoder of pictures is in float32.

        Raises DivlensError for a missing package, for missing or damaged files, another kind of model, and for tensors
        that are missing, extra or of another shape, which are named.
        """
        checkpoint = checkpoint or self.source
        network_kind, processor_kind = needed(self.name, self.network, self.processor)
        config = find_files(checkpoint, FILES, self.source)["config.json"]
        check_type(config, self.name)
        processor = read_parts(
            checkpoint,
            f"the files of a {self.processor}",
            self.source,
            lambda: processor_kind.from_pretrained(checkpoint),
        )
        network = network_from(network_kind, checkpoint, config, self.source, dtype=DTYPES[options.dtype])
        options.place(network)
        network.model.vqmodel.float()  # in half precision it may overflow, and it runs once per picture only
        return f"{self.name}:{checkpoint}", network, processor

    def wrapped(self, network: Any) -> tuple[str, Any]:
        """The model's name and its network, from one that is loaded already. Raises DivlensError for another class.

        The network is set to evaluation and otherwise used as it is, where it is: of a model's options, `truncate` and
        `compile` count.
        """
        if type(network).__name__ != self.network:
            raise DivlensError(f"{self.name} expects a {self.network}, got a {type(network).__name__}")
        return f"{self.name}:wrapped-{weights_digits(network)}", network.eval()


def check_type(config: Path, expected: str) -> None:
    """Raises DivlensError when a model's configuration file says that it is of another type."""
    found = json_object(config, f"a model of type {expected}").get("model_type")
    if found != expected:
        raise DivlensError(f"{config} expects a model of type {expected}, got {found}")


def guidance_of(network: Any, published: float) -> float:
    """The guidance scale that a checkpoint asks for, else the published one."""
    own = network.generation_config.guidance_scale
    if own is None:
        return published
    if not is_number(own) or own < 0:
        raise DivlensError(f"the generation config expects a guidance_scale of at least 0, got {own!r}")
    return float(own)


def tokenizer_of(name: str, processor: Any, tokens: Sequence[str]) -> Any:
    """The tokenizer in a processor, or the tokenizer itself. Raises DivlensError when it lacks one of `tokens`."""
    tokenizer = getattr(processor, "tokenizer", processor)
    if missing := [token for token in tokens if not isinstance(getattr(tokenizer, token, None), str)]:
        raise DivlensError(
            f"{name} expects the processor or tokenizer that was saved with it, got a {type(processor).__name__} "
            f"without {', '.join(missing)}"
        )
    return tokenizer


@dataclass(frozen=True)
class Reader:
    """How a wording becomes a condition: `template` gives the whole text of a prompt, which is then tokenized.

    A condition is `limit` + 1 integers: the number of tokens, the tokens, and zeros.
    """

    name: str
    tokenizer: Any
    template: Callable[[str], str]
    limit: int
    truncate: bool

    def identity(self) -> Mapping[str, object]:
        return all_but(self, "name", "truncate")  # a wording that is cut is refused otherwise: no draw differs

    def ids(self, wordings: Sequence[str]) -> list[list[int]]:
        return self.tokenizer([self.template(wording) for wording in wordings], verbose=False).input_ids

    def lengths(self, wordings: Sequence[str]) -> list[int]:
        """Tokens of each wording in its template, before any cut."""
        return [len(row) for row in self.ids(wordings)]

    def conditions(self, wordings: Sequence[str]) -> Int[Tensor, "wordings limit_plus_one"]:
        """A row per wording. Raises DivlensError for a wording that is too long, unless it may be cut, and for one with
        a special token in it: those of the template are the only ones."""
        refuse_special_tokens(self.name, self.tokenizer, wordings)
        ids = self.ids(wordings)
        check_lengths(self.name, wordings, [len(row) for row in ids], self.limit, self.truncate)
        rows = torch.zeros(len(ids), self.limit + 1, dtype=torch.long)
        for row, wording, tokens in zip(rows, wordings, ids, strict=True):
            whole = tokens if len(tokens) <= self.limit else self.ids([self.beginning(wording)])[0]
            row[: len(whole) + 1] = torch.tensor([len(whole), *whole])
        return rows

    def beginning(self, wording: str) -> str:
        """As much of the wording as can be read; the template stays whole, for it says that a picture follows."""
        sizes = range(len(wording) + 1)
        kept = bisect_right(sizes, self.limit, key=lambda size: self.lengths([wording[:size]])[0]) - 1
        if kept < 0:
            raise DivlensError(f"{self.name} reads at most {self.limit} tokens, fewer than its template has")
        return wording[:kept]


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts, padded on the left: position `longest` - 1 is the last token of every row."""

    ids: Int[Tensor, "rows longest"]
    lengths: Int[Tensor, " rows"]

    @classmethod
    def of(cls, conditions: Int[Tensor, "rows limit_plus_one"]) -> Prompts:
        lengths = conditions[:, 0]
        longest = int(lengths.max())
        place = torch.arange(longest, device=lengths.device) - (longest - lengths[:, None])
        return cls(conditions[:, 1:].gather(1, place.clamp(min=0)).masked_fill(place < 0, 0), lengths)

    def distinct(self) -> tuple[Prompts, Int[Tensor, " rows"]]:
        """The prompts that differ, and which of them each row is."""
        rows = torch.cat([self.lengths[:, None], self.ids], dim=1)
        found, which = torch.unique(rows, dim=0, return_inverse=True)
        return Prompts(found[:, 1:], found[:, 0]), which

    def seen(self, capacity: int) -> Bool[Tensor, "rows capacity"]:
        """All but the padding, with room for what follows."""
        columns = torch.arange(capacity, device=self.ids.device)
        return columns >= self.ids.shape[1] - self.lengths[:, None]

    def positions(self) -> Int[Tensor, "rows longest"]:
        """Counted from a prompt's own first token, so that they do not depend on the batch."""
        columns = torch.arange(self.ids.shape[1], device=self.ids.device)
        return (columns - (self.ids.shape[1] - self.lengths[:, None])).clamp(min=0)


class CachedTransformer:
    """Hidden states of a growing batch of sequences. `network`: embeddings to hidden states, as LlamaModel.

    `step` is the same network for the calls after the first, which may be compiled. `places`: where those tokens stand
    that may follow a prompt, counted from its end; one row of them, or one for each axis of the network's positions.
    """

    def __init__(
        self, network: Any, step: Callable[..., Any], prompts: Prompts, places: Int[Tensor, "*axes room"]
    ) -> None:
        (static_cache,) = needed("a causal model", "StaticCache")
        self.network, self.step, self.prompts, self.places = network, step, prompts, places
        self.fed, capacity = 0, prompts.ids.shape[1] + places.shape[-1]
        self.seen = prompts.seen(capacity)
        self.cache = static_cache(config=network.config, max_cache_len=capacity)
        # The argument was renamed in transformers 5.24.
        named = "cache" if "cache" in inspect.signature(network.forward).parameters else "past_key_values"
        self.cached = {named: self.cache, "use_cache": True}

    def prefill(self) -> Float[Tensor, "rows d"]:
        """What follows the prompts; the same prompt is computed once."""
        distinct, which = self.prompts.distinct()
        hidden = self.network(
            inputs_embeds=self.network.get_input_embeddings()(distinct.ids),
            attention_mask=distinct.seen(self.seen.shape[1]),
            position_ids=distinct.positions(),
            **self.cached,
        ).last_hidden_state[:, -1]
        self.cache.reorder_cache(which)
        return hidden[which]

    def feed(self, embeddings: Float[Tensor, "rows tokens d"]) -> Float[Tensor, "rows d"]:
        """What follows when these tokens are added to every row."""
        fed, self.fed = self.fed, self.fed + embeddings.shape[1]
        return self.step(
            inputs_embeds=embeddings,
            attention_mask=self.seen,
            position_ids=self.prompts.lengths[:, None] + self.places[..., None, fed : self.fed],
            **self.cached,
        ).last_hidden_state[:, -1]


@dataclass(frozen=True)
class RasterPredictor:
    """One code a call, in order. With guidance the transformer's rows are the conditional ones, then the others.

    `embed`: the code at a position, and what the model puts behind it, to embeddings. `head`: hidden states to logits
    of the codes.
    """

    name: str
    transformer: CachedTransformer
    embed: Callable[[Tensor, int], Tensor]
    head: Callable[[Tensor], Tensor]
    guided: bool

    @reported("transformer")
    def __call__(self, view: View) -> tuple[Float[Tensor, "batch m codes"], Float[Tensor, "batch m codes"] | None]:
        if view.first == 0:
            hidden = self.transformer.prefill()
        else:
            embeddings = self.embed(view.tokens[:, view.first - 1], view.first - 1)
            hidden = self.transformer.feed(for_branches(embeddings, self.guided))
        return branches_of(self.head(hidden)[:, None], self.guided)


@dataclass(frozen=True)
class Pixels:
    """How a decoder's output becomes a picture: times `std`, plus `mean`, per channel, cut to [0, 1]."""

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @classmethod
    def of(cls, processor: Any) -> Pixels:
        """What the image processor undoes; [-1, 1] to [0, 1], as published, for a tokenizer, which does not say."""
        images = getattr(processor, "image_processor", None)
        if images is None:
            return cls()
        if not images.do_normalize:
            return cls((0.0,) * 3, (1.0,) * 3)
        return cls(per_channel("image_mean", images.image_mean), per_channel("image_std", images.image_std))

    def pictures(
        self, name: str, decode: Callable[[Tensor], Tensor], tokens: Int[Tensor, "batch h w"]
    ) -> Float[Tensor, "batch 3 H W"]:
        """Float32, on the CPU, a few at a time. `decode`: token grids to (batch, 3, H, W)."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return pictures_of(name, tokens, decode, DECODED_AT_ONCE, lambda pixels: pixels * std + mean)


def per_channel(name: str, value: Any) -> tuple[float, ...]:
    """A number for each of three channels; one for all of them may stand alone, as image processors allow."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * 3
    if len(values) != 3 or not all(map(is_number, values)):
        raise DivlensError(f"{name} of the image processor expects a number, or one for each channel, got {value!r}")
    return tuple(map(float, values))
