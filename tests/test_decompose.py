"""`decompose` on the toys: against pairwise distances, an independent simulation of the samplers, and model limits."""

import itertools
import math

import numpy as np
import pytest
import torch

from divlens.decompose import decompose
from divlens.diversity import load_network
from divlens.errors import DivlensError
from divlens.experiment.design import FACTORS, Levels
from divlens.interventions import Argmax, DisableTop, Temperature
from divlens.models import load
from divlens.types import Prompt
from oracles.crossed_designs import (
    COLUMNS,
    PROMPTS,
    SOURCES,
    by_source,
    colours,
    components_by_pairs,
    features_by_hand,
    mean_distance,
    true_components,
)

FAMILIES = ("toy/ar", "toy/mim", "toy/diffusion")
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
    assert "path: the sampler makes no path draw" in " ".join(result.remarks)
    other = decompose("toy/mim", PROMPTS, 2, 4, 3, features=colours)  # the control
    assert other.levels == Levels(2, 4, 3) and not any(remark.startswith("path:") for remark in other.remarks)


@pytest.mark.parametrize("family", ["toy/mim", "toy/diffusion"])
def test_argmax_leaves_no_execution(family):
    result = decompose(family, PROMPTS, 2, 4, 4, features=colours, interventions=[Argmax()])
    assert result.levels == Levels(2, 4, 1)
    shares = dict(zip(result.table.source, result.table.share, strict=True))
    assert {shares[source] for source in SOURCES if "execution" in source} == {0.0}
    assert shares["path"] > 0.1
    assert "execution: tokens are not drawn but chosen" in " ".join(result.remarks)
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
    assert f"{FACTORS[factor]}: held at" in " ".join(result.remarks)
    assert result.table.share.sum() == pytest.approx(1, abs=1e-10)


def test_one_wording_is_the_prompt_itself():
    assert decompose("toy/ar", PROMPTS, 1, 1, 2, features=colours).wordings == tuple((text,) for text in PROMPTS)


def test_without_any_difference_shares_are_undefined():
    result = decompose("toy/mim", PROMPTS, 2, 2, 2, features=lambda images: torch.ones(len(images), 3))
    assert (result.components == 0).all()
    assert result.table.share.isna().all() and result.table.share_low.isna().all()
    assert "shares are undefined" in " ".join(result.blocks[0].lines)


def test_one_prompt_has_components_and_no_interval():
    result = decompose("toy/mim", ["red heart"], 2, 3, 3, features=colours)
    table = result.table
    assert table[["low", "high", "share_low", "share_high"]].isna().to_numpy().all()
    assert table[["component", "share"]].notna().to_numpy().all()
    assert "No intervals: they need at least 2 prompts." in result.notes
    assert not any(
        "No intervals" in note for note in decompose("toy/mim", PROMPTS, 2, 3, 3, features=colours).notes
    )  # the control


def test_negative_components_are_kept_and_said():
    result = decompose("toy/mim", PROMPTS, 2, 2, 2, seed=1, features=colours)
    assert (result.components.mean(0) < 0).any()
    assert "below 0" in " ".join(result.blocks[0].lines)
