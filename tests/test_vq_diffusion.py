"""VQ-Diffusion against `diffusers.VQDiffusionPipeline`, on tiny random weights in the published layout."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_vq_diffusion import VQDiffusionScheduler

from divlens.errors import DivlensError
from divlens.interventions import Argmax, Guidance, TopP
from divlens.loop import Moment, guide, moments
from divlens.models import vq_diffusion
from divlens.models.loading import Options
from divlens.noise import CounterNoise, Noise
from divlens.paths import MaskReplaceDiffusion
from divlens.planning import Reading
from divlens.sampler import sample
from divlens.settings import Settings, filter_logits
from oracles import tiny_diffusers as tiny

SEED = 3
# The reference's own: it reads its configuration in an old way and returns an old record.
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*is deprecated.*:FutureWarning:diffusers"),
]


def load_saved(pipeline: Any, folder: Path, **options: Any) -> vq_diffusion.VQDiffusionModel:
    return vq_diffusion.load(tiny.saved(pipeline, folder), Options(**options))


@pytest.fixture(scope="module", params=[(4, True), (4, False), (5, True)], ids=["learned", "empty text", "grid 5"])
def both(request, tmp_path_factory) -> tuple[Any, vq_diffusion.VQDiffusionModel]:
    """The reference, and ours loaded from what the reference saved."""
    side, learnable = request.param
    pipeline = tiny.vq_diffusion(side, learnable=learnable)
    return pipeline, load_saved(pipeline, tmp_path_factory.mktemp("vq"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> vq_diffusion.VQDiffusionModel:
    return load_saved(tiny.vq_diffusion(), tmp_path_factory.mktemp("vq"))


def quick(model: vq_diffusion.VQDiffusionModel) -> vq_diffusion.VQDiffusionModel:
    """10 of the 100 steps, for tests in which their number does not matter."""
    return replace(model, rule=vq_diffusion.rule_of(VQDiffusionScheduler(model.codes + 1), steps=10))


def theirs(pipeline: Any, prompts: list[str], n: int, guidance: float, **asked: Any) -> list[torch.Tensor]:
    """The state after every step."""
    states: list[torch.Tensor] = []
    pipeline(
        prompts,
        num_images_per_prompt=n,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(SEED),
        callback=lambda step, time, state: states.append(state),
        output_type="numpy",
        **asked,
    )
    return states


def trajectory(
    model: vq_diffusion.VQDiffusionModel, rows: list[str], settings: Settings, noise: Noise | None = None
) -> list[Moment]:
    """Every moment of a run of the loop; without noise of its own it makes the reference's calls."""
    start = torch.full((len(rows), model.grid[0] * model.grid[1]), model.mask)
    if noise is None:
        assert isinstance(settings.rule, MaskReplaceDiffusion)
        noise = vq_diffusion.ReferenceNoise(torch.Generator().manual_seed(SEED), settings.rule, start)
    predictor = model.predictor(model.encode(rows), guided=settings.guidance != 1.0)
    with torch.inference_mode():
        return list(moments(predictor, settings, noise, start, model.mask))


def ours(model: vq_diffusion.VQDiffusionModel, rows: list[str], guidance: float) -> list[torch.Tensor]:
    settings = Reading(model).settings([Guidance(guidance)])
    return [moment.result.tokens for moment in trajectory(model, rows, settings)]


