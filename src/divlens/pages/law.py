"""What is read in a model's pictures beside what would be read if they came from the true law, value by value.

A prompt leaves open what it does not name, and the law of that is even (`lab.law`). The judge errs, so that even shares
are not what it would read: the truth is put through its errors, and then both sides are readings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from divlens.errors import DivlensError
from divlens.fidelity import Judge, confusion_of, judge_of, named_by
from divlens.output import Record
from divlens.pages.gallery import reference_of
from divlens.pages.verdicts import number
from divlens.statistics import mean_share
from divlens.store.asked import prompts_of
from divlens.store.reader import StoredRun
from divlens.store.schemas import SAMPLES
from divlens.store.views import literal
from divlens.types import Prompt

MOST_VALUES = 20  # of an attribute: a chart of more tells nothing, and prompts name the thing that they ask for


def law_rows(run: StoredRun, request: Record, device: str | None) -> list[dict[str, Any]]:
    """A row for each model, attribute and value, of the pictures of the condition that others are held against: the
    share of them in which the value is `read`, over the prompts that leave the attribute open, with its interval over
    prompts, and the share that would be `true`; in percent. Nothing of models that cannot be loaded or have no judge.
    """
    condition = reference_of(list(request["conditions"]))
    rows: list[dict[str, Any]] = []
    for name in request["models"]:
        try:
            judge = judge_of(run.model(name, device))
        except DivlensError:  # what is shown of its pictures says so
            continue
        if judge is not None:
            rows += of_model(run, name, condition, prompts_of(request), judge)
    return rows


def of_model(
    run: StoredRun, model: str, condition: str, prompts: Sequence[Prompt], judge: Judge
) -> Iterator[dict[str, Any]]:
    readings = [readings_of(run, model, condition, prompt.text, judge) for prompt in prompts]
    named = [named_by(judge, prompt) for prompt in prompts]
    for place, attribute in enumerate(judge.attributes):
        size = len(attribute)
        open_ = [
            read[:, place]
            for read, names in zip(readings, named, strict=True)
            if names is not None and names[place] is None and len(read)
        ]
        if not open_ or not 1 < size <= MOST_VALUES:
            continue
        expected = np.full(size, 1 / size) @ confusion_of(judge, attribute)
        for value, word in enumerate(attribute.values):
            shares = np.array([float((read == value).mean()) for read in open_])
            found = mean_share(shares, min(map(len, open_)))
            yield {
                **{"series": model, "attribute": attribute.name, "value": word, "prompts": len(open_)},
                **{"true": number(100 * expected[value]), "read": number(100 * found.value)},
                **{"low": number(100 * found.low), "high": number(100 * found.high)},
            }


def readings_of(
    run: StoredRun, model: str, condition: str, prompt: str, judge: Judge
) -> Int[np.ndarray, "some attributes"]:
    """What was read in the stored samples of a prompt, as indices of values; those of another judge are left out."""
    found = run.sql(
        f"SELECT DISTINCT ON (cell) judged FROM {SAMPLES} JOIN verdicts USING (cell) WHERE verdicts.model = "
        f"{literal(model)} AND verdicts.condition = {literal(condition)} AND verdicts.prompt = {literal(prompt)} "
        "AND judged IS NOT NULL"
    )
    values = [{word: index for index, word in enumerate(attribute.values)} for attribute in judge.attributes]
    read = [
        [of[word] for of, word in zip(values, words, strict=True)]
        for words in found["judged"]
        if len(words) == len(values) and all(word in of for of, word in zip(values, words, strict=True))
    ]
    return np.array(read, int).reshape(-1, len(values))
