"""Interventions in the user's own pipelines: the tokens are those of the one loop, and the pipeline is as it was."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from diffusers.pipelines.deprecated.amused.pipeline_amused_img2img import AmusedImg2ImgPipeline
from diffusers.pipelines.deprecated.amused.pipeline_amused_inpaint import AmusedInpaintPipeline

import divlens
from divlens.drop_in.law import LAW
from divlens.errors import DivlensError
from divlens.interventions import (
    Argmax,
    DisableTop,
    Freeze,
    Guidance,
    Intervention,
    Paraphrase,
    Subset,
    Temperature,
    TopK,
    TopP,
)
from divlens.loop import filled, moments
from divlens.models import amused, vq_diffusion
from divlens.models.loading import Options
from divlens.models.open_domain import OpenDomain
from divlens.noise import TorchNoise
from divlens.paths import Raster
from divlens.planning import Reading
from divlens.settings import Settings, filter_logits
from oracles import tiny_diffusers as tiny

SEED = 3
LAWS: dict[str, Sequence[Intervention]] = {
    "subset": [Subset(0.5)],
    "disable": [DisableTop(0.2)],
    "hot": [Temperature(2.0), TopK(9)],
    "mass": [TopP(0.6)],
    "all": [DisableTop(0.1), TopK(15), Temperature(0.7), TopP(0.9)],
}
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*is deprecated.*:FutureWarning:diffusers"),
]


@pytest.fixture(autouse=True)
def few_prompts(monkeypatch):
    """That calibrate: which codes are the most used ones is of no consequence here."""
    monkeypatch.setattr(OpenDomain, "calibration_prompts", lambda model: ["red", "a cat"])


@pytest.fixture(scope="module")
def masked() -> Any:
    return tiny.amused()


@pytest.fixture(scope="module")
def diffusion() -> Any:
    return tiny.vq_diffusion(steps=12)


def drawn(pipe: Any, **named: Any) -> torch.Tensor:
    """What aMUSEd draws for two prompts."""
    generator = torch.Generator().manual_seed(SEED)
    return pipe(tiny.PROMPTS[:2], generator=generator, output_type="latent", **named).images


def states(pipe: Any, **named: Any) -> torch.Tensor:
    """What VQ-Diffusion draws for two prompts, after every step."""
    found: list[torch.Tensor] = []
    generator = torch.Generator().manual_seed(SEED)
    watch = {"callback": lambda step, time, state: found.append(state), "output_type": "numpy"}
    pipe(tiny.PROMPTS[:2], num_inference_steps=12, generator=generator, **watch, **named)
    return torch.stack(found)


def ours(model: amused.AmusedModel, interventions: Sequence[Intervention]) -> torch.Tensor:
    """What the loop draws with the same calls for noise."""
    settings = Reading(model).settings(interventions)
    start = torch.full((2, getattr(settings.rule, "positions", 16)), model.mask)
    predictor = model.predictor(model.encode(tiny.PROMPTS[:2]), guided=True)
    noise = TorchNoise(torch.Generator().manual_seed(SEED), 2)
    return filled(predictor, settings, noise, start, model.mask).view(2, *model.grid)


def our_states(model: vq_diffusion.VQDiffusionModel, interventions: Sequence[Intervention]) -> torch.Tensor:
    settings = Reading(model).settings(interventions)
    start = torch.full((2, 16), model.mask)
    noise = vq_diffusion.ReferenceNoise(torch.Generator().manual_seed(SEED), model.rule, start)
    predictor = model.predictor(model.encode(tiny.PROMPTS[:2]), guided=True)
    with torch.inference_mode():
        return torch.stack([m.result.tokens for m in moments(predictor, settings, noise, start, model.mask)])


@pytest.mark.parametrize("law", [*LAWS.values(), [Argmax()], [Argmax(), Subset(0.5)]], ids=repr)
def test_amused_draws_the_tokens_of_the_loop(masked, law):
    """Guidance rounds otherwise in the last place, so a trajectory parts where two scores are within 1e-6: in none of
    these seeds."""
    plain = drawn(masked)
    with divlens.apply(masked, law):
        changed = drawn(masked)
    assert torch.equal(changed, ours(amused.from_pipeline(masked, Options()), law))
    assert not torch.equal(changed, plain) and torch.equal(drawn(masked), plain)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_vq_diffusion_draws_the_states_of_the_loop(diffusion, law):
    plain = states(diffusion)
    with divlens.apply(diffusion, law):
        changed = states(diffusion)
    assert torch.equal(changed, our_states(vq_diffusion.from_pipeline(diffusion, Options()), law))
    assert not torch.equal(changed, plain) and torch.equal(states(diffusion), plain)


def test_a_greedy_diffusion_has_one_origin_and_keeps_its_path(diffusion):
    """All mass of p(x_0) is on the loop's most probable code, and which positions are revealed is still random."""
    log_p = torch.randn(2, 20, 16, generator=torch.Generator().manual_seed(0)).log_softmax(1)
    with divlens.apply(diffusion, [TopK(3), Argmax()]):
        found = diffusion.truncate(log_p, 1.0)
        assert torch.equal(found.exp(), torch.nn.functional.one_hot(log_p.argmax(1), 20).transpose(1, 2).float())
        first, second = states(diffusion), states(diffusion, guidance_scale=5.0)
    assert torch.equal(first, second) and not torch.equal(first[5, 0] == 20, first[5, 1] == 20)


