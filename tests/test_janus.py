"""Janus against `JanusForConditionalGeneration.generate`, on tiny random weights saved and loaded as published.

With guidance 1 the reference's `generate` fails (it draws for both branches and keeps room for one), so the oracle
without guidance is a plain forward pass over the whole sequence, one sample at a time, without cache or padding.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from divlens.errors import DivlensError
from divlens.interventions import Argmax, Guidance, TopK
from divlens.models import janus
from divlens.models.loading import Options
from divlens.noise import CounterNoise, TorchNoise
from divlens.paths import Raster
from divlens.sampler import sample
from oracles import tiny_transformers as tiny

SEED = 3
GROUPED = [prompt for prompt in tiny.PROMPTS for _ in range(2)]  # the reference's order: p1 p1 p2 p2 p3 p3
TILED = tiny.PROMPTS * 2


@pytest.fixture(scope="module", params=[4, 6], ids=["grid 4", "grid 6"])
def all_three(request, tmp_path_factory) -> tuple[Any, Any, janus.JanusModel]:
    """The reference, its processor, and ours loaded from what they saved."""
    network, processor = tiny.janus(request.param)
    return network, processor, janus.load(saved(tmp_path_factory.mktemp("janus"), network, processor), Options())


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> janus.JanusModel:
    return janus.load(saved(tmp_path_factory.mktemp("janus")), Options())


def saved(folder: Path, *parts: Any) -> str:
    return tiny.saved(parts or tiny.janus(), folder)


def inputs(processor: Any, prompts: list[str]) -> Any:
    """What the reference reads, by its own processor."""
    chats = [[{"role": "user", "content": [{"type": "text", "text": prompt}]}] for prompt in prompts]
    texts = [processor.apply_chat_template(chat, add_generation_prompt=True) for chat in chats]
    return processor(text=texts, generation_mode="image", padding=True, return_tensors="pt")


def theirs(network: Any, processor: Any, **options: Any) -> torch.Tensor:
    """The reference's tokens, two grids per prompt."""
    torch.manual_seed(SEED)
    asked = {"generation_mode": "image", "num_return_sequences": 2} | options
    tokens = network.generate(**inputs(processor, tiny.PROMPTS), **asked)
    side = network.config.vq_config.num_patches
    return tokens.view(-1, side, side)


def torch_noise(rows: int = 6, seed: int = SEED) -> TorchNoise:
    return TorchNoise(torch.Generator().manual_seed(seed), rows)


@pytest.mark.parametrize("guidance", [5, 2.5])
def test_tokens_are_those_of_generate(all_three, guidance):
    """Prompts of three lengths, two pictures each. Attention rounds otherwise where the padding differs, by about 1e-6
    of a logit, so a draw parts from the reference in about 1 of 10,000 grids; in none here."""
    network, processor, model = all_three
    reference = theirs(network, processor, do_sample=True, top_k=0, guidance_scale=guidance)
    scale = Guidance(float(guidance))
    assert torch.equal(tiny.tokens_of(model, GROUPED, torch_noise(), [scale]), reference)
    # The same comparison sees prompts in another order, another prompt, another scale and another seed.
    assert not torch.equal(tiny.tokens_of(model, TILED, torch_noise(), [scale]), reference)
    other = tiny.tokens_of(model, [*GROUPED[:-1], "bluer"], torch_noise(), [scale])
    assert not torch.equal(other[-1], reference[-1])
    assert not torch.equal(tiny.tokens_of(model, GROUPED, torch_noise(), [Guidance(guidance + 1.0)]), reference)
    assert not torch.equal(tiny.tokens_of(model, GROUPED, torch_noise(seed=SEED + 1), [scale]), reference)


def test_the_published_guidance_is_the_default(all_three):
    network, processor, model = all_three
    reference = theirs(network, processor, do_sample=True, top_k=0)
    assert torch.equal(tiny.tokens_of(model, GROUPED, torch_noise()), reference)


def test_greedy_tokens_are_those_of_generate(all_three):
    network, processor, model = all_three
    reference = theirs(network, processor, do_sample=False, num_return_sequences=1)
    found = tiny.tokens_of(model, GROUPED, torch_noise(), [Argmax()])
    assert torch.equal(found, reference.repeat_interleave(2, 0))
    assert not torch.equal(found[1], found[2])


def test_the_fifty_codes_of_transformers_are_a_top_k(all_three):
    """Nobody asked for it, yet `generate` keeps 50 codes; TopK(50) is the same, and the default here is not."""
    network, processor, model = all_three
    reference = theirs(network, processor, do_sample=True)
    assert model.codes > 50
    assert torch.equal(tiny.tokens_of(model, GROUPED, torch_noise(), [TopK(50)]), reference)
    assert not torch.equal(tiny.tokens_of(model, GROUPED, torch_noise(), [TopK(5)]), reference)


