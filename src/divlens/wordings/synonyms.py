"""Synonyms that look the same in a picture: a lexicon in the package, so that nothing is downloaded.

WordNet is of no use here. The first sense of "heart" gives "bosom", that of "rocket" "projectile", that of "cat" "true
cat", that of "car" "machine" and that of "bicycle" "wheel". So the words below are few, and read by hand: each group
names one thing for speakers of any English, and a word that is common in another sense ("plane", "fall", "purse") is in
none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from divlens.wordings.meaning import COLOURS, COUNTS, LIGHT, NEGATIONS

NOUNS = """
    sofa couch
    car automobile
    airplane aeroplane
    bicycle bike
    motorcycle motorbike
    truck lorry
    taxi cab
    photo photograph
    television tv
    telephone phone
    refrigerator fridge
    bookshelf/bookshelves bookcase
    rug carpet
    bucket pail
    sweater pullover
    eyeglasses/eyeglasses spectacles/spectacles
    doughnut donut
    hamburger burger
    eggplant aubergine
    zucchini courgette
    store shop
    pharmacy drugstore
    cemetery graveyard
    creek brook
    violin fiddle
    jewel gem
    gift present
    kid child/children
    grandmother grandma
    grandfather grandpa
    doctor physician
    lawyer attorney
    rabbit bunny
    kitten kitty
    puppy pup
    pig hog
    rooster cockerel
    seagull gull
    ladybug ladybird
    rhino rhinoceros
    hippo hippopotamus
    chimp chimpanzee
    dusk twilight
    dawn daybreak
    sunset sundown
    blizzard snowstorm
"""
ADJECTIVES = """
    small little
    big large
    huge enormous
    beautiful lovely
    happy cheerful
    sad unhappy
    scared frightened
    scary frightening
    spooky eerie
    funny comical
    cute adorable
    cozy cosy
    calm tranquil
    shiny glossy
    slim slender
    tasty delicious
    mysterious enigmatic
    elegant graceful
    colorful colourful
    foggy misty
"""
# Two words that are a name together.
NAMES = {
    *("big cat", "big cats", "big top", "big wheel", "big bang", "big brother", "big sister", "little finger"),
    *("little sister", "little brother", "little bit", "little prince", "little mermaid", "funny bone"),
    *("happy birthday", "happy new"),
}
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


@dataclass(frozen=True)
class Swap:
    """The word at text[start:end], and those that may stand in its place."""

    start: int
    end: int
    others: tuple[str, ...]


def plural(noun: str) -> str:
    """Of a regular noun."""
    if re.search(r"[^aeiou]y$", noun):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if re.search(r"(s|x|z|ch|sh)$", noun) else f"{noun}s"


def others_by_word(groups: list[list[str]]) -> dict[str, tuple[str, ...]]:
    return {word: tuple(other for other in group if other != word) for group in groups for word in group}


def lines_of_words(lines: str) -> list[list[str]]:
    return [line.split() for line in lines.strip().splitlines()]


def synonyms_of_nouns() -> dict[str, tuple[str, ...]]:
    """By noun, the plurals among themselves; "one/many" gives an irregular plural."""
    forms = [[entry.partition("/") for entry in line] for line in lines_of_words(NOUNS)]
    one = [[single for single, _, _ in line] for line in forms]
    many = [[irregular or plural(single) for single, _, irregular in line] for line in forms]
    return {**others_by_word(many), **others_by_word(one)}


OF_NOUNS, OF_ADJECTIVES = synonyms_of_nouns(), others_by_word(lines_of_words(ADJECTIVES))
OTHERS = ("one", "old", "under", "behind", "beside", "near", "inside")
CLOSING = {*LIGHT, *NEGATIONS, *COUNTS, *OTHERS}  # before one of these a phrase is whole
# Before a noun they make no compound with it, as "cable" in "cable car" does.
OPEN = CLOSING | COLOURS.keys() | OF_ADJECTIVES.keys()


def swaps(text: str) -> list[Swap]:
    """The words of a text that have synonyms where they stand.

    A noun is changed where it ends its phrase and what comes before makes no compound with it; an adjective where a
    word follows that it may belong to. Capitals within a text are taken for names and left as they are.
    """
    found = list(WORD.finditer(text))
    words = [match[0].lower() for match in found]

    def joined(place: int) -> str | None:
        """The next word as it is written, where only a blank is between."""
        if place + 1 < len(found) and text[found[place].end() : found[place + 1].start()] == " ":
            return found[place + 1][0]
        return None

    changed = []
    for place, match in enumerate(found):
        word, after = words[place], joined(place)
        before = words[place - 1] if place and joined(place - 1) is not None else None
        if match[0] not in ((word,) if place else (word, word.capitalize())):
            continue
        others: tuple[str, ...] = ()
        if word in OF_ADJECTIVES and after and starts_a_noun(after) and f"{word} {after}" not in NAMES:
            others = OF_ADJECTIVES[word]
        elif word in OF_NOUNS and (after is None or after in CLOSING) and (before is None or before in OPEN):
            others = OF_NOUNS[word]
        if others:
            written = others if match[0] == word else tuple(other.capitalize() for other in others)
            changed.append(Swap(match.start(), match.end(), written))
    return changed


def starts_a_noun(word: str) -> bool:
    return word == word.lower() and word not in CLOSING


def swapped(text: str, swap: Swap, other: str) -> str:
    """The text with a word in another's place, and "a" or "an" before it as that wants it."""
    article = f"{'an' if other[0] in 'aeiou' else 'a'} "
    before = re.sub(r"(?<!\w)an? $", article, text[: swap.start])
    before = re.sub(r"(?<!\w)An? $", article.capitalize(), before)
    return f"{before}{other}{text[swap.end :]}"
