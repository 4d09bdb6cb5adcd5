"""GLM-Image against `GlmImagePipeline` and the `generate` that it calls, on tiny random weights.

The published generation config is that of the tiny ones, too: temperature 0.9, top-p 0.75. The reference draws from all
words of its vision vocabulary, one call of multinomial per code, and the noise source of these tests does the same.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import divlens
from divlens.errors import DivlensError
from divlens.interventions import Argmax, Guidance, Temperature, TopK, TopP
from divlens.models import glm_image
from divlens.models.loading import Options
from divlens.paths import Raster
from divlens.planning import Reading
from oracles import tiny_glm_image as tiny
from oracles.tiny_diffusers import change_config
from oracles.tiny_transformers import PROMPTS, fed_rows, logits_along, tokens_of

pytestmark = pytest.mark.usefixtures("one_thread")

SEED = 3
SIZES = [(2, 2), (3, 2)]  # of pictures: of the second the preview fills no whole lines


@dataclass(frozen=True)
class WordNoise:
    """The reference's calls: a draw over all words of the vision vocabulary per code."""

    generator: torch.Generator

    def draw(self, probabilities: torch.Tensor, step: int, first: int) -> torch.Tensor:
        words = torch.nn.functional.pad(probabilities[:, 0], (0, tiny.OTHERS))
        return torch.multinomial(words, 1, generator=self.generator)

    def path_uniform(self, step: int, positions: int, device: torch.device) -> torch.Tensor:
        raise AssertionError("a raster draws no path")

    path_gumbel = condition_normal = path_uniform


