"""aMUSEd against `diffusers.AmusedPipeline`, on tiny random weights saved and loaded in the published layout."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from divlens.errors import DivlensError
from divlens.interventions import Guidance
from divlens.loop import filled
from divlens.models import amused
from divlens.models.loading import Options
from divlens.noise import TorchNoise
from divlens.paths import ConfidenceUnmasking
from divlens.planning import Reading
from divlens.sampler import sample
from oracles import tiny_diffusers as tiny

pytestmark = pytest.mark.usefixtures("one_thread")

SEED = 3


@pytest.fixture(scope="module", params=[4, 16, 32], ids=["grid 4", "256 pixels", "512 pixels"])
def both(request, tmp_path_factory) -> tuple[Any, amused.AmusedModel]:
    """The reference, and ours loaded from what the reference saved."""
    pipeline = tiny.amused(request.param)
    return pipeline, amused.load(tiny.saved(pipeline, tmp_path_factory.mktemp("amused")), Options())


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> amused.AmusedModel:
    return amused.load(tiny.saved(tiny.amused(), tmp_path_factory.mktemp("amused")), Options())


def theirs(pipeline: Any, prompts: list[str], n: int, guidance: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(SEED)
    asked = {"num_images_per_prompt": n, "guidance_scale": guidance, "output_type": "latent"}
    return pipeline(prompts, generator=generator, **asked).images


def ours(model: amused.AmusedModel, rows: list[str], guidance: float, seed: int = SEED) -> torch.Tensor:
    height, width = model.grid
    start = torch.full((len(rows), height * width), model.mask)
    noise = TorchNoise(torch.Generator().manual_seed(seed), len(rows))
    predictor = model.predictor(model.encode(rows), guided=guidance != 1.0)
    settings = Reading(model).settings([Guidance(guidance)])
    return filled(predictor, settings, noise, start, model.mask).view(-1, height, width)


@pytest.mark.parametrize("guidance", [10.0, 1.0])
def test_tokens_are_those_of_the_pipeline(both, guidance):
    """The reference tiles: its rows are p1 p2 p3 p1 p2 p3. Guidance and softmax round otherwise in the last place, so
    a trajectory could part where two scores are within 1e-6: about 1 in 1,000 over random seeds; none here."""
    pipeline, model = both
    reference = theirs(pipeline, tiny.PROMPTS, 2, guidance)
    tiled = tiny.PROMPTS * 2
    assert torch.equal(ours(model, tiled, guidance), reference)
    # The same comparison sees prompts in another order, another prompt, another scale and another seed.
    interleaved = [prompt for prompt in tiny.PROMPTS for _ in range(2)]
    assert not torch.equal(ours(model, interleaved, guidance), reference)
    assert not torch.equal(ours(model, [*tiled[:-1], "green"], guidance)[-1], reference[-1])
    assert not torch.equal(ours(model, tiled, guidance + 1), reference)
    assert not torch.equal(ours(model, tiled, guidance, seed=SEED + 1), reference)


def test_a_different_size_in_pixels_would_be_seen(both):
    """The micro-conditioning counts: it is not lost on the way."""
    pipeline, model = both
    conditions = model.encode(tiny.PROMPTS)
    predictor = model.predictor(conditions, guided=False)
    view = model.rule.view(torch.full((3, model.grid[0] ** 2), model.mask), 0)
    expected = pipeline.transformer(
        view.tokens.view(3, *model.grid),
        encoder_hidden_states=predictor.hidden,
        pooled_text_emb=predictor.pooled,
        micro_conds=torch.tensor([[2.0 * model.grid[0], 2.0 * model.grid[0], 0, 0, 6]]).expand(3, -1),
    )
    logits = predictor(view)[0]
    torch.testing.assert_close(logits, expected.flatten(2).transpose(1, 2))
    half = amused.AmusedPredictor(
        model.name, predictor.network, predictor.hidden, predictor.pooled, predictor.micro / 2, model.grid, False
    )
    assert not torch.allclose(logits, half(view)[0], atol=1e-3)


def test_pictures_are_those_of_the_pipeline(both):
    pipeline, model = both
    tokens = theirs(pipeline, tiny.PROMPTS, 1, 10.0)
    generator = torch.Generator().manual_seed(SEED)
    expected = pipeline(tiny.PROMPTS, generator=generator, output_type="pt").images
    pictures = model.decode(tokens)
    torch.testing.assert_close(pictures, expected)
    assert pictures.dtype == torch.float32 and pictures.min() >= 0 and pictures.max() <= 1
    assert not torch.allclose(model.decode(tokens.flip(2)), expected, atol=1e-3)


def test_a_wrapped_pipeline_keeps_its_weights_and_dtype():
    pipeline = tiny.amused()
    pipeline.to(torch.float16)
    wrapped = amused.from_pipeline(pipeline, Options())
    assert wrapped.vqvae.dtype == torch.float32  # as the pipeline does, for force_upcast
    assert {part.dtype for part in (pipeline.vqvae, pipeline.transformer, pipeline.text_encoder)} == {torch.float16}


def test_what_the_model_says_of_itself(both):
    pipeline, model = both
    side = pipeline.transformer.config.sample_size
    assert (model.codes, model.mask, model.grid, model.guidance) == (24, 31, (side, side), 10.0)
    assert model.rule == ConfidenceUnmasking(12, (2.0, 0.0), "cosine")
    assert model.frequencies() is None and len(model.calibration_prompts()) == 64
    assert model.limit == 77 and model.lengths(["ab", "ab c"]) == [4, 5]
    assert model.encode(["red", "blue"]).shape == (2, 78, tiny.HIDDEN)


def test_the_schedule_is_read_from_the_scheduler(tmp_path):
    tiny.saved(tiny.amused(), tmp_path)
    tiny.change_config(tmp_path, "scheduler/scheduler_config.json", masking_schedule="linear", mask_token_id=27)
    model = amused.load(str(tmp_path), Options())
    assert model.rule.schedule == "linear" and model.mask == 27


def test_a_negative_prompt_is_the_unconditional_branch(model):
    other = replace(model, negative="blue")
    assert torch.equal(other.unconditional, model.encode(["blue"])[0])
    assert torch.equal(model.unconditional, model.encode([""])[0])
    same, changed = (sample(one, ["red heart"], n=2, seed=3).tokens for one in (replace(model, negative=""), other))
    assert torch.equal(same, sample(model, ["red heart"], n=2, seed=3).tokens) and not torch.equal(same, changed)


def test_the_empty_text_is_encoded_once(model):
    """Once in a model's life, not per batch; and without guidance the network runs one branch only."""
    sample(model, tiny.PROMPTS[:1], n=1)
    calls = []
    handle = model.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    seen = []
    other = model.network.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    try:
        sample(model, tiny.PROMPTS, n=3, batch_size=2)
        assert len(calls) == 1 and set(seen) == {4, 2}  # both branches of 2 rows and of the last 1
        seen.clear()
        sample(model, tiny.PROMPTS, n=2, batch_size=2, interventions=[Guidance(1.0)])
        assert set(seen) == {2}
    finally:
        handle.remove()
        other.remove()


