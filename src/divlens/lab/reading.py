"""From a caption back to what it names: the inverse of `captions.write`.

A colour is said of the background only ("green background"), a style with the word "style", and a size right before the
concept; so "a green apple" is refused and not read as an apple on green.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

from divlens.errors import DivlensError
from divlens.lab.attributes import ATTRIBUTES, BACKGROUND, CONCEPT, SIZE, STYLE
from divlens.lab.captions import NAMING, filler_words
from divlens.lab.meanings import Meaning

if TYPE_CHECKING:
    from divlens.types import Prompt

FOLLOWED_BY = {BACKGROUND: ("background", "backdrop"), STYLE: ("style",)}


@cache
def phrases() -> dict[str, list[tuple[list[str], tuple[int, int]]]]:
    """By first word, the words of every value that is ever named, and (attribute, value).

    The longest come first, so that "top left" is not "top".
    """
    found: dict[str, list[tuple[list[str], tuple[int, int]]]] = {}
    for attribute in NAMING:
        for value, text in enumerate(ATTRIBUTES[attribute].values):
            words = text.split()
            found.setdefault(words[0], []).append((words, (attribute, value)))
    return {first: sorted(rest, key=lambda item: -len(item[0])) for first, rest in found.items()}


def all_read(prompts: Iterable[Prompt]) -> bool:
    """Whether the laboratory can read every one of them."""
    return all(first_read((prompt.text, *prompt.paraphrases)) is not None for prompt in prompts)


def read(caption: str) -> Meaning:
    """What a caption of the lab's grammar names.

    Raises DivlensError for another word, for two values of one attribute, for none of the concept, and for a colour,
    a style or a size that does not stand where the grammar has it.
    """
    words = re.findall(r"[^\W_]+", caption.lower())
    values: list[int | None] = [None] * len(ATTRIBUTES)
    place = 0
    while place < len(words):
        length, found = phrase_at(words, place)
        if found is None and words[place] not in filler_words():
            raise DivlensError(f"expected words of the lab's captions, got {words[place]!r} in {caption!r}")
        if found is not None:
            attribute, value = found
            if values[attribute] is not None:
                raise DivlensError(f"expected one {ATTRIBUTES[attribute].name}, got two in {caption!r}")
            check_follower(attribute, words, place, length, caption)
            values[attribute] = value
        place += length
    if values[CONCEPT] is None:
        raise DivlensError(f"expected the name of a concept, got none in {caption!r}")
    return Meaning(tuple(values))


def first_read(captions: Iterable[str]) -> Meaning | None:
    """What the first of some captions names that can be read; None where none can."""
    for caption in captions:
        with suppress(DivlensError):
            return read(caption)
    return None


def phrase_at(words: list[str], place: int) -> tuple[int, tuple[int, int] | None]:
    """How many words the phrase at this place has, and which value of which attribute it names."""
    for phrase, found in phrases().get(words[place], []) if place < len(words) else []:
        if words[place : place + len(phrase)] == phrase:
            return len(phrase), found
    return 1, None


def check_follower(attribute: int, words: list[str], place: int, length: int, caption: str) -> None:
    word, after = words[place], words[place + length : place + length + 1]
    if attribute in FOLLOWED_BY and not set(after) & set(FOLLOWED_BY[attribute]):
        expected = " or ".join(FOLLOWED_BY[attribute])
        raise DivlensError(f"{ATTRIBUTES[attribute].name} {word!r} expects {expected} after it, in {caption!r}")
    if attribute == SIZE:
        _, found = phrase_at(words, place + length)
        if found is None or found[0] != CONCEPT:
            raise DivlensError(f"size {word!r} expects the concept after it, in {caption!r}")
