"""Where wordings come from: a prompt's own paraphrases, or templates around it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from divlens.types import Prompt

# They say nothing of what is asked for: no colour, size, place, medium or style. The prompt stands at their end, where
# its own punctuation does no harm.
AROUND_A_THING = (
    "picture of {}",
    "a picture of {}",
    "an image of {}",
    "an image that shows {}",
    "this is a picture of {}",
    "what this image shows is {}",
    "the following is a description of what can be seen in this picture: {}",
)
# For a prompt that says itself what kind of picture it is: a picture of a portrait is a portrait on a wall.
AROUND_A_PICTURE = (
    "this is {}",
    "here is {}",
    "this shows {}",
    "here you see {}",
    "what is shown here is {}",
    "what can be seen here is {}",
    "the following is a description of what can be seen here: {}",
)
# For sentences, lists, and all that cannot stand after "of".
AROUND_A_SENTENCE = (
    "picture: {}",
    "a picture: {}",
    "an image of this: {}",
    "a picture that shows: {}",
    "an image that shows the following: {}",
    "what this picture shows is the following: {}",
    "the following is a description of what can be seen in this picture: {}",
)
KINDS_OF_PICTURE = re.compile(
    r"\b(photo|photograph|photography|picture|pic|image|painting|drawing|sketch|portrait|illustration|artwork|art|"
    r"icon|emoji|logo|poster|print|render|rendering|cartoon|comic|collage|mosaic|mural|fresco|engraving|etching|"
    r"watercolou?r|snapshot|selfie|screenshot|shot|close-?up|view|scene|still|wallpaper|clip-?art|sculpture|statue|"
    r"diagram|map|style)s?\b",
    re.IGNORECASE,
)
SENTENCE = re.compile(
    r"[.!?…。]['\"”’)]*(\s|$)|[:;\n]|,.*,|^\W*(draw|paint|show|make|create|generate|imagine|design|render|depict|"
    r"give|please|i|we|you|he|she|it|they|there|if|when|while)\b",
    re.IGNORECASE,
)
LEADING_ARTICLE = re.compile(r"^(?i:an?|the)\s+(?![A-Z])")  # before a capital it is part of a name

Readable = Callable[[str], bool]


def any_text(wording: str) -> bool:
    return True


def templates_around(text: str) -> tuple[str, ...]:
    """Neutral templates that a text fits into, short to long.

    A rule of thumb, by punctuation and single words: sentences, commands and lists follow a colon; what names a kind of
    picture ("a photo of a dog") is not put into a picture again; all else is taken for a thing that can stand after
    "of".
    """
    if SENTENCE.search(text):
        return AROUND_A_SENTENCE
    return AROUND_A_PICTURE if KINDS_OF_PICTURE.search(text) else AROUND_A_THING


def from_templates(text: str, templates: Sequence[str] = ()) -> tuple[str, ...]:
    """The text in each of the templates, or in neutral ones where there are none. An article that began it in capitals
    is written small, but after a colon."""
    small = LEADING_ARTICLE.sub(lambda found: found[0].lower(), text)
    return tuple(
        template.replace("{}", text if template.endswith(": {}") else small)
        for template in templates or templates_around(text)
    )


def wordings_of(prompt: Prompt, readable: Readable = any_text, templates: Sequence[str] = ()) -> tuple[str, ...]:
    """The prompt first, then its paraphrases, or where it has none the templates around it that are readable; no
    repeats. `templates`: the model's own; neutral ones where it has none."""
    others = prompt.paraphrases or tuple(filter(readable, from_templates(prompt.text, templates)))
    return tuple(dict.fromkeys((prompt.text, *others)))


def length(wording: str) -> int:
    """Words of a wording."""
    return len(wording.split())


def similar_in_length(wordings: Sequence[str], text: str, count: int) -> tuple[str, ...]:
    """The `count` wordings whose number of words is nearest to the text's."""
    target = length(text)
    return tuple(sorted(wordings, key=lambda wording: abs(length(wording) - target))[:count])


def shortest(wordings: Sequence[str], count: int) -> tuple[str, ...]:
    """The `count` wordings of the fewest words, the shortest first."""
    return tuple(sorted(wordings, key=length)[:count])


def longest(wordings: Sequence[str], count: int) -> tuple[str, ...]:
    """The `count` wordings of the most words, the longest first."""
    return tuple(sorted(wordings, key=length, reverse=True)[:count])


def mixed_in_length(wordings: Sequence[str], count: int) -> tuple[str, ...]:
    """`count` wordings spread evenly from the shortest to the longest, these two first."""
    by_length = sorted(wordings, key=length)
    if count == 1:
        return (by_length[0],)
    return ends_first([by_length[round(i * (len(by_length) - 1) / (count - 1))] for i in range(count)])


def ends_first(wordings: Sequence[str]) -> tuple[str, ...]:
    """The first, the last, then always the one farthest from those taken: however few samples there are, the lengths
    they get go from the shortest to the longest."""
    taken = [0, len(wordings) - 1]
    while len(taken) < len(wordings):
        left = [i for i in range(len(wordings)) if i not in taken]
        taken.append(max(left, key=lambda i: min(abs(i - j) for j in taken)))
    return tuple(wordings[i] for i in taken)
