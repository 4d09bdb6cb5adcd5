"""The decoder of GLM-Image against the second half of `GlmImagePipeline`, and its noise, on tiny random weights."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from divlens.interventions import Argmax
from divlens.models import glm_image
from divlens.models.loading import Options
from divlens.noise import decoder_normal, stream_key
from divlens.sampler import sample
from oracles import tiny_glm_image as tiny

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 3


def with_steps(model: Any, steps: int = STEPS, **changes: Any) -> Any:
    return replace(model, decoder=replace(model.decoder, steps=steps, **changes))


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny.glm_image()


@pytest.fixture(scope="module")
def model(pipeline) -> glm_image.GlmImageModel:
    """Of pictures of 3 x 2 codes, with a small preview, which the decoder never sees."""
    small = replace(glm_image.from_pipeline(pipeline, Options()), size=(3, 2), preview=(1, 2))
    return with_steps(small)


@pytest.fixture(scope="module")
def tokens(model) -> torch.Tensor:
    return torch.randint(model.codes, (3, *model.grid), generator=torch.Generator().manual_seed(0))


def theirs(pipeline: Any, model: Any, tokens: torch.Tensor, noise: torch.Tensor, **asked: Any) -> torch.Tensor:
    """The pipeline's pictures of the same codes and noise; none of the prompts has anything in quotes."""
    prior = model.pictures_codes(tokens).repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)
    height, width = (32 * side for side in model.size)
    asked = {"num_inference_steps": STEPS, "height": height, "width": width} | asked
    prompts = [f"prompt {number}" for number in range(len(tokens))]
    return pipeline(prompts, prior_token_ids=prior, latents=noise, output_type="pt", **asked).images


def noise_of(model: Any, keys: list[int]) -> torch.Tensor:
    shape = model.decoder.shape(model.size)
    return decoder_normal(keys, torch.Size(shape).numel()).float().view(-1, *shape)


def test_pictures_are_those_of_the_pipeline(pipeline, model, tokens):
    """Float32, in batches of another size: both round, by about 1e-6 of pixels in [0, 1]."""
    keys = [stream_key(0, "a"), stream_key(0, "b"), stream_key(1, "a")]
    found, noise = model.decode_under(tokens, keys), noise_of(model, keys)
    near: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-4}
    torch.testing.assert_close(found, theirs(pipeline, model, tokens, noise), **near)
    assert found.shape == (3, 3, 96, 64) and len(found.unique()) > 1000
    for other in (
        theirs(pipeline, model, tokens, noise, num_inference_steps=STEPS + 1),
        theirs(pipeline, model, tokens, noise, guidance_scale=2.5),
        theirs(pipeline, model, tokens, noise.flip(0)),
        theirs(pipeline, model, (tokens + 1) % model.codes, noise),
    ):
        assert not torch.allclose(found, other, atol=1e-3)
    changed = with_steps(model, STEPS + 1, guidance=1.0)
    asked: dict[str, Any] = {"num_inference_steps": STEPS + 1, "guidance_scale": 1.0}
    torch.testing.assert_close(
        changed.decode_under(tokens, keys), theirs(pipeline, model, tokens, noise, **asked), **near
    )


def test_the_published_settings_are_the_default(pipeline):
    decoder = glm_image.from_pipeline(pipeline, Options()).decoder
    assert (decoder.steps, decoder.guidance) == (50, 1.5)
    assert decoder.shape((32, 32)) == (4, 128, 128) and decoder.pixels == 8


def test_noise_is_a_function_of_the_codes_of_the_picture(model, tokens):
    """The same codes are the same picture, wherever they stand; other codes have noise of their own."""
    near: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-4}
    pictures = model.decode(tokens)
    torch.testing.assert_close(model.decode(tokens.flip(0)), pictures.flip(0), **near)
    keys = [stream_key(0, f"decoder {json.dumps(one)}") for one in model.pictures_codes(tokens).tolist()]
    torch.testing.assert_close(model.decode_under(tokens, keys), pictures, **near)
    other_preview = tokens.clone()
    other_preview.flatten(1)[:, : model.previewed] += 1
    torch.testing.assert_close(model.decode(other_preview % model.codes), pictures, **near)
    assert not torch.allclose(model.decode_under(tokens, keys[::-1])[0], pictures[0], atol=1e-2)
    assert not torch.allclose(replace(model, decoder_seed=1).decode(tokens), pictures, atol=1e-2)


def test_noise_of_a_key_is_standard_normal_and_its_own():
    """100,000 numbers: the mean within 5 of its standard errors, the variance within 5 of its, sqrt(2 / n)."""
    keys = [stream_key(0, "a"), stream_key(0, "b")]
    numbers = decoder_normal(keys, 100_000)
    assert numbers.shape == (2, 100_000) and numbers.dtype == torch.float64
    assert numbers.mean(1).abs().max() < 5 / 100_000**0.5
    assert (numbers.var(1) - 1).abs().max() < 5 * (2 / 100_000) ** 0.5
    assert torch.corrcoef(numbers)[0, 1].abs() < 5 / 100_000**0.5
    assert torch.equal(decoder_normal(keys[1:], 100_000)[0], numbers[1])


def test_without_a_draw_the_picture_is_one(model):
    """Argmax leaves one grid, and so one picture, for the decoder's noise follows from it; free draws do not."""
    greedy, free = sample(model, ["red"], n=2, interventions=[Argmax()]), sample(model, ["red"], n=2)
    torch.testing.assert_close(greedy.images[0, 0], greedy.images[0, 1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(free.images[0, 0], free.images[0, 1], atol=1e-2)


def test_the_pipeline_draws_the_codes_of_a_prompt_once(pipeline):
    """What the documentation says of it: its pictures of a prompt are of one grid, under noise of their own."""
    told: list[torch.Tensor] = []
    hook = pipeline.transformer.register_forward_pre_hook(
        lambda _, __, named: told.append(named["prior_token_id"]), with_kwargs=True
    )
    pictures = tiny.drawn(pipeline, "red heart", num_images_per_prompt=3)
    hook.remove()
    assert told[0].shape == (3, 16) and (told[0] == told[0][0]).all()
    assert not torch.allclose(pictures[0], pictures[1], atol=1e-2)
    assert not torch.equal(told[0][0], prior_of(pipeline, "red heart", seed=1))  # another draw is another grid


def prior_of(pipeline: Any, prompt: str, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return pipeline.generate_prior_tokens(prompt, 64, 64)[0][0]
