"""H(Z|X): exact for AR (under several wordings by what `exact` adds) and for one step, else a bracket for known rules.

From above: the joint, or an importance-weighted bound. From below: the execution entropy where no token is drawn twice,
or the bound that has the sample's own path among those it weighs (`bounds.sandwich`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from divlens.information.accounting import QUANTITIES, Tally, account
from divlens.information.estimates import BITS, LABELS, Estimate, Tightness, certain, estimate, undefined
from divlens.information.kept import OUT_OF_REACH, Kept, batches, shares
from divlens.information.laws import law_of
from divlens.information.replay import importance_log_weights, path_key, sandwich, transcript_log_probabilities
from divlens.information.strata import Sums
from divlens.run import Run


@dataclass(frozen=True)
class Bracket:
    lower: Estimate
    upper: Estimate
    tightness: tuple[Tightness, ...] = ()


def conditional_entropy(run: Run, tally: Tally, kept: Kept | None, paths: int, note: str) -> Bracket:
    """`kept`: samples that get `paths` proposed paths each; None, or no paths, leaves the joint and the execution."""
    law = law_of(run.settings.rule)
    assert law.known
    wording, most = np.array([wording_entropy(used) for used in run.wordings]), full_support(run)
    exact = law.path_is_certain and not wording.any()

    def known(name: str, extra: Float[np.ndarray, " prompts"] | float = 0.0) -> Estimate:
        label = "exact" if exact else LABELS[name]
        return account(tally, name, run.settings, most.value, "; ".join(filter(None, (label, note))), extra)

    # Where a token may be drawn again, the committed tokens say more than Z: only the last draw is all of Z.
    lowers = [known("execution" if law.draws_once else "trajectory_execution")]
    if exact:
        return Bracket(lowers[0], lowers[0])
    names = ["joint"] if law.draws_once else ["joint", "trajectory_joint"]
    uppers = [*(known(name, wording) for name in names), most]
    tightness = []
    # Where the path is certain the draws are all of Z given the wording, and a noisy bound could only miss that.
    if kept is not None and paths and not law.path_is_certain and most.value > 0:
        by_paths = weighted(run, tally, kept, paths, wording)
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
    """What no grid of this size exceeds: every code alike at every position, of those that may be drawn. A rule that is
    not known may bring others into the grid."""
    allowed, known = run.settings.allowed, law_of(run.settings.rule).known
    codes = int(allowed.sum()) if known and allowed is not None else run.model.codes
    note = "every allowed code alike" if known else "every code alike"
    return certain(math.prod(run.model.grid) * math.log2(codes), len(run.wordings), note)


def wording_entropy(used: Sequence[str]) -> float:
    """Bits of which wording a sample got: what H(Z|X) may exceed H(Z|X, wording) by."""
    share = np.array([*shares(used).values()])
    return float(-(share * np.log2(share)).sum()) + 0.0


def weighted(
    run: Run, tally: Tally, kept: Kept, paths: int, wording: Float[np.ndarray, " prompts"]
) -> list[tuple[int, Estimate, Estimate]]:
    """For each number of paths: H(Z|X) from below, and from above with the wording's entropy added."""
    wordings = [row.wording for row in kept.rows]
    log_p, log_q = transcript_log_probabilities(run, wordings, kept.states, kept.committed)
    # Not fitted: the few grids there are would tell it badly, and bias the mean. How the own path of a diffusion weighs
    # has little to do with how likely its record was, most of which the picture does not show.
    own_slope = 1.0 if law_of(run.settings.rule).draws_once else 0.0
    proposed = torch.cat([several(run, kept, part) for part in batches(run, len(kept.rows), paths)], 1)
    control, result = -log_p * BITS, []
    for each in sandwich(proposed, log_p, log_q):
        text = f"{each.paths} path{'s' * (each.paths > 1)} per grid, {len(kept.rows)} grids"
        above, below = -each.below * BITS, -each.above * BITS
        notes = (f"own path among {text}", f"importance-weighted, {text}")
        lower = controlled(tally, kept, below, control, own_slope, notes[0])
        upper = controlled(tally, kept, above, control, 1.0, notes[1], wording)
        result.append((each.paths, lower, upper))
    return result


def several(run: Run, kept: Kept, paths: Sequence[int]) -> Float[Tensor, "kept paths"]:
    """Log weights of each kept grid for each of these paths, in one run."""
    wordings = [row.wording for row in kept.rows for _ in paths]
    keys = [path_key(path, i) for i in range(len(kept.rows)) for path in paths]
    grids = kept.grids.repeat_interleave(len(paths), 0)
    return importance_log_weights(run, wordings, grids, keys).view(-1, len(paths))


def controlled(
    tally: Tally,
    kept: Kept,
    values: Float[Tensor, " kept"],
    control: Float[Tensor, " kept"],
    slope: float,
    note: str,
    extra: Float[np.ndarray, " prompts"] | float = 0.0,
) -> Estimate:
    """Mean of `values` over the kept samples, with -log p of each record as a control variate.

    Its mean is the joint, which all n samples know well. With m kept among them a stratum's variance, for v = values -
    slope * control, is slope^2 var(joint)/n + var(v)/m + 2 slope cov(joint, v)/n.
    """
    if not bool(values.isfinite().all()):
        return undefined(OUT_OF_REACH.format(note))
    at, (strata, into) = QUANTITIES.index("trajectory_joint"), kept.usable
    every, part = tally.sums.gathered(into, len(strata)), into[kept.stratum]
    both = torch.stack([kept.joint, values - slope * control], 1)
    fine = Sums.of(both).gathered(kept.stratum, len(kept.strata))
    few, (means, portion) = fine.gathered(into, len(strata)), kept.strata.weighted(fine, into)
    n, m = every.count, few.count
    products = torch.zeros(len(strata), dtype=both.dtype).index_add(0, part, (both - few.mean[part]).prod(1))
    mean = slope * every.mean[:, at] + means[:, 1]
    covariance = products / (m - 1) / n
    spread = slope**2 * every.variance()[:, at] / n + few.variance()[:, 1] * portion + 2 * slope * covariance
    moments = strata.moments(mean, spread.clamp(min=0), m - 1)
    return estimate(replace(moments, mean=moments.mean + extra), note)
