"""The probe: how much diversity each model has, and how much is left under each intervention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from divlens.diversity import load_network
from divlens.errors import DivlensError
from divlens.experiment import columns
from divlens.experiment.measure import ConditionResult, Instruments, Samples, measure
from divlens.experiment.measures import DIVERSITY, FIDELITY, Measure, checked_measures
from divlens.fidelity import judge_of
from divlens.fidelity.breakage import fidelity_change
from divlens.interventions import (
    Argmax,
    DisableTop,
    Intervention,
    Paraphrase,
    Subset,
    check_interventions,
    described,
    templated,
)
from divlens.models.answers import loaded_models
from divlens.models.protocol import Model
from divlens.planning import BATCH_SIZE, BatchSize, plans
from divlens.progress import OnBatch, followed
from divlens.prompts import distinct_prompts
from divlens.showing import Shown, counted, with_intervals
from divlens.statistics import paired_change, relative_change
from divlens.types import DrawnWith, Prompt

if TYPE_CHECKING:
    import pandas as pd

BASELINE = "baseline"
Condition = Intervention | Sequence[Intervention]
Conditions = Mapping[str, Sequence[Intervention]]


def enhancer(disable_top: float = 0.05) -> tuple[Intervention, ...]:
    """The paper's enhancer as it stands: mixed-length wordings, the most used codes disabled (arXiv 2512.01831)."""
    return (Paraphrase(lengths="mixed"), DisableTop(disable_top))


def default_conditions(subset: float = 0.5, disable_top: float = 0.05) -> dict[str, Sequence[Intervention]]:
    """The paper's three probes and its enhancer, beside the untouched model."""
    return {
        BASELINE: (),
        "subset": (Subset(subset),),
        "argmax": (Argmax(),),
        "paraphrase": (Paraphrase(lengths="similar"),),
        "enhanced": enhancer(disable_top),
    }


@dataclass(frozen=True, repr=False, eq=False)
class ProbeResult(Shown):
    """`table`: one row per model and condition. `per_prompt`: one row per model, condition and prompt.

    Columns of `table`: model, condition, prompts, n; for each of `measures` (diversity, coverage, fidelity, and those
    that were asked for beside them) the mean over prompts, a 95% interval `_low`, `_high` and `_prompts`, how many
    prompts have a value; change (against baseline, paired) and relative_change (a share of baseline) with `_low` and
    `_high`; fidelity_change (against baseline, paired) with `_low`, `_high`, `_chance` and `_fell`, whether that is a
    fall (see `FidelityChange`); noise_floor (mean over prompts, of baseline pictures); duplicates (a count over all
    samples). Undefined is NaN. `samples`: a record of every sample. `conditions`: what was done, as text. `seed`, `n`,
    `lpips` (the network): as asked for. `drawn_with`: of each model. `templated`: the prompts whose other wordings are
    templates, for they have no paraphrases.
    """

    table: pd.DataFrame
    per_prompt: pd.DataFrame
    samples: Samples
    conditions: Mapping[str, str]
    seed: int
    n: int
    lpips: str
    drawn_with: Mapping[str, DrawnWith]
    measures: tuple[Measure, ...]
    templated: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        models, prompts = (len(self.per_prompt[name].unique()) for name in ("model", "prompt"))
        return (
            f"ProbeResult: {counted(models, 'model')}, {counted(len(self.conditions), 'condition')}, "
            f"{counted(prompts, 'prompt')}, {counted(self.n, 'sample')} each, seed {self.seed}"
        )

    def shown_table(self) -> pd.DataFrame:
        first, *others = (measure.name for measure in self.measures)
        return with_intervals(self.table, ("model", "condition", first, "relative_change", *others, "duplicates"))

    def shown_notes(self) -> Sequence[str]:
        known = self.table["fidelity"].notna().all()
        return [
            "Means over prompts, [95% interval]. relative_change: against baseline, paired by prompt, same noise.",
            f"LPIPS diversity that one grey level of noise makes: {self.table['noise_floor'].max():.1g} at most.",
            *(f"{measure.name}: {measure.note}." for measure in self.measures if measure.note),
            *undefined(len(self.per_prompt["prompt"].unique()), self.n, bool(known)),
        ]


def undefined(prompts: int, n: int, judged: bool) -> list[str]:
    """Why numbers are missing."""
    lines = {
        "One prompt: there is no interval over prompts, it needs at least 2.": prompts == 1,
        "NaN: LPIPS diversity is undefined for fewer than 2 samples.": n < 2,
        "NaN: no coverage and fidelity where the judge knows none of the concepts.": not judged,
    }
    return [line for line, applies in lines.items() if applies]


