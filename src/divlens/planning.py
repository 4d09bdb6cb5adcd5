"""What is to be drawn, decided before anything is: `plan` makes a run of a request, or refuses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.calibration import SAMPLES, frequencies_of
from divlens.codebook import order_by_clusters
from divlens.errors import DivlensError, check_whole, is_whole
from divlens.interventions import Intervention, Wordings, apply_all, wordings_under
from divlens.models.answers import calibration_prompts_of, code_vectors_of, conditions_of
from divlens.models.fingerprint import fingerprint_of
from divlens.models.protocol import Model, Quantizing, Templated, check_model
from divlens.models.room import Rooms
from divlens.paraphrase import wordings_of
from divlens.run import Group, Row, Rows, Run, fill
from divlens.settings import Settings
from divlens.types import Prompt

BATCH_SIZE = 96
MOST_SAMPLES = 10**6  # of a prompt: every sample has a row from the start
BatchSize = int | Literal["auto"]


class Reading:
    """What a model is asked while its runs are planned, each thing once: conditions of wordings, code frequencies."""

    def __init__(self, model: Model, batch_size: BatchSize = BATCH_SIZE) -> None:
        check_model(model)
        self.model = model
        automatic = batch_size == "auto"
        self.rooms = Rooms.of(BATCH_SIZE if automatic else batch_size, asked_for=not automatic)
        self.conditions: dict[str, Tensor] = {}
        self.shares: Float[Tensor, " codes"] | None = None
        self.order: Int[Tensor, " codes"] | None = None

    @property
    def defaults(self) -> Settings:
        """The model's published settings."""
        model = self.model
        clustered = self.clustered if isinstance(model, Quantizing) else None
        law = {name: getattr(model, name) for name in ("temperature", "top_k", "top_p") if hasattr(model, name)}
        return Settings(model.rule, model.guidance, grid=model.grid, clustered=clustered, **law)

    @torch.inference_mode()
    def read(self, wordings: Sequence[str]) -> None:
        """Encode those that are new. Raises DivlensError for one that the model cannot read."""
        missing = [wording for wording in dict.fromkeys(wordings) if wording not in self.conditions]
        if not missing:
            return
        found = conditions_of(self.model, missing)
        shape = next(iter(self.conditions.values()), found[0]).shape
        if found.shape[1:] != shape:
            raise DivlensError(
                f"{self.model.name} expects to encode every wording in one shape, got {tuple(found.shape[1:])} "
                f"after {tuple(shape)}"
            )
        self.conditions |= zip(missing, found, strict=True)

    def can_read(self, wording: str) -> bool:
        try:
            self.read([wording])
        except DivlensError:
            return False
        return True

    def wordings(self, prompt: Prompt) -> tuple[str, ...]:
        """The prompt itself, then its paraphrases, or the templates around it that the model can read."""
        templates = self.model.paraphrase_templates if isinstance(self.model, Templated) else ()
        return wordings_of(prompt, self.can_read, templates)

    def settings(self, interventions: Sequence[Intervention]) -> Settings:
        """The published settings, changed by the interventions in order."""
        return apply_all(interventions, self.defaults, self.frequencies)

    def frequencies(self) -> Float[Tensor, " codes"]:
        """How often each code comes out, by a calibration run where that is not known."""
        if self.shares is None:
            self.shares = frequencies_of(self.model, lambda: fingerprint_of(self.model), self.calibrate)
        return self.shares

    def clustered(self) -> Int[Tensor, " codes"]:
        """The codes, cluster after cluster; of a model that shows their vectors."""
        if self.order is None:
            assert isinstance(self.model, Quantizing), "it is asked of such models alone"
            self.order = order_by_clusters(code_vectors_of(self.model))
        return self.order

    def calibrate(self) -> Int[Tensor, "n h w"]:
        """The tokens of the calibration prompts; nothing is decoded."""
        prompts = [Prompt(text) for text in calibration_prompts_of(self.model)]
        groups = [group_of(prompt, SAMPLES, (), self.defaults, self.wordings) for prompt in prompts]
        run = self.run(Rows(tuple(groups)), self.defaults, seed=0)
        return torch.cat([filled.tokens.cpu() for filled in fill(run)])

    def run(self, rows: Sequence[Row], settings: Settings, seed: int) -> Run:
        """The run of these rows, all of whose wordings are read."""
        self.read(list(dict.fromkeys(row.wording for row in rows)))
        kind = next(iter(self.conditions.values())).dtype
        if settings.condition_noise is not None and not kind.is_floating_point:
            raise DivlensError(
                f"ConditionNoise expects conditions that are numbers, got {self.model.name}, whose are {kind}"
            )
        return Run(self.model, settings, seed, rows, self.conditions, self.rooms)


def group_of(
    prompt: Prompt, n: int, interventions: Sequence[Intervention], settings: Settings, wordings: Wordings
) -> Group:
    """The samples of a prompt under these interventions."""
    return Group(prompt, wordings_under(interventions, prompt, wordings), n, settings.frozen)


def plan(
    model: Model,
    prompts: Sequence[Prompt],
    n: int,
    seed: int,
    interventions: Sequence[Intervention] = (),
    *,
    batch_size: BatchSize = BATCH_SIZE,
) -> Run:
    """The run of `n` samples of each prompt. Every DivlensError that a request can raise is raised here."""
    return plans(model, prompts, n, seed, {"": interventions}, batch_size=batch_size)[""]


def plans(
    model: Model,
    prompts: Sequence[Prompt],
    n: int,
    seed: int,
    conditions: Mapping[str, Sequence[Intervention]],
    *,
    batch_size: BatchSize = BATCH_SIZE,
) -> dict[str, Run]:
    """A run under each condition. A wording that several use is encoded once, and the model calibrated once at most."""
    check_request(n, seed, batch_size)
    reading, found = Reading(model, batch_size), dict[str, Run]()
    for name, interventions in conditions.items():
        settings = reading.settings(interventions)
        groups = [group_of(prompt, n, interventions, settings, reading.wordings) for prompt in prompts]
        found[name] = reading.run(Rows(tuple(groups)), settings, seed)
    return found


def check_request(n: int, seed: int, batch_size: BatchSize) -> None:
    """`n`: samples of each prompt."""
    check_whole("n", n, 1)
    if n > MOST_SAMPLES:
        raise DivlensError(f"n expects at most {MOST_SAMPLES:,} samples of each prompt, got {n:,}")
    if batch_size != "auto" and (not is_whole(batch_size) or batch_size < 1):
        raise DivlensError(f'batch_size expects at least 1, or "auto", got {batch_size!r}')
    if not is_whole(seed) or not 0 <= seed < 2**64:
        raise DivlensError(f"seed expects an integer in [0, 2**64), got {seed!r}")
