"""`decompose` on the toys: against pairwise distances, an independent simulation of the samplers, and model limits."""

import gc
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from divlens.decompose import Decomposition, decompose
from divlens.diversity import load_network
from divlens.diversity.anova import CrossedSums, sources_of
from divlens.experiment.design import FACTORS, Levels, filled_up
from divlens.interventions import Argmax, DisableTop, Freeze, Paraphrase, Subset, Temperature
from divlens.models import load
from divlens.models.toy import CODES, POSITIONS, ToyModel
from divlens.report.tables import decomposition_table
from divlens.run import Reading, Row, fill
from divlens.statistics import ratio_of_means
from divlens.types import DivlensError, Prompt
from oracles.screen import printed
from oracles.toy_grids import MASK, STATES, chances, posterior

FAMILIES = ("toy/ar", "toy/mim", "toy/diffusion")
PROMPTS = ("red heart", "a cat", "blue sky over the sea")
SOURCES = [":".join(FACTORS[f] for f in source) for source in sources_of(range(3))[1:]]
COLUMNS = ["source", "component", "low", "high", "share", "share_low", "share_high"]


def colours(images):
    """The toy's tokens as one-hot vectors: two pictures are 2 apart for each position that differs."""
    return images[:, :, 16, 16::32].flatten(1).double()


def by_source(result):
    return dict(zip(result.sources, result.components.mean(0), strict=True))


def components_by_pairs(features):
    """From the features of a whole design (wordings, paths, executions, d), by the definition."""
    levels = features.shape[:3]
    apart: dict[tuple[int, ...], list[float]] = {(0, 1, 2): [0.0]}
    for i, j in itertools.combinations(itertools.product(*map(range, levels)), 2):
        shared = tuple(f for f in range(3) if i[f] == j[f])
        apart.setdefault(shared, []).append(float((features[i] - features[j]).square().sum()))
    mean = {shared: np.mean(distances) for shared, distances in apart.items()}
    return [
        sum(-((-1) ** (len(source) - len(part))) * mean[part] for part in sources_of(source))
        for source in sources_of(range(3))[1:]
    ]


def features_by_hand(model, prompt, wordings, levels, seed, features, interventions=()):
    """Every picture of a prompt's design, drawn with the sampler."""
    reading = Reading(model, 7)
    noise = list(itertools.product(range(levels[1]), range(levels[2])))
    rows = [Row(prompt, wording, path, execution) for wording in wordings for path, execution in noise]
    tokens = [filled.tokens for filled in fill(reading.run(rows, reading.settings(interventions), seed))]
    with torch.inference_mode():
        return torch.cat([features(model.decode(some)) for some in tokens]).double().view(*levels, -1)


# What it is


@pytest.mark.parametrize("family", ["toy/mim", "toy/diffusion"])
@pytest.mark.parametrize("interventions", [(), (Temperature(0.5), DisableTop(0.4))])
def test_components_are_those_of_the_pairwise_distances(family, interventions):
    result = decompose(family, PROMPTS, 3, 2, 3, seed=5, features=colours, interventions=interventions)
    swapped = []
    for prompt, wordings, found in zip(result.prompts, result.wordings, result.components, strict=True):
        drawn = features_by_hand(load(family), prompt, wordings, (3, 2, 3), 5, colours, interventions)
        assert found == pytest.approx(components_by_pairs(drawn), abs=1e-10)
        swapped.append(components_by_pairs(drawn.transpose(1, 2)))
    assert result.components != pytest.approx(np.array(swapped), abs=1e-3)  # the control: path taken for execution


def test_lpips_is_the_default_feature():
    network = load_network()
    result = decompose("toy/mim", ["red heart"], 2, 2, 2, seed=1)
    drawn = features_by_hand(load("toy/mim"), result.prompts[0], result.wordings[0], (2, 2, 2), 1, network)
    # Float32 features, computed in other batches: 1e-6 of a distance, and a component is a sum of up to eight.
    scale = float(result.totals[0])
    assert result.components[0] == pytest.approx(components_by_pairs(drawn), abs=1e-4 * scale)
    assert scale > 1e-3
    assert result.pairwise[0] == pytest.approx(mean_distance(drawn), rel=1e-4)