def test_a_hot_law_brings_nothing_back_that_the_truncation_drops(diffusion):
    log_p = (torch.randn(1, 20, 16, generator=torch.Generator().manual_seed(0)) * 3).log_softmax(1)
    with divlens.apply(diffusion, [Temperature(50.0)]):
        found = diffusion.truncate(log_p, 0.5)
    hot = filter_logits(
        log_p.transpose(1, 2), Reading(vq_diffusion.from_pipeline(diffusion, Options())).settings([Temperature(50.0)])
    )
    assert torch.equal(found, diffusion.truncate(hot.transpose(1, 2), 0.5)) and found.isinf().any()


def test_no_intervention_changes_no_token(masked, diffusion):
    plain, chain = drawn(masked), states(diffusion)
    with divlens.apply(masked, []), divlens.apply(diffusion, ()):
        assert torch.equal(drawn(masked), plain) and torch.equal(states(diffusion), chain)
    with divlens.apply(masked, [TopK(3)]), divlens.apply(diffusion, [TopK(3)]):
        assert not torch.equal(drawn(masked), plain) and not torch.equal(states(diffusion), chain)


def test_blocks_within_blocks_are_one_list(masked):
    plain, inner = drawn(masked), [TopP(0.6), Temperature(0.8)]
    with divlens.apply(masked, [Temperature(2.0)]):
        outer = drawn(masked)
        with divlens.apply(masked, inner) as same:
            assert same is masked
            nested = drawn(masked)
        with divlens.apply(masked, []):
            assert torch.equal(drawn(masked), outer)
        assert torch.equal(drawn(masked), outer)
    with divlens.apply(masked, inner):
        assert torch.equal(drawn(masked), nested)  # the later temperature counts
    assert (
        torch.equal(drawn(masked), plain)
        and len({plain.numpy().tobytes(), outer.numpy().tobytes(), nested.numpy().tobytes()}) == 3
    )


def test_the_pipeline_is_as_it_was_also_after_an_error(masked, diffusion):
    masked.transformer.train()
    before = dict(vars(masked.scheduler)), dict(vars(diffusion)), masked.text_encoder.training
    with (
        pytest.raises(ZeroDivisionError),
        divlens.apply(masked, [Subset(0.5)]),
        divlens.apply(diffusion, [Subset(0.5)]),
    ):
        assert masked.transformer.training and "step" in vars(masked.scheduler) and "truncate" in vars(diffusion)
        raise ZeroDivisionError
    assert (dict(vars(masked.scheduler)), dict(vars(diffusion)), masked.text_encoder.training) == before
    masked.transformer.eval()


