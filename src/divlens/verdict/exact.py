"""The questions of Argmax and Subset answered in another way: by exact shares, and by bits.

`decompose` splits LPIPS diversity exactly: of two pictures with one wording, all that holds the execution noise is lost
where that is held. `information` counts the bits of path and execution. Both leave the sampler as it is, while Argmax
puts another in its place. What Subset takes of the bits of a grid, H(Z|X), needs no picture: a change that LPIPS does
not see is one of tokens alone. Where an answer disagrees with the contrast, that is a finding and not a mistake.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from divlens.conditions import BASELINE, default_conditions
from divlens.interventions import described
from divlens.showing import interval_text
from divlens.statistics import Interval, ratio_of_means, relative_change
from divlens.verdict.contrasts import DROP, EQUIVALENT, ZERO, Outcome

if TYPE_CHECKING:
    import pandas as pd

DECOMPOSE, INFORMATION = "decompose", "information"
COMMANDS = (DECOMPOSE, INFORMATION)
PATH, EXECUTION, DECODER = "path", "execution", "decoder"
AT_LEAST, AT_MOST, TOKENS = "conditional_lower", "conditional_upper", "token_chao_shen"
UNTOUCHED = "none"  # how tables write that a model is as it is


@dataclass(frozen=True)
class Asked:
    """What a contrast came out as, and, of Subset, what was done, as tables write it."""

    argmax: Outcome
    subset: Outcome
    restriction: str
    margin: float


def exact_answers(tables: Mapping[str, Mapping[str, pd.DataFrame]], model: str, asked: Asked) -> Iterator[str]:
    """A sentence for each answer that the tables of a run have, of the model, and what it disagrees with. `tables`: by
    the command and by their names."""
    for command, share_of, said in (
        (DECOMPOSE, share_of_diversity, "of the LPIPS diversity under one wording is lost where token draws are held"),
        (INFORMATION, share_of_bits, "of the bits of path and execution are those of token draws"),
    ):
        if command not in tables:
            continue
        rows: Any = tables[command]["per_prompt"]
        rows = rows[(rows["model"] == model) & (rows["condition"] == BASELINE)]
        if len(rows):
            share = share_of(rows)
            sentence = f"By {command}, {interval_text(share, '.0f', 100)}% {said}"
            yield f"{sentence}{'' if agrees(share, asked.argmax, asked.margin) else disagreement(asked.argmax)}."
    if INFORMATION in tables:
        yield from answers_to_subset(tables[INFORMATION], model, asked)


def answers_to_subset(tables: Mapping[str, pd.DataFrame], model: str, asked: Asked) -> Iterator[str]:
    """What Subset takes of the bits of a grid and of a token; where only one side of that was counted, which command
    counts the other, if there is one that the run can grow by."""
    sides = [of_condition(tables["per_prompt"], model, done) for done in (UNTOUCHED, asked.restriction)]
    if not len(sides[0]):
        return
    if not len(sides[1]):
        if asked.restriction == described(default_conditions()["subset"]):
            yield "What Subset takes in bits, `divlens information` counts with --under baseline --under subset."
        return
    before, after = ({name: bits_of(side, name) for name in (AT_LEAST, AT_MOST)} for side in sides)
    # The most that may be lost is from the most there was to the least there is.
    lowest, highest = change_of(after[AT_LEAST], before[AT_MOST]), change_of(after[AT_MOST], before[AT_LEAST])
    if math.isnan(lowest.value) or math.isnan(highest.value):
        return  # no bounds, or a lower one of 0, of which nothing is a share
    change = Interval((lowest.value + highest.value) / 2, lowest.low, highest.high)
    ends = (change.low, change.high) if not math.isnan(change.low) else (lowest.value, highest.value)
    text = f"by {100 * ends[0]:+.0f} to {100 * ends[1]:+.0f}%"
    tokens = [of_condition(tables["table"], model, done) for done in (UNTOUCHED, asked.restriction)]
    first, second = (bits_of_a_token(side) for side in tokens)
    said = f"By information, Subset changes H(Z|X) {text}"
    said += f", and the entropy of a token from {first} to {second} bits"
    yield f"{said}{'' if bits_agree(change, asked.subset, asked.margin) else subset_disagreement(asked.subset)}."


def of_condition(table: pd.DataFrame, model: str, done: str) -> pd.DataFrame:
    rows: Any = table
    return rows[(rows["model"] == model) & (rows["interventions"] == done)]


def bits_of(rows: pd.DataFrame, quantity: str) -> pd.Series:
    """The bits of an image of each prompt, by its text."""
    mine: Any = rows[rows["quantity"] == quantity]
    return mine.set_index("prompt")["bits_per_image"]


def change_of(after: pd.Series, before: pd.Series) -> Interval:
    """Relative, over the prompts of both."""
    both = before.index.intersection(after.index)
    return relative_change(np.array(after[both], float), np.array(before[both], float))


def bits_of_a_token(rows: pd.DataFrame) -> str:
    mine: Any = rows[rows["quantity"] == TOKENS]
    names = ("bits_per_token", "token_low", "token_high")
    return interval_text(Interval(*(float(mine[name].iloc[0]) for name in names)), ".2f")


def bits_agree(change: Interval, subset: Outcome, margin: float) -> bool:
    """Whether what Subset takes of the bits goes with what it takes of the diversity: less than the margin where that
    is as it was, and some where it drops. What is open disagrees with nothing."""
    if subset == EQUIVALENT:
        return not change.high < -margin
    return subset not in (DROP, ZERO) or not change.low > -margin


def subset_disagreement(subset: Outcome) -> str:
    left = "is as it was" if subset == EQUIVALENT else "drops"
    return f", which disagrees with the pictures, whose diversity {left}"


def share_of_diversity(rows: pd.DataFrame) -> Interval:
    """`rows`: the components of each prompt, of a table of `decompose`. Where another model of the table has sources
    that this one has not, those of a decoder, they are NaN throughout."""
    sources = {name: set(name.split(":")) for name in rows.dropna(axis=1, how="all").columns}
    lost = [name for name, factors in sources.items() if EXECUTION in factors]
    all_of_them = [name for name, factors in sources.items() if factors & {PATH, EXECUTION, DECODER}]
    return ratio_of_means(rows[lost].to_numpy(float).sum(1), rows[all_of_them].to_numpy(float).sum(1))


def share_of_bits(rows: pd.DataFrame) -> Interval:
    """`rows`: the bits of each prompt, of a table of `information`."""
    path, execution = (
        np.array(rows.loc[rows["quantity"] == quantity, "bits_per_image"], float) for quantity in (PATH, EXECUTION)
    )
    return ratio_of_means(execution, path + execution)


def agrees(share: Interval, argmax: Outcome, margin: float) -> bool:
    """Whether a share of the token draws goes with what is left without them: no more than the margin where Argmax
    leaves diversity as it is, and no less where it takes some. What is open disagrees with nothing."""
    if argmax == EQUIVALENT:
        return not share.low > margin
    return argmax not in (DROP, ZERO) or not share.high < margin


def disagreement(argmax: Outcome) -> str:
    left = "leaves diversity as it is" if argmax == EQUIVALENT else "takes diversity away"
    return f", which disagrees with Argmax: that {left}"
