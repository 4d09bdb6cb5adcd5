"""Emu3 against `Emu3ForConditionalGeneration.generate` under the published recipe, on tiny random weights.

The reference draws from all words, forced ones included: one call of multinomial over the vocabulary per token. The
noise source of these tests makes the same calls.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from divlens.errors import DivlensError
from divlens.interventions import Argmax, Guidance
from divlens.models import emu3
from divlens.models.loading import Options
from divlens.paths import Raster
from divlens.sampler import sample
from oracles import tiny_transformers as tiny

SEED = 3
GROUPED = [prompt for prompt in tiny.PROMPTS for _ in range(2)]  # the reference's order: p1 p1 p2 p2 p3 p3
TILED = tiny.PROMPTS * 2


@dataclass(frozen=True)
class VocabularyNoise:
    """The reference's calls: a draw over all words per code, and one, of no consequence, per end of line."""

    model: emu3.Emu3Model
    generator: torch.Generator

    def draw(self, probabilities: torch.Tensor, step: int, first: int) -> torch.Tensor:
        words = torch.zeros(len(probabilities), self.model.network.config.text_config.vocab_size)
        if step and step % self.model.grid[1] == 0:
            torch.multinomial(words.index_fill(1, torch.tensor(self.model.end_of_line), 1), 1, generator=self.generator)
        words[:, self.model.words] = probabilities[:, 0]
        drawn = torch.multinomial(words, 1, generator=self.generator)
        return (drawn == self.model.words).long().argmax(1, keepdim=True)

    def path_uniform(self, step: int, positions: int, device: torch.device) -> torch.Tensor:
        raise AssertionError("a raster draws no path")

    path_gumbel = path_uniform


def noise(model: emu3.Emu3Model, seed: int = SEED) -> VocabularyNoise:
    return VocabularyNoise(model, torch.Generator().manual_seed(seed))


def saved(folder: Path, *parts: Any) -> str:
    return tiny.saved(parts or tiny.emu3(), folder)


def small(folder: str, **changes: Any) -> emu3.Emu3Model:
    """The published grid has 8,100 codes; this one 15, in lines of five."""
    return replace(emu3.load(folder, Options()), grid=(3, 5), **changes)


@pytest.fixture(scope="module", params=[False, True], ids=["side by side", "scattered"])
def all_three(request, tmp_path_factory) -> tuple[Any, Any, emu3.Emu3Model]:
    """The reference, its processor, and ours loaded from what they saved."""
    network, processor = tiny.emu3(scattered=request.param)
    return network, processor, small(saved(tmp_path_factory.mktemp("emu3"), network, processor))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> emu3.Emu3Model:
    return small(saved(tmp_path_factory.mktemp("emu3")))


def inputs(processor: Any, texts: list[str], grid: tuple[int, int]) -> Any:
    """What the reference reads, by its own processor, for a picture of this size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor, "calculate_generate_size", lambda *_: grid)
        read = processor(text=texts, padding=True, return_for_image_generation=True, return_tensors="pt")
    assert read.pop("image_sizes") == [[*grid]] * len(texts)
    return read


def constraint(network: Any, words: Any, grid: tuple[int, int]) -> Any:
    """Which words may come next: a code, at the end of a line its token, and what closes a picture."""
    height, width = grid
    size = height * (width + 1)
    closing = {size + 1: words.eof_token_id, size + 2: words.eoi_token_id, size + 3: words.eos_token_id}

    def allowed(_: int, ids: torch.Tensor) -> list[int]:
        place = len(ids) - int((ids == words.image_wrapper_token_id).nonzero()[0])
        if place in closing:
            return [closing[place]]
        return network.vocabulary_mapping.image_tokens if place % (width + 1) else [words.vocab[tiny.END_OF_LINE]]

    return allowed


def theirs(network: Any, processor: Any, model: emu3.Emu3Model, n: int = 2, **options: Any) -> torch.Tensor:
    """The reference's new words, n pictures per prompt."""
    height, width = model.grid
    positive = inputs(processor, [prompt + emu3.SUFFIX for prompt in tiny.PROMPTS], model.grid)
    negative = inputs(processor, [emu3.NEGATIVE] * len(tiny.PROMPTS) * n, model.grid)
    asked = {"do_sample": True, "top_k": 2048, "guidance_scale": 3.0} | options
    torch.manual_seed(SEED)
    out = network.generate(
        **positive,
        max_new_tokens=height * (width + 1) + 3,
        num_return_sequences=n,
        prefix_allowed_tokens_fn=constraint(network, processor.tokenizer, model.grid),
        negative_prompt_ids=negative.input_ids,
        negative_prompt_attention_mask=negative.attention_mask,
        **asked,
    )
    return out[:, positive.input_ids.shape[1] :]


