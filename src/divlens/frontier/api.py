"""`frontier`: a probe with a condition for every setting of every method, and what follows from its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from divlens.errors import DivlensError, check_whole
from divlens.experiment.comparison import Comparison, compared
from divlens.experiment.measures import LAW_DISTANCE, Measure, named, usual_measures
from divlens.experiment.probe import probe_of
from divlens.experiment.workers import check_on_ray, on_workers
from divlens.frontier.analysis import FEWEST, analysed
from divlens.frontier.methods import conditions_of, methods_named, passes_of
from divlens.frontier.result import Frontier
from divlens.models.answers import asked_prompts, loaded_model
from divlens.models.protocol import Model
from divlens.output import Record
from divlens.planning import BATCH_SIZE, BatchSize
from divlens.progress import OnBatch, ShowProgress
from divlens.results import finished
from divlens.store.folder import RunFolder, run_for
from divlens.types import Prompt

COMMAND = "frontier"
USUAL = {measure.name for measure in usual_measures(None)}  # they are taken without being asked for


@dataclass(frozen=True, eq=False)
class Plan:
    """What is drawn and measured; `fidelity`: the name of a measure that was asked for in place of the judge's."""

    comparison: Comparison
    fidelity: str | None

    @property
    def request(self) -> Record:
        return {**self.comparison.request(COMMAND), "fidelity": self.fidelity}

    @property
    def passes(self) -> dict[str, int]:
        """By condition, how often the network is asked for a sample."""
        (runs,) = self.comparison.runs.values()
        return {condition: passes_of(run.settings) for condition, run in runs.items()}


def planned(
    model: Model,
    prompts: Sequence[str | Prompt],
    n: int,
    seed: int,
    methods: Sequence[str] | None,
    fidelity: str | Measure | None,
    measures: Sequence[str | Measure],
    lpips: str,
    batch_size: BatchSize,
) -> Plan:
    """Plan a frontier. Every DivlensError that a request can raise is raised here."""
    asked, chosen = asked_prompts([model], prompts), methods_named(methods)
    if len(asked) < 2 * FEWEST:
        raise DivlensError(
            f"frontier expects at least {2 * FEWEST} prompts, half of which choose settings and half of which report, "
            f"got {len(asked)}"
        )
    check_whole("n", n, 2)
    unsuited = [method.name for method in chosen if methods is not None and not method.suits(asked)]
    if unsuited:
        raise DivlensError(f"{', '.join(unsuited)} expects prompts that the laboratory can read, got others, too")
    conditions = conditions_of([method for method in chosen if method.suits(asked)], model)
    wanted = [LAW_DISTANCE.name, *measures, *([] if fidelity is None else [fidelity])]
    return plan_of(compared([model], asked, n, seed, conditions, once(wanted), lpips, batch_size), fidelity)


def once(measures: Sequence[str | Measure]) -> list[str | Measure]:
    """Each measure once, without the usual ones."""
    found = {each if isinstance(each, str) else each.name: each for each in measures}
    return [each for name, each in found.items() if name not in USUAL]


def plan_of(comparison: Comparison, fidelity: str | Measure | None) -> Plan:
    """Raises DivlensError for a fidelity that is not measured."""
    name = fidelity.name if isinstance(fidelity, Measure) else fidelity
    if name is not None:
        named(comparison.measures, name)
    return Plan(comparison, name)


def frontier_of(
    plan: Plan,
    *,
    folder: RunFolder | None = None,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> Frontier:
    """Draw and measure what is planned, but for what the folder of a run holds."""
    probed = probe_of(plan.comparison, folder=folder, progress=progress, on_batch=on_batch)
    (model,) = plan.comparison.runs
    return Frontier(
        request=plan.request,
        model=model,
        probed=replace(probed, request=plan.request),
        analysis=analysed(probed, plan.fidelity),
        passes=plan.passes,
    )


def frontier(
    model: str | Model,
    prompts: Sequence[str | Prompt],
    n: int = 8,
    seed: int = 0,
    *,
    methods: Sequence[str] | None = None,
    fidelity: str | Measure | None = None,
    measures: Sequence[str | Measure] = (),
    lpips: str = "stlpips",
    batch_size: BatchSize = BATCH_SIZE,
    out: str | Path | None = None,
    ray: str | None = None,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> Frontier:
    """Diversity against fidelity over the settings of each method that raises diversity, and where each stands against
    plain lower guidance: ahead, level, behind or undecided.

    Half of the prompts choose settings, the others report what these give. Diversity is openness and fidelity the
    respect for what was named where a judge can tell both; then it is also said whether a setting is nearer to the true
    law than baseline and guidance, at no loss of respect. Elsewhere diversity is that of LPIPS, and fidelity the
    measure that is asked for: `fidelity`, a name (`divlens score --help`) or a `divlens.Measure`, more of which is
    better. `methods`: names of `divlens.frontier.methods.METHODS`; None is all that the prompts are suited for.
    `measures`, `out` and the other arguments are those of `divlens.probe`; the samples of a probe under the same
    conditions are found in the folder.

    Raises DivlensError, before anything is drawn, for fewer than 4 prompts or 2 samples, for a method that is not known
    or not for these prompts, and as `probe` does.
    """
    check_on_ray(ray, out)
    plan = planned(loaded_model(model), prompts, n, seed, methods, fidelity, measures, lpips, batch_size)
    with run_for(out, plan.request, plan.comparison.models) as folder:
        measured = partial(frontier_of, plan)
        found = on_workers(plan.comparison, measured, folder, ray, progress=progress, on_batch=on_batch)
        return finished(found, folder)