def plain(network: Any, ids: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Logits (n, codes) of one sample from one pass over its whole sequence, without cache or padding."""
    text = network.model.language_model.get_input_embeddings()(ids[None])
    codes = network.prepare_embeddings_for_image_generation(tokens[None, :-1])
    hidden = network.model.language_model(inputs_embeds=torch.cat([text, codes], 1), use_cache=False).last_hidden_state
    return network.model.generation_head(hidden[0, len(ids) - 1 :])


@pytest.mark.parametrize("guided", [True, False])
def test_logits_are_those_of_a_plain_pass(all_three, guided):
    """Float32: two orders of summation over 32 channels and some 60 keys differ by about 1e-6 of logits near 1."""
    network, processor, model = all_three
    tokens = torch.randint(model.codes, (6, model.rule.positions))
    found = tiny.logits_along(model, GROUPED, tokens, guided)
    assert len(found) == 1 + guided
    for row, prompt in enumerate(GROUPED):
        ids = inputs(processor, [prompt]).input_ids[0]
        hidden = ids.masked_fill((ids != 1) & (ids != ids[-1]), 0)  # the begin of the text and of the image stay
        for branch, own in zip(found, (ids, hidden), strict=False):
            with torch.inference_mode():
                expected = plain(network, own, tokens[row])
                other = plain(network, own, tokens[row].flip(0))
            torch.testing.assert_close(branch[row], expected, atol=2e-5, rtol=1e-4)
            assert not torch.allclose(branch[row], other, atol=1e-2)


def test_each_prompt_is_prefilled_once(model):
    """Six samples of three prompts, guided: three prompts and, as their lengths differ, three without words."""

    def run(rows: list[str], guidance: float) -> list[int]:
        transformer = model.network.model.language_model
        return tiny.fed_rows(
            transformer, lambda: tiny.tokens_of(model, rows, torch_noise(len(rows)), [Guidance(guidance)])
        )

    steps = model.rule.steps - 1
    assert run(GROUPED, 5.0) == [6] + [12] * steps
    assert run(["red"] * 8, 5.0) == [2] + [16] * steps
    assert run(["red", "sea", "red", "sea"], 5.0) == [3] + [8] * steps  # one length: one without words
    assert run(GROUPED, 1.0) == [3] + [6] * steps  # no second pass without guidance


def test_shared_prefill_gives_each_sample_its_own_logits(model):
    tokens = torch.randint(model.codes, (6, model.rule.positions))
    together = tiny.logits_along(model, GROUPED, tokens, guided=True)
    for row, prompt in enumerate(GROUPED):
        alone = tiny.logits_along(model, [prompt], tokens[row : row + 1], guided=True)
        for branch, own in zip(together, alone, strict=True):
            torch.testing.assert_close(branch[row], own[0], atol=2e-5, rtol=1e-4)
            assert not torch.allclose(branch[row - 1], own[0], atol=1e-2)


def test_pictures_are_those_of_the_reference(all_three):
    network, processor, model = all_three
    tokens = torch.randint(model.codes, (6, *model.grid))
    pictures = model.decode(tokens)
    assert pictures.dtype == torch.float32 and pictures.min() >= 0 and pictures.max() <= 1
    with torch.inference_mode():
        raw = network.decode_image_tokens(tokens.flatten(1))
        published = processor.postprocess(list(raw.float()), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pictures, (raw.permute(0, 3, 1, 2) / 2 + 0.5).clip(0, 1))
    assert (pictures * 255 - published).abs().max() < 1.001  # the reference cuts to whole numbers
    assert not torch.allclose(model.decode(tokens.mT), pictures, atol=1e-2)


def test_prompts_are_read_as_by_the_processor(all_three):
    _, processor, model = all_three
    rows = model.encode(tiny.PROMPTS)
    for row, prompt in zip(rows, tiny.PROMPTS, strict=True):
        ids = inputs(processor, [prompt]).input_ids[0]
        assert row[0] == len(ids) and torch.equal(row[1 : len(ids) + 1], ids) and not row[len(ids) + 1 :].any()
    assert model.lengths(tiny.PROMPTS) == rows[:, 0].tolist() and len(set(rows[:, 0].tolist())) == 3


def test_what_the_model_says_of_itself(all_three):
    network, _, model = all_three
    side = network.config.vq_config.num_patches
    assert (model.codes, model.mask, model.grid, model.guidance) == (70, 70, (side, side), 5.0)
    assert model.rule == Raster(side * side) and not hasattr(model, "top_k")
    assert model.limit == 64 and model.frequencies() is None
    assert len(model.calibration_prompts()) == 64 and model.name.startswith("janus:/")


def test_a_wrapped_network_is_in_evaluation_and_a_tokenizer_that_knows_the_chat_will_do():
    network, processor = tiny.janus()
    wrapped = janus.from_model(network.train(), processor, Options())
    assert not network.training
    expected = sample(wrapped, tiny.PROMPTS, n=2)
    processor.tokenizer.chat_template = processor.chat_template
    by_tokenizer = sample(janus.from_model(network, processor.tokenizer, Options()), tiny.PROMPTS, n=2)
    assert torch.equal(by_tokenizer.tokens, expected.tokens)
    torch.testing.assert_close(by_tokenizer.images, expected.images)


def test_only_the_step_is_compiled(tmp_path, monkeypatch):
    """The first call has another shape, so it is left as it is."""
    calls: list[int] = []

    def compiled(network: Any) -> Any:
        def step(**named: Any) -> Any:
            calls.append(named["inputs_embeds"].shape[1])
            return network(**named)

        return step

    monkeypatch.setattr(torch, "compile", compiled)
    folder = saved(tmp_path)
    tokens = sample(janus.load(folder, Options(compile=True)), ["red"], n=1).tokens
    assert calls == [1] * 15
    assert torch.equal(tokens, sample(janus.load(folder, Options()), ["red"], n=1).tokens) and len(calls) == 15


def test_a_long_wording_is_refused_or_cut(tmp_path):
    folder, long = saved(tmp_path), "a very long wording " * 5
    model = janus.load(folder, Options())
    with pytest.raises(DivlensError, match=r"reads at most 64 tokens, got 107: 'a very long .*--truncate"):
        sample(model, [long], n=1)
    cut = janus.load(folder, Options(truncate=True))
    row = cut.encode([long])[0]
    whole = inputs(processor_in(folder), [long]).input_ids[0]
    assert row[0] == 64
    # What is cut is the wording: the template's end, four tokens, stays, and so the begin of an image.
    assert torch.equal(row[-4:], whole[-4:]) and torch.equal(row[1:-4], whole[:60])
    assert sample(cut, [long], n=1).wording_notes == {long: "cut from 107 to 64 tokens"}
    assert torch.equal(cut.encode(["red"]), model.encode(["red"]))


def processor_in(folder: str) -> Any:
    from transformers.models.janus.processing_janus import JanusProcessor

    return JanusProcessor.from_pretrained(folder)


def refused(folder: Path | str, message: str) -> None:
    with pytest.raises(DivlensError, match=message) as error:
        janus.load(str(folder), Options())
    assert "\n" not in str(error.value)


def test_missing_files_are_one_line(tmp_path):
    refused(tmp_path, r"lacks config\.json, .*tokenizer\.json.*; expected the files of deepseek-community/Janus-Pro-1B")
    refused("nobody/nothing", r"cannot load 'nobody/nothing': expected a folder, or a repository on the model hub")
    saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    refused(tmp_path, r"cannot load .*got OSError.*model\.safetensors")


def test_tensors_that_do_not_fit_are_named(tmp_path):
    saved(tmp_path)
    gone, wide = "model.generation_head.proj_out.weight", "model.generation_head.vision_head.weight"

    def change(state: dict[str, torch.Tensor]) -> None:
        state["surplus"] = torch.zeros(1)
        state[wide] = torch.zeros(71, 32)
        del state[gone]

    tiny.rewrite_weights(tmp_path, change)
    refused(tmp_path, rf"missing {gone}; not expected surplus; {wide}: expected \(70, 32\), found \(71, 32\)")


def test_damaged_weights_are_one_line(tmp_path):
    saved(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    refused(
        tmp_path, r"expects the configuration and weights of a JanusForConditionalGeneration, got SafetensorError: "
    )
    (tmp_path / "config.json").write_text("{")
    refused(tmp_path, r"config\.json expects the JSON object of a model of type janus")


def test_another_kind_of_model_is_refused(tmp_path):
    refused(tiny.saved(tiny.emu3(), tmp_path), r"config\.json expects a model of type janus, got emu3")
    network, processor = tiny.janus()
    with pytest.raises(DivlensError, match="janus expects a JanusForConditionalGeneration, got a Linear"):
        janus.from_model(torch.nn.Linear(1, 1), processor, Options())
    with pytest.raises(DivlensError, match=r"expects the processor or tokenizer .* got a str without boi_token"):
        janus.from_model(network, "tokenizer", Options())
    processor.chat_template = None
    with pytest.raises(DivlensError, match="expects a processor with a chat template, got a JanusProcessor without"):
        janus.from_model(network, processor, Options())


def test_configs_that_do_not_fit_are_named():
    network, processor = tiny.janus()
    network.generation_config.pad_token_id = None
    with pytest.raises(DivlensError, match="generation config with bos_token_id, pad_token_id, got no pad_token_id"):
        janus.from_model(network, processor, Options())
    network.config.vision_config.num_image_tokens = 17
    with pytest.raises(DivlensError, match=r"one number of image tokens .* got vision_config 17, vq_config 16"):
        janus.from_model(network, processor, Options())


def test_a_frozen_draw_is_one_picture(model):
    """The library's own noise: rows with the same index draw the same."""
    noise = CounterNoise.of(0, ["red"] * 3, [0, 1, 2], [0, 0, 1])
    first, second, third = tiny.tokens_of(model, ["red"] * 3, noise)
    assert torch.equal(first, second) and not torch.equal(first, third)
