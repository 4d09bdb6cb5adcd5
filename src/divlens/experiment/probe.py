"""The probe: how much diversity each model has, and how much is left under each intervention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from divlens.conditions import BASELINE, Condition, default_conditions, named_conditions
from divlens.experiment import columns
from divlens.experiment.comparison import Comparison, compared
from divlens.experiment.measures import Measure
from divlens.experiment.result import ProbeResult, summary
from divlens.experiment.samples import Samples
from divlens.experiment.workers import check_on_ray, on_workers
from divlens.interventions import described, templated
from divlens.models.answers import loaded_models
from divlens.models.protocol import Model
from divlens.planning import BATCH_SIZE, BatchSize
from divlens.progress import OnBatch, ShowProgress
from divlens.results import finished
from divlens.store.folder import RunFolder, run_for
from divlens.types import Prompt


def probe(
    models: str | Model | Sequence[str | Model],
    prompts: Sequence[str | Prompt],
    n: int = 8,
    seed: int = 0,
    *,
    conditions: Mapping[str, Condition] | Condition | Sequence[Condition] | None = None,
    measures: Sequence[str | Measure] = (),
    lpips: str = "stlpips",
    batch_size: BatchSize = BATCH_SIZE,
    out: str | Path | None = None,
    ray: str | None = None,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> ProbeResult:
    """Measure LPIPS diversity, openness and fidelity of every model under every condition, and what `measures`
    adds to them: names (`divlens score --help` lists them) or `divlens.Measure`.

    `models`: one or several, each a name ("zoo/mim") or an object. `conditions`: interventions by name, one or a list
    under each, with "baseline" among the names; or a list without names, each a condition beside baseline, called by
    what it does; None is `default_conditions()`. They share seeds, so changes are paired. n = 1 leaves diversity
    undefined (NaN), and one prompt leaves the intervals undefined. `progress`: True shows a bar on stderr. `on_batch`
    is told how many more samples are done.

    `out`: the folder of a run, or an address that fsspec knows. Samples and figures are stored there as soon as they
    are made. What it holds is neither drawn nor measured again: the same call goes on where another stopped, and a call
    that asks for more adds to it (docs/runs.md). Without it memory grows with n by the tokens and records of samples,
    which are kept; pictures never are. Raises DivlensError for bad input before anything is drawn.
    """
    check_on_ray(ray, out)
    named = named_conditions(default_conditions() if conditions is None else conditions)
    comparison = compared(loaded_models(models), prompts, n, seed, named, measures, lpips, batch_size)
    with run_for(out, comparison.request("probe"), comparison.models) as folder:
        measured = partial(probe_of, comparison)
        return finished(on_workers(comparison, measured, folder, ray, progress=progress, on_batch=on_batch), folder)


def probe_of(
    comparison: Comparison,
    *,
    folder: RunFolder | None = None,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> ProbeResult:
    """Draw and measure what is planned, but for what the folder of a run holds."""
    import pandas as pd

    asked, prompts, n = comparison.conditions, comparison.prompts, comparison.n
    found = comparison.measured(folder, progress, on_batch)
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
