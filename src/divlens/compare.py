"""`compare`: what two runs that were asked the same prompts have come to, prompt by prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from divlens.errors import DivlensError
from divlens.experiment import columns
from divlens.experiment.built_in import TOKEN_ENTROPY
from divlens.experiment.measures import Measure, usual_measures
from divlens.showing import Block, Shown, counted, interval_text, missing_intervals, number_text
from divlens.statistics import Interval
from divlens.store.reader import StoredRun, open_run

if TYPE_CHECKING:
    import pandas as pd

A, B = "a", "b"
PAIR = ("model_a", "model_b")
WHOSE = (*PAIR, "command", "condition", "figure")
KNOWN = {each.name: each for each in (*usual_measures(None), TOKEN_ENTROPY)}  # shares are among them, and headings


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
        several = self.table["command"].nunique() > 1
        for whose, rows in self.table.groupby([*PAIR, "command"], sort=False):
            before, after, command = map(str, whose if isinstance(whose, tuple) else (whose,))
            title = before if before == after else f"{before} and {after}"
            cells = [self.cells(row) for row in rows.to_dict("records")]
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
            f"{command}: {one} samples of each prompt in a, {other} in b. Figures that grow with the number of samples, "
            "such as styles and dup, are not to be held against each other."
            for command, one, other in self.sizes
            if one != other
        ]
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
            f"expected models of one name, or one model in each run: {one.place} has {named[0]}, {other.place} {named[1]}"
        )
    common(
        "condition", one, other, [[name for c in commands for name in run.requests[c]["conditions"]] for run in runs]
    )
    values = [figures(run, commands) for run in runs]
    parts = [
        values[0][values[0]["model"] == before].merge(
            values[1][values[1]["model"] == after], on=["command", "condition", "figure", "prompt"]
        )
        for before, after in pairs
    ]
    whole = pd.concat(parts, ignore_index=True)
    whole = whole.rename(columns={"model_x": PAIR[0], "model_y": PAIR[1], "value_x": A, "value_y": B})
    whole = whole[whole[A].notna() & whole[B].notna()]
    if not len(whole):
        raise DivlensError(f"{one.place} and {other.place} have no figure in common that is known in both")
    sizes = [(c, one.requests[c].get("n", 0), other.requests[c].get("n", 0)) for c in commands]
    trials = {c: min(n) for c, *n in sizes}
    return RunComparison(
        table=pd.DataFrame(summaries(whole, trials)),
        per_prompt=whole[[*WHOSE, "prompt", A, B]],
        settings=pd.DataFrame(settings(one, other, commands, pairs), columns=["setting", A, B]),
        prompts=len(prompts),
        sizes=tuple(sizes),
        left_out=tuple(f"Left out, for it is in one run only: {name}." for name in left),
    )


def common(kind: str, one: StoredRun, other: StoredRun, names: list[list[str]]) -> list[str]:
    """What both have, in the order of the first. Raises DivlensError where that is nothing."""
    if found := [name for name in dict.fromkeys(names[0]) if name in names[1]]:
        return found
    shown = [", ".join(map(repr, listed[:3])) + (", ..." if len(listed) > 3 else "") for listed in names]
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


def figures(run: StoredRun, commands: list[str]) -> pd.DataFrame:
    """Of each command, model, condition and prompt, every figure: those of its table, and those that were scored."""
    import pandas as pd

    scores, keys, parts = run.scores, ["model", "condition", "prompt"], []
    for command in commands:
        table = run.tables(command)["per_prompt"]
        if "quantity" in table:  # of information: a row per quantity
            long = table.rename(columns={"quantity": "figure", "bits_per_image": "value"})[[*keys, "figure", "value"]]
        else:
            numbers = [name for name, kind in table.dtypes.items() if kind.kind in "fiu"]
            long = table.melt(keys, numbers, "figure", "value")
        request = run.requests[command]
        mine = (scores["n"] == request.get("n")) & scores["condition"].isin(list(request["conditions"]))
        added = scores[mine & ~scores["name"].isin(long["figure"].unique())].rename(columns={"name": "figure"})
        parts += [part.assign(command=command) for part in (long, added[[*keys, "figure", "value"]]) if len(part)]
    return pd.concat(parts, ignore_index=True)


def measure_of(figure: str) -> Measure:
    """What is known of a figure: its unit, and how it is written."""
    return KNOWN.get(figure) or Measure(figure, lambda look: None)


def summaries(whole: pd.DataFrame, trials: dict[str, int]) -> Iterator[dict[str, Any]]:
    """A row per figure. The same seed resamples the same prompts in every row."""
    for whose, rows in whole.groupby(list(WHOSE), sort=False):
        row = dict(zip(WHOSE, whose if isinstance(whose, tuple) else (whose,), strict=True))
        before, after = (rows[side].to_numpy(float) for side in (A, B))
        change = measure_of(str(row["figure"])).change(after, before, trials[str(row["command"])], 0)
        yield (
            row | {"prompts": len(rows), A: before.mean(), B: after.mean()} | columns.with_ends(columns.CHANGE, change)
        )


def settings(
    one: StoredRun, other: StoredRun, commands: list[str], pairs: list[tuple[str, str]]
) -> Iterator[tuple[str, str, str]]:
    """What a reader must know of both: the runs and their models, always; else what differs."""
    yield "run", str(one.place), str(other.place)
    for before, after in pairs:
        yield "model", before, after
        contents = (run.record["models"][name]["content"] for run, name in ((one, before), (other, after)))
        yield ("content", *(str(content)[:8] for content in contents))
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
