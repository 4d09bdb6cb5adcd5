"""`probe_until_decided`: a probe whose run grows, look by look, until every contrast of its verdict is decided.

How often and at which sizes it is looked at is planned before the first sample, and stands in the run's request: the
verdict parts its 5% among these looks (`verdict.looks`, docs/statistics.md). What a look drew, the next one finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from divlens.conditions import Condition, default_conditions, named_conditions
from divlens.errors import DivlensError
from divlens.experiment.columns import LOOK
from divlens.experiment.comparison import Comparison, compared
from divlens.experiment.measures import Measure
from divlens.experiment.probe import probe_of
from divlens.experiment.result import UNTIL_DECIDED, ProbeResult
from divlens.experiment.workers import check_on_ray, on_workers
from divlens.interventions import described
from divlens.models.answers import asked_prompts, loaded_models
from divlens.models.protocol import Model
from divlens.output import Record
from divlens.planning import BATCH_SIZE, BatchSize
from divlens.progress import OnBatch, ShowProgress
from divlens.results import finished
from divlens.run import Rows, Run
from divlens.store.folder import RunFolder, writing_run
from divlens.types import Prompt
from divlens.verdict import verdict
from divlens.verdict.evidence import PROBE, interventions_alone, what_is_missing
from divlens.verdict.looks import Size, planned_looks


@dataclass(frozen=True, eq=False)
class Growing:
    """A probe that is looked at, at most, at these sizes. whole: that of the last look."""

    whole: Comparison
    looks: tuple[Size, ...]

    def at(self, look: int) -> Comparison:
        """What is drawn and measured by a look, from 1."""
        size = self.looks[look - 1]

        def smaller(run: Run) -> Run:
            assert isinstance(run.rows, Rows)  # as `planning.plans` makes them
            return replace(run, rows=Rows(tuple(replace(one, n=size.n) for one in run.rows.groups[: size.prompts])))

        runs = {
            model: {condition: smaller(run) for condition, run in of_model.items()}
            for model, of_model in self.whole.runs.items()
        }
        return replace(self.whole, runs=runs, prompts=self.whole.prompts[: size.prompts], n=size.n)

    def request(self, look: int) -> Record:
        """What a look asks for, and all that those after it may."""
        prompts = self.whole.request(PROBE)["prompts"]
        plan = {"looks": [list(size) for size in self.looks], "prompts": prompts}
        return {**self.at(look).request(PROBE), UNTIL_DECIDED: plan}

    def begun(self, before: Record | None) -> int:
        """The last look that a folder was asked for already, or the first."""
        if before is None:
            return 1
        prompts, n = len(before["prompts"]), before["n"]
        return max((at for at, size in enumerate(self.looks, 1) if size.prompts <= prompts and size.n <= n), default=1)


def growing(
    models: Sequence[Model],
    prompts: Sequence[str | Prompt],
    n: int,
    seed: int,
    conditions: Mapping[str, Sequence],
    measures: Sequence[Measure],
    lpips: str,
    batch_size: BatchSize,
    budget: int | None,
) -> Growing:
    """Plan a probe until decided. Every DivlensError that a request can raise is raised here."""
    asked = asked_prompts(models, prompts)
    names = interventions_alone({name: described(interventions) for name, interventions in conditions.items()})
    if reason := what_is_missing(max(len(asked), 2), n, names):
        raise DivlensError(f"until_decided expects {reason}")
    looks = planned_looks(len(asked), n, budget, len(names))
    used = asked[: looks[-1].prompts]
    return Growing(compared(models, used, looks[-1].n, seed, conditions, measures, lpips, batch_size), looks)


@contextmanager
def run_that_grows(
    plan: Growing, out: str | Path, arguments: Sequence[str] = (), *, repair: bool = False
) -> Iterator[RunFolder]:
    """The folder of the run, open for writing, asked for as much as it was before. Raises DivlensError as `run_for`."""
    with writing_run(out, arguments, repair=repair) as folder:
        folder.enter_models(plan.whole.models)
        folder.begin(plan.request(plan.begun(folder.record["requests"].get(PROBE))))
        yield folder


def decided_of(
    plan: Growing,
    folder: RunFolder,
    ray: str | None = None,
    *,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> ProbeResult:
    """Draw, measure and judge look by look, until all is decided or the last is done; but for what the folder holds."""
    import pandas as pd

    asked, seen, result = plan.begun(folder.record["requests"][PROBE]), list[pd.DataFrame](), None
    for look in range(1, len(plan.looks) + 1):
        request = plan.request(look)
        if look > asked:
            folder.begin(request)
        comparison = plan.at(look)
        measured = partial(probe_of, comparison)
        found = on_workers(comparison, measured, folder, ray, progress=progress, on_batch=on_batch)
        seen.append(found.per_prompt.assign(**{LOOK: look}))
        result = replace(found, request=request, per_look=pd.concat(seen, ignore_index=True))
        if verdict(result).is_settled:
            break
    assert result is not None  # there is one look at least
    return result


def probe_until_decided(
    models: str | Model | Sequence[str | Model],
    prompts: Sequence[str | Prompt],
    n: int = 8,
    seed: int = 0,
    *,
    out: str | Path,
    budget: int | None = None,
    conditions: Mapping[str, Condition] | Condition | Sequence[Condition] | None = None,
    measures: Sequence[Measure] = (),
    lpips: str = "stlpips",
    batch_size: BatchSize = BATCH_SIZE,
    ray: str | None = None,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> ProbeResult:
    """`probe` with as many of the prompts, in their order, as decide the contrasts of every model under Argmax, Subset
    and Paraphrase; where prompts run out, with more samples of each than `n`.

    `budget`: the most samples of a model under a condition, prompts times samples of each; None is twice those of all
    prompts. The looks at which it may end are planned before: at all prompts, at half of them, and so on, and they
    share the 5% of a wrong decision, so that looking again costs no more of it (docs/statistics.md). `out`: the folder
    of the run, where a look finds what those before drew; the other arguments are those of `probe`. What it returns has
    the figures of each look in `per_look`, and `divlens.verdict` says at which look each contrast was decided.

    Raises DivlensError, before anything is drawn, for prompts or a budget that can decide nothing, for conditions
    without Argmax and Subset alone, for a folder that was asked for other looks, and as `probe` does.
    """
    check_on_ray(ray, out)
    named = named_conditions(default_conditions() if conditions is None else conditions)
    plan = growing(loaded_models(models), prompts, n, seed, named, measures, lpips, batch_size, budget)
    with run_that_grows(plan, out) as folder:
        return finished(decided_of(plan, folder, ray, progress=progress, on_batch=on_batch), folder)
