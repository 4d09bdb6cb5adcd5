"""Prompt files: what is read, what is refused, and the set that ships with the zoo."""

import pytest

from divlens.errors import DivlensError
from divlens.lab.captions import NAMING
from divlens.lab.reading import read
from divlens.models.zoo.lexicon import concepts, split_words
from divlens.models.zoo.networks import WORDS
from divlens.models.zoo.prompts import default_prompts
from divlens.paraphrase import length, wordings_of
from divlens.prompts import as_prompts, distinct_prompts, read_prompts
from divlens.types import Prompt


@pytest.fixture
def file(tmp_path):
    def write(content, name="prompts.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_text_lines_are_prompts_in_order(file):
    path = file("# hearts first\nred heart\n\n  blue heart  \r\n#nothing\n")
    assert read_prompts(path) == (Prompt("red heart"), Prompt("blue heart"))


def test_jsonl_brings_paraphrases_and_concept(file):
    path = file(
        '{"prompt": "a heart", "paraphrases": ["heart icon"], "concept": "red heart"}\n\n{"prompt": "a fox"}\n',
        "p.jsonl",
    )
    assert read_prompts(path) == (Prompt("a heart", ("heart icon",), "red heart"), Prompt("a fox"))


def test_jsonl_is_known_by_its_first_line_too(file):
    assert read_prompts(file('{"prompt": "a fox"}\n')) == (Prompt("a fox"),)
    assert read_prompts(file("a fox\n{curly}\n")) == (Prompt("a fox"), Prompt("{curly}"))


def test_a_byte_order_mark_is_no_part_of_a_prompt(file):
    assert read_prompts(file(b"\xef\xbb\xbfa fox\n")) == (Prompt("a fox"),)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "at least one prompt"),
        ("# only a comment\n\n", "at least one prompt"),
        ("red heart\n\nred heart\n", "line 3: the prompt 'red heart' is already on line 1"),
        (b"caf\xe9\n", "cannot read"),
        ('{"prompt": "a"}\nnot json\n', "line 2: expected one JSON object a line"),
        ('{"prompt": "a\u2028b"}\n{"prompt"\n', "line 2"),  # a line separator in a text ends no line
        ('{"prompt": "a"}\n{"prompt": "  "}\n', "line 2: the prompt is empty"),
        ('{"prompt": "a"}\n{"text": "b"}\n', 'line 2: expected an object with a text "prompt"'),
        ('{"prompt": 3}\n', 'line 1: expected an object with a text "prompt"'),
        (
            '{"prompt": "a", "paraphrase": ["b"]}\n',
            "line 1: expected only category, concept, paraphrases, prompt, got paraphrase",
        ),
        ('{"prompt": "a", "paraphrases": "b"}\n', "line 1: expected .paraphrases. to be a list"),
        ('{"prompt": "a", "paraphrases": [" "]}\n', "line 1: expected .paraphrases. to be a list of non-empty"),
        ('{"prompt": "a", "concept": 1}\n', 'line 1: expected "concept" to be a text'),
        ('{"prompt": "\\ud800"}\n', "line 1: expected Unicode text"),
        ('{"prompt": ' + "9" * 5000 + "}\n", "line 1: .* a number of too many digits"),
        ('{"prompt": "a"}\n' + "[" * 100_000 + "\n", "line 2: .* brackets nested too deeply"),
        ('{"prompt": "a", "paraphrases": ' + "[" * 100_000 + "]" * 100_000 + "}\n", "line 1: .* nested too deeply"),
        ('{"prompt": "a", "prompt": "b"}\n', "line 1: expected every name once, got 'prompt' twice"),
    ],
)
def test_bad_files_are_refused_in_one_line(content, said, file):
    with pytest.raises(DivlensError, match=said) as caught:
        read_prompts(file(content))
    assert "\n" not in str(caught.value)


def test_a_jsonl_file_without_any_object_is_not_taken_for_text(file):
    with pytest.raises(DivlensError, match="line 1: expected an object"):
        read_prompts(file('"a fox"\n', "p.jsonl"))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(DivlensError, match=r"prompt file not found: .*none\.txt"):
        read_prompts(tmp_path / "none.txt")
    with pytest.raises(DivlensError, match="cannot read the prompt file"):
        read_prompts(tmp_path)


def test_prompts_are_made_from_texts_and_must_differ():
    fox = Prompt("a fox", concept="fox")
    assert as_prompts(["a cat", fox]) == (Prompt("a cat"), fox)
    with pytest.raises(DivlensError, match="at least one prompt"):
        as_prompts([])
    for one in ("a fox", fox, None):
        with pytest.raises(DivlensError, match="expected a list of prompts, got "):
            as_prompts(one)  # type: ignore[arg-type]
    assert len(as_prompts(["a fox", "a cat", fox])) == 3
    assert distinct_prompts(["a cat", fox]) == (Prompt("a cat"), fox)
    with pytest.raises(DivlensError, match="different prompts, got 'a fox' 2 times"):
        distinct_prompts(["a fox", "a cat", fox])


@pytest.mark.parametrize(
    ("text", "paraphrases"), [(5, ()), (None, ()), ("a fox", "a dog"), ("a fox", (1,)), ("a", ["b"])]
)
def test_what_is_no_text_is_refused(text, paraphrases):
    with pytest.raises(DivlensError, match=r"expects? a (tuple of )?text"):
        Prompt(text, paraphrases)
    with pytest.raises(DivlensError, match="the concept of 'a fox' expects a text, got 5"):
        Prompt("a fox", concept=5)  # type: ignore[arg-type]


def test_half_a_surrogate_pair_is_no_text():
    """What Python makes of bytes on the command line that are not UTF-8."""
    for make in (
        lambda text: Prompt(text),
        lambda text: Prompt("a fox", ("a red fox", text)),
        lambda text: Prompt("a fox", concept=text),
    ):
        with pytest.raises(DivlensError, match=r"expects Unicode text \(UTF-8\), got 'fox \\udcff'"):
            make("fox \udcff")
        assert make("fox \U0001f98a")  # the control: a whole pair is a character


# The set that ships


def test_the_default_set_is_24_prompts_of_different_known_concepts():
    prompts = default_prompts()
    assert len(prompts) == 24
    assert {prompt.concept for prompt in prompts} <= set(concepts())
    assert len({prompt.concept for prompt in prompts}) == 24


def test_however_few_of_the_default_set_are_of_mixed_detail_and_leave_something_open():
    named = [len(read(prompt.text).named) for prompt in default_prompts()]
    assert named[::2] == [1] * 12  # bare names
    assert all(2 <= count < len(NAMING) for count in named[1::2])
    for attribute in NAMING:
        assert any(attribute in read(prompt.text).named for prompt in default_prompts()[:12])


@pytest.mark.parametrize("prompt", default_prompts(), ids=lambda prompt: prompt.text)
def test_the_paraphrases_of_the_default_set_keep_the_name_and_mix_lengths(prompt):
    assert len(prompt.paraphrases) >= 8
    assert len(wordings_of(prompt)) == len(prompt.paraphrases) + 1  # no repeats
    lengths = [length(wording) for wording in prompt.paraphrases]
    assert max(lengths) - min(lengths) >= 6
    for wording in prompt.paraphrases:
        assert read(wording) == read(prompt.text)
        assert len(split_words(wording)) <= WORDS
        assert wording == wording.lower() and wording.isascii()