def test_too_long_a_wording_is_cut_as_in_the_pipeline(tmp_path):
    pipeline = tiny.amused()
    folder = tiny.saved(pipeline, tmp_path)
    cutting = amused.load(folder, Options(truncate=True))
    made = sample(cutting, [tiny.LONG, "red"], n=1)
    assert made.wording_notes == {tiny.LONG: "cut from 482 to 77 tokens"}
    pair = [tiny.LONG, "red"]
    assert torch.equal(ours(cutting, pair, 10.0), theirs(pipeline, pair, 1, 10.0))


# --- bad input ------------------------------------------------------------------------------------------------------


def refused(folder: Path, message: str) -> None:
    with pytest.raises(DivlensError, match=message) as error:
        amused.load(str(folder), Options())
    assert "\n" not in str(error.value)


def test_missing_files_are_named(tmp_path):
    tiny.saved(tiny.amused(), tmp_path)
    (tmp_path / "transformer" / "config.json").unlink()
    (tmp_path / "model_index.json").unlink()
    refused(tmp_path, r"lacks model_index.json, transformer/config.json; expected the files of amused/amused-256")


def test_missing_weights_are_named(tmp_path):
    tiny.saved(tiny.amused(), tmp_path)
    (tmp_path / "vqvae" / "diffusion_pytorch_model.safetensors").unlink()
    refused(tmp_path, r"diffusion_pytorch_model")


