"""From what a judge reads to the law of what was drawn: corrected for the judge's errors and for the number of samples.

Of one attribute: `counts` says how many samples of each prompt were read as each value, and `confusion` how often the
judge reads a true value as each value (rows: true, columns: read, each row summing to 1). The confusion is taken as
exact; how far it is not shows in the same figures of real pictures.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from divlens.errors import DivlensError
from divlens.statistics import CONFIDENCE, FEWEST_TO_RESAMPLE, RESAMPLES, Interval, unseen

# The error shrinks geometrically, about by the share that is misread, or where the most likely chance of a value is
# just 0 as 1 / rounds: it stays below 0.003 then.
ROUNDS = 400
ROUNDING = 1e-4  # shares may have been stored as float16


def check_confusion(confusion: Float[np.ndarray, "true read"]) -> None:
    """Raises DivlensError unless it is square, of shares of at least 0, each row summing to 1."""
    if confusion.shape[0] != confusion.shape[1]:
        raise DivlensError(f"a confusion expects as many true values as read ones, got {confusion.shape}")
    sums = confusion.sum(1)
    if not ((confusion >= 0).all() and np.allclose(sums, 1, atol=len(confusion) * ROUNDING)):  # NaN is refused, too
        raise DivlensError(f"a confusion expects shares of at least 0 in rows that sum to 1, got sums {sums.tolist()}")


def tells_values_apart(confusion: Float[np.ndarray, "true read"]) -> bool:
    """Whether readings determine the law of true values at all."""
    return bool(np.linalg.matrix_rank(confusion, tol=0.01) == len(confusion))


def most_likely_law(
    counts: Float[np.ndarray, "*rows read"], confusion: Float[np.ndarray, "true read"]
) -> Float[np.ndarray, "*rows true"]:
    """Of each row of counts the law of true values under which they are most likely (expectation-maximisation of a
    mixture's proportions: Dempster, Laird and Rubin, 1977). NaN for a row without counts."""
    total = counts.sum(-1, keepdims=True)
    shares = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    law = np.full((*counts.shape[:-1], len(confusion)), 1 / len(confusion))
    for _ in range(ROUNDS):
        expected = law @ confusion
        law = law * (np.divide(shares, expected, out=np.zeros_like(shares), where=expected > 0) @ confusion.T)
    return np.where(total > 0, law, np.nan)


def entropies(law: Float[np.ndarray, "*rows values"]) -> Float[np.ndarray, "*rows"]:
    """Bits, of each row."""
    return np.asarray(-(law * np.log2(law, out=np.zeros_like(law), where=law > 0)).sum(-1))


def corrected_entropies(
    counts: Float[np.ndarray, "prompts read"], confusion: Float[np.ndarray, "true read"]
) -> Float[np.ndarray, " prompts"]:
    """Entropy of the law of true values of each prompt, bits; all prompts have as many samples, n.

    The entropy of the most likely law is too low by about 1 / n: the jackknife over samples takes that away (Zahl,
    1977). It may exceed log2(values). Beside Miller and Madow's correction, which counts the values that came out, it
    errs less where n is not much more than there are values, and it serves with a judge that errs, too: of six values,
    15% misread and n = 16, even ones come out 0.06 bits too low, and a single one has 0.42 bits instead of 0 (0.04 for
    n = 64). NaN for n < 2.
    """
    n = float(counts[0].sum()) if len(counts) else 0.0
    if n < 2:
        return np.full(len(counts), np.nan)
    without = np.maximum(counts[:, None] - np.eye(counts.shape[1]), 0.0)  # a sample of each value less
    left_out = entropies(most_likely_law(without, confusion))
    whole = entropies(most_likely_law(counts, confusion))
    return n * whole - (n - 1) * (counts / n * left_out).sum(1)


def distance_of_prompt(
    truth: Float[np.ndarray, " values"],
    counts: Float[np.ndarray, " read"],
    confusion: Float[np.ndarray, "true read"],
) -> float:
    """Total variation between the law of true values of one prompt and `truth`, from the readings of its n samples.

    The plain distance T, between the shares that are read and `truth`, is too large: few samples are never spread as
    evenly as their law is, and a judge errs. What is expected of T is known of two generators: e0 of `truth` itself,
    and e1 of one that always draws the same value, of those that lie furthest from `truth`, at the distance m; of
    several such values e1 is the mean. So m (T - e0) / (e1 - e0) is given. It is 0 and m on average for these two, at
    any n and with any judge, and may be below 0. Where `truth` is a single value and the judge is right, it is the
    share of the others, without bias. Where `truth` is even it is too low on average between the two, for |x| bends
    where x is mostly noise: of nine values by 0.18 at most with 8 samples, by 0.15 with 16 and by 0.09 with 64, so
    compare at equal n only.

    NaN without samples, for a judge whose readings do not determine the law, and for a single sample of what is even:
    no reading says more than another then.
    """
    n, farthest = counts.sum(), float(1 - truth.min())
    if n == 0 or not tells_values_apart(confusion):
        return math.nan
    none, far = (
        float(expected_distance(law @ confusion, truth, int(n)).mean())
        for law in (truth, np.eye(len(truth))[truth == truth.min()])
    )
    if not far - none > ROUNDING:
        return math.nan
    plain = float(np.abs(counts / n - truth).sum()) / 2
    return farthest * (plain - none) / (far - none)


def expected_distance(
    read: Float[np.ndarray, "*rows values"], truth: Float[np.ndarray, " values"], n: int
) -> Float[np.ndarray, "*rows"]:
    """The mean total variation between `truth` and the shares of n samples of each law of readings, exactly.

    A count X is binomial with a chance p, and E|X / n - q| = p - q + 2 (q P(X <= k) - p P(X' <= k - 1)), where k is nq
    rounded down and X' the same of n - 1 samples (de Moivre's mean deviation, around any q).
    """
    from scipy.special import bdtr  # `import divlens` must not wait for scipy

    most = np.floor(n * truth)
    read = read.clip(0, 1)  # a sum of shares may be a little more
    below = np.where(most > 0, bdtr(np.maximum(most - 1, 0), n - 1, read), 0.0)
    deviations = read - truth + 2 * (truth * bdtr(most, n, read) - read * below)
    return np.asarray(deviations.sum(-1) / 2)


def distance_from(
    truth: Float[np.ndarray, " values"],
    counts: Float[np.ndarray, "prompts read"],
    confusion: Float[np.ndarray, "true read"],
    seed: int = 0,
) -> Interval:
    """Total variation between the law of true values over all prompts and `truth`, in [0, 1] but for noise, with a 95%
    interval over prompts. NaN below 6 prompts, and for a judge whose readings do not determine the law.

    A law that is known up to noise always differs from the truth: |x| is too large where x is mostly noise. Were the
    sign of each difference taken from one half of the prompts and its size from the other, there would be no such
    surplus, only a small loss where signs are guessed wrong. With normal noise of standard error s the mean over all
    halves is x (2 Phi(x / s) - 1) - 2 s phi(x / s), which is used; it may be a little below 0.

    The interval needs no such argument: laws differ in distance from the truth by no more than they do from each other.
    So it reaches from the plain distance to both sides as far as the laws of 95% of resamples of the prompts do; where
    all readings are alike, as far as other prompts might go that so many did not show (Clopper and Pearson). A law of
    very few values comes out a little too even: by 0.01 for one value, 64 prompts of 16 pictures and 15% misread.
    """
    prompts = len(counts)
    if prompts < FEWEST_TO_RESAMPLE or not tells_values_apart(confusion):
        return Interval(math.nan)
    generator = np.random.default_rng(seed)
    times = generator.multinomial(prompts, np.full(prompts, 1 / prompts), size=RESAMPLES)
    law = most_likely_law(counts.sum(0), confusion)
    # Resamples of so few scatter too little, by a known factor.
    deviations = (most_likely_law(times @ counts, confusion) - law) * math.sqrt(prompts / (prompts - 1))
    reach = float(np.quantile(np.abs(deviations).sum(1) / 2, CONFIDENCE)) or unseen(prompts)
    difference = law - truth
    value = float(without_surplus(difference, deviations.std(0)).sum() / 2)
    plain = float(np.abs(difference).sum() / 2)
    return Interval(value, plain - reach, plain + reach).within(0.0, 1.0)


def without_surplus(
    differences: Float[np.ndarray, " values"], errors: Float[np.ndarray, " values"]
) -> Float[np.ndarray, " values"]:
    """Sizes of differences that are known up to these standard errors, see `distance_from`."""
    t = np.divide(differences, errors, out=np.copysign(np.inf, differences), where=errors > 0)
    sure = np.array([math.erf(x / math.sqrt(2)) for x in t])
    return differences * sure - 2 * errors * np.exp(-(t**2) / 2) / math.sqrt(2 * math.pi)
