"""`score`: something else is measured of the samples of a run, of which none is drawn again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from jaxtyping import Float

from divlens.diversity import NETWORKS
from divlens.errors import DivlensError
from divlens.experiment import columns
from divlens.experiment.alignment import Alignment, check_baselines, untouched_in
from divlens.experiment.built_in import KNOWN, known_names, measure_or_name
from divlens.experiment.comparison import instruments_of
from divlens.experiment.families import KEPT_BY, parts_of
from divlens.experiment.measure import Instruments, looks, prompt_by_prompt, samples_each, values_of
from divlens.experiment.measures import Measure, checked_measures, notes_of, partial_notes
from divlens.output import Record, as_read, write_tables
from divlens.progress import OnBatch, ShowProgress, followed
from divlens.results import Result, merged
from divlens.run import Run
from divlens.showing import Block, counted, interval_text, missing_intervals
from divlens.statistics import Interval
from divlens.store.asked import models_of, runs_of
from divlens.store.draw import all_stored, windows
from divlens.store.folder import RunFolder, Scored, of_samples, writing_run
from divlens.store.place import Place
from divlens.store.record import existing_record

if TYPE_CHECKING:
    import pandas as pd

COMMAND = "score"
Wanted = str | Measure | Alignment
Values = Mapping[str, Float[np.ndarray, " prompts"]]  # by the name of the measure


@dataclass(frozen=True, eq=False)
class Part:
    """The figures of one condition of one model: of each measure a value of every prompt, over `n` samples each.
    baseline: those of the condition that it is held against, where it is not that one."""

    command: str
    model: str
    condition: str
    prompts: tuple[str, ...]
    n: int
    seed: int
    measures: tuple[Measure, ...]
    values: Values
    baseline: Values | None

    def change(self, measure: Measure) -> Interval:
        """Against baseline, paired by prompt; that of the baseline itself is not known."""
        if self.baseline is None:
            return Interval(np.nan)
        pair = self.values[measure.name], self.baseline[measure.name]
        return measure.change(*pair, self.n, self.seed)


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class Scores(Result):
    """What `score` returns. `parts`: of each condition of each model."""

    parts: tuple[Part, ...]

    @property
    def table(self) -> pd.DataFrame:
        """One row per command, model, figure and condition: its mean over prompts, `value`, and its `change` against
        baseline, paired by prompt, both with `_low` and `_high`; prompts: how many have a value. Undefined is NaN."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for part, measure in self.ordered:
            values = part.values[measure.name]
            row = {"command": part.command, "model": part.model, "figure": measure.name, "condition": part.condition}
            row |= {"prompts": int((~np.isnan(values)).sum()), "n": part.n}
            row |= columns.with_ends("value", measure.mean(values, part.n, part.seed))
            rows.append(row | columns.with_ends("change", part.change(measure)))
        return pd.DataFrame(rows)

    @property
    def ordered(self) -> list[tuple[Part, Measure]]:
        """Model by model, and of each measure by measure, so that conditions stand together."""
        whose = dict.fromkeys((part.command, part.model) for part in self.parts)
        return [
            (part, part.measures[i])
            for pair in whose
            for i in range(len(self.parts[0].measures))
            for part in self.parts
            if (part.command, part.model) == pair
        ]

    @property
    def per_prompt(self) -> pd.DataFrame:
        """One row per command, model, condition and prompt: the value of each measure."""
        import pandas as pd

        return pd.DataFrame(
            {"command": part.command}
            | dict(zip(columns.OF_PROMPT, (part.model, part.condition, prompt), strict=True))
            | {name: values[i] for name, values in part.values.items()}
            for part in self.parts
            for i, prompt in enumerate(part.prompts)
        )

    @property
    def headline(self) -> str:
        return (
            f"Scores: {', '.join(each.name for each in self.parts[0].measures)} of {', '.join(self.request['models'])}"
        )

    @property
    def blocks(self) -> list[Block]:
        rows: dict[tuple[str, str], list[Sequence[str]]] = {}
        for part, measure in self.ordered:
            form, scale = measure.form
            mean = interval_text(measure.mean(part.values[measure.name], part.n, part.seed), form, scale)
            change = "-" if part.baseline is None else interval_text(part.change(measure), f"+{form}", scale)
            row = (part.condition, measure.heading, mean, change)
            rows.setdefault((part.command, part.model), []).append(row)
        several = len({command for command, _ in rows}) > 1
        titles = {pair: f"{pair[1]} ({pair[0]})" if several else pair[1] for pair in rows}
        return [Block(titles[pair], ("condition", "figure", "mean", "change"), found) for pair, found in rows.items()]

    @property
    def notes(self) -> list[str]:
        prompts = min(len(part.prompts) for part in self.parts)
        drawn = {part.command: (counted(len(part.prompts), "prompt"), counted(part.n, "sample")) for part in self.parts}
        means = "; ".join(f"{command}: {asked}, {n} each" for command, (asked, n) in drawn.items())
        lines = [
            f"Means over prompts ({means}); [95% interval]. change: against baseline, paired by prompt, same noise."
        ]
        measures = self.parts[0].measures
        lines += notes_of(measures)

        def known(name: str) -> int:
            return int(min((~np.isnan(part.values[name])).sum() for part in self.parts))

        return [*lines, *missing_intervals(prompts), *partial_notes(measures, known, prompts)]

    @property
    def found(self) -> Record:
        return {"commands": list(dict.fromkeys(part.command for part in self.parts))}

    @classmethod
    def write_files(cls, results: Sequence[Self], folder: Path) -> None:
        """table and per_prompt (see `write_tables`)."""
        (result,) = results
        write_tables({"table": [result.table], "per_prompt": [result.per_prompt]}, folder)


