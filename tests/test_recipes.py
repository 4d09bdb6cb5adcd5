"""Recipes of `enhance`: a dial from nothing to all of it, and which one a model gets."""

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import divlens
from divlens.cli import main
from divlens.enhance import recipe_for
from divlens.errors import DivlensError
from divlens.interventions import Detailed, DisableTop, Paraphrase, Temperature
from divlens.models.answers import asked_prompts
from divlens.models.open_domain import OpenDomain
from divlens.models.toy import RULES, ToyModel
from divlens.paraphrase.details import filled_in
from divlens.planning import Reading
from divlens.recipes import RECIPES, recipe_at

fixed = settings(derandomize=True, deadline=None)  # the same examples every time, however busy the machine


def doses(name: str, strength: float) -> tuple[float, ...]:
    """How much is done, in numbers that grow with it: wordings, banned codes, what is filled in, how cool draws are."""
    done: dict[Any, Any] = {type(one): one for one in recipe_at(name, strength)}
    wordings = done.get(Paraphrase)
    return (
        0 if wordings is None else wordings.n or 1000,
        done[DisableTop].strength if DisableTop in done else 0.0,
        done[Detailed].details or 1000 if Detailed in done else 0,
        -done[Temperature].t if Temperature in done else -1.0,
    )


@pytest.mark.parametrize("name", RECIPES)
@fixed
@given(two=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_more_strength_does_more(name, two):
    low, high = sorted(two)
    assert all(less <= more for less, more in zip(doses(name, low), doses(name, high), strict=True))


@pytest.mark.parametrize("name", RECIPES)
def test_the_ends_of_the_dial(name):
    assert recipe_at(name, 0) == () and recipe_at(name, 1) == RECIPES[name](1)
    assert len({doses(name, strength) for strength in (0, 0.25, 0.5, 0.75, 1)}) == 5  # the control: it does turn


def test_full_strength_of_the_papers_recipe_is_the_papers():
    assert recipe_at("paper", 1, 0.2) == (Paraphrase(lengths="mixed"), DisableTop(0.2))
    soft = recipe_at("paper", 0.5)
    assert soft == (Paraphrase(5, "mixed"), DisableTop(0.05, strength=0.5))


@pytest.mark.usefixtures("one_thread")
def test_at_no_strength_every_token_is_that_of_the_model_as_it_is():
    found = divlens.enhance("toy/mim", ["red heart"], n=8, strength=0)
    assert torch.equal(found.tokens, found.before.tokens)
    full = divlens.enhance("toy/mim", ["red heart"], n=8)
    assert not torch.equal(full.tokens, full.before.tokens)  # the control


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strength": 1.5}, r"strength expects a number in \[0, 1\], got 1.5"),
        ({"strength": -0.1}, r"strength expects a number in \[0, 1\], got -0.1"),
        ({"strength": float("nan")}, r"strength expects a number in \[0, 1\], got nan"),
        ({"recipe": "papers"}, "recipe expects one of paper, detailed, everyday, got 'papers'"),
        ({"recipe": "detailed", "disable_top": 0.1}, "disable_top is that of the recipe 'paper'"),
        ({"recipe": "detailed"}, "Detailed expects prompts that the laboratory can read, got 'red heart'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_drawn(changes, said):
    drawn: list[int] = []
    with pytest.raises(DivlensError, match=said):
        divlens.enhance("toy/ar", ["red heart"], on_batch=drawn.append, **changes)
    assert not drawn


def test_a_model_gets_the_recipe_that_suits_it_and_the_prompts():
    zoo, toy = divlens.load("zoo/ar"), divlens.load("toy/ar")
    readable, other = asked_prompts([zoo], ["penguin"]), asked_prompts([toy], ["a penguin who dances"])
    assert recipe_for(zoo, readable) == "detailed" and recipe_for(zoo, other) == "paper"
    assert recipe_for(toy, readable) == "paper"  # it reads the prompt, but it is no model of the laboratory
    assert recipe_for(OpenToy("mim", RULES["mim"]), other) == "everyday"


class OpenToy(OpenDomain, ToyModel):
    """A toy that takes any prompt for its own."""


def test_what_is_open_is_filled_in_for_a_model_that_draws_anything():
    model = OpenToy("mim", RULES["mim"])
    found = divlens.enhance(model, ["red heart"], n=4, strength=0.5)
    assert found.interventions == (Detailed(2, words="everyday"), Temperature(0.85))
    wordings = [record.wording for record in found.samples if record.condition == "after"]
    assert wordings == list(filled_in("red heart", 32, 0, 2)[:4]) and len(set(wordings)) == 4


def test_draws_are_cooled_from_the_models_own_temperature():
    at: list[Any] = [recipe_at("everyday", strength, own_temperature=0.9)[-1] for strength in (0.01, 0.5, 1)]
    assert [one.t for one in at] == pytest.approx([0.8973, 0.765, 0.63])


def test_what_was_done_and_what_it_brought_is_said(capsys):
    main(["enhance", "zoo/ar", "penguin", "-n", "2", "--strength", "0.5"])
    said = " ".join(capsys.readouterr().out.split())
    assert "after: Detailed(details=2, n=32, seed=0) + Temperature(t=0.85)." in said
    assert "LPIPS diversity" in said and " -> " in said
    with pytest.raises(SystemExit) as stopped:
        main(["enhance", "zoo/ar", "penguin", "-n", "2", "--strength", "2"])
    assert stopped.value.code == 2 and "strength expects a number in [0, 1], got 2" in capsys.readouterr().err


def test_a_resumed_run_goes_on_with_the_same_recipe(tmp_path):
    whole = divlens.enhance("toy/mim", ["red heart", "snow"], n=4, strength=0.6, out=tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(record | {"complete": []}))
    again: Any
    (again,) = divlens.resume(tmp_path / "run")
    assert again.interventions == whole.interventions == recipe_at("paper", 0.6)
    assert Reading(divlens.load("toy/mim")).settings(again.interventions).log_factors is not None
