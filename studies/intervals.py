"""How often intervals hold the truth where values are nearly alike.

    python studies/intervals.py > studies/intervals.txt

shares: intervals over prompts of a mean share (`mean_share`) and of its paired change (`change_of_share`), beside the
bootstrap-t's, which knows nothing of shares. A prompt has a chance of its own, from a law, and its n samples go by it.
rare first token: the Monte-Carlo interval of `information` for AR, where a first token of chance .005 leads to most of
the bits that differ, beside Student's. The error of a share of 0.95 is 0.011 in 400 repetitions and 0.015 in 200.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))  # the oracle is that of the tests

from divlens.information import Effort, information
from divlens.statistics import Interval, bootstrap_mean, change_of_share, mean_share, paired_change, student_t
from oracles.small_models import RareFirst
from oracles.transcripts import Case, truth

SIZES = ((2, 8), (3, 8), (12, 8), (12, 32), (24, 16))
Law = Callable[[np.random.Generator, int], np.ndarray]  # the chances of so many prompts


def same(chance: float) -> Law:
    return lambda random, prompts: np.full(prompts, chance)


def beta(a: float, b: float) -> Law:
    return lambda random, prompts: random.beta(a, b, prompts)


def mixed(share: float, one: Law, other: Law) -> Law:
    return lambda random, prompts: np.where(
        random.random(prompts) < share, one(random, prompts), other(random, prompts)
    )


LAWS: dict[str, tuple[Law, float]] = {
    "all .98": (same(0.98), 0.98),
    "all .8": (same(0.8), 0.8),
    "beta(8, 2)": (beta(8, 2), 0.8),
    "beta(2, 2)": (beta(2, 2), 0.5),
    "beta(.5, .5)": (beta(0.5, 0.5), 0.5),
    "beta(95, 5)": (beta(95, 5), 0.95),
    "beta(50, 1)": (beta(50, 1), 50 / 51),
    "beta(1.9, .1)": (beta(1.9, 0.1), 0.95),
    "95% all right, 5% all wrong": (mixed(0.95, same(1), same(0)), 0.95),
    "95% all right, 5% half": (mixed(0.95, same(1), same(0.5)), 0.975),
    "88% all right, 12% all wrong": (mixed(0.88, same(1), same(0)), 0.88),
    "95% beta(50, 1), 5% all wrong": (mixed(0.95, beta(50, 1), same(0)), 0.95 * 50 / 51),
}
# The chance that a sample which was wrong gets right, and the other way round; of the samples .9 were right.
CHANGES: dict[str, tuple[Law, Law, float]] = {
    "no change": (same(0), same(0), 0.0),
    "2% lost": (same(0), same(0.02), -0.018),
    "15% lost": (same(0), same(0.15), -0.135),
    "beta(1, 5) lost": (same(0), beta(1, 5), -0.15),
    "both ways": (same(0.5), same(0.1), -0.04),
    "both ways, beta": (beta(1, 3), beta(1, 8), -0.075),
    "5% of prompts lost": (same(0), mixed(0.05, same(1), same(0)), -0.045),
    "12% of prompts lost": (same(0), mixed(0.12, same(1), same(0)), -0.108),
}


def held(intervals: Sequence[Interval], value: float) -> str:
    inside = np.mean([found.low - 1e-9 <= value <= found.high + 1e-9 for found in intervals])
    return f"{inside:.3f} {np.mean([found.high - found.low for found in intervals]):.2f}"


def shares(repetitions: int) -> None:
    print(f"mean share: coverage and width of mean_share, then of the bootstrap-t; {repetitions} repetitions")
    print(f"{'(prompts, n)':32}" + "".join(f"{size!s:28}" for size in SIZES))
    for name, (law, value) in LAWS.items():
        row = []
        for prompts, n in SIZES:
            random = np.random.default_rng(1)
            drawn = [random.binomial(n, law(random, prompts)) / n for _ in range(repetitions)]
            row.append((drawn, n, value))
        print_row(name, row)


def print_row(name: str, row: Sequence[tuple[Sequence[np.ndarray], int, float]]) -> None:
    cells = []
    for drawn, n, value in row:
        ours = held([mean_share(values, n) for values in drawn], value)
        cells.append(
            f"{ours}, {held([bootstrap_mean(values, limits=(0, 1), resamples=400) for values in drawn], value)}"
        )
    print(f"{name:32}" + "".join(f"{cell:28}" for cell in cells), flush=True)


def changes(repetitions: int) -> None:
    print(f"\nchange of a share: of change_of_share, then of paired_change; {repetitions} repetitions")
    for name, (gained, lost, value) in CHANGES.items():
        cells = []
        for prompts, n in SIZES:
            random, pairs = np.random.default_rng(1), []
            for _ in range(repetitions):
                right = random.random((prompts, n)) < 0.9
                up, down = gained(random, prompts)[:, None], lost(random, prompts)[:, None]
                after = np.where(right, random.random((prompts, n)) >= down, random.random((prompts, n)) < up)
                pairs.append((after.mean(1), right.mean(1)))
            ours = held([change_of_share(after, before, n) for after, before in pairs], value)
            cells.append(f"{ours}, {held([paired_change(*pair) for pair in pairs], value)}")
        print(f"{name:32}" + "".join(f"{cell:28}" for cell in cells), flush=True)


def rare_first_token(repetitions: int) -> None:
    print(f"\nrare first token, 32 samples a prompt: held, width; by Student's interval; {repetitions} repetitions")
    for after in ((0.22, 0.2202, 1.58), (0.22, 0.26, 1.58), (1.5, 1.45, 0.01)):
        model: Any = RareFirst(after=after)
        exact = truth(Case(model, "0")).execution
        for prompts in (1, 3, 12):
            found = [
                information(model, [str(i) for i in range(prompts)], 32, seed, effort=Effort(0, 0, 0)).execution
                for seed in range(repetitions)
            ]
            ours = [one.monte_carlo for one in found]
            student = [
                Interval(one.value, one.value - reach, one.value + reach)
                for one in found
                for reach in [student_t(32 * prompts - 1) * one.mc_error]
            ]
            text = f"{held(ours, exact)}; {held(student, exact)}"
            print(f"bits after: {after!s:22} prompts: {prompts:2}   {text}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    shares(400)
    changes(200)
    rare_first_token(200)
