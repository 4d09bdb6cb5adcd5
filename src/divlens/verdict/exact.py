"""The question of Argmax answered without it: which part of a model's diversity, and of its bits, the token draws make.

`decompose` splits LPIPS diversity exactly: of two pictures with one wording, all that holds the execution noise is lost
where that is held. `information` counts the bits of path and execution. Both leave the sampler as it is, while Argmax
puts another in its place: where they disagree, that is a finding and not a mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from divlens.conditions import BASELINE
from divlens.showing import interval_text
from divlens.statistics import Interval, ratio_of_means
from divlens.verdict.contrasts import DROP, EQUIVALENT, ZERO, Outcome

if TYPE_CHECKING:
    import pandas as pd

DECOMPOSE, INFORMATION = "decompose", "information"
COMMANDS = (DECOMPOSE, INFORMATION)
PATH, EXECUTION = "path", "execution"


def exact_answers(tables: Mapping[str, pd.DataFrame], model: str, argmax: Outcome, margin: float) -> Iterator[str]:
    """A sentence for each command whose figures of every prompt are there, of the model as it is, and one where it
    disagrees with what Argmax came out as. `tables`: by the command."""
    for command, share_of, said in (
        (DECOMPOSE, share_of_diversity, "of the LPIPS diversity under one wording is lost where token draws are held"),
        (INFORMATION, share_of_bits, "of the bits of path and execution are those of token draws"),
    ):
        if command not in tables:
            continue
        rows: Any = tables[command]
        rows = rows[(rows["model"] == model) & (rows["condition"] == BASELINE)]
        if len(rows):
            share = share_of(rows)
            sentence = f"By {command}, {interval_text(share, '.0f', 100)}% {said}"
            yield f"{sentence}{'' if agrees(share, argmax, margin) else disagreement(argmax)}."


def share_of_diversity(rows: pd.DataFrame) -> Interval:
    """`rows`: the components of each prompt, of a table of `decompose`."""
    sources = {name: set(name.split(":")) for name in rows.columns}
    lost = [name for name, factors in sources.items() if EXECUTION in factors]
    all_of_them = [name for name, factors in sources.items() if factors & {PATH, EXECUTION}]
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
