"""How often intervals of `divlens.information` hold the truth, on models whose every transcript is enumerated.

    python studies/coverage.py exact > studies/coverage_exact.txt
    python studies/coverage.py bounds > studies/coverage_bounds.txt

Setups: the toys as published and without guidance; a model of the tests, in three families, under every intervention
and with another temperature of its path; a third argument names those to run by how they begin.

exact: path, execution, joint, tokens, I(Z;Y): how often the 95% Monte-Carlo interval holds the enumerated value in 400
repetitions (seeds); the error of a share of 0.95 is 0.011, so 1 of 14 lies outside of 0.93 to 0.97 by chance, and a
second column has the share of 1200, whose error is 0.006. bounds: H(Z|X), I(X;Z), H(Z) of images, exact for AR; of a
bracket, how often the truth is not outside its outer Monte-Carlo ends; where it is loose, that is always. So each bound
has a row more: how often its interval holds the bound's own mean. The bound that is given is now one, now another (the
joint, or that of weighed paths); so the mean is over the repetitions that gave the commonest, and how many of all these
are stands behind.
"""

from __future__ import annotations

import math
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))  # the oracle is that of the tests

import divlens
from divlens.information import Effort, Estimate, Information
from divlens.interventions import Intervention
from divlens.models import load
from divlens.paths import ConfidenceUnmasking, MaskReplaceDiffusion, Raster
from oracles.interventions import INTERVENTIONS, frozen_changes, rule_of
from oracles.small_models import Small
from oracles.transcripts import Case, State, Truth, entropy, truth

PROMPTS = tuple(divlens.Prompt(text) for text in ("red heart", "a cat", "blue sky over the sea"))
SAMPLES, REPETITIONS, MORE = 48, 400, 1200
EXACT = ("path", "execution", "joint")
TRAJECTORY = tuple(f"trajectory_{name}" for name in EXACT)
BRACKETS = ("conditional", "mutual", "sequence")
TOKENS = ("token_miller_madow", "token_chao_shen")


@dataclass(frozen=True)
class Setup:
    """A model under interventions, and what these change in the enumeration. `frozen`: a stream that is the same for
    all samples of a prompt, so that the truth belongs to a seed."""

    name: str
    model: Any
    interventions: Sequence[Intervention] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)
    prompts: Sequence[divlens.Prompt] = PROMPTS
    frozen: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (*EXACT, *(TRAJECTORY if isinstance(self.model.rule, MaskReplaceDiffusion) else ()))


def setups() -> Iterable[Setup]:
    for spec in ("toy/ar:0", "toy/ar:1", "toy/mim:0", "toy/mim:1", "toy/diffusion:0", "toy/diffusion:1"):
        yield Setup(f"{spec}, as published", load(spec))
        yield Setup(f"{spec}, guidance off", load(spec), [divlens.Guidance(1.0)], {"guidance": 1.0})
    reworded = [replace(prompt, paraphrases=(f"{prompt.text} again",)) for prompt in PROMPTS]
    for family in ("ar", "mim", "diffusion"):
        model, label = Small(rule_of(family, 4), codes=4), f"small {family}, 4 codes"
        for name, (intervention, changes) in INTERVENTIONS.items():
            yield Setup(f"{label}, {name}", model, [intervention], changes)
        yield Setup(f"{label}, paraphrase", model, [divlens.Paraphrase(2)], prompts=reworded)
        for stream in ("execution", "path") if family != "ar" else ("execution",):
            yield Setup(f"{label}, freeze {stream}", model, [divlens.Freeze(stream)], frozen=stream)
    for temperature in ((2.0, 2.0), (0.3, 0.0)):
        rule = ConfidenceUnmasking(3, temperature)
        yield Setup(f"small mim, 4 codes, temperature {temperature}", Small(rule, codes=4))
    for family, codes in (("ar", 2), ("ar", 8), ("mim", 2), ("mim", 6), ("diffusion", 3), ("diffusion", 6)):
        yield Setup(f"small {family}, {codes} codes", Small(rule_of(family, codes), codes=codes))


def mixed(tables: Sequence[Mapping[Any, float]]) -> dict[Any, float]:
    result: dict[Any, float] = defaultdict(float)
    for table in tables:
        for key, chance in table.items():
            result[key] += chance / len(tables)
    return dict(result)


