"""Generators whose faults are known, held against the law of scenes through a judge that errs."""

import math

import numpy as np
import pytest

from divlens.errors import DivlensError
from divlens.lab.attributes import ATTRIBUTES, BACKGROUND, CONCEPT, MIRROR, PLACE, SIZE, STYLE, sizes_of
from divlens.lab.bars import BARS, table_rows
from divlens.lab.captions import NAMING
from divlens.lab.evaluation import (
    Figure,
    drawn_from_law,
    near_copies,
    nearest,
    never_shown,
    openness,
    respect,
    total_variation,
)
from divlens.lab.meanings import Meaning
from divlens.lab.scenes import all_scenes, held_out, whole_pairs
from divlens.statistics import Interval

BARE = [Meaning.of(concept=name) for name in ATTRIBUTES[CONCEPT].values]
RIGHT = {"concept": 0.95, "style": 0.85, "background": 0.98, "size": 0.98, "place": 0.98}  # what a judge must reach
JUDGE = {
    attribute.name: np.full((size, size), (1 - RIGHT[attribute.name]) / (size - 1))
    + (RIGHT[attribute.name] - (1 - RIGHT[attribute.name]) / (size - 1)) * np.eye(size)
    for attribute, size in zip(ATTRIBUTES[:MIRROR], sizes_of(), strict=False)
}
JUDGE["style"][0] = [0.6, 0.4, 0, 0, 0, 0]  # one style is taken for another, and not the other way round


def held_out_pairs(count, seed=0):
    """Prompts that name everything but the mirror, of pairs of concept and style that were never shown."""
    generator = np.random.default_rng(seed)
    pairs = whole_pairs()
    rows = [(*pairs[i % len(pairs)], *generator.integers([8, 2, 9])) for i in range(count)]
    return [Meaning((*map(int, row), None)) for row in rows]


def read_by_judge(scenes, seed):
    """What a judge with the confusions of `JUDGE` reads."""
    generator, readings = np.random.default_rng(seed), scenes.copy()
    for attribute in NAMING:
        steps = JUDGE[ATTRIBUTES[attribute].name].cumsum(1)[scenes[..., attribute]]
        drawn = (generator.random(scenes.shape[:2])[..., None] > steps).sum(-1)
        readings[..., attribute] = np.minimum(drawn, len(ATTRIBUTES[attribute]) - 1)
    return readings


def the_law(meanings, n, generator):
    return drawn_from_law(meanings, n, generator)


def always_one_style(meanings, n, generator):
    """Where the prompt leaves it open."""
    scenes = drawn_from_law(meanings, n, generator)
    scenes[[STYLE not in meaning.named for meaning in meanings], :, STYLE] = 2
    return scenes


def deaf_to_the_background(meanings, n, generator):
    return drawn_from_law([meaning.saying(BACKGROUND, None) for meaning in meanings], n, generator)


def copies_two_scenes_of_each_concept(meanings, n, generator):
    seen = np.random.default_rng(5).permutation(all_scenes()[~held_out(all_scenes())])
    learned = np.stack([seen[seen[:, CONCEPT] == m.values[CONCEPT]][:2] for m in meanings])
    chosen = generator.integers(2, size=(len(meanings), n))
    return learned[np.arange(len(meanings))[:, None], chosen]


def attributes_that_differ(scenes, others):
    """How many, float (n, others)."""
    tables = [np.eye(max(sizes_of()), dtype=np.float32)[part].reshape(len(part), -1) for part in (scenes, others)]
    return len(ATTRIBUTES) - tables[0] @ tables[1].T


def figures_of(generator_of_scenes, seed=0):
    generator = np.random.default_rng(seed)
    named = held_out_pairs(64)
    asked, bare = (read_by_judge(generator_of_scenes(m, 16, generator), seed) for m in (named, BARE))
    real = drawn_from_law(held_out_pairs(200, seed=1), 1, generator)[:, 0]
    copies = near_copies(
        generator_of_scenes(named[:16], 8, generator),
        real,
        all_scenes()[~held_out(all_scenes())],
        attributes_that_differ,
    )
    found = [*respect(named, asked), *openness(BARE, bare, JUDGE), *total_variation(BARE, bare, JUDGE), *copies]
    return {figure.name: figure for figure in found}


COPIER = {
    *(f"respect of {name}" for name in ("background", "size", "place")),
    *(f"openness of {name}" for name in ("style", "background", "place")),
}


