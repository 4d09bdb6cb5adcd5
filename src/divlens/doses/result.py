"""`doses`: what is left of the diversity, openness and fidelity of each model at every dose of an intervention, and at
which dose half of it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from divlens.conditions import BASELINE
from divlens.doses.curves import ALL, Halving, halving, share_left
from divlens.errors import DivlensError
from divlens.experiment import columns
from divlens.experiment.measures import DIVERSITY, FIDELITY, KEPT, OPENNESS, named, usual_measures
from divlens.experiment.result import ProbeResult
from divlens.interventions import Paraphrase
from divlens.notation import interventions_described
from divlens.output import Record, write_tables
from divlens.results import Result
from divlens.showing import Block, counted, interval_text, missing_intervals
from divlens.statistics import Interval
from divlens.store.reader import StoredRun
from divlens.sweeps import Swept, swept_in
from divlens.verdict.evidence import Evidence, evidence_of, values_in

if TYPE_CHECKING:
    import pandas as pd

TITLES = {DIVERSITY: "LPIPS diversity", KEPT: "kept diversity", OPENNESS: "openness", FIDELITY: "fidelity"}
HALVED = (DIVERSITY, KEPT, OPENNESS)
MOST_WORDINGS = "Paraphrase: a prompt is asked in no more wordings than it has, and than it has samples."
LEFT = "_left"  # what follows the name of a measure


@dataclass(frozen=True)
class Point:
    """`left`: of each of TITLES the share of baseline that is left, with its interval; `prompts`: over how many."""

    dose: float
    condition: str
    left: Mapping[str, Interval]
    prompts: Mapping[str, int]


@dataclass(frozen=True)
class Curve:
    """Of a model the points of a sweep, the weakest dose first. Where doses lie on both sides of that of no effect, as
    of Temperature, each side is a curve of its own. Of measures that nobody could take there is nothing."""

    model: str
    swept: Swept
    points: tuple[Point, ...]

    @property
    def measures(self) -> list[str]:
        return [name for name in TITLES if any(point.prompts[name] for point in self.points)]

    def halving(self, measure: str) -> Halving:
        return halving([point.dose for point in self.points], [point.left[measure] for point in self.points])


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class Doses(Result):
    """What `doses` returns. `prompts`, `n`: how many, and samples of each."""

    curves: tuple[Curve, ...]
    prompts: int
    n: int

    @property
    def table(self) -> pd.DataFrame:
        """One row per model, sweep and dose: model, sweep, dose, condition (its name in the probe's table); and of
        diversity, kept_diversity, openness and fidelity `_left`, a share of baseline, with `_low` and `_high`, and
        `_prompts`, how many prompts it is over. Undefined is NaN."""
        import pandas as pd

        return pd.DataFrame([row for curve in self.curves for row in rows_of(curve)])

    @property
    def halvings(self) -> pd.DataFrame:
        """One row per model, sweep and measure: `halving`, the dose at which half of it is left, with `_low` and
        `_high`; `above_again`, the first dose beyond at which more than half is; `why_not`, where it never halves."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"model": curve.model, "sweep": curve.swept.name, "measure": name}
                | columns.with_ends("halving", (found := curve.halving(name)).dose)
                | {"above_again": found.again, "why_not": found.why_not}
                for curve in self.curves
                for name in HALVED
            ]
        )

    @property
    def headline(self) -> str:
        models = len({curve.model for curve in self.curves})
        sweeps = len({curve.swept for curve in self.curves})
        return (
            f"Doses: {counted(models, 'model')}, {counted(sweeps, 'sweep')}, {counted(self.prompts, 'prompt')}, "
            f"{counted(self.n, 'sample')} each"
        )

    @property
    def blocks(self) -> list[Block]:
        """One per model and sweep: what is left at each dose, in percent of baseline, and where half of it is."""
        return [block_of(curve) for curve in self.curves]

    @property
    def notes(self) -> list[str]:
        kept = "kept: LPIPS diversity among the pictures the judge names right. "
        judged = any(KEPT in curve.measures for curve in self.curves)
        return [
            "Percent of baseline that is left, means over prompts, paired, same noise; [95% interval]. "
            f"{kept if judged else ''}Half: where a straight line between two doses first falls to 50%; its interval "
            "ends where those of the percents do (?: at no dose here). See docs/statistics.md.",
            *([MOST_WORDINGS] if any(curve.swept.kind is Paraphrase for curve in self.curves) else []),
            *missing_intervals(self.prompts),
        ]

    @property
    def found(self) -> Record:
        return {}

    @classmethod
    def write_files(cls, results: Sequence[Self], folder: Path) -> None:
        """table and halvings (see `write_tables`)."""
        (result,) = results
        write_tables({"table": [result.table], "halvings": [result.halvings]}, folder)