def test_another_pipeline_or_part_is_named(tmp_path):
    tiny.saved(tiny.vq_diffusion(), tmp_path / "vq")
    refused(tmp_path / "vq", r"model_index.json expects a AmusedPipeline, got a VQDiffusionPipeline")
    tiny.saved(tiny.amused(), tmp_path / "amused")
    tiny.change_config(tmp_path / "amused", "transformer/config.json", _class_name="UNet2DModel")
    refused(tmp_path / "amused", r"transformer/config.json expects a UVit2DModel, got a UNet2DModel")
    with pytest.raises(DivlensError, match=r"expected a diffusers AmusedPipeline, got a VQDiffusionPipeline"):
        amused.from_pipeline(tiny.vq_diffusion(), Options())


def test_a_broken_configuration_is_one_line(tmp_path):
    tiny.saved(tiny.amused(), tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    refused(tmp_path, r"model_index.json expects the JSON object of a AmusedPipeline")


@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
def test_tensors_that_do_not_fit_are_named(tmp_path, part):
    tiny.saved(tiny.amused(), tmp_path)
    (path,) = (tmp_path / part).glob("*.safetensors")
    tensors = load_file(path)
    wide, gone = [key for key, tensor in tensors.items() if tensor.ndim == 2][:2]
    shape = tuple(tensors[wide].shape)
    tensors[wide] = torch.cat([tensors[wide], tensors[wide]])
    del tensors[gone]
    save_file({**tensors, "surplus": torch.zeros(1)}, path, {"format": "pt"})
    found = (2 * shape[0], *shape[1:])
    text = f"missing {gone}; not expected surplus; {wide}: expected {shape}, found {found}"
    with pytest.raises(DivlensError) as error:
        amused.load(str(tmp_path), Options())
    assert text in str(error.value)


def test_damaged_weights_are_one_line(tmp_path):
    tiny.saved(tiny.amused(), tmp_path)
    for part in ("transformer", "text_encoder"):
        (path,) = (tmp_path / part).glob("*.safetensors")
        whole = path.read_bytes()
        path.write_bytes(whole[:1000])
        refused(tmp_path, rf"{tmp_path}/{part} expects the configuration and weights of .*, got SafetensorError")
        path.write_bytes(whole)


def test_parts_that_do_not_fit_each_other_are_named(tmp_path):
    pipeline = tiny.amused()
    pipeline.vqvae = tiny.vqvae(23, lookup_from_codebook=True)
    with pytest.raises(DivlensError, match=r"one codebook size in all its parts, got transformer 24, vqvae 23"):
        amused.from_pipeline(pipeline, Options())
    tiny.saved(tiny.amused(), tmp_path)
    tiny.change_config(tmp_path, "scheduler/scheduler_config.json", mask_token_id=32)
    refused(tmp_path, r"expects a mask id from 24, the codebook's size, up to 31, the last that .* embeds, got 32")


def test_a_compiled_network_draws_the_same_tokens(tmp_path, monkeypatch):
    """Traced by torch.compile and run without its code generator, which would take a minute."""
    folder, compiled, original = tiny.saved(tiny.amused(), tmp_path), [], torch.compile

    def traced(function):
        compiled.append(function)
        return original(function, backend="eager")

    monkeypatch.setattr(torch, "compile", traced)
    plain = sample(amused.load(folder, Options()), tiny.PROMPTS[:2], n=2)
    assert not compiled  # only when it is asked for
    fast = sample(amused.load(folder, Options(compile=True)), tiny.PROMPTS[:2], n=2)
    assert len(compiled) == 1 and torch.equal(plain.tokens, fast.tokens)