def judge(images: Tensor) -> Tensor:
    """A reading that knows a part of the grid: the colours at two places of the picture."""
    places = images[:, :, images.shape[2] // 2, [images.shape[3] // 6, images.shape[3] // 2]].flatten(1)
    return (places * 12).round().long() @ 13 ** torch.arange(places.shape[1])


@cache
def exact_values(at: int, seed: int | None) -> dict[str, float]:
    """Every quantity by enumeration, bits per image, mean over prompts."""
    setup = SETUPS[at]
    model, found = setup.model, list[list[Truth]]()
    for prompt in setup.prompts:
        changes = dict(setup.changes)
        if setup.frozen and seed is not None:
            changes |= frozen_changes(model, prompt.text, setup.frozen, seed)
        found.append([truth(Case(model, wording, **changes)) for wording in (prompt.text, *prompt.paraphrases)])
    values = {name: float(np.mean([[getattr(one, name) for one in row] for row in found])) for name in setup.names}
    grids = [mixed([one.grids for one in row]) for row in found]
    conditional = float(np.mean([entropy(list(table.values())) for table in grids]))
    images, tokens = mixed(grids), defaultdict[int, float](float)
    for grid, chance in images.items():
        for code in grid:
            tokens[code] += chance
    values |= {"conditional": conditional, "sequence": entropy(list(images.values()))}
    values |= {"mutual": values["sequence"] - conditional, "relevant": read_information(model, grids)}
    positions = math.prod(model.grid)
    return values | {"token": entropy([share / positions for share in tokens.values()]) * positions}


def read_information(model: Any, grids: Sequence[Mapping[State, float]]) -> float:
    """I(R;Y): the reading of every picture that can come out, and which prompt it was."""
    readings = []
    for table in grids:
        labels = judge(model.decode(torch.tensor(list(table)).view(-1, *model.grid))).tolist()
        shares: dict[int, float] = defaultdict(float)
        for label, chance in zip(labels, table.values(), strict=True):
            shares[label] += chance
        readings.append(shares)
    given = float(np.mean([entropy(list(shares.values())) for shares in readings]))
    return entropy(list(mixed(readings).values())) - given


Given = tuple[str, float, float, float]  # a bound: which it is, its value and interval
Row = dict[str, float | Given]
ROUNDING = 1e-5  # bits; the draws are float32


def accounted(setup: Setup, seed: int, effort: Effort) -> Information:
    torch.set_num_threads(1)
    changes = setup.interventions
    return divlens.information(
        setup.model, setup.prompts, SAMPLES, seed, interventions=changes, judge=judge, effort=effort
    )


def held(found: Estimate, truth: float) -> float:
    return float(found.monte_carlo.low - ROUNDING <= truth <= found.monte_carlo.high + ROUNDING)


def exact(job: tuple[int, int]) -> Row:
    """Of one repetition: whether each interval holds the truth."""
    setup, seed = SETUPS[job[0]], job[1]
    truths, found = exact_values(job[0], seed if setup.frozen else None), accounted(setup, seed, Effort(0, 0, 0))
    result: Row = {name: held(found.estimates[name], truths[name]) for name in setup.names}
    for name in TOKENS:
        one = found.estimates[name]
        result[name] = held(one, truths["token"])
        result[f"{name} bias, errors"] = (one.value - truths["token"]) / one.mc_error if one.mc_error > 1e-9 else 0.0
    result["relevant, at most I(R;Y)"] = float(not found.relevant.monte_carlo.low - ROUNDING > truths["relevant"])
    return result | {"relevant, bits below I(R;Y)": truths["relevant"] - found.relevant.value}


def bounds(job: tuple[int, int]) -> Row:
    """Of one repetition: whether each interval or bracket holds the truth; of a bound, what was given."""
    setup, truths = SETUPS[job[0]], exact_values(job[0], None)
    found, result = accounted(setup, job[1], Effort(paths=4)), Row()
    for name in BRACKETS:
        low, high = found.estimates[f"{name}_lower"], found.estimates[f"{name}_upper"]
        if isinstance(setup.model.rule, Raster):
            result[f"{name}, exact"] = held(low, truths[name])
            continue
        outside = (
            low.monte_carlo.low - ROUNDING > truths[name] or truths[name] > high.monte_carlo.high + ROUNDING
        )  # NaN says nothing
        result[f"{name}, in the bracket"] = float(not outside)
        for side, bound in (("at least", low), ("at most", high)):
            result[f"{name} {side}, its own mean"] = (
                bound.note,
                bound.value,
                bound.monte_carlo.low,
                bound.monte_carlo.high,
            )
    return result


def share_held(rows: Sequence[float | Given]) -> str:
    """How many hold: of flags their mean; of bounds, among the repetitions that gave the commonest, those whose
    interval holds the mean of these, and how many of all they are."""
    if not isinstance(rows[0], tuple):
        return f"{np.mean(np.array(rows, float)):.3f}"
    bounds = [row for row in rows if isinstance(row, tuple)]
    commonest, count = Counter(note for note, *_ in bounds).most_common(1)[0]
    value, low, high = np.array([numbers for note, *numbers in bounds if note == commonest]).T
    mean = value.mean()
    holds = (low - ROUNDING <= mean) & (mean <= high + ROUNDING)
    return f"{holds.mean():.3f} of {count / len(rows):.3f}"


SETUPS = tuple(setups())


def main() -> None:
    kind, *wanted = sys.argv[1:]
    more = f"; of those without a frozen stream {MORE} too" if kind == "exact" else ""
    print(f"{len(PROMPTS)} prompts, {SAMPLES} samples each, {REPETITIONS} repetitions{more}")
    chosen = [at for at, setup in enumerate(SETUPS) if setup.name.startswith(tuple(wanted) or "")]
    # Frozen, every seed has a truth of its own.
    chosen = [at for at in chosen if kind == "exact" or not SETUPS[at].frozen]
    counts = {at: MORE if kind == "exact" and not SETUPS[at].frozen else REPETITIONS for at in chosen}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        jobs = {at: [(at, seed) for seed in range(counts[at])] for at in chosen}
        found = {at: pool.map(KINDS[kind], jobs[at], chunksize=10) for at in chosen}  # all at once: no core waits
        for at in chosen:
            rows = list(found[at])
            print(f"\n{SETUPS[at].name}", flush=True)
            for name in rows[0]:
                every = [row[name] for row in rows]
                shares = [share_held(every[:count]) for count in sorted({REPETITIONS, counts[at]})]
                print(f"  {name:40} {'   '.join(shares)}", flush=True)


KINDS = {"exact": exact, "bounds": bounds}

if __name__ == "__main__":
    main()
