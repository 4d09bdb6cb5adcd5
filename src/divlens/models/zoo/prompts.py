"""Prompts of the laboratory, with other wordings that name the same: those that ship with the zoo, and any other."""

from __future__ import annotations

from divlens.lab.attributes import CONCEPT
from divlens.lab.captions import neutral_wordings
from divlens.models.zoo.lexicon import meaning_of
from divlens.types import Prompt

# Of mixed detail, however few of the first are taken: bare names, which leave all else open, and others in turn.
TEXTS = (
    "rocket",
    "fox, blue background",
    "heart",
    "small guitar, top left",
    "sunflower",
    "penguin, flat style",
    "hamburger",
    "cat, right, pink background",
    "crown",
    "large mushroom",
    "rainbow",
    "small umbrella, bottom, green background",
    "doughnut",
    "key, white background, glossy style",
    "pineapple",
    "sailboat, center",
    "trophy",
    "large ladybug, orange background",
    "panda",
    "small car, bottom right",
    "cactus",
    "tulip, vintage style",
    "pumpkin",
    "watermelon, left, purple background",
)


def prompt_of(text: str) -> Prompt | None:
    """The text with every neutral wording of what it names, and with the concept; None where the laboratory cannot
    read it."""
    meaning = meaning_of(text)
    if meaning is None:
        return None
    others = tuple(wording for wording in neutral_wordings(meaning) if wording != text)
    return Prompt(text, others, meaning.word(CONCEPT))


def default_prompts() -> tuple[Prompt, ...]:
    """24 prompts for what the zoo draws, of mixed detail, each with paraphrases of mixed length."""
    return tuple(filter(None, map(prompt_of, TEXTS)))
