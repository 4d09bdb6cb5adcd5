"""Captions of EmojiScenes: what they name, and that reading them back gives just that."""

import itertools
import re

import numpy as np
import pytest

from divlens.errors import DivlensError
from divlens.lab.attributes import ATTRIBUTES, BACKGROUND, CONCEPT, MIRROR, PLACE, SIZE, STYLE
from divlens.lab.captions import (
    HELD_OUT,
    LENGTHS,
    NAMING,
    TRAINING,
    as_prompt,
    detailed_meanings,
    detailed_wordings,
    draw_captions,
    filler_words,
    neutral_wordings,
    vocabulary,
    write,
)
from divlens.lab.meanings import Meaning
from divlens.lab.reading import read
from divlens.lab.scenes import COUNT, scenes_of
from divlens.models.zoo.networks import WORDS
from divlens.models.zoo.text import split_words

APPLE = Meaning.of(concept="apple", background="orange", size="small", place="bottom right", style="flat")


def all_meanings_of(concept):
    """Every choice of what to name, each value of it at least once."""
    for named in itertools.product((False, True), repeat=4):
        attributes = [a for a, flag in zip((STYLE, BACKGROUND, SIZE, PLACE), named, strict=True) if flag]
        for turn in range(9):
            meaning = Meaning((concept, None, None, None, None, None))
            for attribute in attributes:
                meaning = meaning.saying(attribute, turn % len(ATTRIBUTES[attribute]))
            yield meaning


def test_no_word_belongs_to_two_attributes_or_to_a_template():
    words = [{w for value in ATTRIBUTES[a].values for w in value.split()} for a in NAMING] + [set(filler_words())]
    for first, second in itertools.combinations(words, 2):
        assert not first & second
    assert {"top", "left"} <= words[list(NAMING).index(PLACE)]


@pytest.mark.parametrize("templates", [TRAINING, HELD_OUT])
def test_reading_gives_back_what_was_written(templates):
    for template in templates:
        for meaning in all_meanings_of(15):
            assert read(write(meaning, template)) == meaning
    for concept in range(64):
        assert read(write(APPLE.saying(CONCEPT, concept), templates[-1])).values[CONCEPT] == concept


def test_the_grammar_as_it_reads():
    assert write(Meaning.of(concept="apple"), TRAINING[0]) == "apple"
    assert write(APPLE, TRAINING[0]) == "small apple, bottom right, orange background, flat style"
    assert write(APPLE, TRAINING[4]) == (
        "a picture of a small apple at the bottom right on an orange background in flat style"
    )
    assert write(Meaning.of(concept="umbrella", background="blue"), TRAINING[3]) == "an umbrella on a blue background"
    assert write(Meaning.of(concept="grapes", size="large"), TRAINING[5]) == "an image of large grapes"


def test_captions_fit_the_text_encoder_and_held_out_templates_have_no_new_word():
    trained = {w for t in TRAINING for w in re.findall("[a-z]+", re.sub(r"\{[a-z]+\}", "", t.text))}
    for template in HELD_OUT:
        assert set(re.findall("[a-z]+", re.sub(r"\{[a-z]+\}", "", template.text))) <= trained | {"a", "an"}
    assert not {t.text for t in TRAINING} & {t.text for t in HELD_OUT}
    for template in (*TRAINING, *HELD_OUT):
        caption = write(Meaning.of(**{**words_of(APPLE), "concept": "chili pepper"}), template)
        assert len(split_words(caption)) <= WORDS
        assert set(split_words(caption)) <= set(vocabulary())


def words_of(meaning):
    return {ATTRIBUTES[i].name: meaning.word(i) for i in meaning.named}


def test_lengths_are_lengths():
    words = {length: [len(split_words(write(APPLE, t))) for t in TRAINING + HELD_OUT if t.length == length]
             for length in LENGTHS}  # fmt: skip
    assert max(words["short"]) < np.mean(words["medium"]) < min(words["long"])
    assert all(read(text) == APPLE for text in neutral_wordings(APPLE))
    assert len(neutral_wordings(APPLE)) == len(TRAINING)
    assert neutral_wordings(APPLE, lengths=("long",)) == neutral_wordings(APPLE)[-3:]
    assert not set(neutral_wordings(APPLE, held_out=True)) & set(neutral_wordings(APPLE))
    with pytest.raises(DivlensError, match="lengths are short, medium, long; got tiny"):
        neutral_wordings(APPLE, lengths=("tiny",))