@pytest.mark.parametrize(
    ("generator", "fails"),
    [
        (the_law, set()),
        (always_one_style, {"openness of style"}),
        (deaf_to_the_background, {"respect of background"}),
        (copies_two_scenes_of_each_concept, COPIER),
    ],
)
def test_the_law_passes_every_bar_and_each_fault_fails_its_own(generator, fails):
    figures = figures_of(generator)
    rows = table_rows(list(figures.values()))
    assert {row.figure.name for row in rows if row.passed is False} == fails
    assert {row.bar for row in rows if row.bar} == set(BARS)
    for row in rows:
        if row.bar:  # none by chance
            interval = row.figure.interval
            assert (interval.low >= row.bar.least) if row.passed else (interval.high < row.bar.least)
    copies, null = (figures[name].interval for name in ("near copies", "near copies, real pictures"))
    assert (copies.low > null.high) == (generator is copies_two_scenes_of_each_concept)
    distances = {name: figures[f"total variation of {name}"].interval for name in ("style", "background", "place")}
    far = {name for name, distance in distances.items() if distance.low > 0.1}
    assert far == ({"style"} if generator is always_one_style else set())


def test_every_figure_has_an_interval_or_says_why_not():
    figures = figures_of(the_law)
    assert len(figures) == 3 * len(NAMING) + 2
    for figure in figures.values():
        known = [not math.isnan(x) for x in (figure.interval.value, figure.interval.low, figure.interval.high)]
        assert all(known) or figure.note
    assert figures["openness of concept"].note == "no prompt leaves the concept open"
    assert math.isnan(figures["openness of concept"].interval.value)
    (alone, *_) = respect(BARE[:1], drawn_from_law(BARE[:1], 4, np.random.default_rng(0)))
    assert (alone.interval.value, alone.note) == (1, "one prompt has no interval")


def test_respect_counts_what_is_named_and_nothing_else():
    meanings = [Meaning.of(concept="apple", place="top"), Meaning.of(concept="bus")]
    readings = drawn_from_law(meanings, 4, np.random.default_rng(0))
    readings[0, :, PLACE] = [1, 1, 1, 2]
    readings[1, :2, CONCEPT] = 0
    found = {figure.name: figure for figure in respect(meanings, readings)}
    assert (found["respect of concept"].interval.value, found["respect of concept"].note) == (0.75, "")
    place = found["respect of place"]
    assert (place.interval.value, place.note) == (0.75, "one prompt has no interval")
    assert found["respect of style"].note == "no prompt names the style"


def test_openness_asks_only_prompts_that_leave_it_open():
    """Half of the prompts name the size; the others draw one size three times in four."""
    meanings = [m.saying(SIZE, 0) if x % 2 else m for x, m in enumerate(BARE)]
    readings = drawn_from_law(meanings, 4000, np.random.default_rng(0))
    readings[::2, :, SIZE] = np.arange(4000) % 4 == 0
    found = {figure.name: figure.interval for figure in openness(meanings, readings)}
    exactly = -0.25 * np.log2(0.25) - 0.75 * np.log2(0.75)  # the correction takes the shares for those of a sample
    assert found["openness of size"].value == pytest.approx(exactly + 1 / (2 * 4000 * np.log(2)), abs=1e-6)
    assert found["openness of place"].value == pytest.approx(1, abs=1e-4)  # each of 64 errs by 1e-4


def test_openness_is_corrected_for_a_judge_that_errs():
    """Four styles of six are never drawn; the judge reads them nevertheless."""
    scenes = drawn_from_law(BARE, 64, np.random.default_rng(1))
    scenes[..., STYLE] = 2 + scenes[..., STYLE] % 2  # of those it misreads evenly
    readings = read_by_judge(scenes, seed=2)
    wanted = 1 / np.log2(6)
    style = [f.interval for f in (*openness(BARE, readings, JUDGE), *openness(BARE, readings)) if "style" in f.name]
    assert abs(style[0].value - wanted) < 0.05 < 0.15 < style[1].value - wanted


def test_total_variation_beside_its_floor():
    """Half as many pictures at the center: 1/18 of them are elsewhere. Real pictures say how little is noise."""
    generator = np.random.default_rng(3)
    floor, drawn = (drawn_from_law(BARE, 64, generator) for _ in range(2))
    at_center = (drawn[..., PLACE] == 4) & (generator.random(drawn.shape[:2]) < 0.5)
    drawn[at_center, PLACE] = 8
    found, of_real = (
        {f.name: f.interval for f in total_variation(BARE, read_by_judge(scenes, seed=4), JUDGE)}
        for scenes in (drawn, floor)
    )
    name = "total variation of place"
    assert found[name].low < 1 / 18 < found[name].high
    assert of_real[name].low <= 0 and of_real[name].value < found[name].low
    assert found["total variation of background"].low <= 0


def test_total_variation_is_corrected_for_a_judge_that_errs():
    """Real pictures differ from their law only if the judge is taken at its word."""
    readings = read_by_judge(drawn_from_law(BARE, 64, np.random.default_rng(7)), seed=8)
    corrected, plain = (total_variation(BARE, readings, confusions)[1] for confusions in (JUDGE, None))
    assert corrected.name == plain.name == "total variation of style"
    assert corrected.interval.low <= 0
    truly_read = JUDGE["style"].mean(0)
    assert 0 < plain.interval.low < np.abs(truly_read - 1 / 6).sum() / 2 < plain.interval.high


