"""The first screen: what is decided of each model, in words, and what shows it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from divlens.conditions import BASELINE, default_conditions
from divlens.errors import DivlensError
from divlens.experiment import columns
from divlens.experiment.measures import DIVERSITY, FIDELITY, OPENNESS
from divlens.interventions import described
from divlens.pages.gallery import reference_of
from divlens.showing import counted, interval_text
from divlens.statistics import Interval
from divlens.store.reader import StoredRun
from divlens.verdict import Verdict, verdict
from divlens.verdict.evidence import evidence_of, interventions_alone
from divlens.verdict.strategy import MEANING, OPEN

if TYPE_CHECKING:
    import pandas as pd

ALL, RIGHT, NO_CONTRAST = "all pictures", "right pictures", "not a contrast"
PICTURES = {"all": ALL, "right": RIGHT}
LIKELY = 0.005  # a smaller chance is not named
FEW = 6  # conditions that the first screen has room for: the five usual ones, and one more


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is decided of a model. `name`, `meaning`, `chances`, `reasons`: those of its strategy. `typical`: the prompt
    whose changes are nearest to the means over prompts, so the one to look at; empty where nothing tells."""

    model: str
    name: str = ""
    meaning: str = ""
    chances: tuple[tuple[str, int], ...] = ()
    reasons: tuple[str, ...] = ()
    typical: str = ""

    @property
    def is_open(self) -> bool:
        return self.name == OPEN


def verdict_of(run: StoredRun) -> tuple[Verdict | None, str]:
    """The verdict of a run, or why there is none."""
    try:
        return verdict(run), ""
    except DivlensError as error:
        return None, f"No verdict: {error}."


def cards_of(found: Verdict | None, models: Sequence[str], per_prompt: pd.DataFrame | None) -> list[Card]:
    """One for each model, in the order in which they were asked for."""
    cards = []
    for model in models:
        typical = "" if per_prompt is None else typical_prompt(per_prompt, model)
        strategy = found.strategies.get(model) if found else None
        if strategy is None:
            cards.append(Card(model=model, typical=typical))
            continue
        chances = [(name, round(100 * chance)) for name, chance in strategy.chances.items() if chance >= LIKELY]
        cards.append(
            Card(
                model=model,
                name=strategy.name,
                meaning=MEANING[strategy.name],
                chances=tuple(sorted(chances, key=lambda one: -one[1])),
                reasons=tuple(strategy.reasons),
                typical=typical,
            )
        )
    return cards


def first_shown(conditions: Mapping[str, str], found: Verdict | None) -> list[str]:
    """The conditions of the first screen, in their order: all where they are few, else those that the verdict rests on
    and the usual ones or, without a verdict, the first. `conditions`: what is done, by name."""
    if len(conditions) <= FEW:
        return list(conditions)
    if found is None:
        return list(conditions)[:FEW]
    usual = {described(interventions) for interventions in default_conditions().values()}
    decisive = interventions_alone(conditions).values()
    return [name for name, done in conditions.items() if name == BASELINE or name in decisive or done in usual]


def typical_prompt(per_prompt: pd.DataFrame, model: str) -> str:
    """The prompt whose changes of diversity under all conditions are nearest to the means over prompts, in units of
    baseline: not the one that shows most, but one that shows what the figures say."""
    wide = per_prompt[per_prompt["model"] == model].pivot(index="prompt", columns="condition", values=DIVERSITY)
    changes = wide.sub(wide[reference_of(list(per_prompt["condition"]))], axis=0)
    away = ((changes - changes.mean()) ** 2).sum(axis=1, min_count=1)
    return "" if away.isna().all() else str(away.idxmin())


def contrast_rows(run: StoredRun, found: Verdict | None, table: pd.DataFrame) -> list[dict[str, Any]]:
    """A row for each model and condition but baseline: the change of LPIPS diversity in percent of baseline with its
    interval, the outcome where it is a contrast of the verdict (without a verdict nothing), and of which pictures that
    is; fidelity and openness beside it. `table`: that of the probe."""
    names = evidence_of(run).names if found else {}
    kind_of = {condition: kind for kind, condition in names.items()}
    decided = found.table.to_dict("records") if found else []
    rows: list[dict[str, Any]] = []
    for record in map(dict, table.to_dict("records")):
        condition = str(record["condition"])
        if condition == BASELINE:
            continue
        beside = {
            "model": record["model"],
            "condition": condition,
            "fidelity": percent(record[FIDELITY]),
            "openness": percent(record[OPENNESS]),
        }
        contrasts = [
            one for one in decided if one["model"] == record["model"] and one["contrast"] == kind_of.get(condition)
        ]
        for one in contrasts or [record]:
            rows.append(
                beside
                | {name: percent(one[of]) for name, of in zip(ENDS, RELATIVE, strict=True)}
                | {
                    "pictures": PICTURES[str(one["pictures"])] if contrasts else ALL,
                    "outcome": str(one["outcome"]) if contrasts else NO_CONTRAST if found else "",
                    "would_decide": number(one["would_decide"]) if contrasts else None,
                    "prompts": int(one["prompts"]),
                }
            )
    return rows


ENDS = ("change", "low", "high")
RELATIVE = tuple(columns.RELATIVE_CHANGE + end for end in columns.ENDS)


def percent(share: Any) -> float | None:
    found = number(share)
    return None if found is None else 100 * found


def number(value: Any) -> float | None:
    """A number as JSON has it: NaN is none."""
    return None if value is None or not math.isfinite(float(value)) else float(np.round(float(value), 6))


def open_questions(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The contrasts that are undecided, each with what would decide it."""
    for row in rows:
        if row["outcome"] == OPEN:
            enough = row["would_decide"]
            said = "no number of prompts up to 10,000" if enough is None else f"about {enough:.0f} prompts"
            ends = (math.nan if row[end] is None else row[end] for end in ENDS)
            change = interval_text(Interval(*ends), "+.0f")
            yield row | {"said": change, "now": counted(row["prompts"], "prompt"), "needs": said}
