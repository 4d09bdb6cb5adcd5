"""The law of EmojiScenes against enumeration, of all scenes and of labs so small that every set of prompts is."""

import itertools
import math

import numpy as np
import pytest

from divlens.errors import DivlensError
from divlens.lab.attributes import ATTRIBUTES, BACKGROUND, CONCEPT, PLACE, SIZE, STYLE
from divlens.lab.captions import NAMING, draw_captions
from divlens.lab.law import Law, entropy_of, plane, training_scenes
from divlens.lab.meanings import Meaning
from divlens.lab.reading import read
from divlens.lab.scenes import COUNT, all_scenes, held_out, scenes_of

TINY = (2, 3, 2)
EXACT = 1e-9  # float64 sums of at most 110,592 terms, each with an error of 1e-16


def enumerated(law):
    """p(a|x) of every prompt and scene, by looking at each scene."""
    rows = []
    for meaning in law.meanings:
        fits = np.array(
            [
                all(v is None or v == a for v, a in zip(meaning.values, scene, strict=True))
                and (law.possible is None or law.possible[scene])
                for scene in itertools.product(*map(range, law.sizes))
            ]
        )
        rows.append(fits / fits.sum())
    return np.array(rows)


def entropy(p):
    return -sum(x * math.log2(x) for x in p if x > 0)


def tiny_meanings():
    return [Meaning(values, TINY) for values in itertools.product((None, 0, 1), (None, 0, 1, 2), (None, 0, 1))]


def cut(meaning):
    return tuple(slice(None) if value is None else value for value in meaning.values)


@pytest.mark.parametrize("limited", [False, True])
def test_tiny_labs_by_brute_force(limited):
    generator = np.random.default_rng(0)
    for _ in range(20):
        possible = generator.random(TINY) < 0.7 if limited else None
        meanings = [meaning for meaning in tiny_meanings() if possible is None or possible[cut(meaning)].any()]
        chosen = generator.choice(len(meanings), size=generator.integers(1, 7), replace=False)
        weights = generator.dirichlet(np.ones(len(chosen)))
        law = Law(tuple(meanings[i] for i in chosen), tuple(weights), possible)
        table = enumerated(law)
        mixture = weights @ table
        given = sum(w * entropy(row) for w, row in zip(weights, table, strict=True))
        assert law.entropy() == pytest.approx(entropy(mixture), abs=EXACT)
        assert law.conditional_entropy() == pytest.approx(given, abs=EXACT)
        assert law.information() == pytest.approx(entropy(mixture) - given, abs=EXACT)
        scenes = np.array(list(itertools.product(*map(range, TINY))))
        assert law.probability(scenes) == pytest.approx(mixture, abs=EXACT)
        labels = generator.integers(0, 2, len(chosen))
        about = entropy(mixture)
        for label in set(labels):
            share = weights[labels == label].sum()
            about -= share * entropy(weights[labels == label] @ table[labels == label] / share)
        assert law.information_about(list(labels)) == pytest.approx(about, abs=EXACT)


def test_some_attributes_alone_are_the_sums_over_the_others():
    generator = np.random.default_rng(1)
    law = Law(tuple(tiny_meanings()), tuple(generator.dirichlet(np.ones(36))))
    table = enumerated(law).reshape(36, *TINY)
    for attributes, others in (((0,), (2, 3)), ((1,), (1, 3)), ((0, 2), (2,)), ((0, 1, 2), ())):
        rows = table.sum(others).reshape(36, -1)
        wanted = entropy(law.weights @ rows) - sum(w * entropy(r) for w, r in zip(law.weights, rows, strict=True))
        assert law.over(*attributes).information() == pytest.approx(wanted, abs=EXACT)
    assert law.over(0).information() < law.over(0, 1).information() < law.information()


def some_captions(count):
    generator = np.random.default_rng(2)
    return [read(c) for c in draw_captions(scenes_of(generator.integers(0, COUNT, count)), generator)]


@pytest.mark.parametrize("limited", [False, True])
def test_the_lab_by_enumeration_of_all_its_scenes(limited):
    meanings = some_captions(24)
    weights = np.random.default_rng(3).dirichlet(np.ones(24))
    scenes, possible = all_scenes(), training_scenes() if limited else None
    allowed = ~held_out(scenes) if limited else np.ones(COUNT, bool)
    law = Law(tuple(meanings), tuple(weights), possible)
    mixture, given = np.zeros(COUNT), 0.0
    for meaning, weight in zip(meanings, weights, strict=True):
        fits = allowed & np.all([scenes[:, i] == meaning.values[i] for i in meaning.named], axis=0)
        mixture += weight * fits / fits.sum()
        given += weight * np.log2(fits.sum())
    assert law.probability(scenes) == pytest.approx(mixture, abs=EXACT)
    assert law.probability(scenes).sum() == pytest.approx(1, abs=EXACT)
    assert law.conditional_entropy() == pytest.approx(given, abs=EXACT)
    assert law.information() == pytest.approx(entropy_of(mixture) - given, abs=EXACT)


