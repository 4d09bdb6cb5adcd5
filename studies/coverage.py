"""How often intervals of `divlens.information` hold the truth, on toys whose every transcript is enumerated.

    python studies/coverage.py > studies/coverage.txt

400 repetitions (seeds) for each toy and setting. A quantity with an exact estimator: how often its 95% Monte-Carlo
interval holds the enumerated value. A bracket: how often the truth is outside it by more than two of its Monte-Carlo
errors. The error of a share of 0.95 over 400 repetitions is 0.011.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "information")]  # the oracle is that of the tests

from enumeration import Case, Truth, truth

import divlens
from divlens.models import load

PROMPTS = ("red heart", "a cat", "blue sky over the sea")
SAMPLES, REPETITIONS = 48, 400
SETTINGS: Mapping[str, Sequence[object]] = {"as published": (), "guidance off": (divlens.Guidance(1.0),)}
EXACT = ("path", "execution", "joint")
TOYS = ("toy/ar:0", "toy/ar:1", "toy/mim:0", "toy/mim:1", "toy/diffusion:0", "toy/diffusion:1")


def entropy(chances: Mapping[object, float]) -> float:
    return -sum(p * math.log2(p) for p in chances.values() if p > 0)


def exact_values(spec: str, setting: str) -> dict[str, float]:
    """Every quantity by enumeration, bits per image, mean over prompts."""
    model = load(spec)
    guidance = 1.0 if setting == "guidance off" else None
    found: list[Truth] = [truth(Case(model, prompt, guidance=guidance)) for prompt in PROMPTS]
    images: dict[object, float] = defaultdict(float)
    tokens: dict[object, float] = defaultdict(float)
    for one in found:
        for grid, chance in one.grids.items():
            images[grid] += chance / len(found)
            for code in grid:
                tokens[code] += chance / len(found) / len(grid)
    conditional = float(np.mean([one.conditional for one in found]))
    values = {name: float(np.mean([getattr(one, name) for one in found])) for name in EXACT}
    values |= {"conditional": conditional, "sequence": entropy(images), "mutual": entropy(images) - conditional}
    return values | {"token": entropy(tokens) * math.prod(model.grid)}


def holds(job: tuple[str, str, int]) -> dict[str, float]:
    """Of one repetition: whether each interval or bracket holds the truth."""
    spec, setting, seed = job
    exact = exact_values_of[spec, setting]
    found = divlens.information(load(spec), PROMPTS, n=SAMPLES, seed=seed, interventions=SETTINGS[setting])  # type: ignore[arg-type]
    result: dict[str, float] = {}
    for name in EXACT:
        one = found.estimates[name]
        result[name] = float(one.mc_low - 1e-9 <= exact[name] <= one.mc_high + 1e-9)
    for name in ("conditional", "mutual", "sequence"):
        low, high = found.estimates[f"{name}_lower"], found.estimates[f"{name}_upper"]
        if "ar" in spec.split(":")[0]:
            result[f"{name}, exact"] = float(low.mc_low - 1e-9 <= exact[name] <= low.mc_high + 1e-9)
        else:
            inside = low.value - 2 * low.mc_error <= exact[name] <= high.value + 2 * high.mc_error
            result[f"{name}, in the bracket"] = float(inside)
    for name in ("token_miller_madow", "token_chao_shen"):
        one = found.estimates[name]
        result[name] = float(one.mc_low <= exact["token"] <= one.mc_high)
        result[f"{name} bias, errors"] = (one.value - exact["token"]) / one.mc_error
    return result


exact_values_of = {(spec, setting): exact_values(spec, setting) for spec in TOYS for setting in SETTINGS}


def main() -> None:
    print(f"{len(PROMPTS)} prompts, {SAMPLES} samples each, {REPETITIONS} repetitions")
    with ProcessPoolExecutor(int(sys.argv[1]) if len(sys.argv) > 1 else None) as pool:
        for spec in TOYS:
            for setting in SETTINGS:
                jobs = [(spec, setting, seed) for seed in range(REPETITIONS)]
                rows = list(pool.map(holds, jobs, chunksize=10))
                print(f"\n{spec}, {setting}", flush=True)
                for name in rows[0]:
                    print(f"  {name:40} {np.mean([row[name] for row in rows]):.3f}", flush=True)


if __name__ == "__main__":
    main()
