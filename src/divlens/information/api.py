"""`information`: draw samples, add up their bits as they are drawn, and bound what the samples alone do not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from divlens.conditions import name_of
from divlens.information.assembly import result_of
from divlens.information.kept import Kept
from divlens.information.one_pass import collect
from divlens.information.plan import Accounting, Effort, accountings
from divlens.information.relevance import Judge
from divlens.information.result import Information
from divlens.interventions import Intervention
from divlens.models.answers import loaded_model
from divlens.models.protocol import Model
from divlens.planning import BATCH_SIZE, BatchSize
from divlens.progress import OnBatch, ShowProgress, followed
from divlens.results import finished
from divlens.run import Run
from divlens.store.folder import RunFolder, run_for
from divlens.types import Prompt


def information(
    model: Model | str,
    prompts: Sequence[str | Prompt],
    n: int = 32,
    seed: int = 0,
    *,
    interventions: Sequence[Intervention] = (),
    reading: Literal["schedule", "trajectory"] = "schedule",
    judge: Judge | Literal["declared"] | None = "declared",
    effort: Effort | None = None,
    batch_size: BatchSize = BATCH_SIZE,
    out: str | Path | None = None,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> Information:
    """Where the entropy of a model's images sits: path, execution, H(Z|X), H(Z), I(X;Z), I(Z;Y); see docs/theory.md.

    `model`: a model, or the spec of one ("zoo/mim"). Probabilities are those the sampler draws from, under the
    interventions. `reading`: for diffusion, whether the path is the schedule of reveals and replacements or the whole
    latent trajectory z_T, ..., z_1. `judge`: pictures to labels, for I(Z;Y); Y is the concept that a prompt asks
    for: its own, or the one that its text names where the judge has `concepts`; else its text, whatever its case,
    spaces and leading article. "declared" is the judge that the model declares, as those of the zoo do, and None leaves
    I(Z;Y) out. `effort`: a `divlens.Effort`, how much is spent on the bounds, which take longer than the samples.
    `progress`: True shows a bar on stderr. `on_batch` is told how many more samples are done.

    `out`: the folder of a run, see `divlens.probe`, whose samples under the same interventions are found there.
    Samples that another command stored are drawn once more, for tokens do not tell their bits, and what is found is
    kept; DivlensWarning says how many came out otherwise, as they may on another device.

    Raises DivlensError for bad prompts, n, seed, batch size, interventions, judge or effort, for an unknown reading,
    for prompts that come twice, and for a folder that cannot hold the run.
    """
    (accounting,) = accountings(
        loaded_model(model),
        prompts,
        n,
        seed,
        {name_of(interventions): interventions},
        reading=reading,
        judge=judge,
        effort=effort,
        batch_size=batch_size,
    )
    with run_for(out, accounting.request, [accounting.run.model]) as folder:
        return finished(information_of(accounting, folder=folder, progress=progress, on_batch=on_batch), folder)


def information_of(
    accounting: Accounting,
    *,
    folder: RunFolder | None = None,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> Information:
    """Draw what is planned, but for what the folder of a run holds, and account for it."""
    run, name = without_idle_freezes(accounting.run), accounting.run.model.name
    with followed(progress, on_batch, len(run.rows), name) as follower:
        judge, stored = accounting.judge, accounting.effort.stored_samples(run)
        kept = None if folder is None else Kept(folder, accounting.run, accounting.condition, judge)
        collected = collect(run, stored, judge, follower.advance, kept)
        follower.describe(f"{name}: bounds")
        return result_of(accounting, run, collected)


def without_idle_freezes(run: Run) -> Run:
    """The run without the Freeze of a stream that has no noise. It changes nothing, so it must not make likelihoods
    undefined."""
    settings = run.settings
    return replace(run, settings=replace(settings, frozen=settings.frozen - settings.without_noise))