def test_closed_forms():
    concepts = Law.uniform([Meaning.of(concept=name) for name in ATTRIBUTES[CONCEPT].values])
    assert concepts.information() == pytest.approx(6, abs=EXACT)
    assert concepts.conditional_entropy() == pytest.approx(np.log2(6 * 8 * 2 * 9 * 2), abs=EXACT)
    assert concepts.entropy() == pytest.approx(np.log2(COUNT), abs=EXACT)
    colours = Law.uniform([Meaning.of(concept="apple", background=b) for b in ATTRIBUTES[BACKGROUND].values])
    assert colours.information() == pytest.approx(3, abs=EXACT)
    assert colours.over(BACKGROUND).information() == pytest.approx(3, abs=EXACT)
    assert colours.over(CONCEPT).information() == pytest.approx(0, abs=EXACT)
    everything = Law.uniform([Meaning((None,) * 6)])
    assert (everything.entropy(), everything.information()) == pytest.approx((np.log2(COUNT), 0), abs=EXACT)
    # A concept, or one of its two sizes: p is 3/4, 1/4 of it by the wider prompt, on the half that both allow.
    nested = Law.uniform([Meaning.of(concept="apple"), Meaning.of(concept="apple", size="small")])
    assert nested.information() == pytest.approx(entropy_of(np.array([0.75, 0.25])) - 0.5, abs=EXACT)


def test_captions_of_uniform_scenes_leave_scenes_uniform():
    """Over all that a caption may say, weighted as it says it: p(A) is uniform, I(X;A) is the sum of what is named."""
    apples, weights = [], []
    for named in itertools.product((False, True), repeat=4):
        attributes = [a for a, flag in zip((STYLE, BACKGROUND, SIZE, PLACE), named, strict=True) if flag]
        chance = math.prod(NAMING[a] if a in attributes else 1 - NAMING[a] for a in (STYLE, BACKGROUND, SIZE, PLACE))
        for values in itertools.product(*(range(len(ATTRIBUTES[a])) for a in attributes)):
            meaning = Meaning.of(concept="apple")
            for attribute, value in zip(attributes, values, strict=True):
                meaning = meaning.saying(attribute, value)
            apples.append(meaning)
            weights.append(chance / math.prod(len(ATTRIBUTES[a]) for a in attributes))
    law = Law(tuple(apples), tuple(weights))
    wanted = sum(NAMING[a] * np.log2(len(ATTRIBUTES[a])) for a in (STYLE, BACKGROUND, SIZE, PLACE))
    assert law.information() == pytest.approx(wanted, abs=EXACT)
    assert law.over(PLACE).information() == pytest.approx(NAMING[PLACE] * np.log2(9), abs=EXACT)


def test_the_plane_of_wordings():
    """Two wordings of each concept: they carry one bit that no picture shows."""
    meanings = [Meaning.of(concept=name) for name in ("apple", "bus", "cat", "dog") for _ in range(2)]
    found = plane(Law.uniform(meanings), [meaning.word(CONCEPT) for meaning in meanings])
    assert (found.prompt, found.meaning, found.through, found.target, found.about) == pytest.approx((3, 2, 2, 2, 2))
    # With details the wordings say more of the picture than the concept is.
    detailed = [m.saying(SIZE, turn % 2) for turn, m in enumerate(meanings)]
    found = plane(Law.uniform(detailed), [meaning.word(CONCEPT) for meaning in detailed])
    assert (found.meaning, found.through, found.about) == pytest.approx((3, 3, 2))
    assert found.conditional == pytest.approx(np.log2(6 * 8 * 9 * 2))


def test_the_law_of_training_is_near_and_how_near_is_known():
    concept = Meaning.of(concept="apple")
    law = Law.uniform([concept], training_scenes())
    shown = ~held_out(all_scenes())
    count = (shown & (all_scenes()[:, CONCEPT] == concept.values[CONCEPT])).sum()
    assert law.lost() == pytest.approx([np.log2(1728 / count)], abs=EXACT)
    assert 0.2 < law.lost()[0] < 0.6
    assert Law.uniform([concept]).lost() == pytest.approx([0], abs=EXACT)
    with pytest.raises(DivlensError, match="expected prompts that some possible scene agrees with"):
        Law.uniform([Meaning((3, 0, None, None, None, None))], training_scenes())


def test_laws_say_what_they_expect():
    apple = Meaning.of(concept="apple")
    with pytest.raises(DivlensError, match=r"sum to 1, got a sum of 0\.5"):
        Law((apple,), (0.5,))
    with pytest.raises(DivlensError, match="a weight per prompt, got 1 prompts, 2 weights"):
        Law((apple,), (0.5, 0.5))
    with pytest.raises(DivlensError, match="over the same attributes"):
        Law.uniform([apple, Meaning((0, 0, 0), TINY)])
    with pytest.raises(DivlensError, match="a label per prompt, 1, got 2"):
        Law.uniform([apple]).information_about(["a", "b"])
    with pytest.raises(DivlensError, match="expects a law over all scenes"):
        Law.uniform([apple], training_scenes()).over(CONCEPT)
