"""What `information` returns: estimates with intervals, maps, and a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace

import numpy as np
import pandas as pd
from jaxtyping import Float

from divlens.showing import Shown, counted, with_intervals
from divlens.statistics import Interval, bootstrap_mean, freedom_of_sum, student_interval
from divlens.types import DrawnWith

BITS = 1 / math.log(2)  # of a nat


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts, in bits per image, with two kinds of uncertainty.

    over_prompts: the mean with its interval over prompts, which takes the prompts for a sample of those one might have
    asked. monte_carlo: the same mean with the interval that holds for exactly these prompts, whose samples are drawn at
    random; mc_error is its standard error. per_prompt: the value of each prompt with its own Monte-Carlo interval, and
    per_prompt_mc_error the standard errors; both are empty for a quantity that single prompts do not have. `note` says
    why a value is NaN, or what it is conditional on.

    The intervals also allow for what no sample showed; see docs/theory.md, section 7.
    """

    over_prompts: Interval
    monte_carlo: Interval
    mc_error: float = math.nan
    note: str = ""
    per_prompt: tuple[Interval, ...] = ()
    per_prompt_mc_error: tuple[float, ...] = ()

    @property
    def value(self) -> float:
        return self.over_prompts.value

    def at_most(self, most: float) -> Estimate:
        """The estimate with intervals of the mean that end at `most`. A single prompt may contribute more."""
        whole = {name: getattr(self, name).within(most=most) for name in ("over_prompts", "monte_carlo")}
        return replace(self, **whole)

    def __mul__(self, scale: float) -> Estimate:
        """The estimate in another unit, of which `scale` > 0 make one of the old."""
        return Estimate(
            self.over_prompts * scale,
            self.monte_carlo * scale,
            self.mc_error * scale,
            self.note,
            tuple(one * scale for one in self.per_prompt),
            tuple(error * scale for error in self.per_prompt_mc_error),
        )

    def __add__(self, other: Estimate) -> Estimate:
        """The sum of two quantities that are not negative, prompt by prompt.

        The Monte-Carlo errors are added, for both quantities are measured on the same samples and may err together. Of
        a sum that is NaN the note says only why it is.
        """
        lacking = [part.note for part in (self, other) if not part.per_prompt]
        if lacking:
            return undefined("; ".join(filter(None, dict.fromkeys(lacking))))
        note = "; ".join(filter(None, dict.fromkeys((self.note, other.note))))
        per_prompt = [(a + b).within(0.0) for a, b in zip(self.per_prompt, other.per_prompt, strict=True)]
        errors = zip(self.per_prompt_mc_error, other.per_prompt_mc_error, strict=True)
        over_prompts = bootstrap_mean(np.array([one.value for one in per_prompt]), limits=(0.0, math.inf))
        monte_carlo = replace(self.monte_carlo + other.monte_carlo, value=over_prompts.value).within(0.0)
        error = self.mc_error + other.mc_error
        over_prompts = over_prompts.hull(monte_carlo)
        return Estimate(over_prompts, monte_carlo, error, note, tuple(per_prompt), tuple(a + b for a, b in errors))


def undefined(reason: str) -> Estimate:
    """An estimate of what has no value."""
    return without_error(math.nan, reason)


def without_error(bits: float, note: str) -> Estimate:
    """A value of the whole set of prompts, which has no error and is not a mean over them."""
    return Estimate(Interval(bits), Interval(bits), note=note)


def same_for_all(bits: float, prompts: int, note: str) -> Estimate:
    """A value that every prompt has and that is known without error."""
    return estimate(PromptMeans(np.full(prompts, bits), np.zeros(prompts), np.ones(prompts)), note)


@dataclass(frozen=True)
class PromptMeans:
    """Of each prompt: the mean of its samples, the variance of that mean, with how many degrees of freedom the variance
    is known, and the third central moment of the mean. The variance is NaN where a prompt has one sample only; without
    third moments the means are taken for symmetric."""

    mean: Float[np.ndarray, " prompts"]
    variance: Float[np.ndarray, " prompts"]
    freedom: Float[np.ndarray, " prompts"]
    third: Float[np.ndarray, " prompts"] | None = None