def rows_of(curve: Curve) -> Iterator[dict[str, Any]]:
    for point in curve.points:
        row: dict[str, Any] = {"model": curve.model, "sweep": curve.swept.name}
        row |= {"dose": point.dose, "condition": point.condition}
        for name, left in point.left.items():
            row |= columns.with_ends(name + LEFT, left) | {name + columns.COUNT: point.prompts[name]}
        yield row


def block_of(curve: Curve) -> Block:
    measures = curve.measures
    headings = (curve.swept.dose.field, *(f"{TITLES[name].replace('LPIPS ', '')} %" for name in measures))
    rows = [
        (f"{point.dose:g}", *(interval_text(point.left[name], ".0f", 100) for name in measures))
        for point in curve.points
    ]
    lines = [f"{TITLES[name]}: {halving_text(curve.halving(name))}." for name in measures if name in HALVED]
    return Block(f"{curve.model} {curve.swept.name}", headings, rows, lines=lines)


def halving_text(found: Halving) -> str:
    """In words. An end of the interval that lies beyond the doses of the sweep is a question mark."""
    low, high = ("?" if math.isnan(end) else f"{end:.2g}" for end in (found.dose.low, found.dose.high))
    if found.why_not:
        possible = [end for end in (low, high) if end != "?"]
        return f"no half: {found.why_not}" + (f"; not excluded from {possible[0]} on" if possible else "")
    ends = f" [{low}, {high}]" if {low, high} != {"?"} else ""
    again = "" if math.isnan(found.again) else f"; more than half is left again at {found.again:g}"
    return f"half at {found.dose.value:.2g}{ends}{again}"


def doses(result_or_run: ProbeResult | StoredRun | str | Path) -> Doses:
    """How much of diversity, openness and fidelity is left at each dose of a sweep, and where half of it is.

    `result_or_run`: what `divlens.probe` returns, or the run that it wrote: a folder, an address that fsspec knows, or
    what `divlens.open_run` returns; nothing is drawn. A sweep is any intervention that stands alone under several
    conditions and differs in its dose only (`divlens.sweep`, `probe --sweep`).

    Raises DivlensError for a probe without a sweep, and for a folder without a complete run of `probe`.
    """
    evidence = evidence_of(result_or_run, "doses")
    sweeps = sweeps_in(evidence.conditions)
    if not sweeps:
        done = ", ".join(evidence.conditions)
        raise DivlensError(f"doses expects an intervention at several doses, such as --sweep Subset=1,0.5, got {done}")
    curves = [
        curve
        for model in evidence.models
        for swept, conditions in sweeps.items()
        for curve in curves_of(evidence, model, swept, conditions)
    ]
    request = {**evidence.request, "command": "doses"}
    return Doses(request=request, curves=tuple(curves), prompts=evidence.prompts, n=evidence.n)


def sweeps_in(conditions: Mapping[str, str]) -> dict[Swept, dict[float, str]]:
    """Of conditions, by name as text, the sweeps: under each dose the condition, the first where two are the same."""
    found: dict[Swept, dict[float, str]] = {}
    for name, done in conditions.items():
        try:
            listed = interventions_described(done)
        except DivlensError:  # an intervention of the user's own
            continue
        dosed = swept_in(listed[0]) if len(listed) == 1 else None
        if dosed is not None:
            swept, dose = dosed
            found.setdefault(swept, {}).setdefault(dose, name)
    return {swept: by_dose for swept, by_dose in found.items() if len(by_dose) > 1}


def curves_of(evidence: Evidence, model: str, swept: Swept, conditions: Mapping[float, str]) -> Iterator[Curve]:
    """Those on either side of the dose of no effect, at which each begins: there the condition is baseline, unless it
    was asked for."""
    none = swept.none
    begin = [none_at(none, conditions.get(none, BASELINE), evidence, model)] if math.isfinite(none) else []
    below = sorted((dose for dose in conditions if dose < none), reverse=True)
    above = sorted(dose for dose in conditions if dose > none)
    for side in (below, above):
        if side:
            points = [point_at(dose, conditions[dose], evidence, model) for dose in side]
            yield Curve(model, swept, (*begin, *points))


def none_at(dose: float, condition: str, evidence: Evidence, model: str) -> Point:
    """The dose of no effect, at which all is left that there is: but for a model whose own temperature or top-p is
    another one (GLM-Image), for which this is a dose as any other and was measured."""
    point = point_at(dose, condition, evidence, model)
    left = {name: ALL if one.value == ALL.value else one for name, one in point.left.items()}
    return Point(dose, condition, left, point.prompts)


def point_at(dose: float, condition: str, evidence: Evidence, model: str) -> Point:
    rows: Any = evidence.per_prompt.groupby("model").get_group(model)
    left: dict[str, Interval] = {}
    prompts: dict[str, int] = {}
    for name in TITLES:
        values, baseline = (values_in(rows, each, name) for each in (condition, BASELINE))
        measure = named(usual_measures(None), name)
        left[name] = share_left(measure, values, baseline, evidence.n, evidence.seed)
        prompts[name] = int((~np.isnan(values + baseline)).sum())
    return Point(dose, condition, left, prompts)
