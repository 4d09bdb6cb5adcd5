"""What is measured of pictures: a measure is a value, and every table, column and note follows from a list of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.diversity import FeatureNetwork, FeatureSums, PictureNetwork
from divlens.errors import DivlensError, check_text
from divlens.experiment.columns import TAKEN, of_measure
from divlens.fidelity import Judge, Named, named_by, respects
from divlens.fidelity.openness import distance_from_law, openness
from divlens.fidelity.readings import ReadingCounts
from divlens.statistics import Interval, bootstrap_mean, change_of_share, mean_share, paired_change
from divlens.types import Prompt


@dataclass(frozen=True)
class Look:
    """A few pictures of one prompt, float32 in [0, 1], and what measures share of them, made when first asked for: the
    features of the LPIPS network, and what the judge reads in them, None where the model has no judge. `first`: which
    of the prompt's samples the first picture is, from 0."""

    prompt: Prompt
    pictures: Float[Tensor, "some 3 h w"]
    model: str
    network: FeatureNetwork
    judge: Judge | None
    first: int = 0

    @property
    def features(self) -> Float[Tensor, "some features"]:
        return self.features_by(None)

    @cached_property
    def seen(self) -> dict[PictureNetwork, Tensor]:
        return {}

    def features_by(self, other: PictureNetwork | None) -> Float[Tensor, "some features"]:
        """The features of another network, or of the look's own; each network looks once."""
        network = self.network if other is None else other.to(self.network.device)
        if network not in self.seen:
            network.check_size(self.pictures, f"pictures of {self.model}")
            with torch.inference_mode():
                self.seen[network] = network(self.pictures.to(network.device))
        return self.seen[network]

    @cached_property
    def readings(self) -> Int[Tensor, "some attributes"] | None:
        return None if self.judge is None else self.judge(self.pictures)


class Gauge(Protocol):
    """What a measure knows of the pictures of one prompt that it has seen."""

    def add(self, look: Look) -> None: ...

    def value(self) -> float: ...


@dataclass(frozen=True)
class Measure:
    """One number for a prompt's pictures; NaN where it is undefined.

    name: its column. kind: "sample", a number of every picture, whose mean is taken: `of(look)` gives (some,) numbers;
    "set", one number of all together: `of(prompt)` gives a `Gauge`; or "tokens", one number of the tokens of all, for
    which no picture is made: `of(tokens)`, integers (n, positions), gives it. unit: "%" is shown in percent; a number
    of every picture is then 0 or 1, and its mean has the interval of a share. limits: what a single value can be.
    title: the heading of its column, where the name does not do. note: what stands of it below a table. version: what
    its values depend on besides the name, such as the content of a network's files: stored figures of another version
    are not taken for these.
    """

    name: str
    of: Callable[..., Any]
    kind: Literal["sample", "set", "tokens"] = "sample"
    unit: str = ""
    limits: tuple[float, float] = (-math.inf, math.inf)
    title: str = ""
    note: str = ""
    version: str = ""

    @property
    def is_share(self) -> bool:
        return self.unit == "%" and self.kind == "sample"

    @property
    def heading(self) -> str:
        return " ".join(filter(None, (self.title or self.name, self.unit)))

    @property
    def form(self) -> tuple[str, float]:
        """How its values are written, and by what they are multiplied before."""
        return (".0f", 100.0) if self.unit == "%" else (".3f", 1.0)

    def gauge(self, prompt: Prompt) -> Gauge:
        """Of one that looks at pictures."""
        return self.of(prompt) if self.kind == "set" else MeanOfSamples(self)

    def mean(self, values: Float[np.ndarray, " prompts"], n: int, seed: int) -> Interval:
        """The mean over prompts of the values of `n` samples each, with its interval over prompts."""
        return mean_share(values, n) if self.is_share else bootstrap_mean(values, seed, limits=self.limits)

    def change(
        self, after: Float[np.ndarray, " prompts"], before: Float[np.ndarray, " prompts"], n: int, seed: int
    ) -> Interval:
        """The mean over prompts of after - before, paired."""
        return change_of_share(after, before, n, seed) if self.is_share else paired_change(after, before, seed)


@dataclass
class MeanOfSamples:
    """The mean of a number that every picture has."""

    measure: Measure
    total: float = 0.0
    count: int = 0

    def add(self, look: Look) -> None:
        found = torch.as_tensor(self.measure.of(look))
        if tuple(found.shape) != (len(look.pictures),):
            expected, got = f"a number for each of {len(look.pictures)} pictures", tuple(found.shape)
            raise DivlensError(f"the measure {self.measure.name} expects to give {expected}, got shape {got}")
        self.total += float(found.double().sum())
        self.count += len(found)

    def value(self) -> float:
        return self.total / self.count if self.count else math.nan


@dataclass
class Distances:
    """The mean pairwise squared distance of features, an LPIPS, from running sums: of those that all measures share, or
    of those of a network of its own."""

    network: PictureNetwork | None = None
    sums: FeatureSums = field(default_factory=FeatureSums.empty)

    def add(self, look: Look) -> None:
        self.sums = self.sums.merge(FeatureSums.of(look.features_by(self.network)))

    def value(self) -> float:
        return self.sums.mean_pairwise_distance()


@dataclass
class DistancesOfRight:
    """The mean pairwise LPIPS distance among the pictures that show all that was asked for; NaN for fewer than two."""

    asked: Named
    sums: FeatureSums = field(default_factory=FeatureSums.empty)

    def add(self, look: Look) -> None:
        if look.readings is not None:
            right = respects(look.readings, self.asked).to(look.features.device)
            self.sums = self.sums.merge(FeatureSums.of(look.features[right]))

    def value(self) -> float:
        return self.sums.mean_pairwise_distance()


