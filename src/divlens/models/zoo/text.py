"""Words to ids: the zoo reads words that it knows, at most `WORDS` of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from divlens.errors import DivlensError
from divlens.lab.captions import vocabulary
from divlens.models.zoo.lexicon import FRAME, near, split_words
from divlens.models.zoo.networks import WORDS

PADDING, UNKNOWN = 0, 1


@dataclass(frozen=True)
class Vocabulary:
    """The words a zoo generator knows, those of the laboratory's captions; id 0 is padding, id 1 any other word."""

    words: tuple[str, ...] = field(default_factory=vocabulary)

    def __len__(self) -> int:
        return len(self.words) + 2

    def unknown(self, wording: str) -> tuple[str, ...]:
        """The words of a wording that are not known, each once; all of them have the same id."""
        known = set(self.words)
        return tuple(dict.fromkeys(word for word in split_words(wording) if word not in known))

    def ids(self, wordings: Sequence[str]) -> Int[Tensor, "wordings words"]:
        """int64 (wordings, WORDS).

        Raises DivlensError for a wording that is too long, which is never cut in silence, and for one of whose unknown
        words nothing known is left, but for words that say nothing of what is asked for (`FRAME`).
        """
        index = {word: i + 2 for i, word in enumerate(self.words)}
        table = torch.zeros(len(wordings), WORDS, dtype=torch.long)
        for row, wording in enumerate(wordings):
            words = split_words(wording)
            if not words:
                raise DivlensError(f"expected a prompt with at least one word, got {wording!r}")
            if len(words) > WORDS:
                raise DivlensError(f"the zoo reads prompts of up to {WORDS} words, got {len(words)}: {wording[:60]!r}")
            ids = torch.tensor([index.get(word, UNKNOWN) for word in words])
            if UNKNOWN in ids and not any(word in index and word not in FRAME for word in words):
                raise DivlensError(self.refusal(wording))
            table[row, : len(words)] = ids
        return table

    def refusal(self, wording: str) -> str:
        """What to say of a wording with nothing known in it."""
        unknown = self.unknown(wording)
        close = near(unknown, self.words)
        hint = f"; did you mean {', '.join(close)}?" if close else ";"
        return (
            f"the zoo expects words that it knows, got {wording[:60]!r}: it does not know {', '.join(unknown)}{hint} "
            '"divlens models zoo/ar" lists what it knows'
        )
