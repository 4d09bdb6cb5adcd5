"""What systems that draw anything are calibrated with: ordinary prompts, not those of the zoo."""

from itertools import chain

import pytest

import divlens
from divlens.models.open_domain import prompts_by_category
from divlens.models.wrap import wrap
from oracles import tiny_diffusers

ORDINARY = list(chain(*prompts_by_category().values()))


def test_they_are_64_distinct_short_prompts_eight_of_each_of_eight_categories():
    assert [len(prompts) for prompts in prompts_by_category().values()] == [8] * 8
    assert len({prompt.casefold() for prompt in ORDINARY}) == 64
    for prompt in ORDINARY:
        assert prompt.isascii() and prompt == prompt.strip() and 3 <= len(prompt.split()) <= 12


def test_a_model_that_draws_anything_is_calibrated_with_them():
    assert wrap(tiny_diffusers.amused()).calibration_prompts() == ORDINARY


@pytest.mark.parametrize("name", ["zoo/ar", "zoo/mim", "zoo/diffusion", "toy/ar"])
def test_the_built_in_models_have_prompts_of_their_own(name):
    own = divlens.load(name).calibration_prompts()
    assert own and not set(own) & set(ORDINARY)


def test_none_of_the_zoos_default_prompts_is_among_them():
    default = [prompt.text for prompt in divlens.default_prompts()]
    assert default and not set(default) & set(ORDINARY)
