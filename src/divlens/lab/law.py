"""The exact law of scenes given prompts, and its entropies and informations; all in bits.

A prompt names some attributes. The others are uniform and independent, so that its law is uniform over a box of
scenes, and the law of a set of prompts is a mixture of boxes. Values that no prompt of the set names are alike under
all of them: they are counted, not enumerated. What is computed is exact up to float64.

A law may be limited to some scenes, `possible`: given a prompt it is then uniform over the possible scenes of the box.
With the scenes that are not held out this is the law that generators are trained on, which differs from the first by
little (`lost` says how much, given each prompt); it is the first that a generator is to be compared with.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from divlens.errors import DivlensError
from divlens.lab.meanings import Meaning
from divlens.lab.scenes import all_scenes, held_out


@dataclass(frozen=True)
class Cells:
    """Scenes put together that no prompt of a set tells apart.

    `index[i]` maps the values of attribute i to places along axis i; `count` is how many possible scenes each cell has.
    """

    index: tuple[Int[np.ndarray, "..."], ...]
    count: Float[np.ndarray, "..."]

    def box(self, meaning: Meaning) -> tuple[slice, ...]:
        """The cells that agree with a meaning."""
        places = [None if v is None else int(self.index[i][v]) for i, v in enumerate(meaning.values)]
        return tuple(slice(None) if place is None else slice(place, place + 1) for place in places)


@dataclass(frozen=True)
class Law:
    """Scenes A of prompts X: prompt x with probability `weights[x]`, then uniform over the scenes that it allows.

    `possible`: bool, one axis per attribute; None for all scenes. Raises DivlensError for weights that are no
    probabilities, for meanings over other attributes, and for a prompt that no possible scene agrees with.
    """

    meanings: tuple[Meaning, ...]
    weights: tuple[float, ...]
    possible: Bool[np.ndarray, "..."] | None = None

    def __post_init__(self) -> None:
        if not self.meanings or len(self.meanings) != len(self.weights):
            raise DivlensError(
                f"a law expects a weight per prompt, got {len(self.meanings)} prompts, {len(self.weights)} weights"
            )
        if min(self.weights) < 0 or not np.isclose(sum(self.weights), 1, atol=1e-9):
            raise DivlensError(f"weights expect numbers of at least 0 that sum to 1, got a sum of {sum(self.weights)}")
        if len({meaning.sizes for meaning in self.meanings}) > 1:
            raise DivlensError("a law expects meanings over the same attributes")
        if self.possible is not None and self.possible.shape != self.sizes:
            raise DivlensError(f"possible scenes expect the shape {self.sizes}, got {self.possible.shape}")
        for meaning, count in zip(self.meanings, self.counts, strict=True):
            if count == 0:
                raise DivlensError(f"expected prompts that some possible scene agrees with, got {meaning.values}")

    @classmethod
    def uniform(cls, meanings: Sequence[Meaning], possible: Bool[np.ndarray, "..."] | None = None) -> Law:
        """Every prompt is as likely."""
        return cls(tuple(meanings), (1 / max(1, len(meanings)),) * len(meanings), possible)

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.meanings[0].sizes

    @cached_property
    def cells(self) -> Cells:
        if self.possible is not None:
            return Cells(tuple(np.arange(size) for size in self.sizes), self.possible.astype(float))
        index, counts = [], []
        for attribute, size in enumerate(self.sizes):
            named = sorted({v for meaning in self.meanings if (v := meaning.values[attribute]) is not None})
            places = np.full(size, len(named))
            places[named] = np.arange(len(named))
            index.append(places)
            counts.append(np.bincount(places).astype(float))
        count = np.ones(())
        for along in counts:
            count = np.multiply.outer(count, along)
        return Cells(tuple(index), count)

    @cached_property
    def counts(self) -> tuple[float, ...]:
        """How many possible scenes agree with each prompt."""
        return tuple(float(self.cells.count[self.cells.box(meaning)].sum()) for meaning in self.meanings)

    def density(self, chosen: Sequence[int] | None = None) -> Float[np.ndarray, "..."]:
        """The probability of one scene of each cell: of the mixture, or given that the prompt is one of `chosen`."""
        chosen = range(len(self.meanings)) if chosen is None else chosen
        total = sum(self.weights[x] for x in chosen)
        table = np.zeros(self.cells.count.shape)
        for x in chosen:
            table[self.cells.box(self.meanings[x])] += self.weights[x] / total / self.counts[x]
        return np.where(self.cells.count > 0, table, 0.0)

    def probability(self, scenes: Int[np.ndarray, "n attributes"]) -> Float[np.ndarray, " n"]:
        """p(A) of each scene under the mixture of all prompts."""
        return self.density()[tuple(index[scenes[:, i]] for i, index in enumerate(self.cells.index))]

    def entropy(self, chosen: Sequence[int] | None = None) -> float:
        """H(A), or the entropy of A given only that the prompt is one of `chosen`."""
        density = self.density(chosen)
        positive = density[density > 0]
        return float(-(self.cells.count[density > 0] * positive * np.log2(positive)).sum())

    def conditional_entropy(self) -> float:
        """H(A|X)."""
        return float(np.dot(self.weights, np.log2(self.counts)))

    def information(self) -> float:
        """I(X;A)."""
        return self.entropy() - self.conditional_entropy()

    def information_about(self, labels: Sequence[Hashable]) -> float:
        """I(A;Y), where Y is `labels[x]` for prompt x."""
        return self.entropy() - sum(share * self.entropy(rows) for share, rows in self.groups(labels))

    def groups(self, labels: Sequence[Hashable]) -> list[tuple[float, list[int]]]:
        """For each label that has a weight, that weight and the prompts that have the label."""
        if len(labels) != len(self.meanings):
            raise DivlensError(f"expected a label per prompt, {len(self.meanings)}, got {len(labels)}")
        rows: dict[Hashable, list[int]] = {}
        for x, label in enumerate(labels):
            if self.weights[x] > 0:
                rows.setdefault(label, []).append(x)
        return [(sum(self.weights[x] for x in found), found) for found in rows.values()]

    def over(self, *attributes: int) -> Law:
        """The law of some attributes alone. Only for a law over all scenes: then it is again a mixture of boxes."""
        if self.possible is not None:
            raise DivlensError("the law of some attributes alone expects a law over all scenes")
        return Law(tuple(meaning.only(attributes) for meaning in self.meanings), self.weights)

    def lost(self) -> Float[np.ndarray, " prompts"]:
        """Given each prompt, the divergence of this law from the one over all scenes: log2 of (all / possible)."""
        everything = Law(self.meanings, self.weights)
        return np.log2(np.array(everything.counts) / np.array(self.counts))


@dataclass(frozen=True)
class Plane:
    """Where the data themselves lie on the bottleneck plane: what a generator reaches that draws exactly from the law.

    Bits. `prompt`: H(X); `meaning`: H of what the prompts name, at most H(X), since wordings may share a meaning;
    `conditional`: H(A|X); `through`: I(X;A); `target`: H(Y); `about`: I(A;Y).
    """

    prompt: float
    meaning: float
    conditional: float
    through: float
    target: float
    about: float


def plane(law: Law, labels: Sequence[Hashable]) -> Plane:
    """`labels`: Y for each prompt of the law, such as its concept."""
    return Plane(
        prompt=entropy_of(np.array(law.weights)),
        meaning=entropy_of(np.array([share for share, _ in law.groups([m.values for m in law.meanings])])),
        conditional=law.conditional_entropy(),
        through=law.information(),
        target=entropy_of(np.array([share for share, _ in law.groups(labels)])),
        about=law.information_about(labels),
    )


def entropy_of(probabilities: Float[np.ndarray, " n"]) -> float:
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log2(positive)).sum())


def training_scenes() -> Bool[np.ndarray, "..."]:
    """Which scenes are not held out, one axis per attribute: `possible` of the law that generators are trained on."""
    return ~held_out(all_scenes()).reshape(tuple(all_scenes()[-1] + 1))
