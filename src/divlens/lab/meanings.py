"""What a prompt says of a scene: a value for some attributes, nothing of the others."""

from __future__ import annotations

from dataclasses import dataclass

from divlens.errors import DivlensError
from divlens.lab.attributes import ATTRIBUTES, BARE, CONCEPT, sizes_of


@dataclass(frozen=True)
class Meaning:
    """For each attribute the index of the value that is named, or None. Raises DivlensError for an index beyond
    `sizes`, which are those of the lab unless a smaller one is meant."""

    values: tuple[int | None, ...]
    sizes: tuple[int, ...] = sizes_of()

    def __post_init__(self) -> None:
        if len(self.values) != len(self.sizes):
            raise DivlensError(f"a meaning expects {len(self.sizes)} values or None, got {len(self.values)}")
        for place, (value, size) in enumerate(zip(self.values, self.sizes, strict=True)):
            if value is not None and not 0 <= value < size:
                raise DivlensError(f"attribute {place} of a meaning expects 0 to {size - 1} or None, got {value}")

    @classmethod
    def of(cls, **words: str) -> Meaning:
        """By the lab's words: `Meaning.of(concept="apple", background="green")`."""
        names = [attribute.name for attribute in ATTRIBUTES]
        if unknown := set(words) - set(names):
            raise DivlensError(f"attributes are {', '.join(names)}; got {', '.join(sorted(unknown))}")
        values: list[int | None] = []
        for attribute in ATTRIBUTES:
            word = words.get(attribute.name)
            if word is not None and word not in attribute.values:
                raise DivlensError(f"{attribute.name} expects one of {', '.join(attribute.values)}; got {word!r}")
            values.append(None if word is None else attribute.values.index(word))
        return cls(tuple(values))

    @property
    def named(self) -> tuple[int, ...]:
        """The attributes of which something is said."""
        return tuple(i for i, value in enumerate(self.values) if value is not None)

    def word(self, attribute: int) -> str | None:
        """The lab's word for what is said of an attribute, None where nothing is."""
        value = self.values[attribute]
        return None if value is None else ATTRIBUTES[attribute].values[value]

    def only(self, attributes: tuple[int, ...]) -> Meaning:
        """What is said of these attributes, as a meaning over them alone."""
        return Meaning(tuple(self.values[i] for i in attributes), tuple(self.sizes[i] for i in attributes))

    def saying(self, attribute: int, value: int | None) -> Meaning:
        """The same, but for one attribute."""
        return Meaning((*self.values[:attribute], value, *self.values[attribute + 1 :]), self.sizes)


def article(words: str) -> str:
    """ "a" or "an", as the first letter asks for; none of the lab's words is an exception."""
    return "an" if words[0] in "aeiou" else "a"


def needs_article(meaning: Meaning) -> bool:
    return meaning.word(CONCEPT) not in BARE
