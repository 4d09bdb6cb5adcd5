"""`compare`: what two runs that were asked the same prompts have come to, prompt by prompt."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from numbers import Real
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from divlens.errors import DivlensError
from divlens.experiment import columns
from divlens.experiment.built_in import TOKEN_ENTROPY
from divlens.experiment.measures import LAW_DISTANCE, Measure, usual_measures
from divlens.showing import Block, Shown, counted, first_few, interval_text, missing_intervals, number_text
from divlens.store.reader import StoredRun, open_run

if TYPE_CHECKING:
    import pandas as pd

A, B = "a", "b"
PAIR = ("model_a", "model_b")
WHOSE = (*PAIR, "command", "condition", "figure")
Whose = tuple[str, str, str, str, str]
Figures = dict[tuple[str, str, str, str], dict[str, float]]  # of a command, model, condition and name: by the prompt
Pairs = Mapping[str, tuple[float, float]]  # by the prompt
# Shares are among them, and headings.
KNOWN = {each.name: each for each in (*usual_measures(None), LAW_DISTANCE, TOKEN_ENTROPY)}


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class RunComparison(Shown):
    """What `compare` returns.

    table: one row per pair of models, command, condition and figure: the mean of both runs over the prompts that have a
    value in both, `change` (b - a, paired by prompt) with `_low` and `_high`, and how many prompts. per_prompt: the
    values, a row per prompt. settings: a row per thing that is named of both, and the two.
    """

    table: pd.DataFrame
    per_prompt: pd.DataFrame
    settings: pd.DataFrame
    prompts: int
    sizes: tuple[tuple[str, int, int], ...]
    left_out: tuple[str, ...]

    @property
    def headline(self) -> str:
        return f"RunComparison: {counted(len(self.table), 'figure')} over {counted(self.prompts, 'common prompt')}"

    @property
    def blocks(self) -> list[Block]:
        found = [Block("", ("", A, B), [[str(cell) for cell in row] for row in self.settings.to_numpy()])]
        rows = self.table.to_dict("records")
        several = len({row["command"] for row in rows}) > 1
        for (before, after, command), of_pair in groupby(rows, itemgetter(*PAIR, "command")):
            title = before if before == after else f"{before} and {after}"
            cells = [self.cells(row) for row in of_pair]
            headings = ("condition", "figure", A, B, "b - a")
            found.append(Block(f"{title} ({command})" if several else title, headings, cells))
        return found

    def cells(self, row: Any) -> list[str]:
        measure = measure_of(row["figure"])
        form, scale = measure.form
        means = [number_text(scale * row[side], form) for side in (A, B)]
        change = interval_text(columns.interval_in(row, columns.CHANGE), f"+{form}", scale)
        return [row["condition"], measure.heading, *means, change]

    @property
    def notes(self) -> list[str]:
        lines = [f"Means over {counted(self.prompts, 'common prompt')}; b - a is paired by prompt; [95% interval]."]
        lines += [
            f"{command}: {one} samples of each prompt in a, {other} in b. Figures that change with the number "
            "of samples (duplicates, token entropy, law distance, vendi, repeat, prdc) are not to be held against each "
            "other."
            for command, one, other in self.sizes
            if one != other
        ]
        if any(str(figure).startswith("clipiqa:") for figure in self.table["figure"]):
            lines.append("CLIP-IQA may take noise for quality: divlens score says what uniform noise and grey have.")
        return [*lines, *missing_intervals(self.prompts), *self.left_out]


def compare(a: str | Path | StoredRun, b: str | Path | StoredRun) -> RunComparison:
    """Every figure of a prompt that both runs have, under each condition of that name: b - a, paired by prompt.

    Models are paired by their names and, where one of each run is left, with each other: a model with another, or with
    another revision, dtype or setting of it. Figures are those of the tables of commands that both ran, and those that
    `divlens.score` added. Raises DivlensError for a folder without a run, for a run that is not complete, and where no
    command, prompt, model or condition is common to both.
    """
    import pandas as pd

    runs = [run if isinstance(run, StoredRun) else open_run(run) for run in (a, b)]
    one, other = runs
    for run in runs:
        if not run.is_complete:
            raise DivlensError(f"{run.place} is not complete: divlens resume {run.place} draws what is missing")
    commands = common("command", one, other, [list(run.requests) for run in runs])
    prompts = common("prompt", one, other, [run.prompts for run in runs])
    pairs, left = paired(one.model_names, other.model_names)
    if not pairs:
        named = [", ".join(run.model_names) for run in runs]
        raise DivlensError(
            f"expected models of one name, or one model in each: {one.place} has {named[0]}, {other.place} {named[1]}"
        )
    common(
        "condition", one, other, [[name for c in commands for name in run.requests[c]["conditions"]] for run in runs]
    )
    rows = list(both(figures(one, commands), figures(other, commands), pairs))
    if not rows:
        raise DivlensError(f"{one.place} and {other.place} have no figure in common that is known in both")
    sizes = [(c, one.requests[c].get("n", 0), other.requests[c].get("n", 0)) for c in commands]
    trials = {command: min(here, there) for command, here, there in sizes}
    return RunComparison(
        table=pd.DataFrame([summary(whose, values, trials[whose[2]]) for whose, values in rows]),
        per_prompt=pd.DataFrame(
            [(*whose, prompt, *pair) for whose, values in rows for prompt, pair in values.items()],
            columns=[*WHOSE, "prompt", A, B],
        ),
        settings=pd.DataFrame(settings(one, other, commands, pairs), columns=["setting", A, B]),
        prompts=len(prompts),
        sizes=tuple(sizes),
        left_out=tuple(f"Left out, for it is in one run only: {name}." for name in left),
    )


def common(kind: str, one: StoredRun, other: StoredRun, names: list[list[str]]) -> list[str]:
    """What both have, in the order of the first. Raises DivlensError where that is nothing."""
    if found := [name for name in dict.fromkeys(names[0]) if name in names[1]]:
        return found
    shown = [first_few(list(map(repr, listed))) for listed in names]
    raise DivlensError(
        f"{one.place} and {other.place} have no {kind} in common: {shown[0] or 'none'}, and {shown[1] or 'none'}"
    )


def paired(before: list[str], after: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Models of one name, and the last ones left of both; and those that have no counterpart."""
    pairs = [(name, name) for name in before if name in after]
    rest = [name for name in before if name not in after], [name for name in after if name not in before]
    if len(rest[0]) == len(rest[1]) == 1:
        return [*pairs, (rest[0][0], rest[1][0])], []
    return pairs, [*rest[0], *rest[1]]


