"""What the zoo knows of language: words that are named or refused, emoji, and the concept that a text asks for."""

import re
import subprocess
import sys
import unicodedata

import pytest

import divlens
from divlens.errors import DivlensError
from divlens.experiment.samples import unread
from divlens.lab.attributes import CONCEPTS
from divlens.models.toy import RULES, ToyModel
from divlens.models.zoo.lexicon import (
    FRAME,
    SHOWN_BY,
    asked_concept,
    concepts,
    emoji_names,
    meaning_of,
    named_concept,
    near,
    split_words,
    templates,
)
from divlens.models.zoo.text import Vocabulary
from divlens.planning import Reading
from divlens.run import wording_notes
from divlens.types import Prompt
from oracles.screen import words_of

VOCABULARY = Vocabulary()
NAMES = concepts()


def asked(text):
    """The name of the concept that a text asks for."""
    found = named_concept(text, NAMES)
    return None if found is None else NAMES[found]


# Words


@pytest.mark.parametrize("text", ["qwerty", "a picture of qwerty zxcvb", "сердце", "🦄", "赤いハート"])
def test_a_wording_with_nothing_known_is_refused_and_its_words_are_named(text):
    with pytest.raises(DivlensError) as caught:
        VOCABULARY.ids([text])
    said = str(caught.value)
    assert all(word in said for word in VOCABULARY.unknown(text)) and VOCABULARY.unknown(text)
    assert "divlens models zoo/ar" in said and "\n" not in said


def test_what_may_have_been_meant_is_said_and_only_that():
    with pytest.raises(DivlensError, match=r"does not know rockt; did you mean rocket\?"):
        VOCABULARY.ids(["a rockt"])
    with pytest.raises(DivlensError) as caught:
        VOCABULARY.ids(["qwerty"])
    assert "did you mean" not in str(caught.value)
    assert near(["haert", "rockt", "xyz"], VOCABULARY.words) == ["heart", "rocket"]


def test_known_words_and_words_that_only_frame_them_are_read():
    assert len(VOCABULARY.ids(["small heart", "qwerty heart", "a picture"])) == 3
    assert VOCABULARY.unknown("a Small heart!") == ()
    assert VOCABULARY.unknown("Small сердце, qwerty qwerty 🦄") == ("сердце", "qwerty", "🦄")
    assert not any(set(split_words(name)) <= FRAME for name in NAMES)


def test_two_unknown_words_are_no_two_prompts():
    with pytest.raises(DivlensError, match="it does not know qwerty"):
        divlens.sample(divlens.load("zoo/ar"), ["qwerty", "zxcvb"], n=2)


class Lexical(ToyModel):
    """A toy that knows red hearts only."""

    def unknown_words(self, wordings):
        return [[word for word in wording.split() if word not in ("red", "heart")] for wording in wordings]

    def near_words(self, words):
        return ["heart"] if "haert" in words else []


def test_words_that_are_not_known_are_named_wherever_they_are_drawn(colours_for_lpips):
    own = "red heart heart"
    prompts = [Prompt("red haert", (own,)), Prompt("red heart", (own, "heart red", "heart"))]
    note = "words not known: haert (did you mean heart?)"
    model = Lexical("ar", RULES["ar"])
    assert divlens.sample(model, prompts, n=2).wording_notes == {"red haert": note}
    probed = divlens.probe([model], prompts, n=2, conditions={"baseline": ()})
    assert [record.note for record in probed.samples] == [note] * 2 + [None] * 2
    assert unread(probed.samples) == {model.name: {"red haert": note}}
    enhanced = divlens.enhance(model, prompts, n=2, disable_top=0.4)
    told = divlens.information(model, prompts, n=2)
    split = divlens.decompose(model, prompts, wordings=2, executions=2)
    assert told.wording_notes == {"red haert": note} == dict(split.wording_notes)
    for table in (
        probed,
        enhanced,
        told,
        split,
    ):
        assert f"{note}, in 1 wording such as 'red haert'." in words_of(table)
        assert "templates" not in words_of(table)
    quiet = divlens.probe([model], prompts[1:], n=2, conditions={"baseline": ()})
    assert "not known" not in words_of(quiet)  # the control


def test_templates_are_said_wherever_they_are_used(colours_for_lpips):
    prompts = [Prompt("a cat", ("cat",)), Prompt("a dog")]
    change = [divlens.Paraphrase()]
    tables = (
        (divlens.probe(["toy/ar"], prompts, n=2)),
        (divlens.enhance("toy/ar", prompts, n=2)),
        divlens.information("toy/ar", prompts, n=2, interventions=change),
        (divlens.decompose("toy/ar", prompts, wordings=2, executions=2)),
    )
    for table in tables:
        assert "Other wordings of 1 of 2 prompts are templates around the prompt" in words_of(table)
    untouched = (
        (divlens.probe(["toy/ar"], prompts, n=2, conditions={"baseline": ()})),
        divlens.information("toy/ar", prompts, n=2),
        (divlens.decompose("toy/ar", prompts, wordings=1, executions=2)),
    )
    for table in untouched:  # the control: nothing was reworded
        assert "templates" not in words_of(table)


