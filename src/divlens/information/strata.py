"""Means over the samples of a prompt that has several wordings.

Sample i of a prompt has wording i modulo the number of wordings. The wording is therefore not random, and differences
between wordings add nothing to the error of the prompt's mean. The wordings are strata, and the variance of the mean is
the sum over wordings of share^2 variance / samples (Cochran, 1977, chapter 5). Using the variance of all samples about
the mean of the prompt would make intervals too wide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.information.estimates import PromptMeans
from divlens.statistics import ROUNDING


@dataclass(frozen=True)
class Strata:
    """The wordings of all prompts, in the order of the prompts. prompt: the index of the prompt of each wording. count:
    the number of samples of the run that have the wording."""

    prompt: Int[Tensor, " strata"]
    count: Int[Tensor, " strata"]

    def __len__(self) -> int:
        return len(self.prompt)

    def sums(self, values: Tensor) -> Float[Tensor, " prompts"]:
        """The sum of `values` over the strata of each prompt."""
        return self.prompt.bincount(values.double())

    @property
    def share(self) -> Float[Tensor, " strata"]:
        """The share of each wording in the samples of its prompt."""
        return self.count.double() / self.sums(self.count)[self.prompt]


def strata_of(wordings: Sequence[Sequence[str]]) -> tuple[Strata, Int[Tensor, "prompts n"]]:
    """The strata of a run and the index of each sample's stratum. `wordings`: those of all samples, by prompt."""
    places: dict[tuple[int, str], int] = {}
    stratum = [[places.setdefault((i, text), len(places)) for text in used] for i, used in enumerate(wordings)]
    found = torch.tensor(stratum)
    return Strata(torch.tensor([prompt for prompt, _ in places]), found.flatten().bincount()), found


@dataclass(frozen=True)
class Sums:
    """Running sums over groups of samples: the number of samples, the mean of each quantity, and the sums of the
    squared and of the cubed deviations from the mean."""

    count: Int[Tensor, " groups"]
    mean: Float[Tensor, "groups quantities"]
    squares: Float[Tensor, "groups quantities"]
    cubes: Float[Tensor, "groups quantities"]

    @classmethod
    def empty(cls, groups: int, quantities: int) -> Sums:
        nothing = torch.zeros(groups, quantities, dtype=torch.float64)
        return cls(torch.zeros(groups, dtype=torch.long), nothing, nothing, nothing)

    @classmethod
    def of(cls, samples: Float[Tensor, "samples quantities"], group: Int[Tensor, " samples"], groups: int) -> Sums:
        """The sums of `samples`. `group`: the index of each sample's group. `groups`: the number of groups."""
        nothing = torch.zeros_like(samples)
        return cls(torch.ones_like(group), samples, nothing, nothing).by_group(group, groups)

    def by_group(self, group: Int[Tensor, " groups"], groups: int) -> Sums:
        """The sums over larger groups. `group`: the index of the larger group to which each present group belongs. The
        mean of a group without samples is 0."""
        empty, n = self.mean.new_zeros(groups, self.mean.shape[1]), self.count[:, None]
        count = self.count.new_zeros(groups).index_add(0, group, self.count)
        mean = empty.index_add(0, group, n * self.mean) / count.clamp(min=1)[:, None]
        gap = self.mean - mean[group]
        squares = empty.index_add(0, group, self.squares + n * gap**2)
        return Sums(count, mean, squares, empty.index_add(0, group, self.cubes + 3 * gap * self.squares + n * gap**3))

    def quantity(self, at: int) -> Sums:
        """The sums of one quantity alone."""
        part = slice(at, at + 1)
        return Sums(self.count, self.mean[:, part], self.squares[:, part], self.cubes[:, part])

    def variance(self) -> Float[Tensor, "groups quantities"]:
        """The variance of one sample about the mean of its group; NaN for a group with fewer than two samples."""
        freedom = (self.count - 1)[:, None].double()
        return torch.where(freedom > 0, self.squares / freedom, math.nan)

    def third_moment(self) -> Float[Tensor, "groups quantities"]:
        """The third central moment of one sample; NaN for a group with fewer than three samples."""
        n = self.count[:, None].double()
        return torch.where(n > 2, self.cubes * n / ((n - 1) * (n - 2)), math.nan)


def without_own_variance(strata: Strata, sums: Sums) -> Bool[Tensor, " strata"]:
    """Whether any wording of the stratum's prompt has fewer than two samples in these sums, and so no variance."""
    return (strata.sums(sums.count < 2) > 0)[strata.prompt]


def sample_moment(
    strata: Strata, sums: Sums, lumped: Bool[Tensor, " strata"], moment: Callable[[Sums], Tensor]
) -> Float[Tensor, "strata quantities"]:
    """A moment of one sample about the mean of its wording. In the strata that are `lumped` it is taken about the mean
    of the prompt instead, which makes it too large. `moment`: Sums.variance or Sums.third_moment."""
    of_prompts = sums.by_group(strata.prompt, int(strata.prompt.max()) + 1)
    return torch.where(lumped[:, None], moment(of_prompts)[strata.prompt], moment(sums))


def prompt_means(strata: Strata, sums: Sums) -> PromptMeans:
    """The means of one quantity over the samples of each prompt, from sums with one group per stratum.

    Each wording is weighted by its share of all samples of the run, even if the sums contain only some of the samples.
    If a wording is missing from the sums, their samples were chosen regardless of wording and have equal weights.
    """
    m, lumped = sums.count.double(), without_own_variance(strata, sums)
    lacking = (strata.sums(m == 0) > 0)[strata.prompt]
    weight = torch.where(lacking, m / strata.sums(m)[strata.prompt], strata.share)
    mean = strata.sums(weight * sums.mean[:, 0])
    variance, third = (sample_moment(strata, sums, lumped, each)[:, 0] for each in (Sums.variance, Sums.third_moment))
    parts = torch.where(m > 0, weight**2 * variance / m, 0.0)
    third = torch.where(m > 0, weight**3 * third / m**2, 0.0)
    # Satterthwaite's degrees of freedom of the parts that have a variance; see `statistics.freedom_of_sum`.
    total, uncertain = strata.sums(parts), torch.where(parts > 0, parts**2 / (m - 1), 0.0)
    freedom = torch.where(total > 0, total**2 / strata.sums(uncertain), strata.sums(m - 1))
    freedom = torch.where(strata.sums(lumped) > 0, strata.sums(m) - 1, (freedom + ROUNDING).floor())
    return PromptMeans(mean.numpy(), total.numpy(), freedom.numpy(), strata.sums(third).numpy())
