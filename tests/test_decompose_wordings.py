"""What a wording brings: its length, its meaning, and which wordings are crossed."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from divlens.decompose import decompose
from divlens.errors import DivlensError
from divlens.experiment.design import filled_up
from divlens.interventions import Paraphrase
from divlens.models import load
from divlens.models.toy import ToyModel
from divlens.types import Prompt
from oracles.crossed_designs import MIXED, colours, features_by_hand

FAMILIES = ("toy/ar", "toy/mim", "toy/diffusion")


@dataclass(frozen=True)
class OnlyLength(ToyModel):
    """Reads how many words there are, and nothing else."""

    def encode(self, wordings):
        return super().encode([f"w{len(wording.split())}" for wording in wordings])


@dataclass(frozen=True)
class OnlyWords(ToyModel):
    """Takes no notice of the words that fill up."""

    def encode(self, wordings):
        kept = [[word for word in wording.split() if word not in ("image", "picture")] for wording in wordings]
        return super().encode([" ".join(sorted(words)) for words in kept])


def toy_of(kind):
    plain = load("toy/mim")
    assert isinstance(plain, ToyModel)
    return kind(plain.family, plain.rule)


@pytest.mark.parametrize(
    ("kind", "own", "other"), [(OnlyLength, "length", "meaning"), (OnlyWords, "meaning", "length")]
)
def test_the_wording_is_length_or_meaning_where_the_model_reads_only_that(kind, own, other):
    arguments: dict[str, Any] = dict(wordings=4, paths=2, executions=2, seed=2, features=colours)
    result = decompose(toy_of(kind), MIXED, **arguments, length_control=True)
    plain = decompose(toy_of(kind), MIXED, **arguments)
    assert result.sources[:2] == ("wording.meaning", "wording.length")
    assert result.column(f"wording.{other}") == pytest.approx(0, abs=1e-12)
    assert result.column(f"wording.{own}") == pytest.approx(plain.column("wording"), abs=1e-12)
    assert (abs(plain.column("wording")) > 1e-3).any()


def test_length_control_splits_the_wording_and_changes_nothing_else():
    seen = []
    plain = decompose("toy/ar", MIXED, 4, 3, 6, seed=1, features=colours)
    split = decompose("toy/ar", MIXED, 4, 3, 6, seed=1, features=colours, length_control=True, on_batch=seen.append)
    assert split.wordings == plain.wordings
    assert split.column("wording") == pytest.approx(plain.column("wording"), abs=1e-12)
    assert split.components[:, 2:] == pytest.approx(plain.components[:, 1:], abs=1e-12)
    assert split.pairwise == pytest.approx(plain.pairwise)
    assert split.table.share.sum() == pytest.approx(1, abs=1e-10)
    assert 2 * 4 * 6 < sum(seen) <= 3 * 2 * 4 * 6
    assert (abs(split.column("wording.length")) > 1e-3).any() and (abs(split.column("wording.meaning")) > 1e-3).any()


def test_length_control_is_the_mean_of_both_orders():
    """By hand, on the fully crossed wordings x lengths that the definition speaks of, from pairwise inner products."""
    prompt, levels = MIXED[0], (5, 2, 2)
    result = decompose("toy/mim", [prompt], *levels, seed=3, features=colours, length_control=True)
    pool = (prompt.text, *prompt.paraphrases)
    assert result.wordings == (pool,)
    longest = max(pool, key=lambda text: len(text.split()))

    def at_length_of(text, other):
        return filled_up(text, len(other.split()), lambda filled: len(filled.split()))

    def drawn(texts):
        return features_by_hand(load("toy/mim"), prompt, texts, levels, 3, colours)

    own = drawn(pool)
    same_words = drawn([at_length_of("love", text) for text in pool])
    same_length = drawn([at_length_of(text, longest) for text in pool])

    def in_common(one, other):
        """E<f_w, f'_w> of two series: pairs that share the wording and nothing else, less those that share nothing."""
        found = {True: [], False: []}
        for i, j in itertools.product(itertools.product(*map(range, levels)), repeat=2):
            if i[1] != j[1] and i[2] != j[2]:
                found[i[0] == j[0]].append(float(one[i] @ other[j]))
        return np.mean(found[True]) - np.mean(found[False])

    length_first = in_common(own, same_words)
    words_first = in_common(own, own) - in_common(own, same_length)
    assert result.column("wording.length")[0] == pytest.approx(length_first + words_first, abs=1e-10)
    assert length_first != pytest.approx(words_first, abs=1e-3)  # the control: the orders do differ


def test_filling_up_is_by_words_and_never_cuts():
    def words(text):
        return len(text.split())

    assert filled_up("red heart", 5, words) == "red heart image picture image"
    assert filled_up("red heart", 2, words) == filled_up("red heart", 1, words) == "red heart"
    with pytest.raises(DivlensError, match="grows with the words"):
        filled_up("red heart", 5, lambda text: 2)


@dataclass(frozen=True)
class Tokenised(ToyModel):
    """Tells the length of a wording in tokens of its own: letters."""

    limit: int = 1000

    def lengths(self, wordings):
        return [len(wording) for wording in wordings]


def test_length_is_in_tokens_where_the_model_tells_them():
    seen = []
    model = toy_of(Tokenised)
    prompt = Prompt("aa", ("bbbbbbbb",))  # as many words, but not as many letters
    decompose(model, [prompt], 2, 1, 2, features=colours, length_control=True, on_batch=seen.append)
    assert sum(seen) == 3 * 2  # one text more: "aa image"
    seen.clear()
    decompose("toy/mim", [prompt], 2, 1, 2, features=colours, length_control=True, on_batch=seen.append)
    assert sum(seen) == 2 * 2


def test_a_cut_wording_is_said():
    model = Tokenised("mim", load("toy/mim").rule, limit=12)
    cut = decompose(model, MIXED, 5, 2, 2, features=colours)
    assert " ".join(cut.blocks[0].lines).count("cut from") == len(cut.wording_notes) == 4
    whole = decompose(toy_of(Tokenised), MIXED, 5, 2, 2, features=colours)
    assert not any("cut from" in note for note in whole.blocks[0].lines) and not whole.wording_notes


def test_wordings_are_a_choice_by_seed_and_prompt():
    chosen = [decompose("toy/ar", MIXED, 3, 1, 2, seed, features=colours).wordings for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    for prompt, wordings in zip(MIXED, chosen[0], strict=True):
        assert len(set(wordings)) == 3 and set(wordings) <= {prompt.text, *prompt.paraphrases}
    alone = decompose("toy/mim", MIXED[1:], 3, 1, 2, features=colours)
    assert alone.wordings[0] == chosen[0][1]  # whatever the model and the other prompts


def test_paraphrase_says_which_wordings_there_are():
    result = decompose("toy/ar", MIXED[:1], 2, 1, 2, features=colours, interventions=[Paraphrase(2, "mixed")])
    assert result.wordings == (("love", "the heart of a person in love"),)
