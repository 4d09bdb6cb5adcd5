"""Which wording each sample gets."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import divlens
from divlens.errors import DivlensError
from divlens.interventions import Argmax, Paraphrase, templated
from divlens.models.zoo.lexicon import split_words, templates
from divlens.models.zoo.text import Vocabulary
from divlens.paraphrase import (
    AROUND_A_PICTURE,
    AROUND_A_SENTENCE,
    AROUND_A_THING,
    ends_first,
    from_templates,
    length,
    templates_around,
    wordings_of,
)
from divlens.paraphrase.notes import wording_lines
from divlens.planning import Reading, plan
from divlens.types import Prompt

fixed = settings(derandomize=True, deadline=None)  # the same examples every time, however busy the machine
HEART = Prompt(
    "red heart",
    paraphrases=("heart red", "a heart that is red", "heart", "one heart, painted in a deep and shining red"),
)


def test_the_prompt_comes_first_and_nothing_twice():
    prompt = Prompt("a cat", paraphrases=("cat", "a cat", "the cat", "cat"))
    assert wordings_of(prompt) == ("a cat", "cat", "the cat")


def test_a_prompt_without_paraphrases_gets_neutral_ones():
    for text in ("curly {braces} and {}", "a photo of {braces}", "Curly braces. {} Are here."):
        wordings = wordings_of(Prompt(text))
        assert len(wordings) == 8
        assert all(text in wording for wording in wordings)


# What a template may say: it only speaks of a picture and of what is in it.
NEUTRAL_WORDS = set(
    re.findall(
        "[a-z{}]+",
        "a an the of in which this that what is here you see can be seen shows shown picture image "
        "following description {}",
    )
)


def test_neutral_templates_add_no_attribute():
    groups = (AROUND_A_THING, AROUND_A_PICTURE, AROUND_A_SENTENCE)
    for template in (part for group in groups for part in group):
        assert set(template.replace(":", "").split()) <= NEUTRAL_WORDS
        assert template.endswith("{}") and template.count("{}") == 1  # punctuation of the prompt's own does no harm
    for group in groups:
        assert len(set(group)) == 7
        sizes = [length(template) for template in group]
        assert sizes == sorted(sizes) and sizes[-1] >= 10
    said = {word for template in templates() for word in template.split()}
    assert {"clean", "clear", "icon"} <= said - NEUTRAL_WORDS  # the control: the zoo's own would not pass


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a dog", AROUND_A_THING),
        ("dog", AROUND_A_THING),
        ('a sign that says "open"', AROUND_A_THING),
        ("a red fox, sitting in the snow", AROUND_A_THING),
        ("portrait of Einstein", AROUND_A_PICTURE),
        ("a photo of a dog", AROUND_A_PICTURE),
        ("three watercolours", AROUND_A_PICTURE),
        ("A dog runs. The sun is low.", AROUND_A_SENTENCE),
        ("A dog runs through the rain.", AROUND_A_SENTENCE),
        ('"Hello, world!"', AROUND_A_SENTENCE),
        ("draw a cat", AROUND_A_SENTENCE),
        ("1girl, solo, masterpiece", AROUND_A_SENTENCE),
        ("first: a dog", AROUND_A_SENTENCE),
        ("a dog\na cat", AROUND_A_SENTENCE),
        ("a photo of a dog. Sharp.", AROUND_A_SENTENCE),
    ],
)
def test_templates_fit_what_they_are_put_around(text, expected):
    assert templates_around(text) == expected


def test_an_article_is_written_small_after_of_and_kept_after_a_colon():
    assert "a picture of a dog" in from_templates("A dog")
    assert "a picture of Anna" in from_templates("Anna")  # the control: no article
    assert "a picture: A dog runs." in from_templates("A dog runs.")
    assert not any(" a a " in wording.lower() for wording in from_templates("A dog"))


def test_a_model_may_have_templates_of_its_own():
    zoo = Reading(divlens.load("zoo/ar"))
    assert zoo.wordings(Prompt("rocket")) == ("rocket", *(template.format("rocket") for template in templates()))
    toy = Reading(divlens.load("toy/ar"))
    assert toy.wordings(Prompt("rocket")) == ("rocket", *(template.format("rocket") for template in AROUND_A_THING))
    assert set(split_words(" ".join(templates()))) <= set(Vocabulary().words)  # it was trained on them
    assert zoo.wordings(HEART)[1:] == HEART.paraphrases


def test_it_is_said_which_prompts_got_templates():
    prompts = [Prompt("a cat"), HEART, Prompt("a dog")]
    assert templated(prompts, [Argmax(), Paraphrase()]) == ("a cat", "a dog")
    assert templated(prompts, [Argmax()]) == () == templated([HEART], [Paraphrase()])
    assert "2 of 3 prompts are templates" in wording_lines(templated(prompts, [Paraphrase()]), 3, {})[0]
    assert wording_lines((), 3, {"zoo/ar": {}}) == []


def test_what_was_not_read_is_said_once_for_all_wordings_and_models_it_holds_for():
    same = {f"{word} qwerty": "words not known: qwerty" for word in ("a", "the")}
    assert wording_lines((), 1, {"x": same, "y": same}) == [
        "words not known: qwerty, in 2 wordings such as 'a qwerty'."
    ]
    assert wording_lines((), 1, {"x": same, "y": {}})[0].startswith("x: words not known: qwerty")
    many = {str(i): f"cut from {i} to 3 tokens" for i in range(4, 13)}
    assert len(wording_lines((), 1, {"x": many})) == 5
    assert wording_lines((), 1, {"x": many})[-1] == "5 more wordings not read whole."


def test_similar_lengths_are_those_nearest_to_the_prompt():
    assert Paraphrase(n=2).wordings(HEART, wordings_of) == ("red heart", "heart red")
    assert Paraphrase(n=3).wordings(HEART, wordings_of) == ("red heart", "heart red", "heart")
    assert Paraphrase().wordings(HEART, wordings_of) == ("red heart", "heart red", "heart")  # half of them, rounded up


def test_mixed_lengths_run_from_the_shortest_to_the_longest():
    assert Paraphrase(n=2, lengths="mixed").wordings(HEART, wordings_of) == ("heart", HEART.paraphrases[-1])
    everything = Paraphrase(lengths="mixed").wordings(HEART, wordings_of)
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
    lengths=st.sampled_from(["similar", "mixed", "short", "long"]),
)
def test_chosen_wordings_are_distinct_wordings_of_the_prompt(text, paraphrases, n, lengths):
    prompt = Prompt(text, tuple(paraphrases))
    got = Paraphrase(n, lengths).wordings(prompt, wordings_of)
    available = wordings_of(prompt)
    assert set(got) <= set(available) and len(set(got)) == len(got)
    if n is not None:
        assert len(got) == min(n, len(available))
    sizes = sorted(map(length, available))
    if lengths == "mixed" and len(got) > 1:
        assert (length(got[0]), length(got[1])) == (sizes[0], sizes[-1])
    if lengths == "short":
        assert [length(wording) for wording in got] == sizes[: len(got)]
    if lengths == "long":
        assert [length(wording) for wording in got] == sizes[::-1][: len(got)]


def test_samples_take_the_wordings_in_turn():
    def used(*interventions):
        return plan(divlens.load("toy/ar"), [HEART], 4, 0, interventions).wordings[0]

    assert used(Argmax(), Paraphrase(n=2)) == ("red heart", "heart red", "red heart", "heart red")
    assert used(Argmax()) == ("red heart",) * 4
    assert used(Paraphrase(n=2), Paraphrase(n=1)) == ("red heart",) * 4  # the last counts


@pytest.mark.parametrize("make", [lambda: Prompt("  "), lambda: Prompt("a cat", paraphrases=("cat", " "))])
def test_empty_wordings_are_refused(make):
    with pytest.raises(DivlensError, match="is empty"):
        make()
