"""The built-in source of wordings: determiners, order and synonyms change, and what is said stays the same."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, islice, zip_longest

from divlens.errors import check_whole
from divlens.paraphrase import KINDS_OF_PICTURE, SENTENCE, from_templates, length
from divlens.wordings.meaning import COLOURS, COUNTS, why_different
from divlens.wordings.synonyms import OF_ADJECTIVES, swapped, swaps

INDEFINITE = re.compile(r"^an?\s+", re.IGNORECASE)
ARTICLE = re.compile(r"\b(?i:an?|the)\s+(?![A-Z])")  # before a capital it is part of a name
IN_PLACE_OF_A = ("the", "one", "this")
STARTS_A_PHRASE = re.compile(rf"^(?:an?|the|\d+|{'|'.join(COUNTS)})\s", re.IGNORECASE)
PREPOSITION = re.compile(r"\s(?=(?:on|in|at|with|without|inside|by|near)\s)")
PLACE = re.compile(r"(?:on|in|at|inside|by|near) (?:(?:an?|the) |[A-Z])")  # "on a sofa", not "on fire" or "with a cat"
JOINS = re.compile(r"\b(?:and|or|who|whose|that|which|is|are|was|were)\b", re.IGNORECASE)
MOST = 16  # orders and synonyms that are tried, for a long text has thousands
LONGEST = 60  # words: nobody means a longer text to be turned round
POINTS_BACK = re.compile(
    r"\b(?:it|its|his|her|hers|their|theirs|them|him|itself|each other|one another)\b", re.IGNORECASE
)
VERB = re.compile(r"\w{2,}(?:ing|ed)\b(?! (?:an?|the) )")  # what follows it may belong to it: "looking at a bird"


@dataclass(frozen=True)
class Rewriting:
    """Built in: the same thing said otherwise, by rules for English. It needs no model and no network.

    A third of the wordings is short (without articles), a third is reworded in place (determiners, order, synonyms), a
    third is long (such wordings in neutral templates), as far as there are as many. `seed`: which of all possible ones
    are taken; the same seed and text give the same wordings.
    """

    seed: int = 0
    remembered = False

    def __post_init__(self) -> None:
        check_whole("seed", self.seed, 0)

    @property
    def identity(self) -> Mapping[str, object]:
        return {"source": "rewriting", "seed": self.seed}

    def wordings(self, text: str, count: int) -> Sequence[str]:
        turned = () if length(text) > LONGEST else exchanged(text)
        same_form = [text, *with_synonyms(text), *turned]
        short = map(without_articles, same_form)
        inside = reworded_in_place(text)
        long = chain.from_iterable(map(from_templates, same_form))
        seen = {text}
        kinds = []
        for kind in (short, inside, long):
            ranked = sorted({one for one in kind if one not in seen}, key=self.rank)
            new = list(islice((one for one in ranked if why_different(text, one) is None), count))
            seen.update(new)
            kinds.append(new)
        mixed = [one for some in zip_longest(*kinds) for one in some if one is not None]
        return sorted(mixed[:count], key=length)

    def rank(self, wording: str) -> bytes:
        """A random order, fixed by the seed, in which a wording's place does not depend on the others."""
        return sha256(f"{self.seed} {wording}".encode()).digest()


def reworded_in_place(text: str) -> Iterator[str]:
    """All combinations of another order, one or all synonyms, and another determiner; the text itself among them."""
    for ordered in (text, *other_orders(text)):
        for worded in (ordered, *with_synonyms(ordered)):
            yield worded
            yield from other_determiners(worded)


def other_determiners(text: str) -> Iterator[str]:
    """Other determiners in place of "a" at the beginning of a phrase. Sentences keep theirs, and so does what says that
    it is a picture: "this photo" is one that the reader knows."""
    if INDEFINITE.match(text) and not (SENTENCE.search(text) or KINDS_OF_PICTURE.search(text)):
        for other in IN_PLACE_OF_A:
            yield INDEFINITE.sub(f"{other.capitalize() if text[0] == 'A' else other} ", text)


def without_articles(text: str) -> str:
    return text if SENTENCE.search(text) else ARTICLE.sub("", text)


def with_synonyms(text: str) -> Iterator[str]:
    """One word changed, each in turn, and all of them."""
    found = swaps(text)[:MOST]
    for swap in found:
        for other in swap.others:
            yield swapped(text, swap, other)
    if len(found) > 1:
        changed = text
        for swap in reversed(found):  # from the end, so that the places before stay true
            changed = swapped(changed, swap, swap.others[0])
        yield changed


def other_orders(text: str) -> Iterator[str]:
    """The parts of a text in another order, where that changes nothing as far as can be told from single words."""
    if length(text) > LONGEST:
        return
    if text.count(",") > 1 and not re.search(r"[.!?:;\n]", text):
        yield from other_lists(text)
    elif not SENTENCE.search(text) and "," not in text:
        yield from exchanged(text)
        yield from place_first(text)


def other_lists(text: str) -> Iterator[str]:
    """A list of a thing and its properties: the properties in another order."""
    thing, *properties = re.split(r",\s*", text)
    for shift in range(1, min(len(properties), MOST)):
        yield ", ".join([thing, *properties[shift:], *properties[:shift]])


def exchanged(text: str) -> Iterator[str]:
    """Two things that "and" joins, in the other order: both have a determiner, and nothing said of both follows."""
    parts = text.split(" and ")
    if len(parts) == 2 and all(is_thing(part) for part in parts):
        yield in_turn(parts[1], " and ", parts[0])


def is_thing(part: str) -> bool:
    """Whether it names one thing and nothing else: no place, nothing that is done, no "each other", and no adjective at
    its end, as of "a red and a blue car"."""
    done = PREPOSITION.search(part) or VERB.search(part) or POINTS_BACK.search(part) or JOINS.search(part)
    return bool(STARTS_A_PHRASE.match(part)) and not done and part.split()[-1] not in {*COLOURS, *OF_ADJECTIVES}


def place_first(text: str) -> Iterator[str]:
    """The last part that begins with a preposition, before all else."""
    found = [match.start() for match in PREPOSITION.finditer(text)]
    if not found or any(unclear.search(text) for unclear in (KINDS_OF_PICTURE, POINTS_BACK, JOINS)):
        return
    thing, place = text[: found[-1]], text[found[-1] + 1 :]
    is_name = thing[:1].isupper() and not STARTS_A_PHRASE.match(thing)
    if PLACE.match(place) and not is_name and not VERB.search(thing) and " of" not in place:
        yield in_turn(place, ", ", thing)


def in_turn(first: str, between: str, second: str) -> str:
    """Two parts of a text in their new order: a capital that began the text begins it again; a name keeps its own."""
    if not (STARTS_A_PHRASE.match(second) and second[0].isupper()):
        return f"{first}{between}{second}"
    return f"{first[0].upper()}{first[1:]}{between}{second[0].lower()}{second[1:]}"