def agree(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("guidance", [5.0, 1.0])
def test_every_state_is_that_of_the_pipeline(both, guidance):
    """100 states, token for token. The reference interleaves: its rows are p1 p1 p2 p2 p3 p3. Its posterior is float32
    logarithms, off by 1e-6, so a trajectory of 10,000 draws parts in about 1 of 100 random seeds; not in these."""
    pipeline, model = both
    reference = theirs(pipeline, tiny.PROMPTS, 2, guidance)
    interleaved = [prompt for prompt in tiny.PROMPTS for _ in range(2)]
    assert agree(ours(model, interleaved, guidance), reference)
    assert (reference[0] == model.mask).any() and not (reference[-1] == model.mask).any()
    # The same comparison sees prompts in another order, another prompt, and another scale.
    assert not agree(ours(model, tiny.PROMPTS * 2, guidance), reference)
    other = ours(model, [*interleaved[:-1], "green"], guidance)
    assert not torch.equal(other[-1][-1], reference[-1][-1])
    assert not agree(ours(model, interleaved, guidance + 1), reference)


def one_step_off(chances: tuple[float, ...]) -> tuple[float, ...]:
    return (chances[0], *chances[2:], chances[-1])


def halved(chances: tuple[float, ...]) -> tuple[float, ...]:
    return (chances[0], *(chance / 2 for chance in chances[1:]))


@pytest.mark.parametrize(
    "changes", [{"kept": one_step_off, "masked": one_step_off}, {"kept": halved}, {"masked": halved}]
)
def test_another_rule_would_be_seen(model, changes):
    pipeline = tiny.vq_diffusion()
    reference = theirs(pipeline, ["red heart"], 2, 5.0)
    rule = model.rule
    other = replace(rule, **{name: change(getattr(rule, name)) for name, change in changes.items()})
    assert agree(ours(model, ["red heart"] * 2, 5.0), reference)
    assert not agree(ours(replace(model, rule=other), ["red heart"] * 2, 5.0), reference)


# --- our own two draws ----------------------------------------------------------------------------------------------


def two_stage(rule: MaskReplaceDiffusion, time: int, p: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
    """P(x_{t-1} = y | x_t) of x_0 ~ p and then the path event: (positions, codes + 1), by enumerating x_0."""
    codes = p.shape[-1]
    origin, current = torch.arange(codes).expand(len(now), codes), now[:, None].expand(len(now), codes)
    stay, reveal, replaced, others = rule.events(time, current == codes, current == origin)
    y = torch.arange(codes + 1)
    is_now, is_origin = y == current[..., None], y == origin[..., None]
    chance = stay[..., None] * is_now + reveal[..., None] * (is_origin & ~is_now)
    chance = chance + (replaced / others)[..., None] * (~is_now & ~is_origin & (y < codes))
    return torch.einsum("nx,nxy->ny", p, chance)


def reference_posterior(pipeline: Any, rows: list[str], state: torch.Tensor, t: int, guidance: float) -> torch.Tensor:
    """What the pipeline and its scheduler would draw x_{t-1} from: (batch, n, classes)."""
    with torch.no_grad():
        hidden = pipeline._encode_prompt(rows, 1, True)
        output = pipeline.transformer(
            torch.cat([state, state]), encoder_hidden_states=hidden, timestep=torch.tensor(t), return_dict=False
        )[0]
    unconditional, conditional = output.chunk(2)
    log_p = unconditional + guidance * (conditional - unconditional)
    log_p = pipeline.truncate(log_p - log_p.logsumexp(1, keepdim=True), 1.0).clamp(-70)
    return (pipeline.scheduler.q_posterior(log_p, state, t) if t else log_p).exp().transpose(1, 2).double()


def posterior_differences(pipeline: Any, model: vq_diffusion.VQDiffusionModel, shift: int = 0) -> torch.Tensor:
    """The largest difference at each step of a run with the library's own noise. `shift`: of our clock."""
    noise = CounterNoise.of(7, tiny.PROMPTS, [0, 1, 2], [0, 1, 2])
    differences = []
    for moment in trajectory(model, tiny.PROMPTS, Reading(model).settings([]), noise):
        state, time = moment.view.tokens, moment.view.time
        expected = reference_posterior(pipeline, tiny.PROMPTS, state, time, 5.0).flatten(0, 1)
        p = moment.log_p.double().exp().flatten(0, 1)
        own = p if time == 0 else two_stage(model.rule, min(time + 1 + shift, 100), p, state.flatten())
        differences.append((own - expected).abs().max())
    return torch.stack(differences)


def test_the_two_draws_have_the_posterior_of_the_scheduler_at_every_step(both):
    """To 1e-5: the reference adds about five float32 logarithms of size up to 30, each rounded to 2e-6 at worst."""
    pipeline, model = both
    differences = posterior_differences(pipeline, model)
    assert len(differences) == 100 and differences.max() < 1e-5


def test_a_clock_that_is_off_by_one_would_be_seen(model):
    assert posterior_differences(tiny.vq_diffusion(), model, shift=1).max() > 1e-3


def test_the_reference_noise_knows_the_posterior(model):
    """Its closed form against the enumeration of x_0, at masked and unmasked positions, to float64."""
    random = torch.Generator().manual_seed(0)
    state = torch.randint(model.codes + 1, (2, 16), generator=random)
    state[0, :4] = model.mask
    p = (torch.randn(2, 16, model.codes, generator=random, dtype=torch.float64) * 3).softmax(-1)
    for time in (100, 63, 2):
        noise = vq_diffusion.ReferenceNoise(random, model.rule, state)
        expected = two_stage(model.rule, time, p.flatten(0, 1), state.flatten()).view(2, 16, -1)
        torch.testing.assert_close(noise.posterior(p, time), expected, atol=1e-12, rtol=1e-9)
        assert (noise.posterior(p, time - 1)[..., :20] - expected[..., :20]).abs().max() > 1e-5


# --- truncation and steps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_top_p_keeps_what_the_truncation_rate_keeps(rate):
    pipeline = tiny.vq_diffusion()
    log_p = (torch.randn(2, 20, 50, generator=torch.Generator().manual_seed(0)) * 2).log_softmax(1)
    kept = pipeline.truncate(log_p, rate).isfinite().transpose(1, 2)
    rule = vq_diffusion.rule_of(pipeline.scheduler)
    own = filter_logits(log_p.transpose(1, 2), Settings(rule, 1.0, top_p=rate)).isfinite()
    assert torch.equal(own, kept) and not kept.all()


def test_the_default_truncation_drops_about_a_hundred_thousandth():
    """The documented difference: what the reference drops at its default rate, 1.0. Float32 probabilities of 4096
    codes sum to 1 within a few 1e-6, so the running sum may reach 1 with that much still to come."""
    pipeline = tiny.vq_diffusion()
    logits = torch.randn(1, 4096, 64, generator=torch.Generator().manual_seed(0)) * 5
    log_p = logits.log_softmax(1)
    dropped = pipeline.truncate(log_p, 1.0).isinf()
    assert 1e-7 < (log_p.exp() * dropped).sum(1).max() < 5e-5
    assert (
        not filter_logits(log_p.transpose(1, 2), Settings(MaskReplaceDiffusion.vq_diffusion(4096), 1.0)).isinf().any()
    )


def test_truncated_runs_agree_too(model):
    pipeline = tiny.vq_diffusion()
    settings = Reading(model).settings([TopP(0.8)])
    states = [moment.result.tokens for moment in trajectory(model, ["red heart"] * 2, settings)]
    assert agree(states, theirs(pipeline, ["red heart"], 2, 5.0, truncation_rate=0.8))
    assert not agree(states, theirs(pipeline, ["red heart"], 2, 5.0, truncation_rate=1.0))


def times_asked(transformer: Any, run: Callable[[], Any]) -> list[int]:
    """The timesteps that a transformer's first block is given while `run` runs."""
    times: list[int] = []
    handle = transformer.transformer_blocks[0].register_forward_pre_hook(
        lambda _, args, named: times.append(int(named["timestep"])), with_kwargs=True
    )
    run()
    handle.remove()
    return times


def test_fewer_steps_stride_where_the_reference_does_not():
    """10 of 100 steps: ours visits timesteps 99, 88, ..., 0 and fills the grid; the reference visits 9, 8, ..., 0."""
    pipeline = tiny.vq_diffusion()
    few = quick(vq_diffusion.from_pipeline(pipeline, Options()))
    moments: list[Moment] = []
    noise = CounterNoise.of(0, ["a", "b"], [0, 0], [0, 0])
    times = times_asked(
        pipeline.transformer,
        lambda: moments.extend(trajectory(few, ["red heart"] * 2, Reading(few).settings([]), noise)),
    )
    assert times == list(range(99, -1, -11))
    masked = [(moment.result.tokens == few.mask).double().mean() for moment in moments]
    assert 0.2 < masked[4] < 0.8 and masked[-1] == 0
    run = times_asked(pipeline.transformer, lambda: theirs(pipeline, ["red"], 1, 5.0, num_inference_steps=10))
    assert run == list(range(9, -1, -1))


def test_the_steps_of_a_stride_are_trained_ones():
    assert vq_diffusion.strided(10, 100) == tuple(range(0, 100, 11))
    assert vq_diffusion.strided(100, 100) == tuple(range(100)) and vq_diffusion.strided(1, 100) == (99,)
    rule, whole = (vq_diffusion.rule_of(VQDiffusionScheduler(21), steps) for steps in (7, None))
    times = [time + 1 for time in vq_diffusion.strided(7, 100)]
    assert rule.kept[1:] == tuple(whole.kept[time] for time in times)
    assert rule.masked[1:] == tuple(whole.masked[time] for time in times)
    with pytest.raises(DivlensError, match=r"expects 1 to 100 steps, as many as it was trained with, got 101"):
        vq_diffusion.rule_of(VQDiffusionScheduler(21), 101)


def test_the_published_rule_is_the_one_of_the_paths(model):
    published = MaskReplaceDiffusion.vq_diffusion(model.codes, 100)
    torch.testing.assert_close(torch.tensor(model.rule.kept), torch.tensor(published.kept))
    torch.testing.assert_close(torch.tensor(model.rule.masked), torch.tensor(published.masked))
    other = vq_diffusion.rule_of(VQDiffusionScheduler(21, 50, 0.9, 0.1, 0.05, 0.6))
    assert (other.steps, other.codes) == (50, 20)
    assert (other.kept[1], other.kept[-1], other.masked[1], other.masked[-1]) == (0.9, 0.1, 0.05, 0.6)


# --- the model ------------------------------------------------------------------------------------------------------


def test_pictures_are_those_of_the_pipeline(both):
    pipeline, model = both
    last = theirs(pipeline, tiny.PROMPTS, 1, 5.0)[-1].view(-1, *model.grid)
    generator = torch.Generator().manual_seed(SEED)
    expected = torch.from_numpy(pipeline(tiny.PROMPTS, generator=generator, output_type="numpy").images)
    pictures = model.decode(last)
    torch.testing.assert_close(pictures, expected.permute(0, 3, 1, 2))
    assert pictures.dtype == torch.float32 and pictures.min() >= 0 and pictures.max() <= 1
    assert not torch.allclose(model.decode(last.flip(2)), pictures, atol=1e-3)


def test_what_the_model_says_of_itself(both):
    pipeline, model = both
    side = pipeline.transformer.config.sample_size
    assert (model.codes, model.mask, model.grid, model.guidance) == (20, 20, (side, side), 5.0)
    assert model.frequencies() is None and len(model.calibration_prompts()) == 64
    assert model.limit == 77 and model.lengths(["ab", "ab c"]) == [4, 5]
    conditions = model.encode(["red", "blue"])
    assert conditions.shape == (2, 77, tiny.HIDDEN)
    torch.testing.assert_close(conditions.norm(dim=-1), torch.ones(2, 77))


def test_the_text_is_encoded_once_and_one_branch_runs_without_guidance():
    pipeline, calls, seen = tiny.vq_diffusion(), [], []
    model = quick(vq_diffusion.from_pipeline(pipeline, Options()))
    pipeline.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    pipeline.transformer.out.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    sample(model, tiny.PROMPTS, n=3, batch_size=2)
    assert len(calls) == 1 and set(seen) == {4, 2}  # both branches of 2 rows and of the last 1
    seen.clear()
    sample(model, tiny.PROMPTS, n=2, batch_size=2, interventions=[Guidance(1.0)])
    assert set(seen) == {2}


def test_argmax_silences_the_draw_and_leaves_the_path(model):
    model = quick(model)
    greedy = sample(model, ["red heart"], n=3, interventions=[Argmax()], trace=True)
    assert greedy.trace is not None
    state = greedy.trace.steps[5].state
    assert not (state == state[0]).all()  # which positions are revealed is still random
    silent = sample(model, ["red heart"], n=3, interventions=[Argmax("all")]).tokens[0]
    assert (silent == silent[0]).all()


def test_guided_log_probabilities_are_normalised(model):
    predictor = model.predictor(model.encode(["red heart"]), guided=True)
    view = model.rule.view(torch.full((1, 16), model.mask), 0)
    conditional, unconditional = predictor(view)
    log_p = filter_logits(guide(conditional, unconditional, 5.0), Reading(model).settings([]))
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(1, 16))


def test_too_long_a_wording_is_cut_as_in_the_pipeline(tmp_path):
    pipeline = tiny.vq_diffusion()
    folder = tiny.saved(pipeline, tmp_path)
    cutting = vq_diffusion.load(folder, Options(truncate=True))
    assert sample(quick(cutting), [tiny.LONG], n=1).wording_notes == {tiny.LONG: "cut from 482 to 77 tokens"}
    assert agree(ours(cutting, [tiny.LONG], 5.0), theirs(pipeline, [tiny.LONG], 1, 5.0))


# --- bad input ------------------------------------------------------------------------------------------------------


def refused(folder: Path, message: str) -> None:
    with pytest.raises(DivlensError, match=message) as error:
        vq_diffusion.load(str(folder), Options())
    assert "\n" not in str(error.value)


def test_missing_files_are_named(tmp_path):
    tiny.saved(tiny.vq_diffusion(), tmp_path)
    (tmp_path / vq_diffusion.LEARNED / "config.json").unlink()
    (tmp_path / "vqvae" / "config.json").unlink()
    refused(tmp_path, rf"lacks vqvae/config.json, {vq_diffusion.LEARNED}/config.json; .* microsoft/vq-diffusion-ithq")


def test_another_pipeline_or_part_is_named(tmp_path):
    tiny.saved(tiny.amused(), tmp_path / "amused")
    refused(tmp_path / "amused", r"lacks learned_classifier_free_sampling_embeddings/config.json")
    tiny.saved(tiny.vq_diffusion(), tmp_path / "vq")
    tiny.change_config(tmp_path / "vq", "model_index.json", _class_name="DDPMPipeline")
    refused(tmp_path / "vq", r"model_index.json expects a VQDiffusionPipeline, got a DDPMPipeline")
    with pytest.raises(DivlensError, match=r"expected a diffusers VQDiffusionPipeline, got a AmusedPipeline"):
        vq_diffusion.from_pipeline(tiny.amused(), Options())


def test_parts_that_do_not_fit_each_other_are_named(tmp_path):
    pipeline = tiny.vq_diffusion()
    pipeline.vqvae = tiny.vqvae(19, vq_embed_dim=6)
    with pytest.raises(DivlensError, match=r"one codebook size .*, got transformer 20, vqvae 19, scheduler 20"):
        vq_diffusion.from_pipeline(pipeline, Options())
    pipeline = tiny.vq_diffusion()
    pipeline.learned_classifier_free_sampling_embeddings.embeddings = torch.nn.Parameter(torch.zeros(76, tiny.HIDDEN))
    with pytest.raises(DivlensError, match=r"unconditional embedding of shape \(77, 16\), got \(76, 16\)"):
        vq_diffusion.from_pipeline(pipeline, Options())
    tiny.saved(tiny.vq_diffusion(), tmp_path)
    tiny.change_config(tmp_path, "scheduler/scheduler_config.json", num_train_timesteps=50)
    refused(tmp_path, r"expects one number of steps in all its parts, got transformer 100, scheduler 50")


def test_the_reference_noise_serves_one_family():
    noise = vq_diffusion.ReferenceNoise(
        torch.Generator(), MaskReplaceDiffusion.vq_diffusion(3), torch.zeros(1, 2, dtype=torch.long)
    )
    assert isinstance(noise, Noise)
    with pytest.raises(DivlensError, match="asks for no Gumbel"):
        noise.path_gumbel(0, 2, torch.device("cpu"))
