"""How often the interval of the dose at which diversity halves holds the truth, where that is known.

    python studies/halving.py > studies/halving.txt

A prompt's diversity at baseline is gamma distributed over prompts (shape 8). Every prompt loses it with the dose by a
rate of its own, gamma distributed with mean 1 and the scatter that is given; and each value is measured with noise that
is lognormal, of mean 1 and scatter 10%. Curves: "straight", 1 - rate * dose, which a line between two doses meets;
"bent", 1 / (1 + rate * dose), which it does not. Doses are 0, 0.15, 0.3, 0.6, 0.9 of a straight curve and 0, 0.3, 0.7,
1.5, 3 of a bent one. The truth is the dose at which the mean over a million prompts is half of that at baseline.
Everything is computed as `divlens.doses` does. 500 repetitions.

held: the interval holds the truth, with its 95% interval (Clopper and Pearson). An end that no dose of the sweep is
cannot miss. found: how often there is a dose, of the repetitions. width: of the intervals that have both ends, the
median in parts of the truth.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.stats import beta

from divlens.doses.curves import halving, share_left
from divlens.experiment.measures import DIVERSITY, named, usual_measures

REPETITIONS, MANY, NOISE = 500, 10**6, 0.1
CURVES = {
    "straight": ((0.0, 0.15, 0.3, 0.6, 0.9), lambda rate, dose: np.maximum(1 - rate * dose, 0)),
    "bent": ((0.0, 0.3, 0.7, 1.5, 3.0), lambda rate, dose: 1 / (1 + rate * dose)),
}


def rates(random: np.random.Generator, count: int, scatter: float) -> np.ndarray:
    return random.gamma(1 / scatter**2, scatter**2, count)


def noise(random: np.random.Generator, count: int) -> np.ndarray:
    spread = np.sqrt(np.log1p(NOISE**2))
    return np.exp(spread * random.standard_normal(count) - spread**2 / 2)


def row(curve: str, scatter: float, prompts: int) -> str:
    random = np.random.default_rng([len(curve), round(100 * scatter), prompts])
    doses, left = CURVES[curve]
    many = rates(random, MANY, scatter)
    truth = brentq(lambda dose: left(many, dose).mean() - 0.5, doses[0], doses[-1])
    diversity = named(usual_measures(None), DIVERSITY)
    held, found, widths = 0, 0, []
    for _ in range(REPETITIONS):
        base, own = random.gamma(8, 1 / 8, prompts), rates(random, prompts, scatter)
        values = [base * left(own, dose) * noise(random, prompts) for dose in doses]
        shares = [share_left(diversity, each, values[0], 8, 0) for each in values]
        dose = halving(doses, shares).dose
        held += not (dose.low > truth or dose.high < truth)
        found += not np.isnan(dose.value)
        widths.append((dose.high - dose.low) / truth)
    low, high = beta.ppf([0.025, 0.975], [held, held + 1], [REPETITIONS - held + 1, REPETITIONS - held])
    rate = f"{100 * held / REPETITIONS:5.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    return (
        f"{curve:9} {100 * scatter:6.0f}% {prompts:8d} {truth:7.3f}  {rate:20} "
        f"{100 * found / REPETITIONS:5.0f}% {np.nanmedian(widths):7.2f}"
    )


if __name__ == "__main__":
    print("curve     scatter  prompts   truth  held %               found    width")
    for curve in CURVES:
        for scatter in (0.3, 0.6):
            for prompts in (6, 12, 24):
                print(row(curve, scatter, prompts), flush=True)