def probe(
    models: str | Model | Sequence[str | Model],
    prompts: Sequence[str | Prompt],
    n: int = 16,
    seed: int = 0,
    *,
    conditions: Mapping[str, Condition] | Condition | Sequence[Condition] | None = None,
    measures: Sequence[Measure] = (),
    lpips: str = "stlpips",
    batch_size: BatchSize = BATCH_SIZE,
    progress: bool | None = None,
    on_batch: OnBatch | None = None,
) -> ProbeResult:
    """Measure LPIPS diversity, mode coverage and fidelity of every model under every condition, and what `measures`
    adds to them.

    `models`: one or several, each a name ("zoo/mim") or an object. `conditions`: interventions by name, one or a list
    under each, with "baseline" among the names; or a list without names, each a condition beside baseline, called by
    what it does; None is `default_conditions()`. They share seeds, so changes are paired. n = 1 leaves diversity
    undefined (NaN), and one prompt leaves the intervals undefined. `progress`: True shows a bar on stderr. `on_batch`
    is told how many more samples are done.

    Pictures are measured as they are drawn and then dropped: memory grows with n by the tokens and records of samples,
    which are kept. Raises DivlensError for bad input before anything is drawn.
    """
    asked, extra = distinct_prompts(prompts), checked_measures(measures)
    named = named_conditions(default_conditions() if conditions is None else conditions)
    loaded = loaded_models(models)
    runs = [plans(model, asked, n, seed, named, batch_size=batch_size) for model in loaded]
    network = load_network(lpips)
    instruments = [Instruments.of(network, judge_of(model), extra) for model in loaded]
    results: dict[tuple[str, str], ConditionResult] = {}
    with followed(progress, on_batch, len(loaded) * len(named) * len(asked) * n, "") as told:
        for model, of_model, eyes in zip(loaded, runs, instruments, strict=True):
            network.to(of_model[BASELINE].device)
            for name, run in of_model.items():
                told.describe(f"{model.name} {name}")
                results[model.name, name] = measure(
                    run, name, eyes, with_noise_floor=name == BASELINE, on_batch=told.advance
                )
    said = {name: described(interventions) for name, interventions in named.items()}
    how = {model: result.drawn_with for (model, _), result in results.items()}
    used = [intervention for interventions in named.values() for intervention in interventions]
    asked_for = instruments[0].measures
    found = summarised(results, asked, said, n, seed, lpips, how, asked_for)
    return replace(found, templated=templated(asked, used))


def named_conditions(
    conditions: Mapping[str, Condition] | Condition | Sequence[Condition],
) -> dict[str, Sequence[Intervention]]:
    """A list of interventions under every name, "baseline" among them. Raises DivlensError for another shape."""
    if isinstance(conditions, Mapping):
        named = {name: listed(condition) for name, condition in conditions.items()}
        for name, interventions in named.items():
            if not (isinstance(name, str) and name.strip()):
                raise DivlensError(f"conditions expect texts as names, got {name!r}")
            check_interventions(interventions)
        if BASELINE not in named:
            raise DivlensError(f'conditions expect a "{BASELINE}", got {", ".join(named) or "none"}')
        return named
    several = listed(conditions)
    if isinstance(several, str) or not isinstance(several, Sequence):
        expected = (
            f'conditions expect interventions by name, such as {{"{BASELINE}": [], "argmax": Argmax()}}, or a list'
        )
        raise DivlensError(f"{expected}, got {conditions!r:.80}")
    parts = [listed(condition) for condition in several]
    for part in parts:
        check_interventions(part)
    named: dict[str, Sequence[Intervention]] = {BASELINE: ()}
    return named | {described(part): part for part in parts if part}


def listed(condition: Any) -> Any:
    """A single intervention as a list of one; anything else as it is."""
    single = isinstance(condition, Intervention) and not isinstance(condition, type)
    return (condition,) if single else condition


def summarised(
    results: Mapping[tuple[str, str], ConditionResult],
    prompts: Sequence[Prompt],
    conditions: Mapping[str, str],
    n: int,
    seed: int,
    lpips: str,
    how: Mapping[str, DrawnWith],
    measures: tuple[Measure, ...],
) -> ProbeResult:
    """Figures to tables."""
    import pandas as pd

    rows = [
        dict(zip(columns.OF_CONDITION, (model, condition, len(prompts), n), strict=True))
        | summary(result, results[model, BASELINE], measures, n, seed)
        for (model, condition), result in results.items()
    ]
    per_prompt = [
        dict(zip(columns.OF_PROMPT, (model, condition, prompt.text), strict=True)) | dict(figures)
        for (model, condition), result in results.items()
        for prompt, figures in zip(prompts, result.figures, strict=True)
    ]
    samples = Samples(tuple(part for result in results.values() for part in result.samples.parts))
    tables = pd.DataFrame(rows), pd.DataFrame(per_prompt)
    return ProbeResult(*tables, samples, conditions, seed, n, lpips, how, measures)


def summary(
    here: ConditionResult, baseline: ConditionResult, measures: Sequence[Measure], n: int, seed: int
) -> dict[str, float]:
    """The figures of one row of the table. The same seed resamples the same prompts in every row."""
    row: dict[str, float] = {}
    for each in measures:
        values = here.column(each.name)
        row |= columns.with_ends(each.name, each.mean(values, n, seed))
        row[each.name + columns.COUNT] = int((~np.isnan(values)).sum())
    pair = here.column(DIVERSITY), baseline.column(DIVERSITY)
    row |= columns.with_ends(columns.CHANGE, paired_change(*pair, seed))
    row |= columns.with_ends(columns.RELATIVE_CHANGE, relative_change(*pair, seed))
    fidelity = fidelity_change(baseline.column(FIDELITY), here.column(FIDELITY), n, seed)
    row |= columns.with_ends(columns.FIDELITY_CHANGE, fidelity.change)
    row |= {
        columns.FIDELITY_CHANGE + columns.CHANCE: fidelity.chance,
        columns.FIDELITY_CHANGE + columns.FELL: fidelity.fell,
    }
    row[columns.NOISE_FLOOR] = float(baseline.column(columns.NOISE_FLOOR).mean())
    row[columns.DUPLICATES] = int(here.column(columns.DUPLICATES).sum())
    return row