def mean_distance(features):
    flat = features.reshape(-1, features.shape[-1])
    return float(torch.stack([(a - b).square().sum() for a, b in itertools.combinations(flat, 2)]).mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_adds_up(family):
    result = decompose(family, PROMPTS, 3, 3, 2, features=colours)
    table = result.table
    assert list(table.columns) == COLUMNS
    assert list(table.source) == SOURCES
    assert table.share.sum() == pytest.approx(1, abs=1e-10)
    assert table.component.sum() == pytest.approx(result.total.value, rel=1e-10)
    assert result.totals == pytest.approx(result.components.sum(1))
    assert (table.low <= table.component).all() and (table.component <= table.high).all()
    assert (table.share_low <= table.share).all() and (table.share <= table.share_high).all()
    assert table.component.tolist() == pytest.approx(result.components.mean(0).tolist())


def test_a_share_is_a_ratio_of_means():
    result = decompose("toy/mim", PROMPTS, 2, 3, 3, features=colours)
    expected = result.column("execution").mean() / result.totals.mean()
    assert result.share("execution").value == pytest.approx(expected)
    assert np.mean(result.column("execution") / result.totals) != pytest.approx(expected)  # the control
    with pytest.raises(DivlensError, match=r"expected a source among wording, path, .* got 'colour'"):
        result.share("colour")


# The true components, by a simulation that shares nothing with the library but the toy's logits


def outcomes(family, tables, uniform, path):
    """Final grids (wordings, draws, positions) for execution uniforms and path noise, both (draws, steps, positions).

    `tables`: per wording, p(x0 | state) for all states, (states, positions, codes).
    """
    wordings, draws = len(tables), len(uniform)
    state = np.full((wordings, draws, POSITIONS), MASK)
    place = np.array([(CODES + 1) ** 2, CODES + 1, 1])
    which = np.arange(wordings)[:, None]
    where = np.arange(POSITIONS)
    rule = load(family).rule
    for step in range(rule.steps):
        p = tables[which, state @ place]  # (wordings, draws, positions, codes)
        drawn = (p.cumsum(-1) <= uniform[None, :, step, :, None]).sum(-1).clip(max=CODES - 1)
        if family == "toy/ar":
            state = np.where(where == step, drawn, state)
        elif family == "toy/mim":
            chance = np.take_along_axis(p, drawn[..., None], -1)[..., 0]
            gumbel = -np.log(-np.log(path[None, :, step, :, 0]))
            score = np.where(state == MASK, np.log(chance) + (2.0, 1.0, 0.0)[step] * gumbel, -np.inf)
            best = score.argmax(-1)[..., None] == where  # three steps, one more position at each
            state = np.where(best, drawn, state)
        elif step == rule.steps - 1:
            state = drawn
        else:
            state = reversed_step(rule, rule.steps - step, state, drawn, path[None, :, step])
    return state


def reversed_step(rule, time, state, drawn, path):
    """x_{t-1} from Bayes' posterior: first whether the token stays or takes x_0, else which of the other codes."""
    q = np.nan_to_num(posterior(rule, time))
    codes = np.arange(CODES)
    stay, take = q[drawn, state, state], np.where(drawn == state, 0.0, q[drawn, state, drawn])
    others = (codes != drawn[..., None]) & (codes != state[..., None])
    index = np.floor(path[..., 1] * others.sum(-1))[..., None]
    other = (others & (others.cumsum(-1) - 1 == index)).argmax(-1)
    event = path[..., 0]
    return np.where(event < stay, state, np.where(event < stay + take, drawn, other))


def true_components(family, wordings, draws=20_000, seed=0):
    """The mean of each component over the wordings' pairs, and its standard error."""
    model, generator = load(family), np.random.default_rng(seed)
    assert isinstance(model, ToyModel)
    tables = np.array([[chances(model, wording, state) for state in STATES] for wording in wordings])
    steps = model.rule.steps
    uniform = generator.random((2, draws, steps, POSITIONS))
    path = generator.random((2, draws, steps, POSITIONS, 2))
    grids = {(p, e): outcomes(family, tables, uniform[e], path[p]) for p in range(2) for e in range(2)}
    apart = {}
    for shared in sources_of(range(3)):
        one, other = grids[0, 0], grids[int(1 not in shared), int(2 not in shared)]
        pairs = [(i, j) for i in range(len(wordings)) for j in range(len(wordings)) if (i == j) == (0 in shared)]
        apart[shared] = np.mean([2 * (one[i] != other[j]).sum(-1) for i, j in pairs], axis=0)
    found = np.array(
        [
            sum(-((-1) ** (len(source) - len(part))) * apart[part] for part in sources_of(source))
            for source in sources_of(range(3))[1:]
        ]
    )
    return found.mean(1), found.std(1) / math.sqrt(draws)


@pytest.mark.parametrize("family", FAMILIES)
def test_components_are_unbiased_for_the_sampler(family):
    """2 of 3 wordings, 2 paths, 2 executions, against the truth of all three wordings.

    The toys do not read the case of letters, but noise and choice of wordings follow it: 256 spellings of one prompt
    are 256 independent experiments. Seven sources: beyond 4 standard errors once in 2000 seeds; the seeds are fixed.
    """
    wordings = ("red heart", "a cat", "blue sky over the sea")
    letters = [(letter, letter.upper()) if letter != " " else (" ",) for letter in wordings[0]]
    prompts = [Prompt("".join(spelling), wordings[1:]) for spelling in itertools.product(*letters)]
    result = decompose(family, prompts, 2, 2, 2, seed=3, features=colours)
    assert len({tuple(text.lower() for text in texts) for texts in result.wordings}) == 3
    found = result.components
    error = found.std(0, ddof=1) / math.sqrt(len(found))

    def z(truth, its_error):
        difference, combined = np.abs(found.mean(0) - truth), np.hypot(error, its_error)
        return np.where(difference > 1e-12, difference / np.maximum(combined, 1e-12), 0.0)

    truth, its_error = true_components(family, wordings)
    assert z(truth, its_error).max() < 4
    if family == "toy/ar":
        assert truth[[1, 3, 5, 6]] == pytest.approx(0, abs=1e-12)
    else:
        assert truth[1] > 0.02
    one_wording = true_components(family, wordings[:1] * 2)  # the control: no wording's effect
    assert z(*one_wording).max() > 4


# Absent factors


def test_a_raster_has_no_path():
    seen = []
    result = decompose("toy/ar", PROMPTS, 2, 4, 3, features=colours, on_batch=seen.append)
    assert result.levels == Levels(2, 1, 3)
    assert sum(seen) == 3 * 2 * 3  # the paths are not drawn at all
    table = result.table.set_index("source")
    assert (table.loc[[source for source in SOURCES if "path" in source]].to_numpy() == 0).all()
    assert table.loc["execution", "share"] > 0.5
    assert "path: the sampler makes no path draw" in result.note
    other = decompose("toy/mim", PROMPTS, 2, 4, 3, features=colours)  # the control
    assert other.levels == Levels(2, 4, 3) and "path:" not in other.note


@pytest.mark.parametrize("family", ["toy/mim", "toy/diffusion"])
def test_argmax_leaves_no_execution(family):
    result = decompose(family, PROMPTS, 2, 4, 4, features=colours, interventions=[Argmax()])
    assert result.levels == Levels(2, 4, 1)
    shares = dict(zip(result.table.source, result.table.share, strict=True))
    assert {shares[source] for source in SOURCES if "execution" in source} == {0.0}
    assert shares["path"] > 0.1
    assert "execution: tokens are not drawn but chosen" in result.note
    drawn = features_by_hand(load(family), result.prompts[0], result.wordings[0], (2, 4, 2), 0, colours, [Argmax()])
    assert drawn[:, :, 0].equal(drawn[:, :, 1])  # as it claims: another execution gives the same picture
    assert by_source(decompose(family, PROMPTS, 2, 4, 4, features=colours))["execution"] > 0.1  # the control


def test_with_no_noise_at_all_everything_is_the_wording():
    result = decompose("toy/mim", PROMPTS, 4, 3, 3, features=colours, interventions=[Argmax(scope="all")])
    assert result.levels == Levels(4, 1, 1)
    wording = result.table.set_index("source").loc["wording"]
    assert wording.component > 0
    assert (wording[["share", "share_low", "share_high"]] == 1).all()


@pytest.mark.parametrize("factor", [0, 1, 2])
def test_a_factor_of_one_level_has_no_share(factor):
    levels = [3, 3, 3]
    levels[factor] = 1
    result = decompose("toy/mim", PROMPTS, *levels, features=colours)
    absent = [FACTORS[factor] in source for source in SOURCES]
    assert (result.components[:, absent] == 0).all()
    assert (result.components[:, np.logical_not(absent)] != 0).any(0).all()
    assert f"{FACTORS[factor]}: held at" in result.note
    assert result.table.share.sum() == pytest.approx(1, abs=1e-10)


def test_one_wording_is_the_prompt_itself():
    assert decompose("toy/ar", PROMPTS, 1, 1, 2, features=colours).wordings == tuple((text,) for text in PROMPTS)


def test_without_any_difference_shares_are_undefined():
    result = decompose("toy/mim", PROMPTS, 2, 2, 2, features=lambda images: torch.ones(len(images), 3))
    assert (result.components == 0).all()
    assert result.table.share.isna().all() and result.table.share_low.isna().all()
    assert "shares are undefined" in result.note


def test_one_prompt_has_components_and_no_interval():
    result = decompose("toy/mim", ["red heart"], 2, 3, 3, features=colours)
    table = result.table
    assert table[["low", "high", "share_low", "share_high"]].isna().to_numpy().all()
    assert table[["component", "share"]].notna().to_numpy().all()
    assert "One prompt: there is no interval" in result.note
    assert "One prompt" not in decompose("toy/mim", PROMPTS, 2, 3, 3, features=colours).note  # the control


def test_negative_components_are_kept_and_said():
    result = decompose("toy/mim", PROMPTS, 2, 2, 2, seed=1, features=colours)
    assert (result.components.mean(0) < 0).any()
    assert "below 0" in result.note


# Length and meaning


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


MIXED = [
    Prompt("red heart", ("love", "a big heart", "small heart that is red", "the heart of a person in love")),
    Prompt("cat", ("a kitten", "some old cat", "an animal that says meow", "one more cat of many cats here")),
]


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
    assert cut.note.count("cut from") == len(cut.wording_notes) == 4
    whole = decompose(toy_of(Tokenised), MIXED, 5, 2, 2, features=colours)
    assert "cut from" not in whole.note and not whole.wording_notes


# Which wordings


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


# Batches, prompts, memory


def close(one: Decomposition, other: Decomposition):
    return one.components == pytest.approx(other.components, abs=1e-12)


@pytest.mark.parametrize("batch_size", [1, 5, 7, "auto"])
@pytest.mark.parametrize("length_control", [False, True])
def test_batches_change_nothing(batch_size, length_control):
    arguments: dict[str, Any] = dict(wordings=3, paths=2, executions=2, features=colours, length_control=length_control)
    plain = decompose("toy/diffusion", MIXED, **arguments)
    seen = []
    assert close(decompose("toy/diffusion", MIXED, **arguments, batch_size=batch_size, on_batch=seen.append), plain)
    assert not close(decompose("toy/diffusion", MIXED, **arguments, seed=1), plain)  # the control
    if not length_control:
        assert sum(seen) == 2 * 3 * 2 * 2


def test_a_prompt_does_not_depend_on_the_others():
    plain = decompose("toy/mim", PROMPTS, 3, 2, 2, features=colours)
    turned = decompose("toy/mim", PROMPTS[::-1], 3, 2, 2, features=colours)
    assert turned.components[::-1] == pytest.approx(plain.components, abs=1e-12)
    assert decompose("toy/mim", PROMPTS[1:2], 3, 2, 2, features=colours).components[0] == pytest.approx(
        plain.components[1], abs=1e-12
    )
    assert plain.components[0] != pytest.approx(plain.components[1], abs=1e-3)  # the control


def test_scale_of_the_features_counts_squared_in_components_and_not_in_shares():
    plain = decompose("toy/mim", PROMPTS, 2, 3, 2, features=colours)
    scaled = decompose("toy/mim", PROMPTS, 2, 3, 2, features=lambda images: 3 * colours(images) + 7)
    assert scaled.components == pytest.approx(9 * plain.components, abs=1e-10)
    assert scaled.table[["share", "share_low", "share_high"]].to_numpy() == pytest.approx(
        plain.table[["share", "share_low", "share_high"]].to_numpy(), abs=1e-9
    )


def test_the_table_names_the_distance_that_was_measured():
    other = printed(decomposition_table(decompose("toy/mim", PROMPTS, 2, 2, 2, features=colours)))
    assert "squared distance" in other and "LPIPS" not in other
    assert "LPIPS" in printed(decomposition_table(decompose("toy/mim", PROMPTS, 2, 2, 2)))


def test_a_total_of_nothing_is_not_a_hundred_percent():
    def constant(images):
        return torch.ones(len(images), 2)

    lines = printed(decomposition_table(decompose("toy/mim", PROMPTS, 2, 2, 2, features=constant))).splitlines()
    assert next(line for line in lines if line.startswith("total ")).split()[-1] == "n/a"
    some = printed(decomposition_table(decompose("toy/mim", PROMPTS, 2, 2, 2, features=colours))).splitlines()
    assert next(line for line in some if line.startswith("total ")).split()[-1] == "100"


def test_half_precision_features_are_widened_before_they_are_subtracted():
    whole = decompose("toy/mim", PROMPTS, 2, 2, 2, features=colours)
    assert close(decompose("toy/mim", PROMPTS, 2, 2, 2, features=lambda images: colours(images).half()), whole)


def test_sums_of_one_prompt_are_all_that_is_kept():
    alive = []

    def watched(images):
        gc.collect()
        alive.append(sum(type(thing) is CrossedSums for thing in gc.get_objects()))
        return colours(images)

    for count in (2, 6):
        alive.clear()
        decompose("toy/ar", [f"number {i}" for i in range(count)], 2, 1, 4, features=watched, batch_size=4)
        assert 1 <= max(alive) <= 2


@dataclass(frozen=True)
class Counting(ToyModel):
    encoded: tuple[list, ...] = ([],)

    def encode(self, wordings):
        self.encoded[0].extend(wordings)
        return super().encode(wordings)


def test_a_wording_is_encoded_once():
    model = Counting("mim", load("toy/mim").rule, encoded=([],))
    result = decompose(model, MIXED, 3, 2, 2, features=colours, batch_size=5)
    assert sorted(model.encoded[0]) == sorted(text for texts in result.wordings for text in texts)


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(wordings=0), "wordings expects a whole number of at least 1, got 0"),
        (dict(paths=-1), "paths expects a whole number of at least 1, got -1"),
        (dict(executions=2.5), "executions expects a whole number of at least 1, got 2.5"),
        (dict(paths=10**9), "at most 1,000,000 pictures of a prompt, got 12,000,000,000"),
        (dict(wordings=1, paths=1, executions=1), "at least 2 wordings, paths or executions"),
        (dict(wordings=9), "at least 9 wordings of 'red heart', got 8"),
        (dict(wordings=1, length_control=True), "length_control expects at least 2 wordings, got 1"),
        (dict(interventions=[Freeze("path")]), "decompose varies the noise itself, got Freeze of path"),
        (dict(interventions=[Freeze("execution")]), "got Freeze of execution"),
        (dict(interventions=[Subset(0.3), DisableTop(1.0)]), "leaves no code to draw"),
        (dict(seed=-1), "seed expects"),
        (dict(batch_size=0), "batch_size expects"),
        (dict(prompts=[]), "at least one prompt"),
        (dict(prompts=["a", "a"]), "expected different prompts"),
        (dict(prompts=[Prompt("a", ("b " * 40,))], wordings=2), "reads at most 32 words"),
        (dict(model="toy/none"), "no model is called 'toy/none'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_drawn(arguments, message):
    seen = []
    call: dict[str, Any] = (
        dict(model="toy/mim", prompts=["red heart"], features=colours, on_batch=seen.append) | arguments
    )
    with pytest.raises(DivlensError, match=message):
        decompose(**call)
    assert not seen


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (lambda images: images, r"features of shape \(32, d\) for 32 pictures, got \(32, 3, 32, 96\)"),
        (lambda images: colours(images)[1:], r"got \(31, 9\)"),
        (lambda images: colours(images) / 0, "finite features, got NaN or infinity"),
    ],
)
def test_features_of_the_wrong_kind_are_refused(features, message):
    with pytest.raises(DivlensError, match=message):
        decompose("toy/mim", ["red heart"], features=features)


# The ratio of means


def test_a_constant_ratio_has_no_width_and_few_prompts_get_students_interval():
    totals = np.array([1.0, 2.0, 4.0, 3.0, 2.0, 5.0, 1.5])
    assert ratio_of_means(totals, totals).low == ratio_of_means(totals, totals).high == 1.0
    parts = totals * np.array([0.4, 0.5, 0.6, 0.5, 0.45, 0.5, 0.55])
    found = ratio_of_means(parts, totals)
    assert found.low < parts.sum() / totals.sum() < found.high
    assert found == ratio_of_means(parts, totals, 0) != ratio_of_means(parts, totals, 1)
    few = ratio_of_means(parts[:3], totals[:3])
    assert few.value - few.low == pytest.approx(few.high - few.value)
    assert math.isnan(ratio_of_means(parts[:1], totals[:1]).low)
    assert math.isnan(ratio_of_means(parts, totals - totals.mean() - 1).value)
