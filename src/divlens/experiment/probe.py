"""The probe: how much diversity each model has, and how much is left under each intervention."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from divlens.diversity import load_network
from divlens.experiment.measure import ConditionResult, Instruments, SampleRecord, check_before_drawing, measure
from divlens.fidelity import Judge
from divlens.fidelity.breakage import fidelity_change
from divlens.interventions import Argmax, DisableTop, Intervention, Paraphrase, Subset, described
from divlens.models import load
from divlens.models.protocol import Model
from divlens.paraphrase import templated
from divlens.prompts import distinct_prompts
from divlens.sampler import BATCH_SIZE, BatchSize, Encoded, drawn_with
from divlens.statistics import bootstrap_mean, paired_change, relative_change
from divlens.types import DivlensError, DrawnWith, Prompt

if TYPE_CHECKING:
    import pandas as pd

BASELINE = "baseline"
Conditions = Mapping[str, Sequence[Intervention]]
POSITIVE, SHARE = (0.0, math.inf), (0.0, 1.0)
LIMITS = {"diversity": POSITIVE, "coverage": SHARE, "fidelity": SHARE}  # the figures with an interval


def enhancer(disable_top: float = 0.05) -> tuple[Intervention, ...]:
    """The paper's enhancer as it stands: mixed-length wordings, the most used codes disabled (arXiv 2512.01831)."""
    return (Paraphrase(lengths="mixed"), DisableTop(disable_top))


def default_conditions(subset: float = 0.5, disable_top: float = 0.05) -> Conditions:
    """The paper's three probes and its enhancer, beside the untouched model."""
    return {
        BASELINE: (),
        "subset": (Subset(subset),),
        "argmax": (Argmax(),),
        "paraphrase": (Paraphrase(lengths="similar"),),
        "enhanced": enhancer(disable_top),
    }


@dataclass(frozen=True)
class ProbeResult:
    """`table`: one row per model and condition. `per_prompt`: one row per model, condition and prompt.

    Columns of `table`: model, condition, prompts, n; for each of diversity, coverage and fidelity the mean over
    prompts, a 95% interval `_low`, `_high` and `_prompts`, how many prompts have a value; change (against baseline,
    paired) and relative_change (a share of baseline) with `_low` and `_high`; fidelity_change (against baseline,
    paired) with `_low`, `_high`, `_chance` and `_fell`, whether that is a fall (see `FidelityChange`); noise_floor
    (mean over prompts, of baseline pictures); duplicates (a count over all samples). Undefined is NaN. `samples`: every
    sample's tokens. `conditions`: what was done, as text. `seed`, `n`, `lpips` (the network): as asked for.
    `drawn_with`: of each model. `templated`: the prompts whose other wordings are templates, for they have
    no paraphrases.
    """

    table: pd.DataFrame
    per_prompt: pd.DataFrame
    samples: tuple[SampleRecord, ...]
    conditions: Mapping[str, str]
    seed: int
    n: int
    lpips: str
    drawn_with: Mapping[str, DrawnWith]
    templated: tuple[str, ...] = ()


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
    batch_size: BatchSize = BATCH_SIZE,
    on_batch: Callable[[int], None] = lambda count: None,
    on_condition: Callable[[str, str], None] = lambda model, condition: None,
) -> ProbeResult:
    """Measure LPIPS diversity, mode coverage and fidelity of every model under every condition.

    `conditions`: interventions by name, with "baseline" among them; None is `default_conditions()`. They share seeds,
    so changes are paired. n = 1 leaves diversity undefined (NaN), and one prompt leaves the intervals undefined.
    `on_batch` is told how many more samples are done, `on_condition` what comes next. Pictures are dropped as soon as
    they are measured. Raises DivlensError for bad input before anything is drawn.
    """
    asked = distinct_prompts(prompts)
    conditions = default_conditions() if conditions is None else conditions
    if BASELINE not in conditions:
        raise DivlensError(f'conditions expect a "{BASELINE}", got {", ".join(conditions) or "none"}')
    loaded = loaded_models(models)
    encoders = [Encoded(model) for model in loaded]
    for encoded in encoders:
        for interventions in conditions.values():
            check_before_drawing(encoded, asked, n, seed, interventions, batch_size)
    network = load_network(lpips)
    instruments = [Instruments(network, judge_for(model)) for model in loaded]
    results: dict[tuple[str, str], ConditionResult] = {}
    for model, encoded, eyes in zip(loaded, encoders, instruments, strict=True):
        for name, interventions in conditions.items():
            on_condition(model.name, name)
            condition = (name, interventions)
            results[model.name, name] = measure(
                encoded,
                asked,
                n,
                seed,
                condition,
                eyes,
                with_noise_floor=name == BASELINE,
                batch_size=batch_size,
                on_batch=on_batch,
            )
    said = {name: described(interventions) for name, interventions in conditions.items()}
    how = {encoded.model.name: drawn_with(encoded, batch_size) for encoded in encoders}
    used = [intervention for interventions in conditions.values() for intervention in interventions]
    return replace(summarised(results, asked, said, n, seed, lpips, how), templated=templated(asked, used))


def loaded_models(models: Sequence[str | Model]) -> list[Model]:
    """Models from names. Raises DivlensError for none, an unknown one, and the same one twice."""
    if not models:
        raise DivlensError("expected at least one model, got none")
    loaded = [load(model) if isinstance(model, str) else model for model in models]
    names = [model.name for model in loaded]
    if len(set(names)) < len(names):
        raise DivlensError(f"expected different models, got {', '.join(names)}")
    return loaded


def summarised(
    results: Mapping[tuple[str, str], ConditionResult],
    prompts: Sequence[Prompt],
    conditions: Mapping[str, str],
    n: int,
    seed: int,
    lpips: str,
    how: Mapping[str, DrawnWith],
) -> ProbeResult:
    """Figures to tables."""
    import pandas as pd

    rows = [
        {"model": model, "condition": condition, "prompts": len(prompts), "n": n}
        | summary(result, results[model, BASELINE], n, seed)
        for (model, condition), result in results.items()
    ]
    per_prompt = [
        {"model": model, "condition": condition, "prompt": prompt.text, **asdict(figures)}
        for (model, condition), result in results.items()
        for prompt, figures in zip(prompts, result.figures, strict=True)
    ]
    samples = tuple(record for result in results.values() for record in result.samples)
    return ProbeResult(pd.DataFrame(rows), pd.DataFrame(per_prompt), samples, conditions, seed, n, lpips, how)


def summary(here: ConditionResult, baseline: ConditionResult, n: int, seed: int) -> dict[str, float]:
    """The figures of one row of the table. The same seed resamples the same prompts in every row."""
    row: dict[str, float] = {}
    for name, limits in LIMITS.items():
        interval = bootstrap_mean(here.column(name), seed, limits=limits)
        row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
        row[f"{name}_prompts"] = interval.count
    pair = here.column("diversity"), baseline.column("diversity")
    for name, interval in (("change", paired_change(*pair, seed)), ("relative_change", relative_change(*pair, seed))):
        row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    fidelity = fidelity_change(baseline.column("fidelity"), here.column("fidelity"), n, seed)
    row |= {"fidelity_change": fidelity.change.value, "fidelity_change_low": fidelity.change.low}
    row |= {"fidelity_change_high": fidelity.change.high, "fidelity_change_chance": fidelity.chance}
    row["fidelity_change_fell"] = fidelity.fell
    row["noise_floor"] = float(baseline.column("noise_floor").mean())
    row["duplicates"] = int(here.column("duplicates").sum())
    return row