def figures(run: StoredRun, commands: Sequence[str]) -> Figures:
    """Those of the tables of these commands, and those that were scored of their samples."""
    found: Figures = {}
    scores = run.scores.to_dict("records")
    for command in commands:
        for row in run.tables(command)["per_prompt"].to_dict("records"):
            if "quantity" in row:  # of information: a row per quantity
                values = {row["quantity"]: row["bits_per_image"]}
            else:
                values = {name: value for name, value in row.items() if isinstance(value, Real)}
            for name, value in values.items():
                figure = command, str(row["model"]), str(row["condition"]), str(name)
                found.setdefault(figure, {})[str(row["prompt"])] = float(value)
        request = run.requests[command]
        for row in scores:
            if row["n"] == request.get("n") and row["condition"] in request["conditions"]:
                figure = command, row["model"], row["condition"], row["name"]
                found.setdefault(figure, {}).setdefault(row["prompt"], row["value"])
    return found


def both(before: Figures, after: Figures, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[Whose, Pairs]]:
    """Of each figure that both runs have the two values of every prompt, where both are known; models together, and of
    these figures, so that conditions stand below each other."""
    order = {figure: place for place, figure in enumerate(dict.fromkeys(figure for *_, figure in before))}
    for one, other in pairs:
        here = [key for key in before if key[1] == one and (key[0], other, *key[2:]) in after]
        for command, _, condition, figure in sorted(here, key=lambda key: (key[0], order[key[3]])):
            values, others = before[command, one, condition, figure], after[command, other, condition, figure]
            known = {prompt: (value, others[prompt]) for prompt, value in values.items() if prompt in others}
            known = {prompt: pair for prompt, pair in known.items() if not any(map(math.isnan, pair))}
            if known:
                yield (one, other, command, condition, figure), known


def measure_of(figure: str) -> Measure:
    """What is known of a figure: its unit, and how it is written."""
    return KNOWN.get(figure) or Measure(figure, lambda look: None)


def summary(whose: Whose, values: Pairs, trials: int) -> dict[str, Any]:
    """A figure's row in the table. The same seed resamples the same prompts in every row."""
    before, after = np.array(list(values.values()), float).T
    change = measure_of(whose[4]).change(after, before, trials, 0)
    means = {"prompts": len(values), A: float(before.mean()), B: float(after.mean())}
    return dict(zip(WHOSE, whose, strict=True)) | means | columns.with_ends(columns.CHANGE, change)


def settings(
    one: StoredRun, other: StoredRun, commands: list[str], pairs: list[tuple[str, str]]
) -> Iterator[tuple[str, str, str]]:
    """What a reader must know of both: the runs and their models, always; else what differs."""
    yield "run", str(one.place), str(other.place)
    for before, after in pairs:
        yield "model", before, after
        contents = [run.record["models"][name]["content"] for run, name in ((one, before), (other, after))]
        yield "content", str(contents[0])[:8], str(contents[1])[:8]
        here, there = one.setup(before), other.setup(after)
        yield from ((key.replace("_", " "), str(here[key]), str(there[key])) for key in here if here[key] != there[key])
    requests = [(one.requests[command], other.requests[command]) for command in commands]
    for here, there in requests:
        for key in ("seed", "n", "lpips", "levels", "reading"):
            if here.get(key) != there.get(key):
                yield key, str(here.get(key)), str(there.get(key))
        for name in here["conditions"]:
            before, after = here["conditions"][name], there["conditions"].get(name)
            if after is not None and before != after:
                yield name, before, after
    versions = [
        {name: text for session in run.record["sessions"] for name, text in session["versions"].items()}
        for run in (one, other)
    ]
    for name in versions[0].keys() & versions[1].keys():
        if versions[0][name] != versions[1][name]:
            yield name, versions[0][name], versions[1][name]
