"""Which wording each sample gets."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divlens.interventions import Argmax, Paraphrase
from divlens.paraphrase import TEMPLATES, chosen, ends_first, length, wordings_for_samples, wordings_of
from divlens.types import DivlensError, Prompt

fixed = settings(derandomize=True, deadline=None)  # the same examples every time, however busy the machine
HEART = Prompt(
    "red heart",
    paraphrases=("heart red", "a heart that is red", "heart", "one heart, painted in a deep and shining red"),
)


def test_the_prompt_comes_first_and_nothing_twice():
    prompt = Prompt("a cat", paraphrases=("cat", "a cat", "the cat", "cat"))
    assert wordings_of(prompt) == ("a cat", "cat", "the cat")


def test_a_prompt_without_paraphrases_gets_neutral_ones():
    wordings = wordings_of(Prompt("curly {braces}"))
    assert len(wordings) == 1 + len(TEMPLATES)
    assert all("curly {braces}" in wording for wording in wordings)


def test_similar_lengths_are_those_nearest_to_the_prompt():
    assert chosen(HEART, Paraphrase(n=2)) == ("red heart", "heart red")
    assert chosen(HEART, Paraphrase(n=3)) == ("red heart", "heart red", "heart")
    assert chosen(HEART, Paraphrase()) == ("red heart", "heart red", "heart")  # half of them, rounded up


def test_mixed_lengths_run_from_the_shortest_to_the_longest():
    assert chosen(HEART, Paraphrase(n=2, lengths="mixed")) == ("heart", HEART.paraphrases[-1])
    everything = chosen(HEART, Paraphrase(lengths="mixed"))
    assert sorted(everything) == sorted(wordings_of(HEART))
    sizes = sorted(map(length, everything))
    assert [length(wording) for wording in everything[:2]] == [sizes[0], sizes[-1]]  # however few samples there are


def test_mixed_lengths_fill_the_largest_gap_first():
    assert ends_first(list("abcdefghi")) == tuple("aiecgbdfh")
    assert [ends_first(list("abc"[:n])) for n in (2, 3)] == [("a", "b"), ("a", "c", "b")]


words = st.lists(st.sampled_from("abcde"), min_size=1, max_size=9).map(" ".join)


@fixed
@given(
    text=words,
    paraphrases=st.lists(words, max_size=12),
    n=st.one_of(st.none(), st.integers(1, 15)),
    lengths=st.sampled_from(["similar", "mixed"]),
)
def test_chosen_wordings_are_distinct_wordings_of_the_prompt(text, paraphrases, n, lengths):
    prompt = Prompt(text, tuple(paraphrases))
    got = chosen(prompt, Paraphrase(n, lengths))
    available = wordings_of(prompt)
    assert set(got) <= set(available) and len(set(got)) == len(got)
    if n is not None:
        assert len(got) == min(n, len(available))
    if lengths == "mixed" and len(got) > 1:
        sizes = [length(wording) for wording in available]
        assert (length(got[0]), length(got[1])) == (min(sizes), max(sizes))


def test_samples_take_the_wordings_in_turn():
    got = wordings_for_samples(HEART, [Argmax(), Paraphrase(n=2)], (0, 1, 2, 5))
    assert got == ("red heart", "heart red", "red heart", "heart red")
    assert wordings_for_samples(HEART, [Argmax()], (0, 1)) == ("red heart", "red heart")


@pytest.mark.parametrize("make", [lambda: Prompt("  "), lambda: Prompt("a cat", paraphrases=("cat", " "))])
def test_empty_wordings_are_refused(make):
    with pytest.raises(DivlensError, match="is empty"):
        make()