@dataclass
class OfReadings:
    """A number of all that the judge reads in the pictures of a prompt; NaN where it cannot read the prompt, and where
    there is no judge."""

    of: Callable[[ReadingCounts], float]
    prompt: Prompt
    counts: ReadingCounts | None = None

    def add(self, look: Look) -> None:
        if look.judge is None or look.readings is None:
            return
        if self.counts is None and (asked := named_by(look.judge, self.prompt)) is not None:
            self.counts = ReadingCounts.of(look.judge, asked)
        if self.counts is not None:
            self.counts.add(look.readings)

    def value(self) -> float:
        return math.nan if self.counts is None else self.of(self.counts)


class Unknown:
    """What nobody can tell of a prompt's pictures."""

    def add(self, look: Look) -> None: ...

    def value(self) -> float:
        return math.nan


KINDS = ("sample", "set", "tokens")
DIVERSITY, OPENNESS, FIDELITY, KEPT = "diversity", "openness", "fidelity", "kept_diversity"
EQUAL_N = "compare at equal n only"
ONE_SAMPLE = "n/a: LPIPS diversity is undefined (NaN) for fewer than 2 samples."


def usual_measures(judge: Judge | None) -> tuple[Measure, ...]:
    """LPIPS diversity, openness, prompt fidelity, and LPIPS diversity at kept fidelity: among the pictures in which the
    judge reads all that the prompt names. All but the first are NaN without a judge, and for prompts that it cannot
    read."""

    @cache
    def named(prompt: Prompt) -> Named | None:
        return None if judge is None else named_by(judge, prompt)

    def kept(prompt: Prompt) -> Gauge:
        asked = named(prompt)
        return Unknown() if asked is None else DistancesOfRight(asked)

    def shows_what_was_asked(look: Look) -> Float[Tensor, " some"]:
        asked = named(look.prompt)
        if look.readings is None or asked is None:
            return torch.full((len(look.pictures),), math.nan)
        return respects(look.readings, asked).double()

    return (
        Measure(DIVERSITY, lambda prompt: Distances(), "set", limits=(0.0, math.inf), title="LPIPS diversity"),
        Measure(
            OPENNESS,
            lambda prompt: OfReadings(openness, prompt),
            "set",
            "%",
            (0.0, math.inf),
            note="how evenly all that the prompt leaves open comes out",
        ),
        Measure(
            FIDELITY,
            shows_what_was_asked,
            "sample",
            "%",
            (0.0, 1.0),
            note="share of samples in which the judge reads all that the prompt names",
        ),
        Measure(
            KEPT,
            kept,
            "set",
            limits=(0.0, math.inf),
            title="kept diversity",
            note="LPIPS diversity among the samples in which the judge reads all that the prompt names",
        ),
    )


LAW_DISTANCE = Measure(
    "law_distance",
    lambda prompt: OfReadings(distance_from_law, prompt),
    "set",
    title="law distance",
    note="total variation between what the judge reads of an attribute and the law of the prompt, mean over all "
    f"attributes; {EQUAL_N}",
)


def notes_of(measures: Sequence[Measure]) -> list[str]:
    """What stands of each below a table, a sentence each."""
    return [f"{each.title or each.name}: {each.note.rstrip('.')}." for each in measures if each.note]


def partial_notes(measures: Sequence[Measure], known: Callable[[str], int], prompts: int) -> list[str]:
    """Over how many of the prompts each measure is, where it is not over all; of fidelity `judged_note` says it.
    `known`: how many prompts have a value of the measure of a name."""
    counts = {each.title or each.name: known(each.name) for each in measures if each.name != FIDELITY}
    return [
        f"{name}: over {count} of {prompts} prompts{', too few for an interval' if count == 1 else ''}."
        for name, count in counts.items()
        if 0 < count < prompts
    ]


def checked_measures(extra: Sequence[str | Measure]) -> tuple[Measure, ...]:
    """Further measures. Raises DivlensError for what is none, as a name is, and where a column is taken."""
    if not isinstance(extra, Sequence) or isinstance(extra, str):
        raise DivlensError(f"measures expects a list of names and divlens.Measure, got {extra!r:.80}")
    taken = TAKEN.union(*(of_measure(measure.name) for measure in usual_measures(None)))
    found: list[Measure] = []
    for measure in extra:
        if not isinstance(measure, Measure):
            raise DivlensError(f"measures expects a list of names and divlens.Measure, got {measure!r:.80}")
        check_text("the name of a measure", measure.name)
        if not measure.name.strip() or measure.kind not in KINDS or not callable(measure.of):
            raise DivlensError(
                'a measure expects a name, a kind "sample", "set" or "tokens" and a function, got '
                f"{measure.name!r:.40}, {measure.kind!r:.40} and {measure.of!r:.40}"
            )
        columns = of_measure(measure.name)
        if columns & taken:
            raise DivlensError(
                f"measures expects names that no other column has, got {measure.name!r}, where these are taken: "
                f"{', '.join(sorted(columns & taken))}"
            )
        taken |= columns
        found.append(measure)
    return tuple(found)


def named(measures: Sequence[Measure], name: str) -> Measure:
    """The measure of that name. Raises DivlensError where there is none."""
    for measure in measures:
        if measure.name == name:
            return measure
    raise DivlensError(f"expected a measure among {', '.join(measure.name for measure in measures)}, got {name!r}")