def codes_of(network: Any, words: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The reference's own way from words to codes; on the way, the forced words are checked."""
    lines = words[:, :-3].view(len(words), grid[0], grid[1] + 1)
    assert (lines[..., -1] == network.vocabulary_mapping.eol_token_id).all()
    return network.vocabulary_mapping.convert_bpe2img(lines).long()


@pytest.mark.parametrize(("guidance", "top_k"), [(3.0, 2048), (1.5, 7), (1.0, 2048)])
def test_tokens_are_those_of_generate(all_three, guidance, top_k):
    """Prompts of three lengths, two pictures each, and as many codes as 40: top-k 7 cuts, 2048 does not.

    Attention and the softmax round otherwise, by about 1e-6 of a logit, so a draw parts from the reference in about 1
    of 10,000 grids; in none here."""
    network, processor, model = all_three
    model = replace(model, top_k=top_k)
    words = theirs(network, processor, model, guidance_scale=guidance, top_k=top_k)
    reference = codes_of(network, words, model.grid)
    scale = Guidance(guidance)
    assert torch.equal(tiny.tokens_of(model, GROUPED, noise(model), [scale]), reference)
    # The same comparison sees prompts in another order, another prompt, another scale, another k and another seed.
    assert not torch.equal(tiny.tokens_of(model, TILED, noise(model), [scale]), reference)
    other = tiny.tokens_of(model, [*GROUPED[:-1], "bluer"], noise(model), [scale])
    assert not torch.equal(other[-1], reference[-1])
    assert not torch.equal(tiny.tokens_of(model, GROUPED, noise(model), [Guidance(guidance + 1)]), reference)
    few = replace(model, top_k=3)
    assert not torch.equal(tiny.tokens_of(few, GROUPED, noise(few), [scale]), reference)
    assert not torch.equal(tiny.tokens_of(model, GROUPED, noise(model, SEED + 1), [scale]), reference)


def test_the_published_recipe_is_the_default(all_three):
    network, processor, model = all_three
    reference = codes_of(network, theirs(network, processor, model), model.grid)
    assert torch.equal(tiny.tokens_of(model, GROUPED, noise(model)), reference)
    for changed in (replace(model, suffix=""), replace(model, negative="lowres")):
        assert not torch.equal(tiny.tokens_of(changed, GROUPED, noise(model)), reference)


def test_greedy_tokens_are_those_of_generate(all_three):
    network, processor, model = all_three
    words = theirs(network, processor, model, n=1, do_sample=False, top_k=None)
    found = tiny.tokens_of(model, GROUPED, noise(model), [Argmax()])
    assert torch.equal(found, codes_of(network, words, model.grid).repeat_interleave(2, 0))
    assert not torch.equal(found[1], found[2])


def test_other_sizes_are_those_of_generate(all_three):
    """One line only, lines of one code, and more lines than codes in a line."""
    network, processor, model = all_three
    for grid in ((1, 4), (4, 1), (5, 3)):
        sized = replace(model, grid=grid)
        reference = codes_of(network, theirs(network, processor, sized), grid)
        assert torch.equal(tiny.tokens_of(sized, GROUPED, noise(sized)), reference)


def plain(network: Any, prompt: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Log-probabilities over all words that follow the prompt and each of `words` but the last, in one plain pass."""
    ids = torch.cat([prompt, words[:-1]])[None]
    return network(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :].log_softmax(-1)


@pytest.mark.parametrize("guided", [True, False])
def test_logits_are_those_of_a_plain_pass(all_three, guided):
    """Up to one number per position, which softmax does not see. Float32, summed in another order: about 1e-6."""
    network, processor, model = all_three
    (height, width), count = model.grid, model.rule.positions
    tokens = torch.randint(model.codes, (6, count))
    found = tiny.logits_along(model, GROUPED, tokens, guided)
    assert len(found) == 1 + guided
    drawn = [place for place in range(height * (width + 1)) if (place + 1) % (width + 1)]
    for row, prompt in enumerate(GROUPED):
        words = network.vocabulary_mapping.convert_img2bpe(tokens[row].view(height, width)).flatten()
        texts = (prompt + emu3.SUFFIX, emu3.NEGATIVE)
        for branch, text in zip(found, texts, strict=False):
            ids = inputs(processor, [text], model.grid).input_ids[0]
            with torch.inference_mode():
                expected = plain(network, ids, words)[drawn][:, model.words].log_softmax(-1)
                other = plain(network, ids, words.flip(0))[drawn][:, model.words].log_softmax(-1)
            torch.testing.assert_close(branch[row].log_softmax(-1), expected, atol=2e-5, rtol=1e-4)
            assert not torch.allclose(branch[row].log_softmax(-1), other, atol=1e-2)


def test_each_prompt_is_prefilled_once(model):
    """Six samples of three prompts, guided: three prompts and the negative one, whatever their lengths."""
    transformer = model.network.model.text_model

    def run(rows: list[str], guidance: float) -> list[int]:
        return tiny.fed_rows(transformer, lambda: tiny.tokens_of(model, rows, noise(model), [Guidance(guidance)]))

    steps = model.rule.steps - 1
    assert run(GROUPED, 3.0) == [4] + [12] * steps
    assert run(["red"] * 8, 3.0) == [2] + [16] * steps
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
    words = theirs(network, processor, model)
    tokens = codes_of(network, words, model.grid)
    pictures = model.decode(tokens)
    assert pictures.dtype == torch.float32 and pictures.min() >= 0 and pictures.max() <= 1
    raw = network.decode_image_tokens(image_tokens=words, height=model.grid[0], width=model.grid[1])
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.5, 0.4, 0.3), (0.5, 0.6, 0.7)))
    torch.testing.assert_close(pictures, (raw * std + mean).clip(0, 1))
    published = processor.postprocess(list(raw.float()))["pixel_values"]  # the reference cuts to whole numbers
    for picture, image in zip(pictures, published, strict=True):
        whole = torch.tensor(list(image.tobytes())).view(*picture.shape[1:], 3).permute(2, 0, 1)
        assert (picture * 255 - whole).abs().max() < 1.001
    assert not torch.allclose(model.decode(tokens.flip(2)), pictures, atol=1e-2)


def test_prompts_are_read_as_by_the_processor(all_three):
    _, processor, model = all_three
    rows = model.encode(tiny.PROMPTS)
    for row, prompt in zip(rows, tiny.PROMPTS, strict=True):
        ids = inputs(processor, [prompt + emu3.SUFFIX], model.grid).input_ids[0]
        assert row[0] == len(ids) and torch.equal(row[1 : len(ids) + 1], ids) and not row[len(ids) + 1 :].any()
    assert model.lengths(tiny.PROMPTS) == rows[:, 0].tolist() and len(set(rows[:, 0].tolist())) == 3


def test_what_the_model_says_of_itself(tmp_path):
    """Of the published size: 9,216 positions, 90 x 90 codes, and 90 ends of lines."""
    model = emu3.load(saved(tmp_path), Options())
    assert (model.codes, model.mask, model.grid, model.guidance, model.top_k) == (40, 40, (90, 90), 3.0, 2048)
    assert model.rule == Raster(8100) and model.limit == 9216 - 8190
    assert model.frequencies() is None and len(model.calibration_prompts()) == 64
    assert model.name == f"emu3:{tmp_path}"


def test_a_wrapped_network_is_in_evaluation_and_a_tokenizer_will_do():
    network, processor = tiny.emu3()
    wrapped = emu3.from_model(network.train(), processor, Options())
    assert not network.training
    expected = sample(replace(wrapped, grid=(3, 5)), tiny.PROMPTS, n=2).tokens
    by_tokenizer = emu3.from_model(network, processor.tokenizer, Options())
    assert by_tokenizer.grid == (90, 90) and by_tokenizer.pixels.mean == (0.5, 0.5, 0.5)
    assert torch.equal(sample(replace(by_tokenizer, grid=(3, 5)), tiny.PROMPTS, n=2).tokens, expected)


def test_a_long_wording_is_refused_or_cut(tmp_path):
    """The limit follows the grid: what a larger picture takes, a prompt loses."""
    folder, long = saved(tmp_path, *tiny.emu3(positions=8300)), "a very long wording " * 8
    model = replace(emu3.load(folder, Options()), negative="bad")
    assert model.limit == 110
    with pytest.raises(DivlensError, match=r"reads at most 110 tokens, got 209: 'a very long .*--truncate"):
        model.encode([long])
    assert replace(model, grid=(3, 5)).encode([long]).shape == (1, 8300 - 18 + 1)
    cut = replace(model, truncate=True)
    row = cut.encode([long])[0]
    whole = torch.tensor(cut.reader(cut.suffix).ids([long])[0])
    # What is cut is the wording: the recipe's suffix and the begin of the picture stay.
    end = len(emu3.SUFFIX) + len("<90*90>")  # a token per byte
    assert row[0] == 110 and torch.equal(row[-end:], whole[-end:]) and torch.equal(row[1:-end], whole[: 110 - end])
    assert cut.lengths([long]) == [209]
    assert torch.equal(cut.encode(["red"]), model.encode(["red"]))


def refused(folder: Path | str, message: str) -> None:
    with pytest.raises(DivlensError, match=message) as error:
        emu3.load(str(folder), Options())
    assert "\n" not in str(error.value)


def test_missing_files_are_one_line(tmp_path):
    refused(tmp_path, r"lacks config\.json, .*tokenizer\.json.*; expected the files of BAAI/Emu3-Gen-hf")
    refused("nobody/nothing", r"cannot load 'nobody/nothing': expected a folder, or a repository on the model hub")
    saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    refused(tmp_path, r"cannot load .*got OSError.*model\.safetensors")


def test_another_kind_of_model_is_refused(tmp_path):
    refused(tiny.saved(tiny.janus(), tmp_path), r"config\.json expects a model of type emu3, got janus")


def test_tensors_that_do_not_fit_are_named(tmp_path):
    network, processor = tiny.emu3()
    saved(tmp_path, network, processor)

    def change(state: dict[str, torch.Tensor]) -> None:
        state["surplus"] = torch.zeros(1)
        state["lm_head.weight"] = torch.zeros(7, 32)
        del state["vqmodel.quantize.embedding.weight"]

    tiny.rewrite_weights(tmp_path, change)
    words = network.config.text_config.vocab_size
    refused(tmp_path, r"missing model\.vqmodel\.quantize\.embedding\.weight; not expected surplus; lm_head")
    refused(tmp_path, rf"lm_head\.weight: expected \({words}, 32\), found \(7, 32\)")


def test_parts_that_do_not_fit_each_other_are_named():
    network, processor = tiny.emu3()
    network.config.vq_config.codebook_size = 41
    with pytest.raises(DivlensError, match=r"one codebook size .* got vq_config 41, vocabulary_map 40"):
        emu3.from_model(network, processor, Options())
    network, processor = tiny.emu3()
    network.vocabulary_mapping.eol_token_id = None
    with pytest.raises(DivlensError, match=r"expects an end-of-line token <\|extra_200\|> .* got none"):
        emu3.from_model(network, processor, Options())
    with pytest.raises(DivlensError, match="expects room for a prompt and 90x90 codes, got 500 positions"):
        emu3.from_model(tiny.emu3(positions=500)[0], processor, Options())
    with pytest.raises(DivlensError, match="emu3 expects a Emu3ForConditionalGeneration, got a Linear"):
        emu3.from_model(torch.nn.Linear(1, 1), processor, Options())
    processor.tokenizer._special_tokens_map.pop("image_wrapper_token")
    with pytest.raises(DivlensError, match=r"got a Emu3Processor without image_wrapper_token"):
        emu3.from_model(network, processor, Options())
