"""How alike two texts are to a text encoder: that of sentences, where one is on this machine, or that of a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from divlens.errors import DivlensError
from divlens.models.answers import calibration_prompts_of, conditions_of, loaded_model
from divlens.models.building import network_from
from divlens.models.failures import one_line
from divlens.models.loading import find_files, needed, read_parts

if TYPE_CHECKING:
    from divlens.models.protocol import Model

SENTENCES = "sentence-transformers/all-MiniLM-L6-v2"
NEEDED = ("config.json", "tokenizer_config.json", "model.safetensors")
AT_MOST = 64  # prompts whose mean is what all texts share
AT_ONCE = 256  # tokens of a sentence


@dataclass(frozen=True)
class TextSimilarity:
    """The cosine of two texts' vectors, in [-1, 1]. `name`: whose they are. `least`: from where on two texts are taken
    to mean the same."""

    name: str
    vectors: Callable[[Sequence[str]], Float[Tensor, "texts d"]]
    least: float = 0.8
    known: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)  # a prompt has many wordings

    def __call__(self, text: str, wording: str) -> float:
        for one in (text, wording):
            if one not in self.known:
                self.known[one] = self.vectors([one])[0].double()
        return float(torch.cosine_similarity(self.known[text], self.known[wording], dim=0))


def similarity_of(model: str | Model | None = None) -> TextSimilarity | None:
    """What compares the meaning of texts here: the sentence encoder `SENTENCES` where it is on this machine, otherwise
    the text encoder of the model, and None without one. Nothing is downloaded.

    Raises DivlensError for a model that has no text encoder, and for files that are not those of an encoder.
    """
    if (folder := downloaded(SENTENCES)) is not None:
        return replace(sentence_similarity(folder), name=f"the sentence encoder {SENTENCES}")
    return None if model is None else model_similarity(model)


def downloaded(repository: str) -> str | None:
    """The folder of a repository of the model hub, where all that is needed of it was downloaded before."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = [try_to_load_from_cache(repository, name) for name in NEEDED]
    return str(Path(found[0]).parent) if all(isinstance(one, str) for one in found) else None  # type: ignore[arg-type]


def sentence_similarity(place: str = SENTENCES, device: str = "cpu") -> TextSimilarity:
    """By a sentence encoder in the layout of transformers: the mean of the last hidden states of a text's tokens
    (Reimers and Gurevych, 2019, arXiv 1908.10084). `place`: a folder, or a repository of the model hub.

    Raises DivlensError for missing packages, and for files that are not those of an encoder.
    """
    name = f"the sentence encoder {place}"
    configurations, tokenizers, kinds = needed(name, "AutoConfig", "AutoTokenizer", "MODEL_MAPPING")
    config = find_files(place, ["config.json", "tokenizer_config.json"], SENTENCES)["config.json"]
    described, tokenizer = (
        read_parts(place, f"a {what} of transformers", SENTENCES, partial(auto.from_pretrained, place))
        for what, auto in (("configuration", configurations), ("tokenizer", tokenizers))
    )
    if (kind := kinds.get(type(described), None)) is None:
        raise DivlensError(f"{name} expects an encoder, got a configuration of {described.model_type!r}")
    network = network_from(kind, place, config, SENTENCES).to(device)

    @torch.inference_mode()
    def vectors(texts: Sequence[str]) -> Float[Tensor, "texts d"]:
        with one_line(f"{name} expects a network that works as it is configured"):
            read = tokenizer(list(texts), padding=True, truncation=True, max_length=AT_ONCE, return_tensors="pt")
            states: Any = network(**read.to(network.device)).last_hidden_state
            seen = read["attention_mask"][..., None]
            return (states * seen).sum(1) / seen.sum(1)

    return TextSimilarity(name, vectors)


def model_similarity(model: str | Model) -> TextSimilarity:
    """By the text encoder of a model: the mean of what it makes of a text, less what it makes of any prompt, which is
    the mean over its calibration prompts. Without that all texts are alike to a text encoder (Mu and Viswanath, 2018).

    On zoo/mim wordings of one meaning have .90 to .99, a wording that names one attribute more has .57 to .92, and one
    of another thing -.46 to .44.
    """
    loaded = loaded_model(model)
    name = f"the text encoder of {loaded.name}"

    def raw(texts: Sequence[str]) -> Float[Tensor, "texts d"]:
        found = conditions_of(loaded, texts)
        if not found.is_floating_point():
            raise DivlensError(
                f"{loaded.name} reads prompts by its language model and has no text encoder: name a sentence encoder"
            )
        return found.double().flatten(1, -2).mean(1) if found.ndim > 2 else found.double()

    prompts = calibration_prompts_of(loaded)
    shared = raw(prompts[:: math.ceil(len(prompts) / AT_MOST)]).mean(0)

    def vectors(texts: Sequence[str]) -> Float[Tensor, "texts d"]:
        return raw(texts) - shared

    return TextSimilarity(name, vectors)
