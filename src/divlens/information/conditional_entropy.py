"""H(Z|X) for rules whose law is known. It is exact if there is only one path; otherwise there are two bounds.

The upper bounds are the joint entropy and an importance-weighted bound over paths. The lower bounds are the execution
entropy, for rules that draw no token twice, and a bound that weighs the path on which the sample was drawn together
with other paths (`replay.sandwich`). For AR with several wordings see `exact_autoregressive`.
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
    """The bounds on H(Z|X). `stored`: the samples for whose grids new paths are drawn, `paths` for each. Without stored
    samples or without paths, the bounds are the joint and execution entropies."""
    law = law_of(run.settings.rule)
    assert law.known
    wording, most = np.array([wording_entropy(used) for used in run.wordings]), full_support(run)
    exact = law.path_is_certain and not wording.any()

    def from_all_samples(name: str, extra: Float[np.ndarray, " prompts"] | float = 0.0) -> Estimate:
        notes = "; ".join(filter(None, ("exact" if exact else LABELS[name], note)))
        return estimate_of_quantity(tally, name, run.settings, most.value, notes, extra)

    # If a token may be drawn more than once, the committed tokens contain more than Z, and their entropy is not a lower
    # bound. The tokens of the last draws are exactly Z.
    lowers = [from_all_samples("execution" if law.draws_once else "trajectory_execution")]
    if exact:
        return Bracket(lowers[0], lowers[0])
    names = ["joint"] if law.draws_once else ["joint", "trajectory_joint"]
    uppers = [*(from_all_samples(name, wording) for name in names), most]
    tightness = []
    # If there is only one path, the joint is exactly H(Z|X, wording), and a noisy bound could only be worse.
    if stored is not None and paths and not law.path_is_certain and most.value > 0:
        by_paths = bounds_by_paths(run, tally, stored, paths, wording)
        tightness = [
            Tightness(count, below.value, below.mc_error, above.value, above.mc_error)
            for count, below, above in by_paths
        ]
        # The bounds with the most paths are used. Choosing the best of several noisy bounds would favour chance.
        lowers.append(by_paths[-1][1])
        uppers.append(by_paths[-1][2])
    # If bounds are equal up to rounding, the first is chosen, because it has no error from sampled paths.
    lower = max(lowers, key=lambda bound: round(bound.value, 9) if math.isfinite(bound.value) else -math.inf)
    upper = min(uppers, key=lambda bound: round(bound.value, 9) if math.isfinite(bound.value) else math.inf)
    return Bracket(lower, upper, tuple(tightness))


def full_support(run: Run) -> Estimate:
    """The largest possible entropy of a grid in bits, reached if all codes that may be drawn are equally likely at
    every position. For a rule without a known law all codes count, because it may put any code into the grid."""
    allowed, known = run.settings.allowed, law_of(run.settings.rule).known
    codes = int(allowed.sum()) if known and allowed is not None else run.model.codes
    note = "every allowed code alike" if known else "every code alike"
    return same_for_all(math.prod(run.model.grid) * math.log2(codes), len(run.wordings), note)


def wording_entropy(used: Sequence[str]) -> float:
    """The entropy in bits of the choice of wording. H(Z|X) exceeds H(Z|X, wording) by at most this much."""
    share = np.array([*shares(used).values()])
    return float(-(share * np.log2(share)).sum()) + 0.0


def bounds_by_paths(
    run: Run, tally: Tally, stored: StoredSamples, paths: int, wording: Float[np.ndarray, " prompts"]
) -> list[tuple[int, Estimate, Estimate]]:
    """The lower and upper bound on H(Z|X) for each number of paths. The upper one includes the wording's entropy."""
    wordings = [row.wording for row in stored.rows]
    log_p, log_q = transcript_log_probabilities(run, wordings, stored.states, stored.committed)
    # The slope is not fitted, because there are too few grids and fitting would bias the mean. For diffusion the slope
    # of the lower bound is 0: most of the record leaves no trace in the picture, so the probability of the record says
    # little about the weight of the own path.
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
    """The log weights of each stored grid for each of these paths, computed in one run."""
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
    """The mean of `values` over the stored samples, plus `extra` bits. The control variate `control` is -log p of each
    record, whose mean is the joint entropy.

    The joint entropy is known more precisely, from all n samples of the tally. The estimate is slope * joint + v, where
    v is the mean of values - slope * control over the m stored samples. Its variance is slope^2 var(joint) / n +
    var(v) / m + 2 slope cov(joint, v) / n, because the stored samples are among the n samples.
    """
    if not bool(values.isfinite().all()):
        return undefined(OUT_OF_REACH.format(note))
    strata, v = stored.strata, values - slope * control
    # The sum is included because the covariance is half of var(joint + v) - var(joint) - var(v).
    few = stored.sums(torch.stack([stored.joint, v, stored.joint + v], 1))
    every, rest = tally.sums.quantity(QUANTITIES.index("trajectory_joint")), few.quantity(1)
    lumped = without_own_variance(strata, few)
    joint, alone, both = sample_moment(strata, few, lumped, Sums.variance).T
    shared = slope * (both - joint - alone) + slope**2 * sample_moment(strata, every, lumped, Sums.variance)[:, 0]
    means, joints = prompt_means(strata, rest), prompt_means(strata, every)
    variance = means.variance + strata.sums(strata.share**2 * shared / strata.count).numpy()
    mean = slope * joints.mean + means.mean + extra
    return estimate(PromptMeans(mean, variance.clip(min=0.0), means.freedom), note)
