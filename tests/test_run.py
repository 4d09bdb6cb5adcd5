"""A run: what is decided and asked when it is planned, and what is held while it is drawn."""

import gc
from dataclasses import dataclass, fields, replace

import pytest
import torch

import divlens
from divlens.errors import DivlensError
from divlens.interventions import Argmax, DisableTop, Freeze, Guidance, Paraphrase, Subset, Temperature
from divlens.models.toy import ToyModel
from divlens.paths import MaskReplaceDiffusion, Raster
from divlens.planning import Reading, plan, plans
from divlens.run import Row, Run, fill, noise_of
from divlens.settings import Settings
from divlens.types import Prompt
from oracles.toy_grids import toy

PROMPTS = ("red heart", "a cat", "snow")


def asked(*texts: str) -> list[Prompt]:
    return [Prompt(text) for text in texts or PROMPTS]


# --- planned once ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counting:
    """An intervention that counts how often settings are resolved."""

    applied: list[str]

    def apply(self, settings: Settings, frequencies) -> Settings:
        self.applied.append("")
        return settings


def test_a_probe_resolves_the_settings_of_each_model_and_condition_once_and_encodes_each_wording_once(monkeypatch):
    encoded, applied, encode = [], [], ToyModel.encode

    def counted(self, wordings):
        encoded.extend((self.name, wording) for wording in wordings)
        return encode(self, wordings)

    monkeypatch.setattr(ToyModel, "encode", counted)
    counting = Counting(applied)
    conditions = {"baseline": [counting], "argmax": [counting, Argmax()], "reworded": [counting, Paraphrase()]}
    divlens.probe(["toy/ar", "toy/mim"], PROMPTS, n=3, conditions=conditions)
    assert len(applied) == 2 * 3
    assert len(encoded) == len(set(encoded)) > 2 * len(PROMPTS)


def test_the_calibration_of_a_model_is_drawn_once_for_all_its_conditions(monkeypatch):
    drawn, calibrate = [], Reading.calibrate
    monkeypatch.setattr(Reading, "calibrate", lambda self: (drawn.append(""), calibrate(self))[1])
    plans(toy("mim"), asked(), 2, 0, {"a": [Subset(0.5)], "b": [DisableTop(0.4)], "c": [Subset(0.9)]})
    assert len(drawn) == 1


def test_what_cannot_be_drawn_is_refused_when_it_is_planned():
    for arguments in ((asked(), 0, 0), (asked(), 2, -1), (asked(), 2, 0, [Subset(0.5), Argmax])):
        with pytest.raises(DivlensError):
            plan(toy("mim"), *arguments)  # type: ignore[arg-type]
    assert len(plan(toy("mim"), asked(), 2, 0).rows) == 6  # the control


def test_the_fold_of_a_batch_sees_every_step_and_may_leave_the_rest():
    run = plan(toy("diffusion"), asked(), 5, 0, batch_size=4)
    steps = run.settings.rule.steps

    def first_step(place, passing):
        return next(passing).view.step

    whole = list(fill(run, lambda place, passing: [moment.view.step for moment in passing]))
    early = list(fill(run, first_step))
    assert all(batch.seen == list(range(steps)) for batch in whole) and [batch.seen for batch in early] == [0] * 4
    assert all(torch.equal(one.tokens, other.tokens) for one, other in zip(whole, early, strict=True))
    assert [batch.place for batch in whole] == [slice(0, 4), slice(4, 8), slice(8, 12), slice(12, 15)]
    other = list(fill(run, first_step, noise=lambda rows, seed: noise_of(rows, seed + 1)))  # the control
    assert not all(torch.equal(one.tokens, another.tokens) for one, another in zip(whole, other, strict=True))


# --- what is held ---------------------------------------------------------------------------------------------------


def numbers_alive() -> int:
    gc.collect()
    return sum(thing.numel() for thing in gc.get_objects() if type(thing) is torch.Tensor)


def in_steps(steps: int) -> ToyModel:
    times = [step / steps for step in range(steps + 1)]
    rule = MaskReplaceDiffusion(tuple((1 - t) * (1 - t / 3) for t in times), tuple(times), codes=3)
    return replace(toy("diffusion"), rule=rule)


@pytest.mark.parametrize("trace", [False, True])
def test_without_a_trace_what_is_held_does_not_grow_with_the_steps(trace):
    def held(steps: int) -> int:
        """The most numbers in tensors when a batch is done."""
        seen = [numbers_alive()]
        divlens.sample(
            in_steps(steps), ["a cat"], 32, batch_size=8, trace=trace, on_batch=lambda _: seen.append(numbers_alive())
        )
        return max(seen) - seen[0]

    few, many = held(4), held(40)
    assert many > few if trace else many == few


# --- who it is ------------------------------------------------------------------------------------------------------


INTERVENTIONS = (Argmax(), Temperature(2.0), Guidance(2.0), Freeze("path"), Subset(0.5), DisableTop(0.4))


def test_every_field_of_a_run_and_of_its_settings_is_in_its_identity_or_follows_from_it():
    follow = {"conditions", "whole"}  # from model and wordings; each row says which sample of its prompt it is
    aside = {"rooms"}  # of which the identity has what a sample may depend on: the batch size
    assert {field.name for field in fields(Run)} == {"model", "settings", "seed", "rows"} | follow | aside
    known = plan(toy("mim"), asked(), 2, 0).identity()
    assert set(known["settings"]) == {field.name for field in fields(Settings)}


def test_runs_that_draw_other_tokens_have_another_identity():
    run = plan(toy("mim"), asked(), 4, 0)
    row = run.rows[0]
    others = [
        plan(toy("mim"), asked(), 4, 1),
        plan(toy("mim"), asked(), 5, 0),
        plan(toy("mim"), asked("red heart", "a cat"), 4, 0),
        plan(toy("mim"), asked(), 4, 0, batch_size=3),
        plan(toy("ar"), asked(), 4, 0),
        replace(run, rows=(Row(row.prompt, "a heart", 0, 0), *run.rows[1:])),
        replace(run, rows=(Row(row.prompt, row.wording, 7, 0), *run.rows[1:])),
        *(plan(toy("mim"), asked(), 4, 0, [intervention]) for intervention in INTERVENTIONS),
    ]
    identities = [repr(one.identity()) for one in (run, *others)]
    assert len(set(identities)) == len(identities)
    assert plan(toy("mim"), asked(), 4, 0).identity() == run.identity()
    assert replace(run, settings=replace(run.settings, rule=Raster(3))).identity() != run.identity()
