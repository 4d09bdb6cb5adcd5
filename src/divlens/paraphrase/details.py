"""What a prompt for a picture usually leaves open, and words that fill it in: where, in what light, from where it is
seen, and as what kind of picture. English, and a rule of thumb on the safe side: what may be named is left alone."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from divlens.paraphrase import KINDS_OF_PICTURE


@dataclass(frozen=True)
class Aspect:
    """`named`: finds the words by which a prompt says it itself. `values`: what may be said, each as likely as the
    others."""

    name: str
    named: re.Pattern[str]
    values: tuple[str, ...]


def words(listed: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(listed.split())})\b", re.IGNORECASE)


# In the order in which they are said.
ASPECTS = (
    Aspect(
        "setting",
        words(
            "in on at by near under over above below behind beside beneath inside outside between among against "
            "through across along around background indoors? outdoors? landscape interior city street room forest "
            "beach sea sky garden mountains? meadow field bedroom kitchen bathroom lake river underwater space desert"
        ),
        (
            "on a plain background",
            "in a forest",
            "in a city street",
            "by the sea",
            "in a garden",
            "in a room",
            "in the mountains",
            "in a meadow",
        ),
    ),
    Aspect(
        "light",
        words(
            "sun sunny sunlit sunlight sunrise sunset sundown dawn dusk noon midday morning evening afternoon night "
            "day daylight twilight moon moonlit moonlight light lights lit lighting dark darkness bright shadows? "
            "backlit neon overcast cloudy clouds stars starry fog foggy mist misty storm stormy rain rainy snow "
            "snowy golden"
        ),
        (
            "at sunrise",
            "at noon",
            "at dusk",
            "at night",
            "in soft light",
            "under an overcast sky",
        ),
    ),
    Aspect(
        "view",
        words(
            "view close-?up macro wide aerial seen from portrait profile panorama overhead angle perspective isometric"
        ),
        (
            "close-up",
            "seen from above",
            "seen from below",
            "seen from far away",
            "seen from the side",
            "seen from the front",
        ),
    ),
    Aspect(
        "kind of picture",
        re.compile(
            rf"{KINDS_OF_PICTURE.pattern}|\b(?:3d|anime|manga|pixel|claymation|vector|model|toy)\b", re.IGNORECASE
        ),
        (
            "photo",
            "oil painting",
            "watercolour",
            "pencil drawing",
            "flat illustration",
            "3D render",
            "ink drawing",
            "children's book illustration",
        ),
    ),
)


def open_aspects(text: str) -> tuple[Aspect, ...]:
    """What a prompt does not say."""
    return tuple(aspect for aspect in ASPECTS if not aspect.named.search(text))


def filled_in(text: str, count: int, seed: int, details: int | None = None) -> tuple[str, ...]:
    """`count` wordings, each of which says `details` of the open aspects, or all where there are no more. Which ones
    and with which values is random, and fixed by seed and text; each value comes out as often as any other of its
    aspect, give or take one. A text that says everything, and one without a word, is all that there is."""
    left = open_aspects(text)
    if not left or not re.search(r"\w", text):
        return (text,)
    generator = random.Random(f"{seed}/{text}")
    taken = min(len(left) if details is None else details, len(left))
    turns = [evenly(aspect.values, generator) for aspect in left]
    start = re.sub(r"\s*[.,;:!?]+$", "", text)
    found = []
    for _ in range(count):
        chosen = sorted(generator.sample(range(len(left)), taken))
        found.append(", ".join((start, *(next(turns[place]) for place in chosen))))
    return tuple(found)


def evenly(values: Sequence[str], generator: random.Random) -> Iterator[str]:
    """All values in random order, again and again."""
    while True:
        yield from generator.sample(values, len(values))
