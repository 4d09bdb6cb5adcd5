"""How often a verdict errs, and how often it decides, where the truth is known.

    python studies/verdict_errors.py > studies/verdict_errors.txt

A prompt's diversity at baseline is gamma distributed over prompts (shape 8), and a condition changes it by a factor of
its own: the true change, times noise of mean 1 that scatters by so much of it. Laws of the noise: exchangeable
(baseline and condition have noise of one law, as two draws of one model), normal, heavy (Student's t with 3 degrees of
freedom, cut so that diversity stays above 0), skewed (lognormal). Everything is decided as `divlens.verdict` decides
it, with a margin of 10% and three contrasts. 1000 repetitions; every rate has its 95% interval (Clopper and Pearson).

Wrong decisions, of any of three contrasts: "no change" rejected where nothing changed; a change by the margin or more
rejected where the change is the margin exactly; and any outcome that is wrong where two contrasts changed by nothing
and one by the margin. Decisions: of one contrast among three alike. Strategies: by the truth. Kept fidelity: the
condition breaks a share of 8 pictures of a prompt, a pair with a broken one is twice as far apart, and the right ones
are as diverse as before. How often do all pictures show a rise, how often do the right ones and does the verdict claim
one, and how often does it name the strategy that is true of the right ones? Until decided: a run that is looked at as
prompts are added (`divlens probe --until-decided`), at the looks that are planned for so many. How often is any of
three contrasts called wrong at any look, and how often would it be if every look had the whole 5%? And how often is a
contrast decided by the last look, how often would one look at all prompts decide it, and how many prompts are drawn?
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.stats import beta

from divlens.verdict.contrasts import LEVEL, Outcome, outcome_of, p_values, shared_among_looks
from divlens.verdict.evidence import ARGMAX, PARAPHRASE, SUBSET, Figures
from divlens.verdict.looks import planned_looks
from divlens.verdict.significance import holm
from divlens.verdict.strategy import PATTERNS, name_of, strategy_of

REPETITIONS, MARGIN = 1000, 0.1
Factors = Callable[[np.random.Generator, tuple[int, ...], float], np.ndarray]  # of mean 1, with this scatter


def normal(random: np.random.Generator, shape: tuple[int, ...], scatter: float) -> np.ndarray:
    return np.maximum(1 + scatter * random.standard_normal(shape), 0)


def heavy(random: np.random.Generator, shape: tuple[int, ...], scatter: float) -> np.ndarray:
    """A t with 3 degrees of freedom has the variance 3; both tails are cut alike, so the mean stays 1."""
    return 1 + np.clip(scatter * random.standard_t(3, shape) / np.sqrt(3), -1, 1)


def skewed(random: np.random.Generator, shape: tuple[int, ...], scatter: float) -> np.ndarray:
    width = np.sqrt(np.log(1 + scatter**2))
    return np.exp(width * random.standard_normal(shape) - width**2 / 2)


LAWS: Mapping[str, Factors] = {"exchangeable": skewed, "normal": normal, "heavy": heavy, "skewed": skewed}


def drawn(
    law: str, random: np.random.Generator, prompts: int, scatter: float, changes: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Diversities at baseline and under conditions of these true changes, (repetitions, conditions, prompts) each."""
    shape = (REPETITIONS, len(changes), prompts)
    own = random.gamma(8, 0.025, (REPETITIONS, 1, prompts))
    noisy = skewed(random, (REPETITIONS, 1, prompts), scatter / np.sqrt(2)) if law == "exchangeable" else 1.0
    before = np.broadcast_to(own * noisy, shape)
    width = scatter / np.sqrt(2) if law == "exchangeable" else scatter
    return before, own * (1 + np.array(changes)[:, None]) * LAWS[law](random, shape, width)