def noise(seed: int = SEED) -> WordNoise:
    return WordNoise(torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny.glm_image()


@pytest.fixture(scope="module")
def model(pipeline) -> glm_image.GlmImageModel:
    return glm_image.of_size(glm_image.from_pipeline(pipeline, Options()), SIZES[0])


def inputs(pipeline: Any, prompts: list[str], size: tuple[int, int]) -> Any:
    """What the pipeline reads, by its own processor."""
    chats = [[{"role": "user", "content": [{"type": "text", "text": prompt}]}] for prompt in prompts]
    pixels = {"target_h": 32 * size[0], "target_w": 32 * size[1]}
    return pipeline.processor.apply_chat_template(
        chats, tokenize=True, padding=True, return_dict=True, return_tensors="pt", processor_kwargs=pixels
    )


def theirs(pipeline: Any, model: Any, prompts: list[str] = PROMPTS, **options: Any) -> torch.Tensor:
    """The codes that the reference writes, preview and picture, in the model's grid."""
    read = inputs(pipeline, prompts, model.size)
    torch.manual_seed(SEED)
    asked = {"do_sample": True, "max_new_tokens": model.rule.positions + 1} | options
    out = pipeline.vision_language_encoder.generate(**read, **asked)
    return out[:, read.input_ids.shape[1] :][:, :-1].reshape(-1, *model.grid)


@pytest.mark.parametrize("size", SIZES)
def test_tokens_are_those_of_generate(pipeline, model, size):
    """Prompts of three lengths. Attention rounds otherwise where the padding differs, by about 1e-6 of a logit, so a
    draw parts from the reference in about 1 of 1,000 grids of 260 codes; in none here."""
    model = glm_image.of_size(model, size)
    reference = theirs(pipeline, model)
    assert torch.equal(tokens_of(model, PROMPTS, noise()), reference)
    # The same comparison sees prompts in another order, another prompt, another law, another preview and another seed.
    assert not torch.equal(tokens_of(model, PROMPTS[::-1], noise()), reference)
    assert not torch.equal(tokens_of(model, [*PROMPTS[:2], "bluer"], noise())[-1], reference[-1])
    for law in (Temperature(1.0), TopP(0.9), TopK(5), Guidance(2.0)):
        assert not torch.equal(tokens_of(model, PROMPTS, noise(), [law]), reference)
    turned = replace(model, preview=model.preview[::-1]) if size[0] != size[1] else replace(model, preview=(8, 32))
    assert not torch.equal(tokens_of(turned, PROMPTS, noise()), reference)
    assert not torch.equal(tokens_of(model, PROMPTS, noise(SEED + 1)), reference)


def test_other_laws_are_those_of_generate(pipeline, model):
    for asked, law in (
        ({"temperature": 1.3, "top_p": 1.0, "top_k": 0}, [Temperature(1.3), TopP(1.0)]),
        ({"top_k": 7, "top_p": 0.9}, [TopK(7), TopP(0.9)]),
    ):
        assert torch.equal(tokens_of(model, PROMPTS, noise(), law), theirs(pipeline, model, **asked))


def test_greedy_tokens_are_those_of_generate(pipeline, model):
    reference = theirs(pipeline, model, do_sample=False, temperature=None, top_p=None, top_k=None)
    found = tokens_of(model, PROMPTS, noise(), [Argmax()])
    assert torch.equal(found, reference) and not torch.equal(found[0], found[1])


@pytest.mark.parametrize("size", SIZES)
def test_the_codes_of_the_picture_are_those_of_the_pipeline(pipeline, model, size):
    model = glm_image.of_size(model, size)
    torch.manual_seed(SEED)
    prior, _, _ = pipeline.generate_prior_tokens(PROMPTS, 32 * size[0], 32 * size[1])
    found = model.pictures_codes(tokens_of(model, PROMPTS, noise()))
    assert torch.equal(prior.view(-1, 2 * size[0], 2 * size[1])[:, ::2, ::2], found)


@pytest.mark.parametrize("guided", [True, False])
def test_logits_are_those_of_a_plain_pass(pipeline, model, guided):
    """In one pass of the whole reference, without cache or padding. Float32, summed in another order: about 1e-6."""
    tokens = torch.randint(model.codes, (3, model.rule.positions))
    found = logits_along(model, PROMPTS, tokens, guided)
    assert len(found) == 1 + guided
    for row, prompt in enumerate(PROMPTS):
        for branch, text in zip(found, (prompt, ""), strict=False):
            expected, other = (plain(pipeline, model, text, some) for some in (tokens[row], tokens[row].flip(0)))
            torch.testing.assert_close(branch[row], expected, atol=2e-5, rtol=1e-4)
            assert not torch.allclose(branch[row], other, atol=1e-2)


@torch.inference_mode()
def plain(pipeline: Any, model: Any, prompt: str, tokens: torch.Tensor) -> torch.Tensor:
    """Logits of the codes; the places of all words are those that the reference works out for its own decoding."""
    network, read = pipeline.vision_language_encoder, inputs(pipeline, [prompt], model.size)
    own, _ = network.model.get_rope_index(read.input_ids, read.image_grid_thw, read.images_per_sample)
    places = torch.cat([own, network.model._cached_decode_position_ids.permute(1, 0, 2)], dim=2)
    ids = torch.cat([read.input_ids, tokens[None, :-1]], dim=1)
    out = network(input_ids=ids, position_ids=places[:, :, : ids.shape[1]], use_cache=False).logits
    return out[0, read.input_ids.shape[1] - 1 :, : model.codes]


def test_each_prompt_is_prefilled_once(model):
    """Six samples of three prompts: three prompts, and with guidance the empty one, whatever their lengths."""
    few = replace(model, preview=(1, 2))
    grouped, steps = [prompt for prompt in PROMPTS for _ in range(2)], few.rule.steps - 1

    def run(scale: float) -> list[int]:
        return fed_rows(few.language_model, lambda: tokens_of(few, grouped, noise(), [Guidance(scale)]))

    assert run(1.0) == [3] + [6] * steps
    assert run(3.0) == [4] + [12] * steps


def test_prompts_are_read_as_by_the_processor(pipeline, model):
    rows = model.encode(PROMPTS)
    for row, prompt in zip(rows, PROMPTS, strict=True):
        ids = inputs(pipeline, [prompt], model.size).input_ids[0]
        assert row[0] == len(ids) and torch.equal(row[1 : len(ids) + 1], ids) and not row[len(ids) + 1 :].any()
    assert model.lengths(PROMPTS) == rows[:, 0].tolist() and len(set(rows[:, 0].tolist())) == 3


def test_the_preview_follows_the_processors_rule(pipeline):
    for height in (1, 2, 7, 16, 33, 64):
        for width in (1, 3, 16, 36, 64):
            own = pipeline.processor._get_target_shape(32 * height, 32 * width)
            assert own == (height, width, *glm_image.preview_of((height, width)))
    assert glm_image.preview_of((32, 32)) == (16, 16) and glm_image.preview_of((36, 24)) == (19, 13)
    for size, message in (((1, 300), "less long than wide, got 1x300"), ((0, 4), "at least 1x1 codes, got 0x4")):
        with pytest.raises(DivlensError, match=message):
            glm_image.preview_of(size)


def test_what_the_model_says_of_itself(pipeline):
    """Of 1024 x 1024 pixels, in lines of 32 codes: 8 of the preview, and 32 of the picture."""
    model = glm_image.from_pipeline(pipeline, Options())
    assert (model.codes, model.mask, model.grid, model.guidance) == (40, 40, (40, 32), 1.0)
    assert (model.temperature, model.top_p, model.top_k) == (0.9, 0.75, 48)
    assert model.rule == Raster(16 * 16 + 32 * 32) and model.limit == 2048
    assert model.frequencies() is None and len(model.calibration_prompts()) == 64
    assert glm_image.of_size(model, (36, 24)).grid == (1, 247 + 36 * 24)
    settings = Reading(model).defaults
    assert (settings.temperature, settings.top_p, settings.top_k) == (0.9, 0.75, 48)


def test_a_config_that_does_not_say_leaves_the_law_of_transformers(tmp_path):
    folder = tiny.saved(tiny.glm_image(), tmp_path)
    change_config(tmp_path, "vision_language_encoder/generation_config.json", temperature=None, top_p=None, top_k=None)
    model = glm_image.load(folder, Options())
    assert (model.temperature, model.top_p, model.top_k) == (1.0, 1.0, 50)


def refused(folder: Path | str, message: str) -> None:
    with pytest.raises(DivlensError, match=message) as error:
        glm_image.load(str(folder), Options())
    assert "\n" not in str(error.value)


def test_what_does_not_fit_is_named(tmp_path):
    place = tmp_path / "files"
    tiny.saved(tiny.glm_image(), place)
    law = "vision_language_encoder/generation_config.json"
    for changes, message in (
        ({"temperature": -1.0}, r"temperature above 0 and a top_p in \(0, 1\], got -1.0 and 0.75"),
        ({"temperature": 0.9, "top_p": 2.0}, r"got 0.9 and 2.0"),
        ({"top_p": 0.75, "top_k": -3}, "top_k that is a whole number of at least 0, got -3"),
    ):
        change_config(place, law, **changes)
        refused(place, message)
    change_config(place, law, top_k=48)
    change_config(place, "scheduler/scheduler_config.json", stochastic_sampling=True)
    refused(place, "a scheduler that draws no noise, got one with stochastic_sampling")
    change_config(place, "scheduler/scheduler_config.json", stochastic_sampling=False)
    change_config(place, "vae/config.json", latents_std=[1.0])
    refused(place, r"latents_std of its vae as 4 numbers, got \[1.0\]")
    change_config(place, "vae/config.json", latents_std=[1.0] * 4)
    assert glm_image.load(str(place), Options()).codes == 40  # the control
    pipe = tiny.glm_image()
    pipe.vision_language_encoder.config.vq_config.num_embeddings = 39
    with pytest.raises(DivlensError, match=r"one codebook size .* got vision_language_encoder 39, transformer 40"):
        divlens.wrap(pipe)
    pipe = tiny.glm_image()
    pipe.processor.chat_template = None
    with pytest.raises(DivlensError, match="a processor with a chat template, got one without"):
        divlens.wrap(pipe)
    pipe = tiny.glm_image()
    pipe.vision_language_encoder.config.text_config.max_position_embeddings = 1280
    with pytest.raises(DivlensError, match="expects room for a prompt and 1280 codes, got 1280 positions"):
        divlens.wrap(pipe)