def test_captions_name_each_attribute_as_often_as_stated():
    generator = np.random.default_rng(0)
    scenes = scenes_of(generator.integers(0, COUNT, 1000))
    meanings = [read(caption) for caption in draw_captions(scenes, generator)]
    for meaning, scene in zip(meanings, scenes, strict=True):
        assert all(meaning.values[i] == scene[i] for i in meaning.named)
    named = np.array([[value is not None for value in meaning.values] for meaning in meanings])
    chance = np.array([NAMING.get(i, 0.0) for i in range(6)])
    # Five standard errors of a share of 1,000: a false alarm in 300,000 runs of the four.
    assert (abs(named.mean(0) - chance) <= 5 * np.sqrt(chance * (1 - chance) / 1000)).all()
    assert not named[:, MIRROR].any() and named[:, CONCEPT].all()
    together = named[:, STYLE] & named[:, BACKGROUND]
    assert abs(together.mean() - 0.15) < 5 * np.sqrt(0.15 * 0.85 / 1000)  # they are independent
    assert draw_captions(scenes[:50], np.random.default_rng(1)) == draw_captions(scenes[:50], np.random.default_rng(1))
    assert draw_captions(scenes[:50], np.random.default_rng(1)) != draw_captions(scenes[:50], np.random.default_rng(2))


def test_detailed_wordings_say_the_same_and_more():
    apple = Meaning.of(concept="apple", size="small")
    for count in (1, 2, 3):
        for meaning in detailed_meanings(apple, 30, 0, details=count):
            assert len(meaning.named) == 2 + count
            assert meaning.values[CONCEPT] == apple.values[CONCEPT] and meaning.values[SIZE] == apple.values[SIZE]
    assert {len(read(text).named) for text in detailed_wordings(apple, 30, 0)} == {5}
    assert detailed_wordings(apple, 9, 0) == detailed_wordings(apple, 9, 0) != detailed_wordings(apple, 9, 1)
    values = [meaning.values[BACKGROUND] or 0 for meaning in detailed_meanings(apple, 800, 0)]
    # Uniform: chi-square with 7 degrees of freedom, beyond 29.9 once in 10,000 seeds.
    assert ((np.bincount(values) - 100) ** 2 / 100).sum() < 29.9
    with pytest.raises(DivlensError, match="details expect 1 to 3"):
        detailed_meanings(apple, 1, 0, details=4)


def test_a_prompt_names_its_concept_to_the_judge():
    prompt = as_prompt(APPLE, neutral_wordings(APPLE, held_out=True))
    assert prompt.concept == "apple" and read(prompt.text) == APPLE
    assert all(read(text) == APPLE for text in prompt.paraphrases)


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("a green apple", "background 'green' expects background or backdrop after it"),
        ("an apple and a heart", "expected one concept, got two"),
        ("a giraffe", "expected words of the lab's captions, got 'giraffe'"),
        ("on a green background", "expected the name of a concept, got none"),
        ("a small picture of an apple", "size 'small' expects the concept after it"),
        ("a flat apple", "style 'flat' expects style after it"),
        ("apple, top left, bottom", "expected one place, got two"),
    ],
)
def test_what_the_grammar_does_not_say_is_refused(caption, message):
    with pytest.raises(DivlensError, match=message):
        read(caption)


def test_meanings_say_what_they_expect():
    with pytest.raises(DivlensError, match=r"background expects one of white, gray, .*; got 'teal'"):
        Meaning.of(background="teal")
    with pytest.raises(DivlensError, match=r"attributes are concept, .*; got color"):
        Meaning.of(color="red")
    with pytest.raises(DivlensError, match="attribute 1 of a meaning expects 0 to 5 or None, got 6"):
        Meaning((0, 6, None, None, None, None))
    with pytest.raises(DivlensError, match="a caption names the concept and not the mirror, got concept, mirror"):
        write(Meaning.of(concept="apple", mirror="mirrored"), TRAINING[0])
