"""LlamaGen against what its reference computed, and against a plain computation without a cache."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import T5EncoderModel

from divlens.errors import DivlensError
from divlens.interventions import Argmax, Guidance
from divlens.loop import filled
from divlens.models.llamagen.adapter import LlamaGen, RasterPredictor, load
from divlens.models.llamagen.captions import left_padded
from divlens.models.llamagen.gpt import Gpt, Sizes
from divlens.models.loading import Options
from divlens.models.protocol import Predictor
from divlens.noise import TorchNoise
from divlens.paths import Raster
from divlens.planning import Reading
from divlens.sampler import sample
from divlens.settings import Settings
from divlens.types import View
from oracles import tiny_llamagen as tiny

SEED = 7  # of the goldens
NEAR = 1e-4  # float32 against the reference's float32, or against float64, for logits of about 20


@pytest.fixture(scope="module")
def golden(tmp_path_factory) -> LlamaGen:
    return tiny.golden(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("llamagen") / "files")


@pytest.fixture(scope="module")
def model(folder) -> LlamaGen:
    return load(str(folder), Options())


def expected(name: str = "expected") -> dict[str, Tensor]:
    with np.load(tiny.GOLDENS / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def golden_conditions() -> Tensor:
    stored = expected()
    lengths = stored["attention_mask"].sum(1).tolist()
    return torch.stack(
        [left_padded(rows[:n], 120) for rows, n in zip(stored["caption_embeddings"], lengths, strict=True)]
    )


def asked(predictor: Predictor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
    """Conditional and unconditional logits at every position along given tokens: (batch, n, codes)."""
    n = tokens.shape[1]
    pairs = [predictor(View(i, tokens, first=i, count=1, time=i)) for i in range(n)]
    unconditional = [pair[1] for pair in pairs if pair[1] is not None]
    return torch.cat([pair[0] for pair in pairs], 1), torch.cat(unconditional, 1) if unconditional else None


def drawn(model: LlamaGen, conditions: Tensor, settings: Settings, seed: int = SEED) -> Tensor:
    noise = TorchNoise(torch.Generator().manual_seed(seed), len(conditions))
    start = torch.full((len(conditions), settings.rule.steps), model.mask)
    return filled(model.predictor(conditions, settings.guidance != 1), settings, noise, start, model.mask)


def captions(lengths: list[int], width: int = 16, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.stack([left_padded(torch.randn(n, width, generator=random), 120) for n in lengths])


# What the reference computed


def guided_along_golden(model: LlamaGen) -> Tensor:
    conditional, unconditional = asked(model.predictor(golden_conditions(), True), expected()["sampled"].long())
    assert unconditional is not None
    return torch.lerp(unconditional, conditional, 7.5)


def test_guided_logits_are_those_of_the_reference(golden):
    assert (guided_along_golden(golden) - expected()["guided_logits"]).abs().max() < NEAR


@pytest.mark.parametrize("name", sorted(name for name in tiny.gpt_state() if "layers.1" not in name))
def test_every_weight_matters_to_the_guided_logits(golden, name, tmp_path):
    """The twin: one percent more of any one tensor and the logits are not the reference's. A norm's weight may double
    as the scale of what follows, so all are tried but those of the second layer."""
    state = {key: value.clone() for key, value in golden.gpt.state_dict().items()}
    state[name] *= 1.01
    changed = Gpt(golden.gpt.sizes)
    changed.load_state_dict(state)
    changed.requires_grad_(False)
    other = replace(golden, gpt=changed, step=changed.step)
    assert (guided_along_golden(other) - expected()["guided_logits"]).abs().max() > 2 * NEAR


GOLDEN_SETTINGS = {
    "greedy": Settings(Raster(16), guidance=7.5, greedy=True),
    "sampled": Settings(Raster(16), guidance=7.5, top_k=16),
    "sampled_no_guidance": Settings(Raster(16), guidance=1.0, temperature=0.9, top_p=0.9),
}


@pytest.mark.parametrize("name", GOLDEN_SETTINGS)
def test_tokens_are_those_of_the_reference(golden, name):
    assert torch.equal(drawn(golden, golden_conditions(), GOLDEN_SETTINGS[name]), expected()[name].long())


def test_other_tokens_under_another_seed_order_or_guidance(golden):
    """The twin: each of these would be noticed."""
    settings, tokens = GOLDEN_SETTINGS["sampled"], expected()["sampled"].long()
    assert not torch.equal(drawn(golden, golden_conditions(), settings, seed=8), tokens)
    assert not torch.equal(drawn(golden, golden_conditions().flip(0), settings).flip(0), tokens)
    assert not torch.equal(drawn(golden, golden_conditions(), replace(settings, guidance=7.0)), tokens)


def test_pictures_are_those_of_the_reference(golden):
    stored = expected("expected_vq")
    tokens = stored["tokens"].long().view(-1, 4, 4)
    assert (golden.tokenizer.decode(tokens) - stored["decoded"]).abs().max() < NEAR
    pictures = golden.decode(tokens)
    assert pictures.dtype == torch.float32
    assert torch.allclose(pictures, (stored["decoded"].clamp(-1, 1) + 1) / 2, atol=NEAR)
    assert not torch.allclose(golden.decode(tokens.mT.contiguous()), pictures, atol=0.1)  # rows are no columns


def test_tokens_of_a_picture_are_those_of_the_reference(golden):
    pixels = torch.tanh(torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(5)))
    stored = expected("expected_vq")["encoded_tokens"].view(1, 4, 4)
    assert torch.equal(golden.tokenizer.encode(pixels), stored)
    assert torch.equal(golden.encode_pictures((pixels + 1) / 2), stored)
    assert not torch.equal(golden.tokenizer.encode(pixels.flip(3)), stored)
    with pytest.raises(DivlensError, match="multiples of 2 pixels, got 8x9"):
        golden.encode_pictures(torch.zeros(1, 3, 8, 9))


# A plain computation without a cache


def held_against_plain(sizes: Sizes, side: int, lengths: list[int], seed: int = 0) -> float:
    """The largest difference of either branch's logits from the plain computation."""
    state = tiny.gpt_state(sizes, seed)
    gpt = Gpt(sizes)
    gpt.load_state_dict(state)
    gpt.requires_grad_(False)
    conditions = captions(lengths, sizes.caption_width, seed)
    tokens = torch.randint(sizes.codes, (len(lengths), side**2), generator=torch.Generator().manual_seed(seed))
    model = LlamaGen("tiny", gpt, gpt.step, None, None, side)  # type: ignore[arg-type]  # neither text nor pictures
    conditional, unconditional = asked(model.predictor(conditions, True), tokens)
    embeddings, mask = conditions[..., :-1], conditions[..., -1]
    absent = state["cls_embedding.uncond_embedding"].expand_as(embeddings)
    assert unconditional is not None
    return max(
        (conditional - tiny.plain_logits(state, sizes.heads, embeddings, mask, tokens)).abs().max().item(),
        (unconditional - tiny.plain_logits(state, sizes.heads, absent, mask, tokens)).abs().max().item(),
    )