def score(
    run: str | Path,
    measures: str | Measure | Sequence[str | Measure],
    *,
    skip_broken: bool = False,
    arguments: Sequence[str] = (),
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> Scores:
    """Measure something else of the samples in the folder of a run. No sample is drawn: pictures are made of the tokens
    that are stored, and of a measure that needs tokens only, not even these.

    `measures`: one or several, each a name (`divlens score --help` lists them) or a `divlens.Measure`, under whose name
    figures are stored and found again: a function that was changed wants another name. Figures are stored in the run,
    prompt by prompt, and those that it has are not measured again. `skip_broken`: reference pictures that cannot be
    read are left out. `on_batch` is told how many more samples are done.

    Raises DivlensError for an unknown name, for a network that cannot be loaded, for a folder without a run, for one
    that is not complete or whose samples are those of a crossed design, for models that cannot be loaded by the name
    under which they were asked, or are others now, and for a folder that another process writes.
    """
    wanted = checked(measures, skip_broken)
    requests = scorable(Place(run))
    check_baselines(requests, wanted, Place(run))
    with writing_run(run, arguments) as folder:
        parts: list[Part] = []
        total = sum(pictures_of(request) for request in requests)
        with followed(progress, on_batch, total, COMMAND) as told:
            for request in requests:
                parts += measured_parts(request, wanted, folder, told.advance)
        result = Scores(request=request_of(requests, wanted), parts=tuple(parts))
        folder.put_tables(COMMAND, lambda partial: Scores.write_files([result], partial))
        folder.save()
    return result


def checked(measures: str | Measure | Sequence[str | Measure], skip_broken: bool = False) -> list[Wanted]:
    """The measures, each once; a name that depends on the judge stays one, and one that depends on baseline's pictures
    is an `Alignment`. Raises DivlensError for none, for an unknown name, and for what is no measure."""
    asked = [measures] if isinstance(measures, str | Measure) else list(measures)
    if not asked:
        raise DivlensError(f"expected a measure, got none; known: {known_names()}")
    wanted = [measured_by(each, skip_broken) for each in dict.fromkeys(asked)]
    checked_measures([each for each in wanted if not isinstance(each, str | Alignment)])
    return wanted


def measured_by(asked: str | Measure, skip_broken: bool) -> Wanted:
    if isinstance(asked, str) and parts_of(asked).family == KEPT_BY:
        return Alignment.named(asked)
    return measure_or_name(asked, skip_broken)


def scorable(place: Place) -> list[Record]:
    """The requests of a run that drew so many samples of each prompt. Raises DivlensError for none, and for one that is
    not complete."""
    about = existing_record(place)
    requests = [request for request in about["requests"].values() if "n" in request]
    if not requests:
        raise DivlensError(
            f"{place} has no samples to score: expected those of probe, enhance or information, got "
            f"{', '.join(about['requests']) or 'none'}"
        )
    for request in requests:
        if request["command"] not in about["complete"]:
            raise DivlensError(
                f"{place} is not complete, {request['command']} is unfinished: divlens resume {place} draws what is "
                "missing"
            )
    return requests


def pictures_of(request: Record) -> int:
    return len(request["models"]) * len(request["conditions"]) * len(request["prompts"]) * request["n"]


def request_of(requests: Sequence[Record], wanted: Sequence[Wanted]) -> Record:
    """What was asked for, as a record holds it: of which models under which conditions what was measured."""
    whole = merged([{"models": one["models"], "conditions": one["conditions"]} for one in requests])
    names = [each if isinstance(each, str) else each.name for each in wanted]
    return as_read({"command": COMMAND, **whole, "measures": names})


def measured_parts(request: Record, wanted: Sequence[Wanted], folder: RunFolder, on_batch: OnBatch) -> list[Part]:
    """The figures of a request's samples: read where they are stored, else measured and stored."""
    models = models_of(request)
    folder.enter_models(models)
    eyes, untouched = instruments_of(models, request.get("lpips", NETWORKS[0])), untouched_in(request)
    parts: list[Part] = []
    for model, of_model in runs_of(request, models).items():
        held = ((of_model, untouched), eyes[model], folder)
        measures = tuple(measure for each in wanted for measure in measures_by(each, *held))
        seeing = replace(eyes[model], measures=measures)
        found = {name: figures(run, name, seeing, folder, on_batch) for name, run in of_model.items()}
        for name, values in found.items():
            whose = (request["command"], model, name, tuple(one["text"] for one in request["prompts"]))
            baseline = None if name == untouched or untouched is None else found[untouched]
            parts.append(Part(*whose, request["n"], request["seed"], measures, values, baseline))
    folder.written()
    return parts


def measures_by(
    wanted: Wanted, runs: tuple[Mapping[str, Run], str | None], instruments: Instruments, folder: RunFolder
) -> Sequence[Measure]:
    """What is measured of a model's pictures. `runs`: by the name of the condition, and which of them is baseline."""
    if isinstance(wanted, Measure):
        return [wanted]
    if isinstance(wanted, str):
        return [KNOWN[wanted](instruments.judge)]
    of_model, baseline = runs
    assert baseline is not None  # see `check_baselines`
    return wanted.against(of_model[baseline], baseline, instruments, folder)


def figures(run: Run, condition: str, instruments: Instruments, folder: RunFolder, on_batch: OnBatch) -> Values:
    """The values of all prompts, stored as soon as those of some are there."""
    instruments.network.to(run.device)
    n = samples_each(run)
    found: dict[str, list[float]] = {each.name: [] for each in instruments.measures}
    seeing = instruments.by_version()
    for place in windows(run, whole=n):
        tokens, scored = all_stored(run, place, folder, condition), []
        for _, rows, here in prompt_by_prompt(run, place, tokens):
            cells, known = folder.cells(run, rows), {}
            of = {part.identity: of_samples(cells, part.identity) for part in seeing}
            for part in seeing:
                stored = folder.scores(run, condition, of[part.identity])
                known |= {each.name: stored[each.name] for each in part.measures if each.name in stored}
            if missing := [each for each in instruments.measures if each.name not in known]:
                prompt = rows[0].prompt
                fresh = values_of(missing, prompt, here, looks(run, prompt, here, instruments))
                for part in seeing:
                    if mine := {each.name: fresh[each.name] for each in part.measures if each.name in fresh}:
                        scored.append(Scored(prompt.text, n, of[part.identity], mine))
                known |= fresh
            for name, values in found.items():
                values.append(known[name])
            on_batch(n)
        if scored:
            folder.add_scores(run, condition, scored)
    return {name: np.array(values) for name, values in found.items()}
