"""Captions of scenes: what they name, and with which words; some templates are kept for the test.

A caption names the concept, and each of style, background, size and place with its own probability, whatever their
values and independently. It never names the mirror. So the law of a scene given its caption is uniform over the scenes
that agree with what is named, whatever the template (`law.py`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Int

from divlens.errors import DivlensError
from divlens.lab.attributes import ATTRIBUTES, BACKGROUND, CONCEPT, PLACE, SIZE, STYLE
from divlens.lab.meanings import Meaning, article, needs_article
from divlens.types import Prompt

NAMING: Mapping[int, float] = {CONCEPT: 1.0, STYLE: 0.3, BACKGROUND: 0.5, SIZE: 0.4, PLACE: 0.4}
LENGTHS = ("short", "medium", "long")
SLOTS = {"style": STYLE, "background": BACKGROUND, "place": PLACE}


@dataclass(frozen=True)
class Template:
    """{name} is the concept with its size, {thing} the same with an article; what stands in [brackets] falls away with
    the attribute that it names; {a} is the article of the word that follows."""

    length: str
    text: str


TRAINING: tuple[Template, ...] = (
    Template("short", "{name}[, {place}][, {background} background][, {style} style]"),
    Template("short", "[{style} style, ][{background} background, ]{name}[, {place}]"),
    Template("short", "{name}[ at the {place}][ on {background} background][ in {style} style]"),
    Template("short", "{thing}[ on {a} {background} background][, {style} style][, {place}]"),
    Template("medium", "a picture of {thing}[ at the {place}][ on {a} {background} background][ in {style} style]"),
    Template("medium", "an image of {thing}[ in {style} style][ on {a} {background} backdrop][ at the {place}]"),
    Template("medium", "an emoji that shows {thing}[, {background} background][, {style} style][, at the {place}]"),
    Template("medium", "[on {a} {background} background, ]a drawing of {thing}[ in {style} style][ at the {place}]"),
    Template("medium", "a simple icon of {thing}[ at the {place}][, {style} style][, {background} backdrop]"),
    Template(
        "long",
        "a simple picture that shows {thing}[, placed at the {place}][, in front of {a} {background} background]"
        "[, in {style} style]",
    ),
    Template(
        "long",
        "in this clean image there is just {thing}[ at the {place}][ before {a} {background} backdrop]"
        "[, {style} style]",
    ),
    Template(
        "long",
        "one clear drawing[ in the {style} style] of {thing} and nothing else[, on {a} {background} background]"
        "[, at the {place}]",
    ),
)
HELD_OUT: tuple[Template, ...] = (
    Template("short", "{name}[, {style} style][, {place}][, {background} backdrop]"),
    Template("short", "[{background} background, ]{thing}[ in {style} style][ at the {place}]"),
    Template(
        "medium", "a drawing that shows {thing}[ on {a} {background} background][ at the {place}][, {style} style]"
    ),
    Template("medium", "[in {style} style, ]an icon of {thing}[ at the {place}][ before {a} {background} backdrop]"),
    Template(
        "long",
        "this is a clear and simple image of {thing}[, in front of {a} {background} backdrop][, at the {place}]"
        "[, {style} style]",
    ),
    Template(
        "long",
        "there is nothing else in this picture, one emoji of {thing}[ in {style} style][, {place}]"
        "[, {background} background]",
    ),
)


def write(meaning: Meaning, template: Template) -> str:
    """The caption. Raises DivlensError for a meaning without a concept, or with a mirror, which has no word."""
    concept, size = meaning.word(CONCEPT), meaning.word(SIZE)
    if concept is None or set(meaning.named) - set(NAMING):
        names = [ATTRIBUTES[i].name for i in meaning.named]
        raise DivlensError(f"a caption names the concept and not the mirror, got {', '.join(names) or 'nothing'}")
    name = concept if size is None else f"{size} {concept}"
    words = {slot: meaning.word(attribute) for slot, attribute in SLOTS.items()}

    def kept(part: re.Match[str]) -> str:
        said = all(words[slot] is not None for slot in SLOTS if f"{{{slot}}}" in part[1])
        return part[1] if said else ""

    text = re.sub(r"\[([^\]]*)\]", kept, template.text)
    thing = f"{article(name)} {name}" if needs_article(meaning) else name
    background = words["background"] or ""
    return text.format(name=name, thing=thing, a=article(background or "a"), **words)


def draw_captions(
    scenes: Int[np.ndarray, "n attributes"],
    generator: np.random.Generator,
    templates: Sequence[Template] = TRAINING,
    naming: Mapping[int, float] = NAMING,
) -> list[str]:
    """A caption of each scene: what it names is drawn by `naming`, then a template, uniformly."""
    chance = np.array([naming.get(i, 0.0) for i in range(len(ATTRIBUTES))])
    said = generator.random(scenes.shape) < chance
    chosen = generator.integers(len(templates), size=len(scenes))
    return [
        write(Meaning(tuple(int(v) if s else None for v, s in zip(row, flags, strict=True))), templates[place])
        for row, flags, place in zip(scenes, said, chosen, strict=True)
    ]


def neutral_wordings(meaning: Meaning, *, held_out: bool = False, lengths: Sequence[str] = LENGTHS) -> tuple[str, ...]:
    """Every wording that names exactly this, of the given lengths, each once, in the order of the templates."""
    if unknown := set(lengths) - set(LENGTHS):
        raise DivlensError(f"lengths are {', '.join(LENGTHS)}; got {', '.join(map(str, unknown))}")
    templates = HELD_OUT if held_out else TRAINING
    return tuple(dict.fromkeys(write(meaning, t) for t in templates if t.length in lengths))


def detailed_meanings(meaning: Meaning, count: int, seed: int, details: int | None = None) -> tuple[Meaning, ...]:
    """`count` meanings that name `details` attributes more, or all that there are words for; which ones and their
    values are drawn uniformly. Raises DivlensError when fewer are left."""
    left = [attribute for attribute in NAMING if attribute not in meaning.named]
    details = len(left) if details is None else details
    if not 0 < details <= len(left):
        raise DivlensError(f"details expect 1 to {len(left)}, what the prompt leaves open, got {details}")
    generator = random.Random(f"{seed}/{meaning.values}")
    found = []
    for _ in range(count):
        detailed = meaning
        for attribute in generator.sample(left, details):
            detailed = detailed.saying(attribute, generator.randrange(len(ATTRIBUTES[attribute])))
        found.append(detailed)
    return tuple(found)


def detailed_wordings(
    meaning: Meaning, count: int, seed: int, details: int | None = None, *, held_out: bool = False
) -> tuple[str, ...]:
    """`count` wordings of `detailed_meanings`, each by a template that is drawn uniformly."""
    templates = HELD_OUT if held_out else TRAINING
    generator = random.Random(f"{seed}/{meaning.values}/templates")
    return tuple(write(m, generator.choice(templates)) for m in detailed_meanings(meaning, count, seed, details))


def as_prompt(meaning: Meaning, paraphrases: Sequence[str] = ()) -> Prompt:
    """The shortest wording as a prompt, the concept's name as what the judge should find."""
    return Prompt(write(meaning, TRAINING[0]), tuple(paraphrases), meaning.word(CONCEPT))


@cache
def filler_words() -> frozenset[str]:
    """Words of the templates that name nothing."""
    texts = [re.sub(r"\{[a-z]+\}", " ", template.text) for template in (*TRAINING, *HELD_OUT)]
    return frozenset(re.findall(r"[a-z]+", " ".join(texts))) | {"a", "an"}


def vocabulary() -> tuple[str, ...]:
    """Every word of every caption, sorted."""
    named = " ".join(value for attribute in NAMING for value in ATTRIBUTES[attribute].values)
    return tuple(sorted(filler_words() | set(re.findall(r"[a-z]+", named))))
