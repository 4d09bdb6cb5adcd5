"""What the zoo knows of language: the words of the laboratory's captions, emoji for its concepts, and the texts that it
puts around a prompt.

Loads no torch.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache

from divlens.errors import DivlensError
from divlens.lab.attributes import CONCEPTS
from divlens.lab.captions import TRAINING, filler_words
from divlens.lab.meanings import Meaning
from divlens.lab.reading import read

# The emoji that show the concepts, in the order of the concepts.
SHOWN_BY = (
    "✈️ ⏰ ⚓ 🍎 🥑 🎈 💣 🚌 🌵 🚗 🥕 🐱 🧀 🍒 🐤 🌶️ ⛪ 🍀 🌽 🥐 👑 🐶 🚪 🍩 🍆 🌲 🔥 🐟 🏈 🦊 🍟 ⛽ "
    "🍇 🎸 🍔 🔨 ❤️ 👖 🔑 🐨 🐞 🦁 🍭 🍁 🍄 🎨 🌴 🐼 🐧 🍍 🎃 🌈 🚀 ⛵ 🎷 ⭐ 🌻 🚜 🏆 🌷 🐢 ☂️ 🌋 🍉"
)
SIGN = (
    "[\u2190-\u21ff\u2300-\u23ff\u25a0-\u27bf\u2900-\u297f\u2b00-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]"
)
ONE_EMOJI = f"(?:[\U0001f1e6-\U0001f1ff]{{2}}|{SIGN}\ufe0e?\ufe0f?[\U0001f3fb-\U0001f3ff]?[\U000e0020-\U000e007f]*)"
EMOJI = re.compile(f"{ONE_EMOJI}(?:\u200d{ONE_EMOJI})*")  # joined by ZWJ they are one: a heart on fire is no heart
WORD = re.compile(rf"[^\W_]+|{EMOJI.pattern}")


def concepts() -> list[str]:
    """The names of what the zoo draws, in the order of their indices."""
    return list(CONCEPTS)


def plain(emoji: str) -> str:
    """Without the characters that choose between its coloured and its black look."""
    return re.sub("[\ufe0e\ufe0f]", "", emoji)


@cache
def emoji_names() -> dict[str, str]:
    """The concept that an emoji shows, for those that the zoo knows."""
    return dict(zip(map(plain, SHOWN_BY.split()), concepts(), strict=True))


def name_of_emoji(emoji: str) -> str:
    """The concept's name; an emoji that is no concept stays as it is."""
    key = plain(emoji)
    return emoji_names().get(key, key)


def emoji_named(text: str) -> str:
    """Every emoji of a concept replaced by the concept's name, set off by commas."""
    return EMOJI.sub(lambda found: f", {name_of_emoji(found[0])}, ", text)


def split_words(text: str) -> list[str]:
    """Words and numbers of a text, lower-case and without accents; emoji of concepts by their names, others as words
    of their own."""
    folded = unicodedata.normalize("NFKD", emoji_named(text).lower().replace("’", "'"))
    return WORD.findall(re.sub("[\u0300-\u036f']", "", folded))


def meaning_of(text: str) -> Meaning | None:
    """What a text names, where it is one that the laboratory can read (see `lab.reading`); else None."""
    named = emoji_named(text)
    try:
        return None if EMOJI.search(named) else read(named)
    except DivlensError:
        return None


@cache
def templates() -> tuple[str, ...]:
    """Wordings of a prompt that the laboratory cannot read: its captions as they are when they name the thing alone."""
    texts = (re.sub(r"\[[^\]]*\]", "", template.text) for template in TRAINING)
    around = (text.replace("{thing}", "{}") for text in texts if "{thing}" in text)
    return tuple(text for text in dict.fromkeys(around) if text != "{}")


# Words that say how a thing is shown or where it is, not what it is.
PLACING = "the one this is it with without in at by for from to under over near behind beside above below between"
FRAME = filler_words() | set(PLACING.split())
ALIKE = 0.75  # of difflib's ratio: "haert" is meant for "heart", "qwerty" not for "arty"
JOINING = frozenset(("and", "or"))
PUNCTUATION = re.compile(r"[^\w\s'’-]+|\n|\s-+\s")


def named_concept(text: str, names: Sequence[str]) -> int | None:
    """Which of the names a text asks for; None where it names none, or more than one.

    A name is found where its words stand one after the other as whole words, in any case: "a picture of a Red Heart"
    asks for "red heart". Of two that overlap the longer one counts: "ear of corn" is no "ear". What comes before may
    qualify it ("a shiny red heart"), but a noun after it would be what is asked for instead ("fire truck"): only
    punctuation, the end, or a word such as "on", "with" or "icon" may follow. A text that joins things by "and" or "or"
    asks for more than one. Plurals are not names.
    """
    text = emoji_named(text)
    parts = [split_words(part) for part in PUNCTUATION.split(text)]
    wanted = [split_words(name) for name in names]
    found: set[int] = set()
    clear = not EMOJI.search(text)  # one that is no concept is something else that is asked for
    for words in parts:
        spans = [
            (start, start + len(name), index)
            for index, name in enumerate(wanted)
            for start in range(len(words) - len(name) + 1)
            if name and words[start : start + len(name)] == name
        ]
        widest = [one for one in spans if not any(covers(other, one) for other in spans)]
        found |= {index for _, _, index in widest}
        named = {place for first, end, _ in widest for place in range(first, end)}
        clear &= all(end == len(words) or words[end] in FRAME for _, end, _ in widest)
        clear &= not any(word in JOINING for place, word in enumerate(words) if place not in named)
    return found.pop() if clear and len(found) == 1 else None


def asked_concept(text: str, concept: str | None, names: Sequence[str]) -> int | None:
    """Which of the names a prompt asks for; None for none of them.

    Its `concept`, by name or emoji; where it has none, the one that its text names (see `named_concept`).
    """
    if concept is None:
        return named_concept(text, names)
    asked = split_words(concept)
    return next((index for index, name in enumerate(names) if split_words(name) == asked), None)


def covers(other: tuple[int, int, int], one: tuple[int, int, int]) -> bool:
    """Whether a span (first, end, _) holds another and more."""
    return other[:2] != one[:2] and other[0] <= one[0] and one[1] <= other[1]


def near(words: Iterable[str], known: Sequence[str]) -> list[str]:
    """Known words that are spelt nearly like one of the words, no repeats."""
    likely = [word for word in known if word not in FRAME]
    close = (difflib.get_close_matches(word, likely, n=1, cutoff=ALIKE) for word in words)
    return list(dict.fromkeys(match for matches in close for match in matches))
