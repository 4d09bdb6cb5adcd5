"""The text of a prompt is text: special tokens in a wording are refused, and whatever merely looks odd is read."""

from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from divlens.errors import DivlensError
from divlens.models.special_tokens import refuse_special_tokens, special_tokens
from divlens.sampler import sample
from oracles.every_model import made

pytestmark = pytest.mark.usefixtures("one_thread")


SPECIAL = {
    "amused": ["<|endoftext|>", "<|startoftext|>"],
    "vq-diffusion": ["<|endoftext|>", "<|startoftext|>"],
    "janus": ["<image>", "<|image start|>", "<|User|>", "</s>", "<pad>"],
    "emu3": ["<|visual token 000003|>", "<|extra_200|>", "<|image token|>", "<s>"],
    "glm-image": ["<|dit_token_3|>", "<sop>", "<|image|>", "<|user|>", "<|pad|>"],
    # Markup is cleaned away before the text encoder sees it; escaped well enough, it outlives the cleaning.
    "llamagen": ["%25EF%25BC%259Cpad%25EF%25BC%259E"],
}


@pytest.mark.parametrize("name", SPECIAL)
def test_a_special_token_in_a_wording_is_refused_by_name(name):
    model = made(name)
    for token in SPECIAL[name]:
        for wording in (f"red {token} heart", f"red heart{token}", token):
            with pytest.raises(DivlensError, match="expects a text, got the special token '<") as error:
                model.encode(["blue", wording])
            assert "\n" not in str(error.value)
            assert name == "llamagen" or repr(token) in str(error.value)


@pytest.mark.parametrize("name", SPECIAL)
def test_what_merely_looks_odd_is_read(name):
    """Signs, brackets, parts of special tokens, and letters that the tiny vocabularies lack: these become unknown."""
    model = made(name)
    odd = ["<", "heart < arrow", "a <heart>", "<|endof", "image start|>", "[x] heart!", "endoftext", "caf\u00e9 \u2603"]
    assert len(model.encode(odd)) == len(odd)
    # The end of a text that is not there is not read: what follows it in the tokens is the rest of the wording.
    plain, changed = model.encode(["red < heart", "red < cat"])
    assert not plain.equal(changed)


def test_a_wording_is_refused_before_anything_is_drawn():
    with pytest.raises(DivlensError, match=r"got the special token '<image>' in 'red <image> heart'"):
        sample(made("janus"), ["red <image> heart"], n=1)


def words(unknown: str | None = None, **named: Any) -> PreTrainedTokenizerFast:
    vocabulary = {token: i for i, token in enumerate(["<unk>", "red", "heart", "!", "\u00f8"])}
    base = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    base.pre_tokenizer = pre_tokenizers.Whitespace()
    base.add_tokens([AddedToken("\u00f8", special=False), AddedToken("<place>", special=False)])
    return PreTrainedTokenizerFast(tokenizer_object=base, unk_token="<unk>", **named)


def test_added_text_and_the_unknown_are_no_special_tokens():
    tokenizer = words(pad_token="!", eos_token="</s>")
    assert set(special_tokens(tokenizer).values()) == {"<unk>", "</s>", "<place>"}
    refuse_special_tokens("it", tokenizer, ["red \u00f8", "red!", "red sky"])  # a letter, the padding, an unknown word
    for token in ("<unk>", "</s>", "<place>"):
        with pytest.raises(DivlensError, match=f"it expects a text, got the special token '{token}'"):
            refuse_special_tokens("it", tokenizer, ["red heart", f"red {token}"])
