"""H(Z|X): exact where there is one path, else a bracket, for rules whose law is known.

From above it is bounded by the joint and by an importance-weighted bound; from below by the execution entropy where no
token is drawn twice, and by the bound that has the path on which a sample was drawn among those it weighs
(`replay.sandwich`). For AR with several wordings see `exact_autoregressive`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from divlens.information.accounting import QUANTITIES, Tally
from divlens.information.estimates import (
    BITS,
    Estimate,
    PromptMeans,
    estimate,
    same_for_all,
    undefined,
)
from divlens.information.laws import law_of
from divlens.information.replay import importance_log_weights, path_key, sandwich, transcript_log_probabilities
from divlens.information.result import LABELS, Tightness
from divlens.information.stored import OUT_OF_REACH, StoredSamples, batches, shares
from divlens.information.strata import Sums, prompt_means, sample_moment, without_own_variance
from divlens.information.unseen import estimate_of_quantity
from divlens.run import Run


@dataclass(frozen=True)
class Bracket:
    lower: Estimate
    upper: Estimate
    tightness: tuple[Tightness, ...] = ()


def conditional_entropy(run: Run, tally: Tally, stored: StoredSamples | None, paths: int, note: str) -> Bracket:
    """`stored`: the samples whose grids are weighed by `paths` proposed paths each. Without them, or without paths, the
    bracket is that of the joint and the execution."""
    law = law_of(run.settings.rule)
    assert law.known
    wording, most = np.array([wording_entropy(used) for used in run.wordings]), full_support(run)
    exact = law.path_is_certain and not wording.any()

    def from_all_samples(name: str, extra: Float[np.ndarray, " prompts"] | float = 0.0) -> Estimate:
        notes = "; ".join(filter(None, ("exact" if exact else LABELS[name], note)))
        return estimate_of_quantity(tally, name, run.settings, most.value, notes, extra)

    # Where a token may be drawn again, the committed tokens say more than Z: only the last draw is all of Z.
    lowers = [from_all_samples("execution" if law.draws_once else "trajectory_execution")]
    if exact:
        return Bracket(lowers[0], lowers[0])
    names = ["joint"] if law.draws_once else ["joint", "trajectory_joint"]
    uppers = [*(from_all_samples(name, wording) for name in names), most]
    tightness = []
    # Where the path is certain the draws are all of Z given the wording, and a noisy bound could only miss that.
    if stored is not None and paths and not law.path_is_certain and most.value > 0:
        by_paths = bounds_by_paths(run, tally, stored, paths, wording)
        tightness = [
            Tightness(count, below.value, below.mc_error, above.value, above.mc_error)
            for count, below, above in by_paths
        ]
        # Those of most paths: choosing the best of several noisy bounds would be choosing the luckiest.
        lowers.append(by_paths[-1][1])
        uppers.append(by_paths[-1][2])
    # A tie, but for rounding, goes to the first, the exact one.
    lower = max(lowers, key=lambda bound: round(bound.value, 9) if math.isfinite(bound.value) else -math.inf)
    upper = min(uppers, key=lambda bound: round(bound.value, 9) if math.isfinite(bound.value) else math.inf)
    return Bracket(lower, upper, tuple(tightness))


def full_support(run: Run) -> Estimate:
    """The bits that no grid of this size exceeds, with every code that may be drawn equally likely at every position. A
    rule that is not known may bring any code into the grid."""
    allowed, known = run.settings.allowed, law_of(run.settings.rule).known
    codes = int(allowed.sum()) if known and allowed is not None else run.model.codes
    note = "every allowed code alike" if known else "every code alike"
    return same_for_all(math.prod(run.model.grid) * math.log2(codes), len(run.wordings), note)


def wording_entropy(used: Sequence[str]) -> float:
    """The entropy of which wording a sample gets, in bits; H(Z|X) exceeds H(Z|X, wording) by this at most."""
    share = np.array([*shares(used).values()])
    return float(-(share * np.log2(share)).sum()) + 0.0


def bounds_by_paths(
    run: Run, tally: Tally, stored: StoredSamples, paths: int, wording: Float[np.ndarray, " prompts"]
) -> list[tuple[int, Estimate, Estimate]]:
    """For each number of paths: H(Z|X) from below, and from above with the wording's entropy added."""
    wordings = [row.wording for row in stored.rows]
    log_p, log_q = transcript_log_probabilities(run, wordings, stored.states, stored.committed)
    # The slope is not fitted, for the few grids that there are would say little of it, and fitting biases the mean. For
    # a diffusion it is 0: how its own path weighs has little to do with how likely its record was, most of which the
    # picture does not show.
    own_slope = 1.0 if law_of(run.settings.rule).draws_once else 0.0
    proposed = torch.cat([log_weights_of_paths(run, stored, part) for part in batches(run, len(stored.rows), paths)], 1)
    control, result = -log_p * BITS, []
    for each in sandwich(proposed, log_p, log_q):
        text = f"{each.paths} path{'s' * (each.paths > 1)} per grid, {len(stored.rows)} grids"
        above, below = -each.below * BITS, -each.above * BITS
        notes = (f"own path among {text}", f"importance-weighted, {text}")
        lower = estimate_with_control(tally, stored, below, control, own_slope, notes[0])
        upper = estimate_with_control(tally, stored, above, control, 1.0, notes[1], wording)
        result.append((each.paths, lower, upper))
    return result


def log_weights_of_paths(run: Run, stored: StoredSamples, paths: Sequence[int]) -> Float[Tensor, "stored paths"]:
    """Log weights of each stored grid for each of these paths, in one run."""
    wordings = [row.wording for row in stored.rows for _ in paths]
    keys = [path_key(path, i) for i in range(len(stored.rows)) for path in paths]
    grids = stored.grids.repeat_interleave(len(paths), 0)
    return importance_log_weights(run, wordings, grids, keys).view(-1, len(paths))


def estimate_with_control(
    tally: Tally,
    stored: StoredSamples,
    values: Float[Tensor, " stored"],
    control: Float[Tensor, " stored"],
    slope: float,
    note: str,
    extra: Float[np.ndarray, " prompts"] | float = 0.0,
) -> Estimate:
    """The mean of `values` over the stored samples, with `extra` bits added, and with a control variate, -log p of each
    record, whose mean is the joint.

    All n samples of the tally say what the joint is, so the estimate is slope * joint + v, where v is the mean of
    values - slope * control over the m stored samples. The variance of it is slope^2 var(joint) / n + var(v) / m +
    2 slope cov(joint, v) / n, for the stored samples are some of all.
    """
    if not bool(values.isfinite().all()):
        return undefined(OUT_OF_REACH.format(note))
    strata, v = stored.strata, values - slope * control
    # Of two quantities and of their sum, for the covariance is half of what the variance of the sum has more.
    few = stored.sums(torch.stack([stored.joint, v, stored.joint + v], 1))
    every, rest = tally.sums.quantity(QUANTITIES.index("trajectory_joint")), few.quantity(1)
    lumped = without_own_variance(strata, few)
    joint, alone, both = sample_moment(strata, few, lumped, Sums.variance).T
    shared = slope * (both - joint - alone) + slope**2 * sample_moment(strata, every, lumped, Sums.variance)[:, 0]
    means, joints = prompt_means(strata, rest), prompt_means(strata, every)
    variance = means.variance + strata.sums(strata.share**2 * shared / strata.count).numpy()
    mean = slope * joints.mean + means.mean + extra
    return estimate(PromptMeans(mean, variance.clip(min=0.0), means.freedom), note)
