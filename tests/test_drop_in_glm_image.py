"""Interventions in GLM-Image's own pipeline and in the `generate` that it calls: the codes are those of the loop."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

import divlens
from divlens.errors import DivlensError
from divlens.interventions import Argmax, DisableTop, Guidance, Intervention, Subset, Temperature, TopK, TopP
from divlens.models import glm_image
from divlens.models.loading import Options
from divlens.models.open_domain import OpenDomain
from divlens.planning import Reading
from oracles import tiny_glm_image as tiny
from oracles.tiny_transformers import PROMPTS, tokens_of
from test_glm_image import SEED, noise, theirs

pytestmark = pytest.mark.usefixtures("one_thread")
NONE: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}  # of the law of `generate` itself


@pytest.fixture(autouse=True)
def known_frequencies(monkeypatch):
    """Which codes are the most used ones is of no consequence here, and to find out takes a run."""
    monkeypatch.setattr(OpenDomain, "frequencies", lambda model: torch.arange(1.0, model.codes + 1))


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny.glm_image()


@pytest.fixture(scope="module")
def model(pipeline) -> glm_image.GlmImageModel:
    return glm_image.of_size(glm_image.from_pipeline(pipeline, Options()), (2, 2))


def codes_of(pipeline: Any, model: glm_image.GlmImageModel) -> torch.Tensor:
    """The codes of the picture that the pipeline draws of each prompt."""
    torch.manual_seed(SEED)
    prior, _, _ = pipeline.generate_prior_tokens(PROMPTS, 64, 64)
    return prior.view(-1, 4, 4)[:, ::2, ::2]


def ours(model: glm_image.GlmImageModel, law: Sequence[Intervention]) -> torch.Tensor:
    return tokens_of(model, PROMPTS, noise(), law)


def test_generate_draws_the_codes_of_the_loop(pipeline, model):
    """Of those interventions that say all of the law, where `generate` has none of its own; else both."""
    plain = theirs(pipeline, model)
    for law, own, in_the_loop in (
        ([DisableTop(0.2)], {}, [DisableTop(0.2)]),
        ([Temperature(1.5), TopP(0.8)], NONE, [Temperature(1.5), TopP(0.8)]),
        ([Temperature(1.5)], {}, [Temperature(1.35)]),
        ([Argmax(), Subset(0.5)], NONE, [Argmax(), Subset(0.5)]),
    ):
        processors = divlens.logits_processor(law, model=model)
        found = theirs(pipeline, model, logits_processor=processors, **own)
        assert torch.equal(found, ours(model, in_the_loop)) and not torch.equal(found, plain)
    assert torch.equal(theirs(pipeline, model, logits_processor=divlens.logits_processor([], model=model)), plain)


@pytest.mark.parametrize(
    "law",
    [[DisableTop(0.2)], [Temperature(1.5)], [Temperature(2.0), TopP(1.0), TopK(9)], [Argmax(), Subset(0.5)]],
    ids=repr,
)
def test_the_pipeline_draws_the_codes_of_the_loop(pipeline, model, law):
    """The published temperature and top-p are kept, but where an intervention sets them."""
    plain = codes_of(pipeline, model)
    with divlens.apply(pipeline, law):
        found = codes_of(pipeline, model)
    assert torch.equal(found, model.pictures_codes(ours(model, law))) and not torch.equal(found, plain)


def test_banned_codes_never_come_out_and_do_without(pipeline, model):
    allowed = Reading(model).settings([Subset(0.5)]).allowed
    assert allowed is not None and not allowed[codes_of(pipeline, model)].all()
    with divlens.apply(pipeline, [Subset(0.5), Temperature(2.0), TopP(1.0)]):
        assert allowed[codes_of(pipeline, model)].all()


def test_an_empty_list_changes_nothing_and_the_pipeline_is_as_it_was(pipeline, model):
    before, pictures = codes_of(pipeline, model), tiny.drawn(pipeline, PROMPTS[:2])
    own = pipeline.vision_language_encoder.generate
    with divlens.apply(pipeline, []):
        assert torch.equal(codes_of(pipeline, model), before)
        assert torch.equal(tiny.drawn(pipeline, PROMPTS[:2]), pictures)
    with pytest.raises(KeyError), divlens.apply(pipeline, [TopK(1)]):
        assert not torch.equal(codes_of(pipeline, model), before)
        raise KeyError
    assert pipeline.vision_language_encoder.generate == own
    assert "generate" not in vars(pipeline.vision_language_encoder)
    assert torch.equal(codes_of(pipeline, model), before)


def test_blocks_within_blocks_add_up(pipeline, model):
    with divlens.apply(pipeline, [DisableTop(0.2)]):
        with divlens.apply(pipeline, [Temperature(1.5)]):
            both = codes_of(pipeline, model)
        outer = codes_of(pipeline, model)
    assert torch.equal(both, model.pictures_codes(ours(model, [DisableTop(0.2), Temperature(1.5)])))
    assert torch.equal(outer, model.pictures_codes(ours(model, [DisableTop(0.2)]))) and not torch.equal(both, outer)


def test_only_codes_are_drawn_under_interventions():
    """Without what keeps the tiny network from ending a picture early, its pipeline fails; under a law it does not."""
    pipeline = tiny.glm_image()
    pipeline.vision_language_encoder.generation_config.suppress_tokens = None
    with pytest.raises(RuntimeError, match="shape"):
        tiny.drawn(pipeline, PROMPTS[0])
    with divlens.apply(pipeline, [Temperature(1.1)]):
        assert tiny.drawn(pipeline, PROMPTS[0]).shape == (1, 3, 64, 64)


def test_other_interventions_are_refused(pipeline, model):
    for refused in (Guidance(5.0), Argmax(share=0.5)):
        with (
            pytest.raises(DivlensError, match="apply expects interventions on the law of the tokens"),
            divlens.apply(pipeline, [refused]),
        ):
            pass
        with pytest.raises(DivlensError, match="logits_processor expects interventions on the law of the tokens"):
            divlens.logits_processor([refused], model=model)
