"""The probe: how much diversity each model has, and how much is left under each intervention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from divlens.conditions import BASELINE, Condition, default_conditions, named_conditions
from divlens.experiment import columns
from divlens.experiment.comparison import Comparison, compared
from divlens.experiment.measures import Measure
from divlens.experiment.result import ProbeResult, summary
from divlens.experiment.samples import Samples
from divlens.interventions import described, templated
from divlens.models.answers import loaded_models
from divlens.models.protocol import Model
from divlens.planning import BATCH_SIZE, BatchSize
from divlens.progress import OnBatch
from divlens.types import Prompt


def probe(
    models: str | Model | Sequence[str | Model],
    prompts: Sequence[str | Prompt],
    n: int = 8,
    seed: int = 0,
    *,
    conditions: Mapping[str, Condition] | Condition | Sequence[Condition] | None = None,
    measures: Sequence[Measure] = (),
    lpips: str = "stlpips",
    batch_size: BatchSize = BATCH_SIZE,
    progress: bool | None = None,
    on_batch: OnBatch | None = None,
) -> ProbeResult:
    """Measure LPIPS diversity, openness and fidelity of every model under every condition, and what `measures`
    adds to them.

    `models`: one or several, each a name ("zoo/mim") or an object. `conditions`: interventions by name, one or a list
    under each, with "baseline" among the names; or a list without names, each a condition beside baseline, called by
    what it does; None is `default_conditions()`. They share seeds, so changes are paired. n = 1 leaves diversity
    undefined (NaN), and one prompt leaves the intervals undefined. `progress`: True shows a bar on stderr. `on_batch`
    is told how many more samples are done.

    Pictures are measured as they are drawn and then dropped: memory grows with n by the tokens and records of samples,
    which are kept. Raises DivlensError for bad input before anything is drawn.
    """
    named = named_conditions(default_conditions() if conditions is None else conditions)
    return probe_of(
        compared(loaded_models(models), prompts, n, seed, named, measures, lpips, batch_size),
        progress=progress,
        on_batch=on_batch,
    )


def probe_of(comparison: Comparison, *, progress: bool | None = None, on_batch: OnBatch | None = None) -> ProbeResult:
    """Draw and measure what is planned."""
    import pandas as pd

    asked, prompts, n = comparison.conditions, comparison.prompts, comparison.n
    found = comparison.measured(progress, on_batch)
    results = [(model, name, result) for model, of_model in found.items() for name, result in of_model.items()]
    rows = [
        dict(zip(columns.OF_CONDITION, (model, name, len(prompts), n), strict=True))
        | summary(result, found[model][BASELINE], comparison.measures, n, comparison.seed)
        for model, name, result in results
    ]
    per_prompt = [row for model, name, result in results for row in result.rows(model, name, prompts)]
    return ProbeResult(
        request=comparison.request("probe"),
        table=pd.DataFrame(rows),
        per_prompt=pd.DataFrame(per_prompt),
        samples=Samples(tuple(part for _, _, result in results for part in result.samples.parts)),
        prompts=prompts,
        conditions={name: described(interventions) for name, interventions in asked.items()},
        seed=comparison.seed,
        n=n,
        lpips=comparison.lpips,
        drawn_with=comparison.drawn_with,
        measures=comparison.measures,
        templated=templated(prompts, [one for interventions in asked.values() for one in interventions]),
    )
