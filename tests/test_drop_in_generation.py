"""Interventions in `generate` of transformers: the same tokens as the loop under the same noise."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

import divlens
from divlens.drop_in.generation import TokenLaw
from divlens.errors import DivlensError
from divlens.interventions import Argmax, DisableTop, Guidance, Intervention, Subset, Temperature, TopK, TopP
from divlens.models import emu3, janus
from divlens.models.loading import Options
from divlens.models.open_domain import OpenDomain
from divlens.planning import Reading
from divlens.settings import filter_logits
from oracles import tiny_transformers as tiny
from test_emu3 import GROUPED, codes_of, noise
from test_emu3 import theirs as emu3_tokens
from test_janus import theirs as janus_tokens
from test_janus import torch_noise

LAWS: list[Sequence[Intervention]] = [
    [DisableTop(0.2), Temperature(1.5), TopP(0.8)],
    [TopK(4), Temperature(0.7)],
    [Argmax(), Subset(0.5)],
]


@pytest.fixture(autouse=True)
def few_prompts(monkeypatch):
    """That calibrate: which codes are the most used ones is of no consequence here."""
    monkeypatch.setattr(OpenDomain, "calibration_prompts", lambda model: ["red", "a cat"])


@pytest.fixture(scope="module")
def one_janus() -> tuple[Any, Any, janus.JanusModel]:
    network, processor = tiny.janus()
    return network, processor, janus.from_model(network, processor, Options())


@pytest.fixture(scope="module", params=[False, True], ids=["side by side", "scattered"])
def one_emu3(request) -> tuple[Any, Any, emu3.Emu3Model]:
    """Of 15 codes a picture, and with a prompt that is quickly read."""
    network, processor = tiny.emu3(scattered=request.param)
    return network, processor, replace(emu3.from_model(network, processor, Options()), grid=(3, 5))


def test_janus_draws_the_tokens_of_the_loop(one_janus):
    """One processor for several calls; guidance is appended by each, and comes first."""
    network, processor, model = one_janus
    plain = janus_tokens(network, processor, do_sample=True, top_k=0)
    for law in LAWS:
        processors = divlens.logits_processor(law, model=model)
        asked = {"do_sample": True, "top_k": 0, "logits_processor": processors}
        found = [janus_tokens(network, processor, **asked) for _ in range(2)]
        expected = tiny.tokens_of(model, GROUPED, torch_noise(), law)
        assert torch.equal(found[0], expected) and torch.equal(found[1], expected)
        assert not torch.equal(expected, plain)
    few = divlens.logits_processor([TopK(4)], model=model)
    asked = {"do_sample": True, "top_k": 0, "guidance_scale": 2, "logits_processor": few}
    assert torch.equal(
        janus_tokens(network, processor, **asked),
        tiny.tokens_of(model, GROUPED, torch_noise(), [TopK(4), Guidance(2.0)]),
    )


def test_emu3_draws_the_tokens_of_the_loop(one_emu3):
    """Under the published recipe: guidance with a negative prompt, a constraint on the words, top-k 2048."""
    network, processor, model = one_emu3
    plain = codes_of(network, emu3_tokens(network, processor, model), model.grid)
    for law in LAWS:
        words = emu3_tokens(network, processor, model, logits_processor=divlens.logits_processor(law, model=model))
        expected = tiny.tokens_of(model, GROUPED, noise(model), law)
        assert not torch.equal(expected, plain)
        assert torch.equal(codes_of(network, words, model.grid), expected)


def test_an_empty_list_changes_no_token(one_janus, one_emu3):
    for tokens, (network, processor, model), asked in (
        (janus_tokens, one_janus, {"do_sample": True}),
        (lambda network, processor, **named: emu3_tokens(network, processor, one_emu3[2], **named), one_emu3, {}),
    ):
        plain = tokens(network, processor, **asked)
        empty, few = (divlens.logits_processor(law, model=model) for law in ([], [TopK(2)]))
        assert torch.equal(tokens(network, processor, **asked, logits_processor=empty), plain)
        assert not torch.equal(tokens(network, processor, **asked, logits_processor=few), plain)


def test_scores_are_those_of_the_loop_and_other_words_keep_their_share(one_emu3):
    """Bit for bit among the codes, up to one number a row; a row without codes stays."""
    _, _, model = one_emu3
    scores = torch.randn(4, 400, generator=torch.Generator().manual_seed(0))[:, : int(model.words.max()) + 20]
    scores[2, model.words] = -torch.inf
    (processor,) = divlens.logits_processor([DisableTop(0.2), TopP(0.7)], model=model)
    assert isinstance(processor, TokenLaw)
    before = scores.clone()
    found = processor(torch.zeros(4, 7, dtype=torch.long), scores)
    settings = Reading(model).settings([DisableTop(0.2), TopP(0.7)])
    rows = torch.tensor([0, 1, 3])
    expected = filter_logits(scores[rows][:, None, model.words], settings)[:, 0]
    torch.testing.assert_close(found[rows][:, model.words].log_softmax(-1), expected)
    others = torch.ones(scores.shape[1], dtype=torch.bool)
    others[model.words] = False
    assert torch.equal(found[:, others], scores[:, others]) and torch.equal(found[2], scores[2])
    torch.testing.assert_close(found.softmax(-1)[:, others], scores.softmax(-1)[:, others])
    assert torch.equal(scores, before) and not torch.allclose(found[rows], scores[rows])


def test_what_comes_before_guidance_is_refused(one_janus):
    network, processor, model = one_janus
    within = [*divlens.logits_processor([TopK(4)], model=model)]
    with pytest.raises(
        DivlensError, match=r"expects guided scores, a row for each of 6, got 12: .* not within another"
    ):
        janus_tokens(network, processor, do_sample=True, logits_processor=within)


def test_other_models_and_interventions_are_refused(one_janus):
    network, _, model = one_janus
    others: list[tuple[Any, str]] = [
        (divlens.load("toy/ar"), "'toy/ar:0'"),
        (network, "'JanusForConditionalGeneration'"),
        ("janus", "'str'"),
    ]
    for other, name in others:
        with pytest.raises(DivlensError, match=f"a Janus, an Emu3 or a GLM-Image of divlens.wrap.*, got {name}"):
            divlens.logits_processor([], model=other)
    for refused in (Guidance(5.0), Argmax(share=0.5)):
        with pytest.raises(DivlensError, match="logits_processor expects interventions on the law of the tokens"):
            divlens.logits_processor([refused], model=model)