def test_a_function_that_the_user_put_there_stays(masked, monkeypatch):
    usual, calls = masked.scheduler.step, []

    def step(*given: Any, **named: Any) -> Any:
        calls.append(1)
        return usual(*given, **named)

    monkeypatch.setitem(vars(masked.scheduler), "step", step)
    with divlens.apply(masked, [TopK(3)]):
        drawn(masked)
    assert len(calls) == 12 and vars(masked.scheduler)["step"] is step


@pytest.mark.parametrize("kind", [AmusedImg2ImgPipeline, AmusedInpaintPipeline])
def test_given_parts_of_a_picture_stay_and_the_rest_has_the_law(masked, kind):
    """Where only two codes may be drawn, no other one comes out that was not given."""
    pipe = tiny.quiet(kind(**masked.components))
    picture = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    given: dict[str, Any] = {"image": picture, "strength": 0.9}
    if kind is AmusedInpaintPipeline:
        given["mask_image"] = torch.cat([torch.ones(1, 1, 8, 4), torch.zeros(1, 1, 8, 4)], dim=-1)

    def tokens() -> torch.Tensor:
        generator = torch.Generator().manual_seed(SEED)
        return pipe("red heart", generator=generator, output_type="latent", **given).images

    plain = tokens()
    settings = Reading(amused.from_pipeline(pipe, Options())).settings([Subset(0.1)])
    assert settings.allowed is not None and settings.allowed.sum() == 2
    with divlens.apply(pipe, [Subset(0.1)]):
        few = tokens()
    new = few != plain
    assert new.any() and settings.allowed[few[new]].all()
    if kind is AmusedInpaintPipeline:
        assert torch.equal(few[..., 2:], plain[..., 2:])  # the mask says what is drawn anew
    assert torch.equal(tokens(), plain)


@pytest.mark.parametrize(
    "other", [Guidance(1.0), Guidance(3.0), Paraphrase(), Freeze("path"), Argmax("all"), Argmax(share=0.5)], ids=repr
)
def test_other_interventions_are_refused(masked, diffusion, other):
    for pipe in (masked, diffusion):
        with pytest.raises(DivlensError, match=r"apply expects .* \(Subset, DisableTop, .*\), got") as error:
            divlens.apply(pipe, [Temperature(2.0), other]).__enter__()
        assert repr(other) in str(error.value) and "\n" not in str(error.value)
        assert "step" not in vars(masked.scheduler) and "truncate" not in vars(diffusion)


def test_what_cannot_be_applied_is_refused(masked):
    known = "AmusedPipeline, AmusedImg2ImgPipeline, AmusedInpaintPipeline, VQDiffusionPipeline, GlmImagePipeline"
    for other in (masked.scheduler, "amused", None):
        with pytest.raises(DivlensError, match=f"apply expects one of {known}, got {type(other).__name__}"):
            divlens.apply(other, []).__enter__()
    with pytest.raises(DivlensError, match="leaves no code to draw"):
        divlens.apply(masked, [DisableTop(1.0)]).__enter__()
    with pytest.raises(DivlensError, match="interventions expects a list"):
        divlens.apply(masked, Argmax()).__enter__()  # type: ignore[arg-type]


class Watching:
    """Settings that remember what was read of them."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.read = settings, set()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self.settings, name)


def test_what_the_filter_reads_of_the_settings_counts_as_the_law():
    """Whoever adds a setting to the law must name it in `LAW`, or `apply` refuses the method that sets it."""
    everything = Settings(
        Raster(1),
        2.0,
        temperature=0.5,
        allowed=torch.ones(4, dtype=torch.bool),
        top_k=3,
        top_p=0.9,
        log_factors=torch.zeros(4),
        min_p=0.1,
        by_entropy=(1.0, 1.0, 1.0),
    )
    watching: Any = Watching(everything)
    filter_logits(torch.zeros(1, 1, 4), watching)
    assert watching.read == LAW - {"greedy"}  # the draw itself
    assert "guidance" not in watching.read  # the control: it watches