def test_all_caption_lengths_in_one_batch():
    """1 to 120 tokens, each with its own; the unconditional branch sees how many there are."""
    assert held_against_plain(tiny.TINY, 2, list(range(1, 121))) < NEAR


@pytest.mark.parametrize(
    "side, layers, heads, width", [(1, 1, 1, 4), (3, 1, 3, 24), (2, 3, 2, 24), (5, 4, 4, 16), (6, 2, 1, 16)]
)
def test_other_sizes(side, layers, heads, width):
    sizes = replace(tiny.TINY, layers=layers, heads=heads, width=width, hidden=20, codes=33, caption_width=5)
    assert held_against_plain(sizes, side, [4, 120, 4, 17], seed=side) < NEAR


def test_the_plain_computation_notices_length_place_and_order():
    """The twin: what the comparison would find wrong."""
    state, tokens = tiny.gpt_state(), torch.arange(9)[None]
    caption = captions([10])
    embeddings, mask = caption[..., :-1], caption[..., -1]

    def logits(embeddings: Tensor, mask: Tensor, tokens: Tensor, heads: int = 2) -> Tensor:
        return tiny.plain_logits(state, heads, embeddings, mask, tokens)

    plain = logits(embeddings, mask, tokens)
    one_more = mask.clone()
    one_more[:, -11] = 1  # a token of padding taken for one of the caption
    swapped = embeddings.clone()
    swapped[:, [-1, -2]] = embeddings[:, [-2, -1]]
    transposed = tokens.view(1, 3, 3).mT.flatten(1)
    for other in (
        logits(embeddings, one_more, tokens),
        logits(swapped, mask, tokens),
        logits(embeddings, mask, transposed),
        logits(embeddings, mask, tokens, heads=1),
    ):
        assert (other - plain).abs().max() > 100 * NEAR


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0, 20.0])
def test_greedy_tokens_at_any_guidance(model, scale):
    """The plain computation, run anew for each token and guided in float64, picks the same codes. The two best codes
    are further apart than rounding at every step (1e-4 at scale 20), which is checked."""
    state, conditions = model.gpt.state_dict(), captions([3, 44])
    embeddings, mask = conditions[..., :-1], conditions[..., -1]
    absent = state["cls_embedding.uncond_embedding"].expand_as(embeddings)
    tokens = torch.zeros(2, 9, dtype=torch.long)
    for i in range(9):
        given, free = (tiny.plain_logits(state, 2, text, mask, tokens)[:, i] for text in (embeddings, absent))
        best = (free + scale * (given - free)).topk(2)
        assert (best.values[:, 0] - best.values[:, 1]).min() > 1e-3
        tokens[:, i] = best.indices[:, 0]
    settings = Reading(model).settings([Guidance(scale), Argmax()])
    assert torch.equal(drawn(model, conditions, settings), tokens)


