"""LlamaGen's text encoder: T5, one caption at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from divlens.errors import DivlensError
from divlens.models.building import network_from
from divlens.models.llamagen.captions import clean_caption
from divlens.models.loading import Options, find_files, needed, read_parts

OTHER_HALF = ("decoder.", "lm_head.")  # of the T5 that the published files hold whole


@dataclass(frozen=True)
class CaptionEncoder:
    """tokenizer: T5's. network: a `transformers.T5EncoderModel`."""

    tokenizer: Any
    network: Any

    @property
    def width(self) -> int:
        return self.network.config.d_model

    def ids(self, caption: str, limit: int | None = None) -> list[int]:
        """Tokens of a caption once it is cleaned, the end mark included; cut to `limit`, the end mark kept.

        Raises DivlensError when the cleaning leaves nothing: the model would draw as if nothing had been asked.
        """
        text = clean_caption(caption)
        if not text:
            raise DivlensError(
                f"LlamaGen expects words in Latin script or the like, got {caption[:40]!r}, of which its caption "
                "cleaning leaves nothing"
            )
        cut = {} if limit is None else {"truncation": True, "max_length": limit}
        return self.tokenizer(text, verbose=False, **cut)["input_ids"]

    def features(self, caption: str, limit: int) -> Float[Tensor, "length d"]:
        """One caption alone and without padding: the others of a batch cannot change what comes out."""
        ids = torch.tensor([self.ids(caption, limit)], device=self.network.device)
        return self.network(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]


def text_from(place: str, options: Options) -> CaptionEncoder:
    """The text encoder in a folder or a repository on the model hub.

    Raises DivlensError for missing files, and names tensors that are missing or of another shape. A decoder may be
    there and is not read.
    """
    tokenizer_kind, network_kind = needed("llamagen", "AutoTokenizer", "T5EncoderModel")
    source = "a T5 text encoder with its tokenizer"
    config = find_files(place, ["config.json"], source)["config.json"]
    tokenizer = read_parts(
        # Without the last argument, a tokenizer with code of its own would make transformers ask at the terminal.
        place,
        "the files of a T5 tokenizer",
        source,
        lambda: tokenizer_kind.from_pretrained(place, trust_remote_code=False),
    )
    network = options.place(network_from(network_kind, place, config, source, ignored=OTHER_HALF))
    if options.dtype == "float16":
        for name, module in network.named_modules():
            if name.endswith(".wo"):
                module.float()  # these layers' outputs go beyond float16
    return CaptionEncoder(tokenizer, network)
