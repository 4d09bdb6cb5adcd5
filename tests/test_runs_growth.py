"""A run that is asked for again: what differs is named, and of more only what is missing is drawn."""

from dataclasses import replace

import pandas as pd
import pytest

import divlens
from divlens.errors import DivlensError
from divlens.models.toy import ToyModel
from divlens.store import shards
from oracles.runs_in_folders import PROBE, N, refused, snapshot, tokens_in
from oracles.toy_grids import toy

pytestmark = pytest.mark.usefixtures("colours_for_lpips", "one_thread")

PROMPTS = ("red heart", "a cat", "snow")


# --- asked for otherwise --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--seed", "1"), ("seed was 0, now 1",)),
        (("--lpips", "alex"), ("lpips was 'stlpips', now 'alex'",)),
        (("-n", "3"), ("n was 8, now 3",)),
        (("--limit", "1"), ("prompts", "cat face", "no longer asked for")),
        (("-n", "3", "--lpips", "alex"), ("n was 8, now 3", "lpips was")),
    ],
)
def test_a_request_asked_for_differently_names_the_fields_and_changes_nothing(arguments, words, run):
    run(*PROBE, *N, "--out", "run")
    before = snapshot("run")
    refused(run(*PROBE, *N, *arguments, "--out", "run"), "asked for differently", *words)
    assert snapshot("run") == before


def test_a_condition_that_is_another_is_named_and_changes_nothing(run):
    run(*PROBE, *N, "--out", "run")
    before = snapshot("run")
    refused(run(*PROBE[:-1], "hot=Temperature(2.0)", *N, "--out", "run"), "asked for differently", "conditions 'hot'")
    assert snapshot("run") == before


def test_another_model_in_its_place_is_named_and_changes_nothing(run):
    run(*PROBE, *N, "--out", "run")
    before = snapshot("run")
    refused(run("probe", "toy/ar", *PROBE[2:], *N, "--out", "run"), "models 'toy/mim:0' no longer asked for")
    assert snapshot("run") == before


def test_a_model_of_another_content_under_the_same_name_is_refused(tmp_path):
    arguments = {"n": 2, "conditions": {"baseline": ()}, "out": tmp_path / "run"}
    divlens.probe(toy("mim"), PROMPTS, **arguments)
    before = snapshot(tmp_path)
    other = replace(toy("mim"), guidance=2.0)
    with pytest.raises(DivlensError, match=r"holds samples of toy/mim:0 with the content .* weights or settings"):
        divlens.probe(other, PROMPTS, **arguments)
    assert snapshot(tmp_path) == before
    divlens.probe(replace(toy("mim")), PROMPTS, **arguments)  # the control


def test_another_precision_is_named(tmp_path, monkeypatch):
    arguments = {"n": 2, "conditions": {"baseline": ()}, "out": tmp_path / "run"}
    divlens.probe(toy("mim"), PROMPTS, **arguments)
    monkeypatch.setattr(ToyModel, "dtype", "float32", raising=False)
    with pytest.raises(DivlensError, match="dtype of toy/mim:0 was 'float64', now 'float32'"):
        divlens.probe(toy("mim"), PROMPTS, **arguments)


# --- more of it -----------------------------------------------------------------------------------------------------

FIRST = {"models": ["toy/mim"], "prompts": PROMPTS[:2], "n": 4, "conditions": {"baseline": ()}}
MORE = {
    "nothing": ({}, 0),
    "samples": ({"n": 7}, 2 * 3),
    "prompts": ({"prompts": PROMPTS}, 4),
    "prompts in another order": ({"prompts": PROMPTS[::-1]}, 4),
    "conditions": ({"conditions": {"baseline": (), "hot": divlens.Temperature(1.3)}}, 2 * 4),
    "models": ({"models": ["toy/ar", "toy/mim"]}, 2 * 4),
    "batches": ({"batch_size": 3}, 0),
    "all": (
        {
            "models": ["toy/ar", "toy/mim"],
            "prompts": PROMPTS,
            "n": 5,
            "conditions": {"baseline": (), "hot": divlens.Temperature(1.3)},
        },
        2 * 2 * 3 * 5 - 2 * 4,
    ),
}


@pytest.mark.parametrize("what", MORE)
@pytest.mark.parametrize("folded", [2, 64])
def test_of_more_only_what_is_missing_is_drawn(what, folded, tmp_path, counted, monkeypatch):
    monkeypatch.setattr(shards, "FOLDED", folded)
    more, missing = MORE[what]
    divlens.probe(**FIRST, batch_size=2, out=tmp_path / "run")
    first = tokens_in(tmp_path / "run")
    assert sum(counted) == len(first) == 8
    request = {**FIRST, "batch_size": 2, **more}
    result = divlens.probe(**request, out=tmp_path / "run")
    assert sum(counted) == 8 + missing
    stored = tokens_in(tmp_path / "run")
    assert first.items() <= stored.items() and len(stored) == 8 + missing
    alone = divlens.probe(**request)
    pd.testing.assert_frame_equal(result.table, alone.table)
    pd.testing.assert_frame_equal(result.per_prompt, alone.per_prompt)
    assert [one.tokens for one in result.samples] == [one.tokens for one in alone.samples]
    assert not (missing and first.items() == stored.items())  # the control
