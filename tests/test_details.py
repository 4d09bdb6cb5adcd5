"""What an everyday prompt leaves open is filled in, and what it may have said itself is left alone."""

from collections import Counter

import pytest

from divlens.interventions import Detailed
from divlens.paraphrase.details import ASPECTS, filled_in, open_aspects
from divlens.types import Prompt


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a penguin", "setting, light, view, kind of picture"),
        ("two cats on a sofa", "light, view, kind of picture"),
        ("an oil painting of a cat", "setting, light, view"),
        ("a house at night", "view, kind of picture"),
        ("a castle, seen from the front", "setting, light, kind of picture"),
        ("a snowy owl", "setting, view, kind of picture"),
        ("a photo of a dog in the rain, aerial", ""),
        ("inside", "light, view, kind of picture"),
        ("a sunflower", "setting, light, view, kind of picture"),  # no light is named: words are compared whole
    ],
)
def test_what_a_prompt_may_have_said_is_not_open(text, expected):
    assert ", ".join(aspect.name for aspect in open_aspects(text)) == expected


def test_what_is_said_is_seen_to_be_said():
    """So nothing is filled in twice, and a wording that says everything stays as it is."""
    for aspect in ASPECTS:
        for value in aspect.values:
            assert aspect.named.search(f"a penguin, {value}"), value
    (wording,) = filled_in("a penguin", 1, 0)
    assert filled_in(wording, 5, 0) == (wording,)


def test_as_much_as_asked_is_filled_in_evenly_and_by_the_seed():
    found = filled_in("A penguin.", 48, 3)
    assert all(one.startswith("A penguin, ") and one.count(", ") == 4 for one in found)
    for aspect in ASPECTS:
        counts = Counter(value for one in found for value in aspect.values if f", {value}" in one)
        assert set(counts.values()) == {48 // len(aspect.values)}
    some = filled_in("A penguin", 60, 3, 2)
    assert all(one.count(", ") == 2 for one in some)
    for aspect in ASPECTS:  # also where an aspect is said in some wordings only
        counts = Counter(value for one in some for value in aspect.values if f", {value}" in one)
        assert max(counts.values()) - min(counts[value] for value in aspect.values) <= 1
    assert filled_in("!!!", 2, 0) == ("!!!",) and filled_in("A cat?", 1, 0)[0].startswith("A cat, ")
    assert filled_in("A penguin.", 48, 3) == found != filled_in("A penguin.", 48, 4)
    assert filled_in("A penguin", 10, 3, 9) == filled_in("A penguin", 10, 3)  # at most what is open


def test_the_intervention_takes_any_prompt():
    prompt = Prompt("a shiny fox", ("a fox that shines",))
    found = Detailed(2, 5, 1, "everyday").wordings(prompt, lambda one: ())
    assert found[0::2] == filled_in("a shiny fox", 5, 1, 2)[0::2]
    assert found[1::2] == filled_in("a fox that shines", 5, 1, 2)[1::2]
