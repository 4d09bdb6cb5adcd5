"""LPIPS diversity split exactly by source: a random-effects analysis of variance on streaming sums.

A picture is a function of independent random factors, say a wording w, a path p and an execution e; its feature
vector (see `networks`) is g(w, p, e). The functional ANOVA decomposition (Efron & Stein, 1981) writes g as a sum over
subsets S of the factors of f_S, uncorrelated, each with mean 0 over any one of its factors. With v_S = E|f_S|^2,
pictures that share the factors of T and no other are apart by

    D_T = E|g - g'|^2 = 2 * (sum of v_S over the S that are not inside T),        an LPIPS.

So the *component* of S, 2 v_S, is an LPIPS, and the components of all non-empty S add up to D_{}, the LPIPS of two
pictures that share nothing: the *total*. Turned around, component_S = sum over T inside S of -(-1)^(|S| - |T|) D_T.

In a crossed design every level of a factor meets every level of the others. With Q_S = N / n_S * sum |mean_S|^2 (N
cells; n_S combinations of levels of S, mean_S their means) the sum of squares of S is the alternating sum of Q_T over T
inside S, its mean square MS_S divides that by the product of (levels - 1) over S, and since E MS_S is the sum of
N / n_T * v_T over T around S,

    v_S = n_S / N * (sum over T around S of (-1)^(|T| - |S|) MS_T)

is unbiased for any number of levels from 2 on (Searle, Casella & McCulloch, 1992, chapter 4). It equals the formula
above with D_T the average over all pairs of cells that share T exactly. An estimate may be negative where the truth is
at or near 0; it must stay so, or it would be biased and the sources would no longer add up.

The plain mean over *all* pairs of cells is less than the total, because many pairs share levels: it is
sum over S of component_S * (1 - (N / n_S - 1) / (N - 1)).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from divlens.diversity.networks import DiversityInputError

Source = tuple[int, ...]  # the factors, by number and rising, whose joint effect is meant; () is the mean


def sources_of(factors: Iterable[int]) -> list[Source]:
    """All subsets of some factors, the empty one first, then by size and in order."""
    known = sorted(factors)
    return [subset for size in range(len(known) + 1) for subset in combinations(known, size)]


@dataclass(frozen=True, eq=False)
class CrossedSums:
    """What is kept of some pictures of one crossed design: enough for its components, and to merge with others.

    `levels`: how many each factor has, at least 1; a factor of one level is absent. Cells are numbered in row-major
    order (the last factor fastest). `filled`: which cells are in. `origin`: the feature vector that all others are
    measured from, for sums of squares cancel where pictures are nearly equal. `tables`: for each factor that is
    present the sums over its levels, one row per combination of levels of the other factors. `squares`: the sum of
    |g - origin|^2. Memory: features * 8 bytes * (rows of all tables), whatever the number of pictures.
    """

    levels: tuple[int, ...]
    filled: Bool[Tensor, " cells"]
    origin: Float64[Tensor, " features"]
    tables: Mapping[int, Float64[Tensor, "rows features"]]
    squares: float

    @staticmethod
    def of(
        levels: Sequence[int], cells: Int[Tensor, " pictures"], features: Float[Tensor, "pictures features"]
    ) -> CrossedSums:
        """Feature vectors of at least one picture, each of its own cell, to their sums.

        Raises DiversityInputError for levels below 1, no picture, a cell outside the design, and one that comes twice.
        """
        levels = tuple(levels)
        check_cells(levels, cells)
        device = features.device
        cells = cells.to(device)
        filled = torch.zeros(math.prod(levels), dtype=torch.bool, device=device)
        filled[cells] = True
        # Subtracted before it is widened, as in `FeatureSums.of`: equal pictures differ by exactly 0.
        differences = (features.detach() - features[0]).double()
        tables = {}
        for factor in present(levels):
            table = torch.zeros(len(filled) // levels[factor], features.shape[1], dtype=torch.float64, device=device)
            tables[factor] = table.index_add_(0, without(levels, factor, cells), differences)
        return CrossedSums(levels, filled, features[0].double(), tables, square(differences))

    def merge(self, other: CrossedSums) -> CrossedSums:
        """The sums of both together; associative and symmetric up to rounding.

        Raises DiversityInputError for another design, features of another size, and a cell that is in both.
        """
        if self.levels != other.levels or self.origin.shape != other.origin.shape:
            raise DiversityInputError(
                f"expected sums of one design and one feature network, got levels {self.levels} with "
                f"{self.origin.numel()} features and {other.levels} with {other.origin.numel()}"
            )
        theirs = other.filled.to(self.filled.device)
        if bool((self.filled & theirs).any()):
            raise DiversityInputError("expected sums of different cells, got a cell that is in both")
        shift = other.origin.to(self.origin.device) - self.origin
        tables, counts = {}, theirs.view(self.levels)
        for factor, table in self.tables.items():
            moved = torch.addr(other.tables[factor].to(table.device), counts.sum(factor).flatten().double(), shift)
            tables[factor] = moved.add_(table)
        count, apart = int(theirs.sum()), 0.0
        if bool(shift.any()):
            apart = 2 * float(torch.dot(other.sum_of_differences().to(shift.device), shift))
            apart += count * square(shift)
        return CrossedSums(self.levels, self.filled | theirs, self.origin, tables, self.squares + other.squares + apart)

    def sum_of_differences(self) -> Float64[Tensor, " features"]:
        """The sum of g - origin over the cells that are in; without factors there is one cell, the origin."""
        return next((table.sum(0) for table in self.tables.values()), torch.zeros_like(self.origin))

    def mean_squares(self) -> dict[Source, float]:
        """MS_S of every non-empty source of the factors that are present (see the module's formulae)."""
        if not bool(self.filled.all()):
            missing = int((~self.filled).sum())
            raise DiversityInputError(
                f"expected all {len(self.filled)} cells of the crossed design, got {len(self.filled) - missing}"
            )
        factors = present(self.levels)
        size = {source: math.prod(self.levels[f] for f in source) for source in sources_of(factors)}
        raw = {source: self.raw_square(source) for source in size if len(source) < len(factors)}
        raw[tuple(factors)] = self.squares
        found = {}
        for source in list(size)[1:]:
            inside = sum((-1) ** (len(source) - len(part)) * raw[part] for part in sources_of(source))
            found[source] = inside / math.prod(self.levels[f] - 1 for f in source)
        return found

    def raw_square(self, source: Source) -> float:
        """Q_S of the features as measured from the origin, for a source that lacks one of the present factors."""
        factor = next(f for f in self.tables if f not in source)
        kept = [f for f in range(len(self.levels)) if f != factor]
        shape = [self.levels[f] for f in kept]
        summed = [place for place, f in enumerate(kept) if f not in source]
        sums = self.tables[factor].view(*shape, -1).sum(summed) if summed else self.tables[factor]
        shared = len(self.filled) // math.prod(self.levels[f] for f in source)
        return square(sums) / shared

    def components(self) -> dict[Source, float]:
        """2 v_S of every non-empty source, unbiased, in units of LPIPS; exactly 0 where a factor is absent.

        They may be negative, and add up to the mean LPIPS over the pairs of pictures that share no level. Raises
        DiversityInputError while cells are missing.
        """
        found = dict.fromkeys(sources_of(range(len(self.levels)))[1:], 0.0)
        squares = self.mean_squares()
        for source in squares:
            around = [other for other in squares if set(source) <= set(other)]
            alternating = sum((-1) ** (len(other) - len(source)) * squares[other] for other in around)
            shared = len(self.filled) // math.prod(self.levels[f] for f in source)
            found[source] = 2 * alternating / shared
        return found

    def mean_pairwise_distance(self) -> float:
        """The mean LPIPS over all pairs of cells, at least 0, as of any set of pictures; NaN for one cell."""
        if len(self.filled) == 1:
            return math.nan
        scatter = self.squares - self.raw_square(())
        # Only rounding can take it below 0; max() would also turn NaN into 0.
        return 0.0 if scatter < 0 else 2 * scatter / (len(self.filled) - 1)


def square(vectors: Float64[Tensor, "*shape"]) -> float:
    """The sum of all squares."""
    flat = vectors.flatten()
    return float(torch.dot(flat, flat))


def whole_blocks(
    vectors: Iterator[Float[Tensor, "batch features"]], groups: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int, Float[Tensor, "blocks width features"]]]:
    """A stream of feature vectors cut anew, so that batches need not end where blocks do.

    `groups`: how many blocks each group has, and how many vectors a block. Yields, as soon as there is a whole block:
    the number of the group, that of its first block, and one or more blocks. Holds a batch and a block at most.
    """
    held = next(vectors)
    for group, (blocks, width) in enumerate(groups):
        first = 0
        while first < blocks:
            while len(held) < width:
                held = torch.cat([held, next(vectors)])
            whole = min(len(held) // width, blocks - first)
            taken, held = held[: whole * width], held[whole * width :]
            yield group, first, taken.unflatten(0, (whole, width))
            first += whole


def present(levels: Sequence[int]) -> list[int]:
    """The factors that have more than one level."""
    return [factor for factor, count in enumerate(levels) if count > 1]


def without(levels: Sequence[int], factor: int, cells: Int[Tensor, " cells"]) -> Int[Tensor, " cells"]:
    """The row-major number of cells in the design that lacks one factor."""
    after = math.prod(levels[factor + 1 :])
    return cells // (after * levels[factor]) * after + cells % after


def check_cells(levels: tuple[int, ...], cells: Int[Tensor, " pictures"]) -> None:
    if min(levels, default=0) < 1:
        raise DiversityInputError(f"expected at least one factor, each of at least 1 level, got {levels}")
    count = math.prod(levels)
    if len(cells) == 0:
        raise DiversityInputError("expected at least one picture of the crossed design, got none")
    if int(cells.min()) < 0 or int(cells.max()) >= count:
        raise DiversityInputError(f"expected cells in [0, {count}), got {int(cells.min())} to {int(cells.max())}")
    if len(cells.unique()) != len(cells):
        raise DiversityInputError("expected every cell once, got a cell twice")
