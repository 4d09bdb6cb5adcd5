"""The probe: how much diversity each model has, and how much is left under each intervention."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from divlens.diversity import load_network
from divlens.experiment.measure import FIGURES, ConditionResult, SampleRecord, measure
from divlens.fidelity import Judge
from divlens.interventions import Argmax, DisableTop, Intervention, Paraphrase, Subset
from divlens.models import load
from divlens.models.protocol import Model
from divlens.statistics import Interval, bootstrap_mean, paired_change, relative_change
from divlens.types import DivlensError, Prompt

if TYPE_CHECKING:
    import pandas as pd

BASELINE = "baseline"
Conditions = Mapping[str, Sequence[Intervention]]


def default_conditions(subset: float = 0.5, disable_top: float = 0.05) -> Conditions:
    """The paper's three probes and its enhancer as it stands, beside the untouched model."""
    return {
        BASELINE: (),
        "subset": (Subset(subset),),
        "argmax": (Argmax(),),
        "paraphrase": (Paraphrase(lengths="similar"),),
        "enhanced": (Paraphrase(lengths="mixed"), DisableTop(disable_top)),
    }


@dataclass(frozen=True)
class ProbeResult:
    """`table`: one row per model and condition. `per_prompt`: one row per model, condition and prompt.

    Columns of `table`: model, condition, prompts, n; and for each of diversity, change (against baseline, paired),
    relative_change, coverage and fidelity the mean over prompts with `_low` and `_high`, a 95% interval; noise_floor
    (mean, of the baseline), duplicates (a count over all samples). Undefined is NaN.
    """

    table: pd.DataFrame
    per_prompt: pd.DataFrame
    samples: tuple[SampleRecord, ...]
    seed: int
    n: int
    lpips: str


def judge_for(model: Model) -> Judge | None:
    """The zoo's judge for the zoo's models; there is no ground truth for others."""
    if not model.name.startswith("zoo/"):
        return None
    from divlens.fidelity.judge import load_judge

    return load_judge()


def probe(
    models: Sequence[str | Model],
    prompts: Sequence[str | Prompt],
    n: int = 16,
    seed: int = 0,
    *,
    conditions: Conditions | None = None,
    lpips: str = "stlpips",
    on_batch: Callable[[int], None] = lambda count: None,
    on_condition: Callable[[str, str], None] = lambda model, condition: None,
) -> ProbeResult:
    """Measure LPIPS diversity, mode coverage and fidelity of every model under every condition.

    Conditions share seeds, so changes are paired. n < 2 leaves diversity undefined (NaN). `conditions` must hold
    "baseline"; `on_batch` is told how many more samples are done. Raises DivlensError for bad input before anything
    is drawn.
    """
    import pandas as pd

    asked = tuple(prompt if isinstance(prompt, Prompt) else Prompt(prompt) for prompt in prompts)
    conditions = default_conditions() if conditions is None else conditions
    if not models or not asked:
        raise DivlensError("probe expects at least one model and one prompt")
    if BASELINE not in conditions:
        raise DivlensError(f'conditions expect a "{BASELINE}", got {", ".join(conditions) or "none"}')
    loaded = [load(model) if isinstance(model, str) else model for model in models]
    if len({model.name for model in loaded}) < len(loaded):
        raise DivlensError(f"expected different models, got {', '.join(model.name for model in loaded)}")
    network = load_network(lpips)
    results: dict[tuple[str, str], ConditionResult] = {}
    for model in loaded:
        judge = judge_for(model)
        for condition, interventions in conditions.items():
            on_condition(model.name, condition)
            floor = condition == BASELINE
            results[model.name, condition] = measure(
                model, asked, n, seed, condition, interventions, network, judge, floor, on_batch
            )
    return ProbeResult(
        table=pd.DataFrame([summary(results, *key, n, seed) for key in results]),
        per_prompt=pd.DataFrame(
            {"model": model, "condition": condition, "prompt": prompt.text, **vars(figures)}
            for (model, condition), result in results.items()
            for prompt, figures in zip(asked, result.figures, strict=True)
        ),
        samples=tuple(record for result in results.values() for record in result.samples),
        seed=seed,
        n=n,
        lpips=lpips,
    )


def column(result: ConditionResult, name: str) -> np.ndarray:
    """One figure of every prompt."""
    return np.array([getattr(row, name) for row in result.figures], float)


def summary(
    results: Mapping[tuple[str, str], ConditionResult], model: str, condition: str, n: int, seed: int
) -> dict[str, object]:
    """One row of the table."""
    here, base = results[model, condition], results[model, BASELINE]
    floor = column(base, FIGURES[3])
    intervals = {
        name: bootstrap_mean(column(here, name), seed) for name in ("diversity", "coverage", "fidelity")
    }
    if condition == BASELINE:
        unchanged = 0.0 if n >= 2 else math.nan
        nothing = Interval(unchanged, math.nan, math.nan, len(here.figures))
        intervals |= {"change": nothing, "relative_change": nothing}
    else:
        pair = column(here, "diversity"), column(base, "diversity")
        intervals |= {"change": paired_change(*pair, seed), "relative_change": relative_change(*pair, seed)}
    row: dict[str, object] = {"model": model, "condition": condition, "prompts": len(here.figures), "n": n}
    for name, interval in intervals.items():
        row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    row["noise_floor"] = float(floor.mean())
    row["duplicates"] = int(column(here, "duplicates").sum())
    return row
