"""The prompts that come with the package: how many, of what, and how long their wordings are."""

import json
from collections import Counter
from importlib.resources import files

import pytest

import divlens
from divlens.interventions import Paraphrase
from divlens.models.open_domain import prompts_by_category
from divlens.paraphrase import length, wordings_of
from divlens.study.prompt_sets import FILE, PROMPT_SETS, everyday_prompts

RECORDS = [json.loads(line) for line in files("divlens.study").joinpath(FILE).read_text(encoding="utf-8").splitlines()]
CATEGORIES = [
    *("people", "animals", "food", "indoor scenes", "landscapes", "buildings", "vehicles", "objects"),
    *("art and abstract", "text, counts and relations"),
]
EVERYDAY = everyday_prompts()


def test_they_are_100_ten_of_each_of_ten_categories_and_any_ten_are_one_of_each():
    assert [record["category"] for record in RECORDS] == CATEGORIES * 10
    assert Counter(record["category"] for record in RECORDS) == dict.fromkeys(CATEGORIES, 10)
    assert [prompt.text for prompt in EVERYDAY] == [record["prompt"] for record in RECORDS]


def test_no_wording_comes_twice_and_none_calibrates():
    wordings = [wording.casefold() for prompt in EVERYDAY for wording in (prompt.text, *prompt.paraphrases)]
    assert len(set(wordings)) == len(wordings) == 600
    calibrating = {prompt.casefold() for prompts in prompts_by_category().values() for prompt in prompts}
    assert calibrating and not calibrating & set(wordings)


@pytest.mark.parametrize("prompt", EVERYDAY, ids=lambda prompt: prompt.text)
def test_wordings_spread_in_length_and_two_are_controls_of_the_prompts_own(prompt):
    short, *controls, longer, long = prompt.paraphrases
    own = length(prompt.text)
    assert len(controls) == 2 and all(abs(length(control) - own) <= 1 for control in controls)
    assert length(short) <= own - 2 and own + 3 <= length(longer) <= own + 7
    assert 2 * own + 2 <= length(long) <= 34  # CLIP reads 77 tokens, of which a word of these takes two at most
    for wording in (prompt.text, *prompt.paraphrases):
        assert wording == " ".join(wording.split()) and not wording.endswith(".")


@pytest.mark.parametrize("prompt", EVERYDAY[:10], ids=lambda prompt: prompt.text)
def test_paraphrase_of_similar_length_takes_the_controls_and_of_mixed_length_all(prompt):
    _, *controls, _, long = prompt.paraphrases
    similar = Paraphrase(lengths="similar").wordings(prompt, wordings_of)
    assert set(similar) == {prompt.text, *controls}
    mixed = Paraphrase(lengths="mixed").wordings(prompt, wordings_of)
    assert set(mixed) == {prompt.text, *prompt.paraphrases} and long in mixed[:2]


def test_a_wording_keeps_the_numbers_and_capitals_of_its_prompt():
    """What a careless wording would lose first: quoted letters and digits, and how many there are."""
    counts = {"two": ("two", "pair"), "three": ("three",), "four": ("four",), "five": ("five",), "7": ("7",)}
    checked = 0
    for prompt in EVERYDAY:
        words = prompt.text.replace(",", "").split()
        for word in words:
            wanted = (word,) if word.isupper() and len(word) > 1 else counts.get(word, ())
            for wording in prompt.paraphrases if wanted else ():
                checked += 1
                stems = wording.replace(",", " ").replace("-", " ").split()
                assert set(wanted) & set(stems) or wording.startswith(f"{word}-"), wording
    assert checked >= 5 * 10


def test_the_sets_are_known_by_name():
    assert PROMPT_SETS["everyday"]() == EVERYDAY and PROMPT_SETS["zoo"]() == divlens.default_prompts()
