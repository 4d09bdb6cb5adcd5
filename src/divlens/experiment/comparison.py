"""Models under conditions, from the same noise: planned, then drawn and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from divlens.conditions import BASELINE, Conditions
from divlens.diversity import load_network
from divlens.experiment.built_in import checked_by_name
from divlens.experiment.measure import ConditionResult, Instruments, measure
from divlens.experiment.measures import Measure
from divlens.fidelity import judge_of
from divlens.models.answers import asked_prompts
from divlens.models.protocol import Model
from divlens.output import Record
from divlens.planning import BatchSize, plans
from divlens.progress import OnBatch, ShowProgress, followed
from divlens.results import request_of
from divlens.run import Run
from divlens.store.folder import RunFolder
from divlens.types import DrawnWith, Prompt


@dataclass(frozen=True, eq=False)
class Comparison:
    """What is drawn of each model under each condition, all of it decided, and what is measured of it.

    runs: by the name of the model and of the condition. lpips: the name of the network. instruments: what looks at the
    pictures of each model, by its name; they share the network.
    """

    runs: Mapping[str, Mapping[str, Run]]
    conditions: Conditions
    prompts: tuple[Prompt, ...]
    n: int
    seed: int
    lpips: str
    instruments: Mapping[str, Instruments]

    def request(self, command: str) -> Record:
        """What was asked for, as run.json holds it."""
        options = {"n": self.n, "lpips": self.lpips, "measures": [each.name for each in self.measures]}
        return request_of(command, self.runs, self.conditions, self.prompts, **options)

    @property
    def models(self) -> list[Model]:
        return [next(iter(of_model.values())).model for of_model in self.runs.values()]

    @property
    def measures(self) -> tuple[Measure, ...]:
        """All that are taken, by what a reader needs of them: names, units, headings, which are those of any model."""
        return next(iter(self.instruments.values())).measures

    @property
    def drawn_with(self) -> dict[str, DrawnWith]:
        """Of each model; known for good when all is drawn, where the batch size is found on the way."""
        return {model: next(iter(of_model.values())).drawn_with for model, of_model in self.runs.items()}

    def measured(
        self, folder: RunFolder | None = None, progress: ShowProgress = None, on_batch: OnBatch | None = None
    ) -> dict[str, dict[str, ConditionResult]]:
        """Draw all and look at it, by the name of the model and of the condition; but for what the `folder` holds."""
        found: dict[str, dict[str, ConditionResult]] = {}
        pictures = len(self.runs) * len(self.conditions) * len(self.prompts) * self.n
        with followed(progress, on_batch, pictures, "") as told:
            for name, of_model in self.runs.items():
                for condition, run in of_model.items():
                    told.describe(f"{name} {condition}")
                    found.setdefault(name, {})[condition] = self.measure(run, condition, folder, told.advance)
        if folder is not None:
            folder.written()
        return found

    def measure(self, run: Run, condition: str, folder: RunFolder | None, on_batch: OnBatch) -> ConditionResult:
        """Draw one of the runs, or some of its prompts, and look at it."""
        eyes = self.instruments[run.model.name]
        eyes.network.to(run.device)
        floor = condition == BASELINE
        return measure(run, condition, eyes, with_noise_floor=floor, folder=folder, on_batch=on_batch)


def compared(
    models: Sequence[Model],
    prompts: Sequence[str | Prompt],
    n: int,
    seed: int,
    conditions: Conditions,
    measures: Sequence[str | Measure],
    lpips: str,
    batch_size: BatchSize,
) -> Comparison:
    """Plan a comparison. Every DivlensError that a request can raise is raised here."""
    extra, asked = checked_by_name(measures), asked_prompts(models, prompts)
    instruments = instruments_of(models, lpips, extra)
    runs = {model.name: plans(model, asked, n, seed, conditions, batch_size=batch_size) for model in models}
    return Comparison(runs, conditions, asked, n, seed, lpips, instruments)


def instruments_of(models: Sequence[Model], lpips: str, extra: Sequence[Measure] = ()) -> dict[str, Instruments]:
    """What looks at the pictures of each model, by its name. Raises DivlensError for a network that is not there."""
    network = load_network(lpips)
    return {model.name: Instruments.of(network, judge_of(model), extra, lpips) for model in models}
