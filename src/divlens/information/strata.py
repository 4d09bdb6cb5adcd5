"""Means over the samples of a prompt whose wordings are dealt out in turn: the wordings are its strata.

Sample i has wording i mod n by design, so what wordings differ by is no chance. The error of a prompt's mean is that of
a stratified sample, sum over wordings of share^2 variance / samples (Cochran, 1977, chapter 5); the variance of all
samples about the prompt's mean would make intervals too wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.information.estimates import Moments


@dataclass(frozen=True)
class Strata:
    """The wordings of each prompt, prompt after prompt. prompt: whose it is; count: how many samples have it."""

    prompt: Int[Tensor, " strata"]
    count: Int[Tensor, " strata"]

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def share(self) -> Float[Tensor, " strata"]:
        """Of its prompt's samples."""
        return self.count.double() / self.prompt.bincount(self.count.double())[self.prompt]

    def with_variance(self, found: Int[Tensor, " strata"]) -> tuple[Strata, Int[Tensor, " strata"]]:
        """Strata that all have a variance, given how many samples of each were `found`; and which of these each goes
        to. One sample has none: a prompt with a wording of fewer than two becomes one stratum, which errs upward."""
        few = torch.zeros(int(self.prompt.max()) + 1, dtype=torch.bool)
        few[self.prompt[found < 2]] = True
        first = torch.searchsorted(self.prompt, self.prompt)
        kept, into = torch.where(few[self.prompt], first, torch.arange(len(self))).unique(return_inverse=True)
        return Strata(self.prompt[kept], into.bincount(self.count.double()).long()), into

    def weighted(
        self, sums: Sums, into: Int[Tensor, " strata"]
    ) -> tuple[Float[Tensor, "groups quantities"], Float[Tensor, " groups"]]:
        """Means of united strata, of these by their shares and not by how many samples of each `sums` has; and the part
        of one sample's variance that such a mean has: 1 / samples where these go by the shares. A union of which a
        stratum has no sample gets the plain mean, for its samples were any."""
        groups = int(into.max()) + 1
        lacking = into.bincount((sums.count == 0).double(), minlength=groups) > 0
        weight = torch.where(lacking[into], sums.count, self.count).double()
        weight = weight / into.bincount(weight)[into]
        mean = sums.mean.new_zeros(groups, sums.mean.shape[1])
        mean = mean.index_add(0, into, weight[:, None] * sums.mean)
        return mean, into.bincount(weight**2 / sums.count.clamp(min=1))

    def moments(
        self,
        mean: Float[Tensor, " strata"],
        variance: Float[Tensor, " strata"],
        freedom: Int[Tensor, " strata"],
        third: Float[Tensor, " strata"] | None = None,
    ) -> Moments:
        """Of prompts, from each stratum's mean and that mean's variance and third moment; they are independent.

        Given as so many samples as have these degrees of freedom (Satterthwaite's), spread such that their mean has the
        variance and third moment of the stratified one. With one stratum that is its own samples.
        """
        share, prompt = self.share, self.prompt
        total = prompt.bincount(share**2 * variance)
        part = share**2 * variance / torch.where(total > 0, total, 1.0)[prompt]
        estimated = 1 / prompt.bincount(part**2 / freedom)
        count = 1 + torch.where(total > 0, estimated, prompt.bincount(freedom.double()))
        count = (count + 1e-6).floor()  # before rounding errors make a degree less of it
        skew = None if third is None else (prompt.bincount(share**3 * third) * count**2).numpy()
        whole = prompt.bincount(share * mean)
        return Moments(whole.numpy(), (total * count).numpy(), count.long().numpy(), skew)


def strata_of(wordings: Sequence[Sequence[str]]) -> tuple[Strata, Int[Tensor, "prompts n"]]:
    """The strata of a run, and the one of each sample. `wordings`: of each prompt's samples."""
    places: dict[tuple[int, str], int] = {}
    stratum = [[places.setdefault((i, text), len(places)) for text in used] for i, used in enumerate(wordings)]
    found = torch.tensor(stratum)
    return Strata(torch.tensor([prompt for prompt, _ in places]), found.flatten().bincount()), found


@dataclass(frozen=True)
class Sums:
    """Running sums over groups of samples: how many there are, the mean of each quantity, and the summed squared and
    cubed deviations from it."""

    count: Int[Tensor, " groups"]
    mean: Float[Tensor, "groups quantities"]
    squares: Float[Tensor, "groups quantities"]
    cubes: Float[Tensor, "groups quantities"]

    @classmethod
    def empty(cls, groups: int, quantities: int) -> Sums:
        nothing = torch.zeros(groups, quantities, dtype=torch.float64)
        return cls(torch.zeros(groups, dtype=torch.long), nothing, nothing, nothing)

    @classmethod
    def of(cls, samples: Float[Tensor, "groups quantities"]) -> Sums:
        """Each sample a group by itself."""
        nothing = torch.zeros_like(samples)
        return cls(torch.ones(len(samples), dtype=torch.long), samples, nothing, nothing)

    def gathered(self, into: Int[Tensor, " groups"], groups: int) -> Sums:
        """Groups united: `into` says which each goes to. A group that gets none has mean 0."""
        empty, n = self.mean.new_zeros(groups, self.mean.shape[1]), self.count[:, None]
        count = self.count.new_zeros(groups).index_add(0, into, self.count)
        mean = empty.index_add(0, into, n * self.mean) / count.clamp(min=1)[:, None]
        gap = self.mean - mean[into]
        squares = empty.index_add(0, into, self.squares + n * gap**2)
        return Sums(count, mean, squares, empty.index_add(0, into, self.cubes + 3 * gap * self.squares + n * gap**3))

    def merged(self, other: Sums) -> Sums:
        """Of the same groups and more samples."""
        both = Sums(*(torch.cat([part, vars(other)[name]]) for name, part in vars(self).items()))
        return both.gathered(torch.arange(len(self.count)).repeat(2), len(self.count))

    def of_quantity(self, at: int) -> Sums:
        """The sums of one quantity alone."""
        part = slice(at, at + 1)
        return Sums(self.count, self.mean[:, part], self.squares[:, part], self.cubes[:, part])

    def variance(self) -> Float[Tensor, "groups quantities"]:
        """Of one sample about its group's mean; NaN for a group with fewer than two samples."""
        freedom = (self.count - 1)[:, None].double()
        return torch.where(freedom > 0, self.squares / freedom, math.nan)

    def third_moment(self) -> Float[Tensor, "groups quantities"]:
        """Of one sample about its group's mean; NaN for a group with fewer than three samples."""
        n = self.count[:, None].double()
        return torch.where(n > 2, self.cubes * n / ((n - 1) * (n - 2)), math.nan)


def moments_of(strata: Strata, sums: Sums, *, skewed: bool = True) -> Moments:
    """Of prompts, from the running sums of one quantity, a group per stratum; without `skewed` no third moment, which
    few samples tell too badly."""
    usable, into = strata.with_variance(sums.count)
    means, portion = strata.weighted(sums, into)
    sums = sums.gathered(into, len(usable))
    mean, variance, third = (part[:, 0] for part in (means, sums.variance(), sums.third_moment()))
    return usable.moments(mean, variance * portion, sums.count - 1, third * portion**2 if skewed else None)