def test_what_is_undefined_says_why():
    readings = drawn_from_law(BARE, 1, np.random.default_rng(0))
    assert openness(BARE, readings)[1].note == "an entropy needs two pictures of a prompt"
    assert total_variation(BARE[:5], readings[:5])[1].note == "fewer than 6 prompts"
    blind = {**JUDGE, "style": np.full((6, 6), 1 / 6)}
    for figures in (openness(BARE, readings, blind), total_variation(BARE, readings, blind)):
        assert math.isnan(figures[1].interval.value)
        assert figures[1].note == "the judge does not tell every style from the others"


def test_what_does_not_fit_is_refused():
    readings = drawn_from_law(BARE, 2, np.random.default_rng(0))
    with pytest.raises(DivlensError, match=r"readings expect 63 prompts, .* got the shape \(64, 2, 6\)"):
        respect(BARE[1:], readings)
    with pytest.raises(DivlensError, match="readings of size expect 0 to 1, got 0 to 2"):
        respect(BARE, np.where(np.arange(6) == SIZE, np.arange(2)[None, :, None] * 2, readings))
    with pytest.raises(DivlensError, match=r"a confusion of style, 6 by 6, got \(5, 5\)"):
        openness(BARE, readings, {**JUDGE, "style": np.eye(5)})
    with pytest.raises(DivlensError, match="a confusion of concept, 64 by 64, got none"):
        total_variation(BARE, readings, {})


def test_prompts_that_were_never_shown_by_looking_at_every_scene():
    meanings = [*BARE[:4], *held_out_pairs(4), *(Meaning((*map(int, s[:MIRROR]), None)) for s in all_scenes()[:400:2])]
    scenes = all_scenes()
    away = held_out(scenes)
    wanted = [bool(away[np.all([scenes[:, i] == m.values[i] for i in m.named], axis=0)].all()) for m in meanings]
    found = never_shown(meanings)
    assert found.tolist() == wanted
    assert 4 < found.sum() < 100


def points_apart(points, others):
    return np.abs(points[:, None, 0] - others[None, :, 0])


def test_near_copies_by_their_null():
    """Pictures are numbers, training is whole ones; real pictures are anywhere between, drawn ones may stick."""
    generator = np.random.default_rng(6)
    training, real = np.arange(50.0)[:, None], generator.uniform(0, 49, (4000, 1))
    assert nearest(np.array([[2.25], [7.5]]), training, points_apart).tolist() == [0.25, 0.5]
    drawn = generator.uniform(0, 49, (100, 20, 1))
    drawn[:, :5] = drawn[:, :5].round()
    copies, null = near_copies(drawn, real, training, points_apart)
    # A quarter sticks. Of others the first half's quantile, 1%, has a relative error of 1 / sqrt(20).
    assert copies.interval.value == pytest.approx(0.25 + 0.75 * 0.01, abs=0.75 * 0.01)
    assert null.interval.value == pytest.approx(0.01, abs=4 * 0.01 * math.sqrt(2 / 20))
    assert null.interval.low < 0.01 < null.interval.high
    assert copies.interval.low > null.interval.high
    faithful, _ = near_copies(generator.uniform(0, 49, (100, 20, 1)), real, training, points_apart)
    assert faithful.interval.high < 0.03


def test_near_copies_without_a_null_are_undefined():
    real, training = np.linspace(0.1, 48.9, 300)[:, None], np.arange(50.0)[:, None]
    drawn = real[:20].reshape(4, 5, 1)
    assert not math.isnan(near_copies(drawn, real, training, points_apart)[0].interval.value)
    few = near_copies(drawn, real[:199], training, points_apart)
    same = near_copies(drawn, real.round(), training, points_apart)
    for figures, note in ((few, "got 199 and 50"), (same, "1% of the real pictures are training pictures")):
        assert all(math.isnan(figure.interval.value) and note in figure.note for figure in figures)


def test_rows_of_the_table():
    passing, failing, free = (
        Figure(name, Interval(value, value - 0.01, value + 0.01))
        for name, value in (("respect of size", 0.9), ("respect of place", 0.89), ("respect of style", 0.2))
    )
    rows = {row.figure.name: row for row in table_rows([passing, failing, free])}
    assert (rows["respect of size"].passed, rows["respect of place"].passed) == (True, False)
    assert (rows["respect of style"].bar, rows["respect of style"].passed) == (None, None)
    assert (rows["openness of place"].passed, rows["openness of place"].figure.note) == (False, "not measured")
    assert len(rows) == len(BARS) + 1
    with pytest.raises(DivlensError, match="one figure of each name"):
        table_rows([passing, passing])
