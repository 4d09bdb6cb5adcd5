"""Whether a wording means what a prompt means, as far as single words tell: negations, counts, colours and places.

English, and a rule of thumb on the safe side: what cannot be told to be the same is rejected, so some good wordings go,
such as "hatless" for "without a hat".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WORD = re.compile(r"\d+|[^\W\d_]+(?:['’][^\W\d_]+)?")


def each(groups: str) -> dict[str, str]:
    """Words of several groups, a line each, and the first word of the group that each belongs to."""
    return {word: words[0] for words in map(str.split, groups.splitlines()) for word in words}


NEGATIONS = set(each("no not without never none nothing nobody neither nor lacking minus sans"))
COUNTS = each(
    """2 two pair couple both
    3 three trio
    4 four
    5 five
    6 six
    7 seven
    8 eight
    9 nine
    10 ten
    11 eleven
    12 twelve dozen
    several many some few"""
)
COLOURS = each(
    """red
    blue
    green
    yellow
    black
    white
    brown
    pink
    gold golden
    silver
    cyan
    beige
    turquoise
    teal
    orange
    grey gray
    purple violet
    magenta
    maroon
    crimson
    scarlet
    navy
    olive
    lilac
    ivory"""
)
PLACES = each(
    """left
    right
    above over
    below under beneath underneath
    behind
    front
    beside next near
    between
    inside within
    outside
    top
    bottom
    middle centre center
    corner"""
)
KINDS = {"count": COUNTS, "colour": COLOURS, "place": PLACES}
# They carry no meaning of their own between a negation and what it is said of.
LIGHT = set(
    each(
        """a an the any this that these those of in on at to with and or is are was were be being it its there here
        which who has have having wearing picture pictures image images shows show shown seen photo following
        description what can as by from for all"""
    )
)


@dataclass(frozen=True)
class Said:
    """A negation, count, colour or place, and what it is said of: for a place what comes before it, too."""

    kind: str
    what: str
    of: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.what, *(f"({word})" for word in self.of if word)))


def words_of(text: str) -> list[str]:
    """Lower case; "isn't" is "is", "not"."""
    found: list[str] = []
    for word in WORD.findall(text.lower().replace("’", "'")):
        found += [word[:-3], "not"] if word.endswith("n't") else [word.removesuffix("'s")]
    return found


def stem(word: str) -> str:
    """Without the ending of a plural, roughly."""
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def is_content(word: str) -> bool:
    """Whether it may be what something is said of."""
    return not (
        word in LIGHT or word in NEGATIONS or word.isdecimal() or any(word in known for known in KINDS.values())
    )


def said_in(text: str, shared: set[str]) -> Iterator[Said]:
    """What a text says that must not change. `shared`: the content words, as stems, that both texts have: by these it
    is told what something is said of, so that a synonym of another word does no harm."""
    words = words_of(text)

    def nearest(places: Sequence[int]) -> str:
        return next((stem(words[place]) for place in places if stem(words[place]) in shared), "")

    for place, word in enumerate(words):
        after, before = range(place + 1, len(words)), range(place - 1, -1, -1)
        if word in NEGATIONS:
            of = next((stem(words[i]) for i in after if words[i] not in LIGHT), "")
            yield Said("negation", "no", (of,))
        elif word.isdecimal() or word in COUNTS:
            if word != "1":
                yield Said("count", COUNTS.get(word, word), (nearest(after) or nearest(before),))
        elif word in COLOURS:
            yield Said("colour", COLOURS[word], (nearest(after) or nearest(before),))
        elif word in PLACES:
            yield Said("place", PLACES[word], (nearest(before), nearest(after)))


def why_different(text: str, wording: str) -> str | None:
    """What of a prompt a wording changes, in a few words; None where nothing is seen to change."""
    ours, theirs = ({word for word in words_of(one) if is_content(word)} for one in (text, wording))
    shared = {stem(word) for word in ours} & {stem(word) for word in theirs}
    before, after = (Counter(said_in(one, shared)) for one in (text, wording))
    for kind in ("negation", *KINDS):
        lost, new = ([str(said) for said in some if said.kind == kind] for some in (before - after, after - before))
        if lost or new:
            return f"{kind}: {', '.join(lost) or 'none'} became {', '.join(new) or 'none'}"
    for one in sorted(shared):
        forms = [{word for word in words if stem(word) == one} for words in (ours, theirs)]
        if not forms[0] & forms[1]:
            return f"count: {' '.join(sorted(forms[0]))} became {' '.join(sorted(forms[1]))}"
    return None