def estimate(means: PromptMeans, note: str = "", limits: tuple[float, float] = (0.0, math.inf)) -> Estimate:
    """The mean over prompts, with Student's interval for exactly these prompts, corrected for the skewness of the mean.

    A prompt's value lies within `limits`, so the intervals are cut there. (An estimate of a bound may fall outside. Its
    interval then reaches from there.)
    """
    over_prompts, errors = bootstrap_mean(means.mean, limits=limits), np.sqrt(means.variance)
    error, freedom = float(np.sqrt(means.variance.sum())), freedom_of_sum(means.variance, means.freedom)
    skewness = float(means.third.sum()) / error**3 if means.third is not None and error > 0 else 0.0
    error /= len(errors)
    whole = student_interval(over_prompts.value, error, freedom, skewness)
    per_prompt = map(student_interval, means.mean.tolist(), errors.tolist(), means.freedom.tolist())
    return Estimate(
        over_prompts,
        whole.within(*limits),
        error,
        note,
        tuple(one.within(*limits) for one in per_prompt),
        tuple(errors.tolist()),
    )


@dataclass(frozen=True)
class Tightness:
    """The bounds on H(Z|X) that so many paths per grid give, in bits per image, with their Monte-Carlo errors."""

    paths: int
    lower: float
    lower_mc_error: float
    upper: float
    upper_mc_error: float


MAPPED = {"reading": "schedule"}  # what maps are of; a trajectory has no positions of its own

LABELS = {
    "path": "path H(P||Z|X), causal",
    "execution": "execution H(Z||P|X), causal",
    "joint": "joint, H(P||Z|X) + H(Z||P|X)",
    "schedule_path": "path H(P||Z|X), causal, schedule",
    "schedule_execution": "execution H(Z||P|X), causal, schedule",
    "schedule_joint": "joint, H(P||Z|X) + H(Z||P|X), schedule",
    "trajectory_path": "path H(P||Z|X), causal, whole trajectory",
    "trajectory_execution": "execution H(Z||P|X), causal, whole trajectory",
    "trajectory_joint": "joint H(Z,P|X), whole trajectory",
    "conditional_lower": "H(Z|X) at least",
    "conditional_upper": "H(Z|X) at most",
    "token_plug_in": "H(Z) of tokens, plug-in",
    "token_miller_madow": "H(Z) of tokens, Miller-Madow by image",
    "token_chao_shen": "H(Z) of tokens, Chao-Shen by image",
    "sequence_lower": "H(Z) of images at least",
    "sequence_upper": "H(Z) of images at most",
    "mutual_lower": "I(X;Z) at least",
    "mutual_upper": "I(X;Z) at most",
    "ceiling": "I(X;Z) ceiling, log2(prompts)",
    "relevant": "I(Z;Y) at least",
}