# Captions that are read once


def counted(model: LlamaGen, monkeypatch) -> list[int]:
    """How many captions each prefill reads, from now on."""
    rows: list[int] = []
    own = Gpt.prefill

    def prefill(self, captions, present):
        rows.append(len(captions))
        return own(self, captions, present)

    monkeypatch.setattr(Gpt, "prefill", prefill)
    return rows


ORDERS = {"tiled": [0, 1, 2, 0, 1, 2], "interleaved": [0, 0, 1, 1, 2, 2], "mixed": [2, 0, 2, 1, 0, 2]}


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_sharing_a_prefill_changes_nothing(model, order, guided, monkeypatch):
    """Rows of a batch with repeated prompts, in any order, are what each row is alone. Captions 0 and 2 are equally
    long, so that one unconditional prefix serves both."""
    conditions = captions([12, 40, 12])[order]
    tokens = torch.randint(50, (6, 9), generator=torch.Generator().manual_seed(1))
    rows = counted(model, monkeypatch)
    together = asked(model.predictor(conditions, guided), tokens)
    assert rows == [3 + 2 * guided]
    for i in range(6):
        alone = asked(model.predictor(conditions[i : i + 1], guided), tokens[i : i + 1])
        for ours, theirs in zip(together, alone, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None and theirs is not None:
                assert torch.allclose(ours[i : i + 1], theirs, atol=NEAR)
    assert (together[1] is not None) == guided
    # The twin: with another row's caption the logits differ.
    wrong = asked(model.predictor(conditions.roll(1, 0), guided), tokens)[0]
    changed = torch.tensor(order) != torch.tensor(order).roll(1, 0)
    assert ((wrong - together[0]).abs().amax((1, 2)) > 0.01).equal(changed)


def test_guidance_off_costs_no_second_pass(model):
    sizes = []

    def step(ids, *rest):
        sizes.append(len(ids))
        return model.gpt.step(ids, *rest)

    conditions = captions([5, 6])
    for guided in (False, True):
        table = model.predictor(conditions, guided).table
        predictor = RasterPredictor(model.name, model.gpt, step, table, conditions, guided)
        asked(predictor, torch.zeros(2, 9, dtype=torch.long))
    assert sizes == [2] * 8 + [4] * 8


# As a model


def test_it_is_a_model_with_the_published_defaults(model):
    settings = Reading(model).settings([])
    assert (settings.rule, settings.guidance, settings.temperature) == (Raster(9), 7.5, 1.0)
    assert (settings.top_k, settings.top_p) == (1000, 1.0)
    assert (model.codes, model.mask, model.grid, model.limit) == (50, 50, (3, 3), 120)
    assert model.frequencies() is None
    assert len(set(model.calibration_prompts())) == 64
    assert model.name.startswith("llamagen:")


def test_pictures_and_trace_through_the_loop(model):
    out = sample(model, ["red heart"], n=2, seed=0, trace=True)
    assert out.images.shape == (1, 2, 3, 6, 6) and out.images.min() >= 0 and out.images.max() <= 1
    assert out.trace is not None and len(out.trace.steps) == 9
    assert torch.equal(out.trace.steps[-1].state.view(1, 2, 3, 3), out.tokens)
    assert not torch.equal(out.tokens[0, 0], out.tokens[0, 1])


def test_captions_are_encoded_as_in_the_reference_script(model, folder):
    """The reference encodes a batch padded to 120 on the right, then moves the padding to the left and blanks it."""
    wordings = ["red heart", "a cat on the sea"]
    text = T5EncoderModel.from_pretrained(folder / tiny.TEXT_FOLDER).eval()
    found = model.text.tokenizer(wordings, padding="max_length", max_length=120, return_tensors="pt")
    with torch.no_grad():
        features = text(**{key: found[key] for key in ("input_ids", "attention_mask")}).last_hidden_state
    conditions = model.encode(wordings)
    assert conditions.shape == (2, 120, 17)
    assert model.lengths(wordings) == [10, 17] == conditions[..., -1].sum(1).tolist()
    for row, wanted, length in zip(conditions, features, (10, 17), strict=True):
        assert torch.allclose(row[-length:, :-1], wanted[:length], atol=1e-5)
        assert not torch.allclose(row[-length:, :-1], wanted[:length].flip(0), atol=1e-2)
        assert row[:-length].abs().max() == 0
    assert torch.equal(model.encode(wordings[:1])[0], conditions[0])  # a caption does not know its batch


def test_long_captions_are_refused_or_cut_and_noted(model, folder):
    fits, long = "a" * 119, "a" * 119 + "b"
    assert model.lengths([fits, long]) == [120, 121]
    assert model.encode([fits])[0, :, -1].all()
    with pytest.raises(DivlensError, match=r"reads at most 120 tokens, got 121: 'aaa.*truncate"):
        model.encode([long])
    cutting = load(str(folder), Options(truncate=True))
    assert torch.allclose(cutting.encode([long]), model.encode([fits]), atol=1e-6)  # the end mark is kept
    assert sample(cutting, [long], n=1).wording_notes == {long: "cut from 121 to 120 tokens"}
    assert not sample(cutting, [fits], n=1).wording_notes


def test_a_caption_of_which_nothing_is_left_is_refused(model):
    with pytest.raises(DivlensError, match="cleaning leaves nothing"):
        model.encode(["\u7ea2\u8272\u7684\u5fc3"])


@pytest.mark.parametrize("dtype, bound", [("bfloat16", 0.5), ("float16", 0.05)])
def test_half_precision(folder, model, dtype, bound):
    """Logits are of size 5 and pass 2 layers: errors of some 2**-8 (2**-11) of that, a few times over; the bound is 10
    times what was seen. Pictures and T5's last feed-forward layers (in float16) stay in float32."""
    half = load(str(folder), Options(dtype=dtype))
    conditions = captions([30, 90])
    tokens = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(1))
    ours = asked(half.predictor(conditions.to(half.gpt.output.weight.dtype), True), tokens)
    theirs = asked(model.predictor(conditions, True), tokens)
    for own, full in zip(ours, theirs, strict=True):
        assert own is not None and full is not None and own.dtype == getattr(torch, dtype)
        assert 0 < (own.float() - full).abs().max() < bound
    out = sample(half, ["red heart", "red heart too"], n=2)
    assert out.images.dtype == torch.float32 and out.images.isfinite().all()
    outward = half.text.network.encoder.block[0].layer[-1].DenseReluDense.wo.weight
    assert outward.dtype == (torch.float32 if dtype == "float16" else torch.bfloat16)