def test_the_zoo_tells_what_it_does_not_know():
    model = divlens.load("zoo/ar")
    notes = wording_notes(model, ["small haert", "small heart", "small haert"])
    assert notes == {"small haert": "words not known: haert (did you mean heart?)"}
    assert wording_notes(model, Reading(model).wordings(Prompt("small heart"))) == {}  # nor do its templates bring any


# Emoji


def test_every_concept_has_its_emoji():
    shown_by = SHOWN_BY.split()
    assert len(shown_by) == len(NAMES) == len(set(shown_by)) == len(emoji_names()) == 64
    for name, emoji in zip(NAMES, shown_by, strict=True):
        assert len(emoji.rstrip("\ufe0f")) == 1  # of one character, so that its Unicode name says what it is
        assert asked(emoji) == name
        assert split_words(emoji) == split_words(name)


# The name in the character database shares a word with the concept's Unicode name, which is the one in CLDR, but here.
RENAMED = {"eggplant": "AUBERGINE"}


def test_the_emoji_are_those_that_the_character_database_names():
    own = {name: unicodedata.name(emoji[0]) for name, emoji in zip(CONCEPTS.values(), SHOWN_BY.split(), strict=True)}
    renamed = {name: other for name, other in own.items() if not set(words(name)) & set(words(other))}
    assert renamed == RENAMED


def words(text):
    return re.findall("[a-z]+", text.lower())


def test_an_emoji_is_the_prompt_that_its_name_is():
    assert VOCABULARY.ids(["❤️"]).equal(VOCABULARY.ids(["heart"]))
    assert VOCABULARY.ids(["❤"]).equal(VOCABULARY.ids(["❤️"]))  # with and without the selector of its look
    assert VOCABULARY.ids(["a picture of 🚀"]).equal(VOCABULARY.ids(["a picture of rocket"]))
    assert not VOCABULARY.ids(["🚀"]).equal(VOCABULARY.ids(["❤️"]))  # the control
    assert meaning_of("🚀, top left") == meaning_of("rocket, top left") != meaning_of("🚀")


def test_what_is_joined_to_an_emoji_is_not_dropped():
    assert asked("❤️‍🔥") is None and VOCABULARY.unknown("❤️‍🔥") == ("❤\u200d🔥",)  # a heart on fire is one emoji
    assert VOCABULARY.unknown("❤️🔥") == ()  # the control: two
    assert VOCABULARY.unknown("heart 🇩🇪 👍🏽") == ("🇩🇪", "👍🏽")
    assert meaning_of("🚀🦄") is None and asked("🚀🦄") is None


def test_a_wording_is_put_around_what_the_laboratory_cannot_read():
    assert len(templates()) >= 7 and all(template.count("{}") == 1 for template in templates())
    for template in templates():
        assert meaning_of(template.format("rocket")) == meaning_of("rocket")
    assert meaning_of("a shiny rocket") is None  # the control


# The concept that a text asks for


@pytest.mark.parametrize("name", NAMES)
def test_every_concept_is_found_by_its_name_within_a_sentence(name):
    for text in (
        name,
        name.upper(),
        f"a {name}",
        f"a picture of a {name}",
        f"{name} icon",
        f"a shiny {name}, in space",
    ):
        assert asked(text) == asked(text.upper()) == name


@pytest.mark.parametrize(
    "text",
    [
        "a heart on fire",  # two
        "rocket fire",
        "🚀🔥",
        "🚀🦄",
        "fire truck",  # another thing
        "bus stop",
        "hearts",  # plurals are not names
        "leaf",
        "tree",
        "firework",
        "a rocket and a cat",
        "a blue heart or a green one",
        "qwerty",
    ],
)
def test_what_is_no_single_concept_is_none(text):
    assert asked(text) is None


def test_the_longer_of_two_names_counts():
    names = ["ear of corn", "ear", "corn"]
    assert named_concept("an ear of corn", names) == 0 and named_concept("an ear", names) == 1
    assert asked("rocket - launch") == "rocket" and asked("rocket launch") is None


def test_a_concept_given_beside_the_prompt_is_its_name_and_no_text():
    assert asked_concept("a cat", "Alarm  Clock", NAMES) == NAMES.index("alarm clock")
    assert asked_concept("a cat", "⏰", NAMES) == NAMES.index("alarm clock")
    assert asked_concept("heart", "a heart", NAMES) is None
    assert asked_concept("heart", "", NAMES) is None


def test_the_lexicon_loads_no_torch():
    code = "import sys, divlens.models.zoo.lexicon as l; l.emoji_names(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
