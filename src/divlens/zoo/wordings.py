"""Captions of EmojiStyles: Unicode names and keywords in templates; a set of templates is held out for the test.

A style is never named. Every wording holds the whole name, so that it has one meaning.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from divlens.models.zoo.lexicon import split_words
from divlens.models.zoo.text import Vocabulary

TRAINING = (
    "{name}",
    "{name} icon",
    "a {name}",
    "a picture of a {name}",
    "an image of the {name}",
    "{name}, {k}",
    "{name}, {k}, {k}",
    "{k}, {name}",
    "{k}, {k}, {name}",
    "{k} {name}",
    "{name} emoji",
    "a simple drawing of a {name}",
    "an emoji that shows {name}",
    "the {name} on a white background",
    "a drawing of one {name} with {k} and {k}",
    "a small clean icon that shows a {name} on a plain white background",
    "a colorful illustration of {name}, {k}, {k}, {k}",
    "a colorful picture that shows the {name} on a plain background, {k}, {k}",
)
HELD_OUT = (
    "the {name}",
    "one small {name}",
    "picture of {name}, {k}",
    "a colorful {name} icon",
    "{k}, {name} drawing",
    "a simple image that shows the {name}",
    "a clean illustration of the {name}, {k} and {k}",
    "an emoji drawing of one {name} on a plain white background, {k}",
)


def usable_keywords(name: str, keywords: Sequence[str]) -> list[str]:
    """Keywords that are plain words and no part of the name."""
    known = set(split_words(name))
    return [k for k in keywords if re.fullmatch(r"[a-z][a-z ]*", k) and not set(split_words(k)) <= known] or ["emoji"]


def fill(template: str, name: str, keywords: Sequence[str], generator: random.Random) -> str:
    """A template with the name and distinct random keywords in place."""
    count = template.count("{k}")
    chosen = generator.sample(list(keywords), min(count, len(keywords)))
    chosen += generator.choices(list(keywords), k=count - len(chosen))
    for keyword in chosen:
        template = template.replace("{k}", keyword, 1)
    return template.format(name=name.lower())


def held_out_wordings(name: str, keywords: Sequence[str]) -> list[str]:
    """Eight wordings of a concept whose templates no generator was trained on."""
    generator = random.Random(name)
    return [fill(template, name, usable_keywords(name, keywords), generator) for template in HELD_OUT]


def vocabulary_of(words: Mapping[str, Sequence[str]]) -> Vocabulary:
    """All words of names, keywords and templates, sorted."""
    found: set[str] = set()
    for name, keywords in words.items():
        for text in (name, *usable_keywords(name, keywords)):
            found.update(split_words(text))
    for template in (*TRAINING, *HELD_OUT):
        found.update(split_words(template.replace("{name}", "").replace("{k}", "")))
    return Vocabulary(tuple(sorted(found)))
