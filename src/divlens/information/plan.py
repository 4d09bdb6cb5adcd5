"""What `information` is asked for, decided before anything is drawn: the run, and how much is spent on the bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from divlens.conditions import Conditions
from divlens.errors import DivlensError, check_whole
from divlens.fidelity import judge_of
from divlens.information.laws import law_of
from divlens.information.relevance import Judge
from divlens.interventions import Intervention
from divlens.models.answers import asked_prompts
from divlens.models.protocol import Model
from divlens.output import Record
from divlens.planning import BATCH_SIZE, MOST_SAMPLES, BatchSize, plans
from divlens.results import request_of
from divlens.run import Run
from divlens.types import Prompt

FEWEST_STORED, MOST_STORED = 2, 256  # samples of a prompt whose records are stored, unless the user asks for more


@dataclass(frozen=True)
class Effort:
    """How much is spent on the bounds, beyond drawing the samples and adding up their bits.

    paths: how many paths are weighed for each grid, for the bounds on H(Z|X); 0 leaves these bounds out, and a million
    is the most. path_samples: how many grids of each prompt get such paths; None takes n / paths, but one of each
    wording. mixture_samples: how many grids of each prompt are asked about under every wording of every prompt, for
    I(X;Z); None takes n / (wordings of all prompts), and 0 leaves I(X;Z) out. None takes 2 grids at least and 256 at
    most, for the records of all of them are held in memory until the end.

    With a dozen prompts of one wording the defaults take two to three times as long as drawing the samples, for AR as
    long. With many prompts or wordings they take longer, for at least 2 grids of each prompt are asked about: for AR 2
    / n of the drawing for every wording there is, and for other rules twice that.
    """

    paths: int = 8
    path_samples: int | None = None
    mixture_samples: int | None = None

    def __post_init__(self) -> None:
        for name in ("paths", "path_samples", "mixture_samples"):
            if name == "paths" or getattr(self, name) is not None:
                check_whole(f"Effort({name}=...)", getattr(self, name), 0)
        if self.paths > MOST_SAMPLES:
            raise DivlensError(
                f"Effort(paths=...) expects at most {MOST_SAMPLES:,} paths of a grid, got {self.paths:,}"
            )

    def stored_samples(self, run: Run) -> tuple[int, int]:
        """Of how many samples of each prompt the records are stored for the bounds over paths, and for those over
        prompts. Where there is one path only the former are none; where the likelihood is not known, both."""
        law = law_of(run.settings.rule)
        if not law.known or run.settings.given:
            return 0, 0
        n, each = len(run.wordings[0]), [len(set(used)) for used in run.wordings]
        for_paths = 0 if law.path_is_certain else self.for_paths(n, max(each))
        return for_paths, self.for_mixture(n, sum(each))

    def for_paths(self, n: int, wordings: int) -> int:
        """`wordings`: the most that a prompt has."""
        if self.paths == 0:
            return 0
        wanted = within_memory(max(n // self.paths, wordings)) if self.path_samples is None else self.path_samples
        return min(n, wanted)

    def for_mixture(self, n: int, wordings: int) -> int:
        """`wordings`: how many all prompts have, under each of which every grid is asked about."""
        return min(n, within_memory(n // wordings) if self.mixture_samples is None else self.mixture_samples)


def within_memory(wanted: int) -> int:
    """A number of samples that can be stored, as near to the wanted one as may be."""
    return min(max(wanted, FEWEST_STORED), MOST_STORED)


@dataclass(frozen=True, eq=False)
class Accounting:
    """What `information` will draw of a model under one condition, checked, and what it will ask of the samples."""

    run: Run
    condition: str
    interventions: tuple[Intervention, ...]
    reading: Literal["schedule", "trajectory"]
    judge: Judge | None
    judged_by: str
    effort: Effort

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        return self.run.prompts

    @property
    def request(self) -> Record:
        """What was asked for, as run.json holds it."""
        return request_of(
            "information",
            {self.run.model.name: {self.condition: self.run}},
            {self.condition: self.interventions},
            self.prompts,
            n=len(self.run.wordings[0]),
            reading=self.reading,
            judge=self.judged_by,
            effort=asdict(self.effort),
        )


def accountings(
    model: Model,
    prompts: Sequence[str | Prompt],
    n: int,
    seed: int,
    conditions: Conditions,
    *,
    reading: Literal["schedule", "trajectory"] = "schedule",
    judge: Judge | Literal["declared"] | None = "declared",
    effort: Effort | None = None,
    batch_size: BatchSize = BATCH_SIZE,
) -> list[Accounting]:
    """Plan the accounting of a model under each condition; see `information`."""
    if reading not in ("schedule", "trajectory"):
        raise DivlensError(f'information(reading=...) expects "schedule" or "trajectory", got {reading!r}')
    effort = effort or Effort()
    if not isinstance(effort, Effort):
        raise DivlensError(f"information(effort=...) expects an Effort, got {effort!r}")
    judged_by = judge if isinstance(judge, str) else "none" if judge is None else "a function"
    judging: Any = judge_of(model) if judge == "declared" else judge
    if judging is not None and not callable(judging):
        raise DivlensError(f"information(judge=...) expects a function of pictures, got {judge!r}")
    asked = asked_prompts([model], prompts)
    runs = plans(model, asked, n, seed, conditions, batch_size=batch_size)
    for run in runs.values():
        check_apart(run)
    return [
        Accounting(run, name, tuple(conditions[name]), reading, judging, judged_by, effort)
        for name, run in runs.items()
    ]


def check_apart(run: Run) -> None:
    """Raises DivlensError where the samples of a prompt depend on each other, for then they are joint."""
    if joint := run.settings.joint:
        raise DivlensError(
            f"information expects samples that are drawn apart from each other, got {joint}, under which those of a "
            "prompt are joint"
        )
