"""What a verdict is read from: the figures of every prompt under every condition, of a probe or of the run it wrote.

Of a run only tables are read: no model is loaded, so that a verdict needs neither weights nor the machine of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from divlens.conditions import BASELINE
from divlens.errors import DivlensError
from divlens.experiment import columns
from divlens.experiment.families import lost_beside
from divlens.experiment.measures import DIVERSITY, FIDELITY, KEPT
from divlens.experiment.result import PER_LOOK, UNTIL_DECIDED, ProbeResult
from divlens.interventions import Argmax, Paraphrase, Subset
from divlens.notation import interventions_described
from divlens.output import Record
from divlens.showing import counted
from divlens.store.reader import StoredRun, open_run
from divlens.store.record import share_in
from divlens.verdict.alignments import alignments_in
from divlens.verdict.contrasts import ONLY_LOOK, Look
from divlens.verdict.exact import COMMANDS
from divlens.verdict.looks import Size

if TYPE_CHECKING:
    import pandas as pd

ARGMAX, SUBSET, PARAPHRASE = "Argmax", "Subset", "Paraphrase"
DECISIVE = (ARGMAX, SUBSET)
USUAL = {repr(Argmax()), repr(Subset()), repr(Paraphrase())}
PROBE = "probe"
JUDGE = "judge"
FEWEST_KNOWN = 2  # prompts whose right pictures are known, from which on these decide


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """`conditions`: what was done, as text, by name. `prompts`, `n`: how many, and samples of each. `per_prompt`: as of
    `ProbeResult`. `request`: all that was asked. `exact`: of a run, the tables of `decompose` and `information`, where
    it has them. `alignments`: the measures of `score` that tell right pictures without a judge, where the run has them
    of all samples; they are columns of `per_prompt`, too. `look`: which look at a growing run it is; `earlier`: what
    was there at those before.
    """

    conditions: Mapping[str, str]
    prompts: int
    n: int
    seed: int
    per_prompt: pd.DataFrame
    request: Record
    exact: Mapping[str, Mapping[str, pd.DataFrame]] = field(default_factory=dict)
    alignments: tuple[str, ...] = ()
    look: Look = ONLY_LOOK
    earlier: tuple[Evidence, ...] = ()

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(self.per_prompt["model"]))

    @property
    def names(self) -> dict[str, str]:
        """By each intervention of the paper, the condition that is it and nothing else, where there is one."""
        return interventions_alone(self.conditions)


@dataclass(frozen=True, eq=False)
class Figures:
    """Of a model under one condition the values of every prompt; NaN where undefined. `kept`: the diversity of the
    right pictures, and `right` how many are. `only_duplicates`: all samples of every prompt are one."""

    diversity: Float[np.ndarray, " prompts"]
    kept: Float[np.ndarray, " prompts"]
    right: Float[np.ndarray, " prompts"]
    only_duplicates: bool

    @property
    def wrong(self) -> float:
        """The share of pictures that are wrong, over the prompts where that is known; there is one at least."""
        return float(np.nanmean(1 - self.right))


def interventions_alone(conditions: Mapping[str, str]) -> dict[str, str]:
    """`conditions`: what was done, as `interventions.described` writes it, by name. Of several doses of an intervention
    the usual one counts, else the first."""
    found: dict[str, str] = {}
    for name, done in sorted(conditions.items(), key=lambda condition: condition[1] not in USUAL):
        if kind := kind_in_paper(done):
            found.setdefault(kind, name)
    return {kind: found[kind] for kind in (*DECISIVE, PARAPHRASE) if kind in found}


def kind_in_paper(done: str) -> str:
    """Which intervention of the paper a text is, and nothing else; empty for any other.

    Argmax is that of all token draws: one that silences the path, too, or leaves some draws free, says something else
    of where the diversity comes from. Subset is that of the most used codes; its controls are not, and neither is a
    dose of no effect.
    """
    try:
        listed = interventions_described(done)
    except DivlensError:  # an intervention of the user's own
        return ""
    match listed:
        case (Argmax(scope="tokens", share=1),):
            return ARGMAX
        case (Subset(fraction=fraction, by="frequency"),) if fraction < 1:
            return SUBSET
        case (Paraphrase(n=wordings),) if wordings != 1:
            return PARAPHRASE
    return ""


def evidence_of(asked: ProbeResult | StoredRun | str | Path, reader: str = "verdict") -> Evidence:
    """`reader`: what reads it, for messages. Raises DivlensError for what is neither a probe nor the folder of a
    complete run that has one."""
    if isinstance(asked, ProbeResult):
        whole = Evidence(
            conditions=asked.conditions,
            prompts=len(asked.prompts),
            n=asked.n,
            seed=asked.seed,
            per_prompt=asked.per_prompt,
            request=asked.request,
        )
        return with_looks(whole, asked.request, asked.per_look)
    if isinstance(asked, StoredRun | str | Path):
        return evidence_in(asked if isinstance(asked, StoredRun) else open_run(asked), reader)
    raise DivlensError(
        f"{reader} expects what divlens.probe returns, or the folder of a run of it, got {type(asked).__name__}"
    )


def evidence_in(run: StoredRun, reader: str = "verdict") -> Evidence:
    """That of a run, whose tables are complete."""
    place = run.place
    if PROBE not in run.requests:
        raise DivlensError(f"{reader} expects a run of probe, {place} has {', '.join(run.requests) or 'none'}")
    if (share := share_in(run.record)) is not None:
        raise DivlensError(f"{place} holds shard {share} of a run: {reader} needs all, see `divlens merge`")
    if PROBE in run.unfinished:
        raise DivlensError(f"{place} is not complete: divlens resume {place} draws what is missing")
    request, tables = run.requests[PROBE], run.tables(PROBE)
    per_prompt = tables["per_prompt"]
    if KEPT not in per_prompt:
        raise DivlensError(
            f"{place} was measured by a divlens without {KEPT}: the command that made it, given again, measures that "
            "and draws nothing"
        )
    alignments = alignments_in(run, request)
    for table in alignments.values():
        per_prompt = per_prompt.merge(table, on=list(columns.OF_PROMPT))
    done = [command for command in COMMANDS if command in run.requests and command not in run.unfinished]
    whole = Evidence(
        conditions=request["conditions"],
        prompts=len(request["prompts"]),
        n=request["n"],
        seed=request["seed"],
        per_prompt=per_prompt,
        request=request,
        exact={command: run.tables(command) for command in done},
        alignments=tuple(alignments),
    )
    return with_looks(whole, request, tables.get(PER_LOOK))


def with_looks(whole: Evidence, request: Record, per_look: pd.DataFrame | None) -> Evidence:
    """The evidence of a run that grew, with that of each look before the last."""
    if per_look is None:
        return whole
    sizes = [Size(*size) for size in request[UNTIL_DECIDED]["looks"]]
    earlier: list[Evidence] = []
    whose: Any = per_look[columns.LOOK]
    for number in range(1, int(whose.max()) + 1):
        rows: Any = per_look[whose == number]
        size, look = sizes[number - 1], Look(number, len(sizes))
        # Alignments stand in no table of a look: what they decide is decided at the last.
        earlier.append(replace(whole, prompts=size.prompts, n=size.n, per_prompt=rows, alignments=(), look=look))
    return replace(whole, look=earlier.pop().look, earlier=tuple(earlier))


def check_evidence(evidence: Evidence) -> None:
    """Raises DivlensError where no verdict is possible."""
    if reason := what_is_missing(evidence.prompts, evidence.n, evidence.names):
        raise DivlensError(f"verdict expects {reason}")


def what_is_missing(prompts: int, n: int, names: Mapping[str, str]) -> str:
    """What a verdict expects and what came, where these are not enough for one; else nothing."""
    if prompts < 2 or n < 2:
        got = f"{counted(prompts, 'prompt')} and {counted(n, 'sample')}"
        return f"at least 2 prompts and 2 samples of each, got {got}"
    if missing := missing_conditions(names):
        return f"conditions of Argmax and Subset alone, got none of {', '.join(missing)}"
    return ""


def missing_conditions(names: Mapping[str, str]) -> list[str]:
    return [kind for kind in DECISIVE if kind not in names]


def right_by(evidence: Evidence, model: str, asked: str | None) -> str:
    """Who says which pictures of a model are right: a measure that was asked for, JUDGE where it knows the prompts, or
    the only measure that the run has; empty for nobody. Raises DivlensError for one that the run does not have."""
    if asked is not None and asked not in evidence.alignments:
        raise DivlensError(
            f"kept expects a measure that the run has of all its samples, it has "
            f"{', '.join(evidence.alignments) or 'none'}, got {asked!r:.120}: divlens score RUN --measures "
            "kept:clipscore:PLACE measures one"
        )
    if asked is not None:
        return asked
    rows: Any = evidence.per_prompt.groupby("model").get_group(model)
    if (~np.isnan(values_in(rows, BASELINE, FIDELITY))).sum() >= FEWEST_KNOWN:
        return JUDGE
    return evidence.alignments[0] if len(evidence.alignments) == 1 else ""


def figures_of(evidence: Evidence, model: str, by: str = JUDGE) -> tuple[Figures, dict[str, Figures]]:
    """Of a model: those of baseline, and those under each intervention of the paper. `by`: see `right_by`."""
    rows: Any = evidence.per_prompt.groupby("model").get_group(model)
    floor = values_in(rows, BASELINE, columns.NOISE_FLOOR)

    def kept_and_right(condition: str) -> tuple[Float[np.ndarray, " prompts"], Float[np.ndarray, " prompts"]]:
        if by in evidence.alignments:
            return values_in(rows, condition, by), 1 - values_in(rows, condition, lost_beside(by))
        found = values_in(rows, condition, KEPT), values_in(rows, condition, FIDELITY)
        return found if by == JUDGE else (np.full_like(found[0], np.nan), np.full_like(found[1], np.nan))

    def figures(condition: str) -> Figures:
        diversity = values_in(rows, condition, DIVERSITY)
        # Two pairs of duplicates are duplicates, too: only where nothing can be seen between them they are one.
        same = values_in(rows, condition, columns.DUPLICATES) == evidence.n
        kept, right = kept_and_right(condition)
        return Figures(
            diversity=diversity,
            kept=kept,
            right=right,
            only_duplicates=bool((same & (diversity <= floor)).all()),
        )

    return figures(BASELINE), {kind: figures(name) for kind, name in evidence.names.items()}


def values_in(rows: pd.DataFrame, condition: str, column: str) -> Float[np.ndarray, " prompts"]:
    """Of every prompt, in the order of the table, which is the same under every condition."""
    return np.array(rows.loc[rows["condition"] == condition, column], float)