def decided(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The adjusted p values of no change and of equivalence, and the changes: (repetitions, conditions) each."""
    no_change, equivalence = (holm(p) for p in p_values(before, after, MARGIN, 0))
    return no_change, equivalence, (after - before).sum(-1)


def outcomes(before: np.ndarray, after: np.ndarray) -> list[list[Outcome]]:
    found = (each.tolist() for each in decided(before, after))
    return [[outcome_of(change, p, q) for p, q, change in zip(*row, strict=True)] for row in zip(*found, strict=True)]


def rate(count: int, of: int = REPETITIONS) -> str:
    low = beta.ppf(0.025, count, of - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, of - count) if count < of else 1.0
    return f"{count / of:.3f} [{low:.3f}, {high:.3f}]"


def put(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], first: int = 14) -> None:
    print(title)
    for cells in (headings, *rows):
        print("".join(f"{cell:{first if place < 3 else 23}}" for place, cell in enumerate(cells)).rstrip())
    print(flush=True)


def wrong_decisions() -> None:
    rows = []
    for law in LAWS:
        for prompts in (7, 12, 24, 48):
            for scatter in (0.1, 0.4):
                random = np.random.default_rng(prompts)
                still = decided(*drawn(law, random, prompts, scatter, (0, 0, 0)))
                down = decided(*drawn(law, random, prompts, scatter, (-MARGIN,) * 3))
                up = decided(*drawn(law, random, prompts, scatter, (MARGIN,) * 3))
                mixed = decided(*drawn(law, random, prompts, scatter, (0, 0, -MARGIN)))
                changed, same, rose = (mixed[0] < LEVEL) & (mixed[1] >= LEVEL), mixed[1] < LEVEL, mixed[2] > 0
                called = changed[:, :2].any(1) | same[:, 2] | (changed & rose)[:, 2]
                cells = [rate(int((p < LEVEL).any(1).sum())) for p in (still[0], down[1], up[1])]
                rows.append((law, str(prompts), f"{scatter:.1f}", *cells, rate(int(called.sum()))))
    headings = (
        "law",
        "prompts",
        "scatter",
        "drop or rise at 0",
        "equivalent at -10%",
        "equivalent at +10%",
        "any, mixed",
    )
    put("wrong decisions, of any of three contrasts", headings, rows)


def decisions() -> None:
    rows = []
    for change in (0.0, -0.2, -0.4, 0.3):
        for scatter in (0.1, 0.2, 0.4):
            for prompts in (7, 12, 24, 48):
                found = outcomes(*drawn("skewed", np.random.default_rng(prompts), prompts, scatter, (change,) * 3))
                seen = Counter(row[0] for row in found)
                names = ("drop", "rise", "equivalent", "undecided")
                rows.append((f"{change:+.0%}", f"{scatter:.1f}", str(prompts), *(rate(seen[name]) for name in names)))
    put("decisions, of one of three contrasts", ("change", "scatter", "prompts", *names), rows)


TRUTHS: Mapping[str, tuple[float, float, float, bool]] = {  # changes of Argmax, Subset, Paraphrase; only duplicates
    "diversity-prioritized": (-0.5, -0.3, 0.2, False),
    "compression-prioritized": (-1.0, 0.0, 0.2, True),
    "decoupled": (0.0, -0.3, 0.0, False),
    "mixed": (0.0, 0.0, 0.0, False),
}


def strategies() -> None:
    rows = []
    for truth, (*changes, silent) in TRUTHS.items():
        for scatter in (0.1, 0.2):
            for prompts in (7, 12, 24, 48):
                found = outcomes(*drawn("skewed", np.random.default_rng(prompts), prompts, scatter, changes))
                names = [
                    name_of({ARGMAX: "zero" if silent else argmax, SUBSET: subset, PARAPHRASE: words})
                    for argmax, subset, words in found
                ]
                seen = Counter(names)
                other = sum(seen[name] for name in (*PATTERNS, "mixed") if name != truth)
                cells = (rate(seen[truth]), rate(other), rate(seen["undecided"]))
                rows.append((truth, f"{scatter:.1f}", str(prompts), *cells))
    put("strategies", ("truth", "scatter", "prompts", "right", "wrong", "undecided"), rows, first=25)


def kept_fidelity() -> None:
    """Here the whole of `strategy_of` runs, with intervals and chances; 200 repetitions."""
    rows, times, n = [], 200, 8
    for share in (0.0, 0.1, 0.3, 0.5):
        for prompts in (12, 24):
            random = np.random.default_rng(prompts)
            plain, among, claimed, named = 0, 0, 0, 0
            for _ in range(times):
                own = random.gamma(8, 0.025, prompts)
                right = 1 - random.binomial(n, share, prompts) / n
                kept = np.where(right * n >= 2, own * skewed(random, (prompts,), 0.1), np.nan)
                # Of pairs those with a broken picture are twice as far apart.
                pairs = right * (right * n - 1) / (n - 1)
                whole = own * skewed(random, (prompts,), 0.1) * (pairs + 2 * (1 - pairs))
                full = np.ones(prompts)
                found = strategy_of(
                    "model",
                    Figures(own, own, full, False),
                    {
                        ARGMAX: Figures(0 * own, 0 * own, full, True),
                        SUBSET: Figures(whole, kept, right, False),
                    },
                    margin=MARGIN,
                    n=n,
                    seed=0,
                )
                plain += found.contrasts[SUBSET].outcome == "rise"
                rose = found.kept[SUBSET].contrast.outcome == "rise"
                among += rose or found.kept[SUBSET].held_back
                claimed += rose
                named += found.name == "compression-prioritized"
            rows.append(
                (f"{share:.0%}", str(prompts), "", *(rate(count, times) for count in (plain, among, claimed, named)))
            )
    headings = ("broken", "prompts", "", "rise of all", "rise of the right ones", "rise claimed", "right strategy")
    put("kept fidelity; 200 repetitions", headings, rows)


def at_looks(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """The p values of no change and of equivalence, adjusted for contrasts alone, and the changes, at each planned
    look: (looks, repetitions, conditions) each; and the prompts of each look."""
    prompts = before.shape[-1]
    sizes = [size.prompts for size in planned_looks(prompts, 8, 8 * prompts, before.shape[1])]
    seen = [decided(before[..., :some], after[..., :some]) for some in sizes]
    no_change, equivalence, changes = (np.stack(part) for part in zip(*seen, strict=True))
    return no_change, equivalence, changes, sizes


def wrong_until_decided() -> None:
    rows = []
    for law in LAWS:
        for prompts in (24, 48, 100):
            for scatter in (0.1, 0.4):
                random = np.random.default_rng(prompts)
                p, _, _, sizes = at_looks(*drawn(law, random, prompts, scatter, (0, 0, 0)))
                _, q, _, _ = at_looks(*drawn(law, random, prompts, scatter, (-MARGIN,) * 3))
                cells = [
                    rate(int((shared_among_looks(each, looks).min(0) < LEVEL).any(1).sum()))
                    for each in (p, q)
                    for looks in (len(sizes), 1)
                ]
                rows.append((law, "/".join(map(str, sizes)), f"{scatter:.1f}", *cells))
    headings = ("law", "looks at", "scatter", "drop or rise at 0", "not shared", "equivalent at -10%", "not shared")
    put("until decided: wrong decisions at any look, of any of three contrasts", headings, rows, first=16)


def decisions_until_decided() -> None:
    rows = []
    for change, scatter in ((0.0, 0.1), (0.0, 0.2), (-0.2, 0.2), (-0.2, 0.4), (-0.4, 0.4), (0.3, 0.4)):
        for prompts in (24, 48, 100):
            pair = drawn("skewed", np.random.default_rng(prompts), prompts, scatter, (change,) * 3)
            p, q, _, sizes = at_looks(*pair)
            smaller = np.minimum(p, q)
            shared = shared_among_looks(smaller, len(sizes))[..., 0] < LEVEL
            # The run ends when all three are decided, at whichever look each of them was.
            settled = np.logical_or.accumulate(shared_among_looks(smaller, len(sizes)) < LEVEL).all(-1)
            drawn_prompts = np.where(settled.any(0), np.array(sizes)[settled.argmax(0)], sizes[-1])
            once = int((smaller[-1, :, 0] < LEVEL).sum())
            cells = (rate(int(shared.any(0).sum())), rate(once), f"{drawn_prompts.mean():.0f}")
            rows.append((f"{change:+.0%}", "/".join(map(str, sizes)), f"{scatter:.1f}", *cells))
    headings = ("change", "looks at", "scatter", "decided", "by one look at all", "prompts drawn")
    put("until decided: decisions, of one of three contrasts alike", headings, rows, first=16)


if __name__ == "__main__":
    parts = {"wrong": wrong_decisions, "decisions": decisions, "strategies": strategies, "kept": kept_fidelity}
    parts |= {"wrong until decided": wrong_until_decided, "until decided": decisions_until_decided}
    for name in sys.argv[1:] or parts:
        parts[name]()