@dataclass(frozen=True, repr=False, eq=False)
class Information(Shown):
    """The entropies of one model under some interventions. All estimates are in bits per image.

    path, execution, joint: the causal entropies H(P||Z|X), H(Z||P|X) and their sum, in the reading that `reading`
    names. The sum is H(Z,P|X). In a diffusion's schedule reading, which counts tokens that are replaced later, it is at
    least that. schedule_*, trajectory_*: the same in both readings, which differ for diffusion only.

    conditional_*, sequence_*, mutual_*: H(Z|X), H(Z) and I(X;Z) from below and above; lower equals upper where the
    quantity is exact. token_*: the entropy of a token drawn from all images, times the number of positions. ceiling:
    log2(prompts), which I(X;Z) over this prompt set cannot exceed. relevant: I(Z;Y) from below. tightness: the bounds
    on H(Z|X) that weigh paths, by the number of paths.

    path_map, execution_map: mean bits of each step and position, which add up to `path` and `execution` in the schedule
    reading. usage: the share of the codebook that came out. perplexity: 2 to the power of the plug-in entropy of a
    token. wording_notes: for each wording that the model did not read in full, what it left out. templated: the prompts
    whose other wordings are templates, because they have no paraphrases. wordings: the wordings of each prompt that
    were used, once each.
    """

    model: str
    interventions: tuple[str, ...]
    prompts: tuple[str, ...]
    n: int
    seed: int
    drawn_with: DrawnWith
    positions: int
    codes: int
    reading: str
    path: Estimate
    execution: Estimate
    joint: Estimate
    schedule_path: Estimate
    schedule_execution: Estimate
    schedule_joint: Estimate
    trajectory_path: Estimate
    trajectory_execution: Estimate
    trajectory_joint: Estimate
    conditional_lower: Estimate
    conditional_upper: Estimate
    token_plug_in: Estimate
    token_miller_madow: Estimate
    token_chao_shen: Estimate
    sequence_lower: Estimate
    sequence_upper: Estimate
    mutual_lower: Estimate
    mutual_upper: Estimate
    ceiling: Estimate
    relevant: Estimate
    tightness: tuple[Tightness, ...]
    path_map: Float[np.ndarray, "steps h w"]
    execution_map: Float[np.ndarray, "steps h w"]
    usage: float
    perplexity: float
    notes: tuple[str, ...] = ()
    wording_notes: Mapping[str, str] = field(default_factory=dict)
    templated: tuple[str, ...] = ()
    wordings: tuple[tuple[str, ...], ...] = ()

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The estimates by their names, in the order of the tables."""
        return {name: getattr(self, name) for name in LABELS}

    @property
    def headline(self) -> str:
        name = " ".join((self.model, *self.interventions))
        prompts, n = counted(len(self.prompts), "prompt"), counted(self.n, "sample")
        return f"Information: {name}, {prompts}, {n} each, seed {self.seed}"

    def shown_table(self) -> pd.DataFrame:
        names = {"bits_per_image": "bits_per_image", "image_low": "bits_per_image_low"}
        names |= {"image_high": "bits_per_image_high", "image_mc_error": "mc_error"}
        table = self.table.rename(columns=names)
        return with_intervals(table, ("quantity", "bits_per_image", "mc_error", "note"))

    def shown_notes(self) -> Sequence[str]:
        said = "Means over prompts, [95% interval over prompts]; mc_error: standard error for exactly these prompts."
        alone = "One prompt: there is no interval over prompts, it needs at least 2."
        return [said, *self.notes, *([alone] if len(self.prompts) == 1 else [])]

    @property
    def plane(self) -> tuple[float, float]:
        """The point (I(X;Z), I(Z;Y)) of the bottleneck plane, both from below, in bits."""
        return self.mutual_lower.value, self.relevant.value

    @property
    def run(self) -> dict[str, object]:
        """The leading columns of every table."""
        return {"model": self.model, "interventions": " + ".join(self.interventions) or "none"}

    @property
    def table(self) -> pd.DataFrame:
        """One row per quantity: bits per image and per token, each with its interval over prompts, and its Monte-Carlo
        error and interval."""
        rows = []
        for name, found in self.estimates.items():
            row: dict[str, object] = self.run | {"quantity": name, "label": LABELS[name]}
            for unit, scale in (("image", 1.0), ("token", 1.0 / self.positions)):
                scaled = found * scale
                prompts, monte_carlo = scaled.over_prompts, scaled.monte_carlo
                row |= {f"bits_per_{unit}": scaled.value, f"{unit}_low": prompts.low, f"{unit}_high": prompts.high}
                row |= {f"{unit}_mc_error": scaled.mc_error}
                row |= {f"{unit}_mc_low": monte_carlo.low, f"{unit}_mc_high": monte_carlo.high}
            rows.append(row | {"note": found.note})
        return pd.DataFrame(rows)

    @property
    def steps_table(self) -> pd.DataFrame:
        """Bits per image that each step decides, in the schedule reading."""
        path, execution = self.path_map.sum((1, 2)), self.execution_map.sum((1, 2))
        return pd.DataFrame(self.run | MAPPED | {"step": np.arange(len(path)), "path": path, "execution": execution})

    @property
    def maps_table(self) -> pd.DataFrame:
        """Bits per image that each step decides at each position of the grid, in the schedule reading: one row for each
        step, row and column."""
        step, row, column = np.indices(self.path_map.shape).reshape(3, -1)
        maps = {"path": self.path_map.flatten(), "execution": self.execution_map.flatten()}
        return pd.DataFrame(self.run | MAPPED | {"step": step, "row": row, "column": column} | maps)

    @property
    def tightness_table(self) -> pd.DataFrame:
        """H(Z|X) from below and above by the number of paths; without rows where no paths were weighed."""
        names = [*self.run, *(each.name for each in fields(Tightness))]
        return pd.DataFrame([self.run | asdict(each) for each in self.tightness], columns=names)

    @property
    def per_prompt_table(self) -> pd.DataFrame:
        """Bits of each prompt, per image and per token, with Monte-Carlo error and 95% Monte-Carlo interval, for
        quantities that have a value per prompt."""
        units = {"image": 1.0, "token": 1.0 / self.positions}
        names = [f"bits_per_{unit}{part}" for unit in units for part in ("", "_mc_error", "_mc_low", "_mc_high")]
        rows = [
            [*self.run.values(), prompt, quantity, *(part * scale for scale in units.values() for part in parts)]
            for quantity, found in self.estimates.items()
            for prompt, one, error in zip(self.prompts, found.per_prompt, found.per_prompt_mc_error, strict=False)
            for parts in [(one.value, error, one.low, one.high)]
        ]
        return pd.DataFrame(rows, columns=[*self.run, "prompt", "quantity", *names])
