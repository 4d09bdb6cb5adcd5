"""All parts of a study, planned: nothing is drawn before every part of every model has been checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from divlens.conditions import BASELINE, Conditions
from divlens.decompose import decompose_design
from divlens.experiment.comparison import Comparison, compared
from divlens.experiment.design import design_of
from divlens.experiment.probe import probe_of
from divlens.information.api import information_of
from divlens.information.plan import accountings
from divlens.interventions import OnPrompt
from divlens.models.answers import asked_prompts
from divlens.models.protocol import Model
from divlens.output import Record
from divlens.planning import plans
from divlens.results import Result, joint_request, request_so_far
from divlens.store.folder import RunFolder
from divlens.study.protocol import Protocol
from divlens.types import Prompt

Draw = Callable[..., Result]  # with folder=, progress= and on_batch=


@dataclass(frozen=True, eq=False)
class Part:
    """What one verb is to draw: its request, and what draws each of its results."""

    request: Record
    draws: Sequence[Draw]

    @property
    def command(self) -> str:
        return self.request["command"]

    def drawn(self, folder: RunFolder, **telling: object) -> list[Result]:
        return [draw(folder=folder, **telling) for draw in self.draws]


@dataclass(frozen=True, eq=False)
class Plan:
    """A study whose every part can be drawn. comparison: what the probe draws; parts: all of them, in this order.

    Information comes first, for it draws once more what another verb stored, whose tokens do not tell their bits.
    """

    models: Sequence[Model]
    comparison: Comparison
    parts: Sequence[Part]


def requests_so_far(protocol: Protocol) -> Iterator[Record]:
    """What is known of the requests before a model is loaded."""
    asked: list[tuple[str, Conditions]] = [("probe", protocol.conditions)]
    if protocol.information:
        asked.append(("information", information_conditions(protocol)))
    if protocol.decompose:
        asked.append(("decompose", {BASELINE: ()}))
    return (request_so_far(command, conditions, protocol.seed) for command, conditions in asked)


def information_conditions(protocol: Protocol) -> Conditions:
    return {name: protocol.conditions[name] for name in protocol.information.under} if protocol.information else {}


def planned(protocol: Protocol, models: Sequence[Model]) -> Plan:
    """Plan all parts. Raises every DivlensError that one of them can raise."""
    prompts = asked_prompts(models, protocol.prompts)
    check_wordings(protocol, models, prompts)
    decompositions = decomposed_part(protocol, models, prompts)  # before the others: it asks for no code frequencies
    comparison = compared(
        models,
        prompts,
        protocol.n,
        protocol.seed,
        protocol.conditions,
        (),
        protocol.lpips,
        protocol.batch_size,
    )
    probe = Part(comparison.request("probe"), [partial(probe_of, comparison)])
    return Plan(models, comparison, [*information_part(protocol, models, prompts), probe, *decompositions])


def check_wordings(protocol: Protocol, models: Sequence[Model], prompts: Sequence[Prompt]) -> None:
    """Refuse a wording that one of the models cannot read, before `Subset` of another asks for code frequencies: these
    are drawn where a model does not bring them."""
    rewordings = {
        name: [one for one in interventions if isinstance(one, OnPrompt)]
        for name, interventions in protocol.conditions.items()
    }
    for model in models:
        plans(model, prompts, protocol.n, protocol.seed, rewordings, batch_size=protocol.batch_size)


def information_part(protocol: Protocol, models: Sequence[Model], prompts: Sequence[Prompt]) -> list[Part]:
    part = protocol.information
    if part is None:
        return []
    found = [
        accounting
        for model in models
        for accounting in accountings(
            model,
            prompts[: part.limit],
            part.n or protocol.n,
            protocol.seed,
            information_conditions(protocol),
            reading=part.reading,
            effort=part.effort,
            batch_size=protocol.batch_size,
        )
    ]
    return [Part(joint_request([one.request for one in found]), [partial(information_of, one) for one in found])]


def decomposed_part(protocol: Protocol, models: Sequence[Model], prompts: Sequence[Prompt]) -> list[Part]:
    part = protocol.decompose
    if part is None:
        return []
    designs = [
        design_of(
            model,
            prompts[: part.limit],
            part.levels,
            protocol.seed,
            length_control=part.length_control,
            batch_size=protocol.batch_size,
        )
        for model in models
    ]
    network = protocol.lpips
    return [
        Part(
            joint_request([design.request(network) for design in designs]),
            [partial(decompose_design, design, network) for design in designs],
        )
    ]
