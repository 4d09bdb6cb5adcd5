"""Words to ids: the zoo reads lower-case words, at most `WORDS` of them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import torch
from jaxtyping import Int
from torch import Tensor

from divlens.models.zoo.networks import WORDS
from divlens.types import DivlensError

PADDING, UNKNOWN = 0, 1


def split_words(text: str) -> list[str]:
    """Lower-case words and numbers of a wording, accents removed."""
    plain = unicodedata.normalize("NFKD", text.lower().replace("’", "'")).encode("ascii", "ignore").decode()
    return re.findall(r"[a-z0-9]+", plain.replace("'", ""))


@dataclass(frozen=True)
class Vocabulary:
    """The words a zoo generator knows; id 0 is padding, id 1 any other word."""

    words: tuple[str, ...]

    @classmethod
    def packaged(cls) -> Vocabulary:
        text = files("divlens.models.zoo").joinpath("assets/vocabulary.txt").read_text()
        return cls(tuple(text.split()))

    def __len__(self) -> int:
        return len(self.words) + 2

    def ids(self, wordings: Sequence[str]) -> Int[Tensor, "wordings words"]:
        """int64 (wordings, WORDS). A wording that is too long is an error, never cut in silence."""
        index = {word: i + 2 for i, word in enumerate(self.words)}
        table = torch.zeros(len(wordings), WORDS, dtype=torch.long)
        for row, wording in enumerate(wordings):
            words = split_words(wording)
            if not words:
                raise DivlensError(f"expected a prompt with at least one word, got {wording!r}")
            if len(words) > WORDS:
                raise DivlensError(f"the zoo reads prompts of up to {WORDS} words, got {len(words)}: {wording[:60]!r}")
            table[row, : len(words)] = torch.tensor([index.get(word, UNKNOWN) for word in words])
        return table
