"""The built-in wordings: short, reworded and long ones, the same by seed, and never another meaning."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divlens.errors import DivlensError
from divlens.paraphrase import from_templates, length
from divlens.wordings.meaning import why_different
from divlens.wordings.rewriting import Rewriting, other_orders, with_synonyms
from divlens.wordings.synonyms import ADJECTIVES, NOUNS, OF_ADJECTIVES, OF_NOUNS, plural, swapped, swaps

MANY = 10_000  # more wordings than any text has
TEXTS = [
    "a red heart",
    "a cat on a sofa",
    "A small dog in the snow",
    "two cats on a sofa",
    "a man with no hat",
    "a flower that isn't red",
    "a cat left of a dog",
    "three apples and a green pear",
    "a red ball and a blue box",
    "a big house, oil painting, blue background",
    "a photo of a cute rabbit",
    "The Eiffel Tower at sunset",
    "A dog runs on the beach. It is happy.",
    "draw a little car",
    "penguin",
]


def all_of(text, seed=0):
    return Rewriting(seed).wordings(text, MANY)


@pytest.mark.parametrize("text", TEXTS)
def test_every_wording_is_new_and_means_the_same(text):
    found = all_of(text)
    assert len(found) >= 7 and len(set(found)) == len(found) and text not in found
    assert [one for one in found if why_different(text, one) is not None] == []
    assert [length(one) for one in found] == sorted(map(length, found))


def test_a_few_are_short_reworded_and_long():
    found = Rewriting().wordings("a cat on a sofa", 6)
    long = {one for text in ("a cat on a sofa", "a cat on a couch") for one in from_templates(text)}
    assert sum(one in ("cat on sofa", "cat on couch") for one in found) == 2
    assert sum(one in long for one in found) == 2
    assert len(found) == 6


def test_the_seed_says_which():
    assert Rewriting(1).wordings("a cat on a sofa", 6) == Rewriting(1).wordings("a cat on a sofa", 6)
    assert Rewriting(1).wordings("a cat on a sofa", 6) != Rewriting(2).wordings("a cat on a sofa", 6)
    assert set(all_of("a cat on a sofa", 1)) == set(all_of("a cat on a sofa", 2))
    with pytest.raises(DivlensError, match="seed expects a whole number"):
        Rewriting(-1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two cats on a sofa", ["on a sofa, two cats"]),
        ("A dog in the snow", ["In the snow, a dog"]),
        ("a red ball and a blue box", ["a blue box and a red ball"]),
        ("A ball and two boxes", ["Two boxes and a ball"]),
        ("a house, oil painting, blue sky", ["a house, blue sky, oil painting"]),
        # What follows a verb, points back, or belongs to a part of a picture stays where it is.
        ("a woman looking at a bird", []),
        ("a man with a bird on his hand", []),
        ("a photo of a cat on a sofa", []),
        ("black and white", []),
        ("a cat and a dog on a sofa", []),  # perhaps the dog alone is on it
        ("A dog runs in the snow.", []),
        ("a man in a red hat and a woman in a blue dress", []),
        ("a person who is in a car", []),
        ("a child with a gift in hand", []),
        ("a dog on a sofa without a cat", []),
        ("a man and a woman holding hands", []),
        ("a red and a blue car", []),
        ("Paris at night", []),
    ],
)
def test_parts_change_places_only_where_that_changes_nothing(text, expected):
    assert list(other_orders(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a red car", ["a red automobile"]),
        ("a car", ["an automobile"]),
        ("An automobile", ["A car"]),
        ("an enormous house", ["a huge house"]),
        ("my big brother", []),
        ("two children", ["two kids"]),
        ("kids and a sofa", ["children and a sofa", "kids and a couch", "children and a couch"]),
        ("Small fox", ["Little fox"]),
        # A compound, a name, and words that have a synonym only where they say something else.
        ("a cable car", []),
        ("a car park", []),
        ("Big Ben", []),
        ("the Rock", []),
        ("a big cat", []),
        ("the house is small", []),
    ],
)
def test_synonyms_stand_where_they_mean_the_same(text, expected):
    assert list(with_synonyms(text)) == expected


def test_the_lexicon_holds_each_word_once():
    """So a synonym of a synonym is the word itself, and no word is of two groups."""
    for lines, table in ((NOUNS, OF_NOUNS), (ADJECTIVES, OF_ADJECTIVES)):
        words = [entry.partition("/")[0] for entry in lines.split()]
        assert len(words) == len(set(words))
        for word, others in table.items():
            assert others and all({*table[other], other} == {*others, word} for other in others)
    assert OF_NOUNS["pharmacies"] == ("drugstores",) and OF_NOUNS["kids"] == ("children",)
    assert [plural(word) for word in ("fox", "baby", "toy", "torch", "cat")] == [
        "foxes",
        "babies",
        "toys",
        "torches",
        "cats",
    ]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.sampled_from([*OF_NOUNS, *OF_ADJECTIVES, "a", "an", "the", "no", "two", "red", "on", ",", "."]), max_size=8
    )
)
def test_changing_a_word_twice_gives_the_text_back(words):
    """A word and its synonym change places in both directions, but for the article before them."""
    text = " ".join(words)
    for swap in swaps(text):
        for other in swap.others:
            changed = swapped(text, swap, other)
            back = [swapped(changed, one, text[swap.start : swap.end]) for one in swaps(changed)]
            plain = [one.replace(" an ", " a ").removeprefix("an ").removeprefix("a ") for one in (text, *back)]
            assert plain[0] in plain[1:]


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=60))
def test_any_text_has_wordings_or_none_and_no_error(text):
    assert text not in Rewriting().wordings(text, 8)


def test_a_long_text_is_not_turned_in_all_ways():
    found = Rewriting().wordings(", ".join(f"small car number {number}" for number in range(200)), 8)
    assert len(found) == 8  # at all ways it would take hours
