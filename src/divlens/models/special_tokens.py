"""The text of a prompt is text: a wording that would reach a model as a special token of its tokenizer is refused.

A tokenizer turns "<|endoftext|>" in a text into the token itself. The references let that pass: a prompt then ends a
text, begins a picture or holds a piece of one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from divlens.errors import DivlensError

BRACKETED = re.compile(r"\s*(<.+>|\[.+\])\s*")  # what added tokens look like that stand for no text


def special_tokens(tokenizer: Any) -> Mapping[int, str]:
    """Tokens that stand for no text, by id: the special ones, and those that were added and look like them.

    Other added tokens are text that was merely given a place of its own in the vocabulary, such as a letter.
    """
    named = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=False))
    added = {
        number: token.content
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special or BRACKETED.fullmatch(token.content)
    }
    # Some tokenizers pad with a character that a text may hold, such as "!".
    return {number: token for number, token in (named | added).items() if len(token) > 1}


def refuse_special_tokens(name: str, tokenizer: Any, wordings: Sequence[str]) -> None:
    """Raises DivlensError for the first wording in which the tokenizer reads a special token, and names that."""
    special, unknown = special_tokens(tokenizer), tokenizer.unk_token_id
    rows = tokenizer(list(wordings), add_special_tokens=False, verbose=False).input_ids
    for wording, row in zip(wordings, rows, strict=True):
        for number in row:
            # What is not in the vocabulary becomes the token for that, which is special, and is text all the same.
            if number in special and (number != unknown or special[number].casefold() in wording.casefold()):
                raise DivlensError(
                    f"{name} expects a text, got the special token {special[number]!r} in {wording[:60]!r}"
                )
