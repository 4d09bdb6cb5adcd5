"""What `information` returns: estimates with intervals, maps, and a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from divlens.showing import Shown, counted, with_intervals
from divlens.statistics import bootstrap_mean, student_t
from divlens.types import DrawnWith

BITS = 1 / math.log(2)  # of a nat
Sides = tuple[np.ndarray | float, np.ndarray | float]  # bits, down and up: of the mean, or (prompts,) each


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts, in bits per image, with two kinds of uncertainty.

    low, high: 95% interval over prompts, the prompts being a sample of those one might have asked; NaN for fewer than
    two. mc_error: the Monte-Carlo standard error for exactly these prompts, and mc_low, mc_high its 95% interval.
    `note` says why a value is NaN, or what it is conditional on. per_prompt: bits per image of each prompt;
    per_prompt_mc_error the Monte-Carlo standard error of each, per_prompt_mc_low and per_prompt_mc_high its 95%
    interval (Student's). Intervals also allow for what no sample showed; see docs/intervals.md.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    mc_error: float = math.nan
    mc_low: float = math.nan
    mc_high: float = math.nan
    note: str = ""
    per_prompt: tuple[float, ...] = ()
    per_prompt_mc_error: tuple[float, ...] = ()
    per_prompt_mc_low: tuple[float, ...] = ()
    per_prompt_mc_high: tuple[float, ...] = ()


def undefined(reason: str) -> Estimate:
    return Estimate(math.nan, note=reason)


@dataclass(frozen=True)
class Moments:
    """Of the samples of each prompt, (prompts,): mean, variance, third central moment (None: not known), number."""

    mean: Float[np.ndarray, " prompts"]
    variance: Float[np.ndarray, " prompts"]
    count: Int[np.ndarray, " prompts"]
    third: Float[np.ndarray, " prompts"] | None = None


def estimate(moments: Moments, note: str = "", limits: tuple[float, float] = (0.0, math.inf)) -> Estimate:
    """The mean over prompts. `limits`: of a prompt's value, at which intervals are cut.

    The Monte-Carlo interval is Student's with Welch's and Satterthwaite's degrees of freedom, and where the third
    moment is known corrected for skewness by transformation (Hall, 1992).
    """
    over_prompts = bootstrap_mean(moments.mean, limits=limits)
    parts = moments.variance / moments.count
    prompts, value = len(parts), over_prompts.value
    error = float(np.sqrt(parts.sum()) / prompts)
    below = above = error  # 0: every sample had the same value; or NaN: a prompt had one sample only
    if error > 0:
        reach = student_t(max(1, int(parts.sum() ** 2 / (parts**2 / np.maximum(moments.count - 1, 1)).sum())))
        skewness = 0.0
        if moments.third is not None:
            skewness = float((moments.third / moments.count**2).sum()) / prompts**3 / error**3
        below, above = (-error * straightened(side, skewness) for side in (reach, -reach))
        below = -below
    bounds = np.clip([value - below, value + above], *limits)
    # An estimate of a bound may fall outside what is possible; its interval then reaches from there.
    interval = (min(over_prompts.low, value), max(over_prompts.high, value), error)
    interval = (*interval, min(float(bounds[0]), value), max(float(bounds[1]), value))
    errors = np.sqrt(parts)
    reaches = errors * [student_t(max(1, count - 1)) for count in moments.count.tolist()]
    sides = (moments.mean - reaches, moments.mean + reaches)
    return Estimate(value, *interval, note, *each_prompt(moments.mean, errors, *sides, limits))


def capped(found: Estimate, most: float) -> Estimate:
    """Its intervals, which hold the value, go no further than `most`. What single prompts contribute may."""
    low, high, mc_low, mc_high = (min(side, most) for side in (found.low, found.high, found.mc_low, found.mc_high))
    high, mc_high = max(high, found.value), max(mc_high, found.value)
    return replace(found, low=min(low, found.value), high=high, mc_low=min(mc_low, found.value), mc_high=mc_high)


def widened(found: Estimate, beyond: Sides, each: Sides) -> Estimate:
    """With intervals that reach at least so far down, to 0 at most, and up from the values: those of the mean over
    prompts by `beyond`, those of the prompts by `each`."""

    def reached(value: float, low: float, high: float, less: float, more: float) -> tuple[float, float]:
        return min(low, max(value - less, 0.0)), max(high, value + more)

    if not found.per_prompt:
        return found
    low, high = reached(found.value, found.low, found.high, *map(float, beyond))
    mc_low, mc_high = reached(found.value, found.mc_low, found.mc_high, *map(float, beyond))
    ends = (found.per_prompt, found.per_prompt_mc_low, found.per_prompt_mc_high)
    whole = zip(*ends, *(np.asarray(side).tolist() for side in each), strict=True)
    lows, highs = zip(*(reached(*one) for one in whole), strict=True)
    sides = {"low": low, "high": high, "mc_low": mc_low, "mc_high": mc_high}
    return replace(found, **sides, per_prompt_mc_low=lows, per_prompt_mc_high=highs)


def extended(found: Estimate, beyond: Sides, each: Sides, most: float) -> Estimate:
    """With intervals that reach so much further than they do, between 0 and `most`."""
    if not found.per_prompt:
        return found
    (less, more), (down, up) = beyond, each
    return replace(
        found,
        low=max(found.low - less, 0.0),
        high=min(found.high + more, max(found.high, most)),
        mc_low=max(found.mc_low - less, 0.0),
        mc_high=min(found.mc_high + more, max(found.mc_high, most)),
        per_prompt_mc_low=tuple(np.maximum(np.array(found.per_prompt_mc_low) - down, 0.0).tolist()),
        per_prompt_mc_high=tuple(
            np.minimum(np.array(found.per_prompt_mc_high) + up, np.maximum(found.per_prompt_mc_high, most)).tolist()
        ),
    )


def certain(bits: float, prompts: int, note: str) -> Estimate:
    """A value that is the same for every prompt and has no error."""
    return estimate(Moments(np.full(prompts, bits), np.zeros(prompts), np.ones(prompts, int)), note)


def each_prompt(
    means: Float[np.ndarray, " prompts"],
    errors: Float[np.ndarray, " prompts"],
    low: Float[np.ndarray, " prompts"],
    high: Float[np.ndarray, " prompts"],
    limits: tuple[float, float],
) -> Iterator[tuple[float, ...]]:
    """The per-prompt fields of an Estimate; the intervals are cut at `limits`, and hold their means."""
    cut_low, cut_high = (np.clip(side, *limits) for side in (low, high))
    for values in (means, errors, np.minimum(cut_low, means), np.maximum(cut_high, means)):
        yield tuple(float(value) for value in values)


def straightened(t: float, skewness: float) -> float:
    """The quantile of (estimate - truth) / error that belongs to the symmetric quantile `t`, for an estimate of this
    skewness (Hall, 1992): the inverse of x + s x^2 / 3 + s^2 x^3 / 27 + s / 6."""
    if not math.isfinite(skewness) or abs(skewness) < 1e-6:
        return t
    return 3 / skewness * (float(np.cbrt(1 + skewness * (t - skewness / 6))) - 1)


def plus(one: Estimate, other: Estimate) -> Estimate:
    """The sum, prompt by prompt.

    The two Monte-Carlo errors are added: H(Z|X) and I(X;Z) come from the same samples and may err together.
    """
    told = [part for part in (one, other) if not part.per_prompt] or [one, other]  # of NaN only why it is
    note = "; ".join(filter(None, dict.fromkeys(part.note for part in told)))
    if not (one.per_prompt and other.per_prompt):
        return undefined(note)
    means, errors, lows, highs = (
        np.array(getattr(one, name)) + np.array(getattr(other, name))
        for name in ("per_prompt", "per_prompt_mc_error", "per_prompt_mc_low", "per_prompt_mc_high")
    )
    limits = (0.0, math.inf)
    over_prompts = bootstrap_mean(means, limits=limits)
    value, error = over_prompts.value, one.mc_error + other.mc_error
    # Each side of the two intervals carries its own degrees of freedom.
    below, above = (sum(abs(getattr(part, end) - part.value) for part in (one, other)) for end in ("mc_low", "mc_high"))
    bounds = (max(value - below, 0.0), value + above)
    parts = each_prompt(means, errors, lows, highs, limits)
    low, high = min(over_prompts.low, bounds[0]), max(over_prompts.high, bounds[1])
    return Estimate(value, low, high, error, *bounds, note, *parts)


@dataclass(frozen=True)
class Tightness:
    """H(Z|X) from below and above with so many paths per grid, bits per image, with Monte-Carlo errors."""

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
    """The accounting of one model under some interventions; all estimates in bits per image.

    path, execution, joint: causal (H(P||Z|X), H(Z||P|X) and their sum), in the reading that `reading` names. The sum
    is H(Z,P|X); in a diffusion's schedule reading, which counts tokens that are replaced later, it is at least that.
    schedule_*, trajectory_*: the same in both readings; they differ for diffusion only. conditional_*: bracket of
    H(Z|X). token_*: entropy of a token drawn from all images, times the number of positions. sequence_*, mutual_*:
    brackets of H(Z) and I(X;Z); lower equals upper where it is exact. ceiling: log2(prompts), which I(X;Z) over this
    prompt set cannot exceed. relevant: I(Z;Y) from below. tightness: the bounds on H(Z|X) that weigh paths, by the
    number of paths.
    path_map, execution_map: mean bits (steps, h, w); their sums are `path` and `execution` (schedule reading).
    usage: share of the codebook that came out; perplexity: 2 to the power of the plug-in entropy of a token.
    wording_notes: what the model did not read of a wording, for those wordings only. templated: the prompts whose other
    wordings are templates, for they have no paraphrases. wordings: those of each prompt that were used, once each.
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
    estimates: dict[str, Estimate]
    tightness: tuple[Tightness, ...]
    path_map: Float[np.ndarray, "steps h w"]
    execution_map: Float[np.ndarray, "steps h w"]
    usage: float
    perplexity: float
    notes: tuple[str, ...] = ()
    wording_notes: Mapping[str, str] = field(default_factory=dict)
    templated: tuple[str, ...] = ()
    wordings: tuple[tuple[str, ...], ...] = ()

    def __getattr__(self, name: str) -> Estimate:
        # Only asked for what is no field: the estimates by their names.
        estimates = self.__dict__.get("estimates", {})
        if name in estimates:
            return estimates[name]
        raise AttributeError(f"Information has no {name!r}; its estimates are {', '.join(estimates) or 'not set'}")

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
                row[f"bits_per_{unit}"] = found.value * scale
                for part in ("low", "high", "mc_error", "mc_low", "mc_high"):
                    row[f"{unit}_{part}"] = getattr(found, part) * scale
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
        fields_of = {"": "per_prompt", "_mc_error": "per_prompt_mc_error"}
        fields_of |= {"_mc_low": "per_prompt_mc_low", "_mc_high": "per_prompt_mc_high"}
        units = {"image": 1.0, "token": 1.0 / self.positions}
        names = [f"bits_per_{unit}{part}" for unit in units for part in fields_of]
        rows = [
            [*self.run.values(), prompt, quantity, *(value * scale for scale in units.values() for value in values)]
            for quantity, found in self.estimates.items()
            for prompt, *values in zip(
                self.prompts, *(getattr(found, name) for name in fields_of.values()), strict=False
            )
        ]
        return pd.DataFrame(rows, columns=[*self.run, "prompt", "quantity", *names])
