"""A sample of the zoo does not depend on its batch, bit for bit; and what every result says of how it was drawn."""

from dataclasses import replace

import pytest
import torch

import divlens
from divlens.models.toy import ToyModel
from divlens.models.zoo import adapter
from divlens.models.zoo.adapter import ZooModel
from divlens.models.zoo.networks import Backbone, Sizes
from divlens.paths import ConfidenceUnmasking, Raster
from divlens.planning import plan
from divlens.sampler import Generation
from divlens.types import DrawnWith, Prompt

FAMILIES = ("ar", "mim", "diffusion")
PROMPTS = ("doughnut", "small heart", "a picture of a rocket")


def zoo(family: str) -> ZooModel:
    """The packaged weights, and few steps."""
    model = divlens.load(f"zoo/{family}")
    assert isinstance(model, ZooModel)
    few = {"mim": ConfidenceUnmasking(4, (2.0, 0.0)), "diffusion": adapter.diffusion_rule(4)}
    return replace(model, rule=few.get(family, model.rule))


def narrow(family: str) -> ZooModel:
    """The same with a narrow random network, for whole runs of many batches."""
    model = zoo(family)
    torch.manual_seed(0)
    backbone = Backbone(Sizes(len(model.vocabulary), causal=family == "ar", width=32, layers=1, rank=8))
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return replace(model, backbone=backbone.eval().requires_grad_(False))


def alike(one: Generation, other: Generation) -> bool:
    return torch.equal(one.tokens, other.tokens) and torch.equal(one.images, other.images)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_and_pictures_of_the_zoo_are_those_of_any_batch(family):
    model, prompts = narrow(family), PROMPTS[:2]
    whole = divlens.sample(model, prompts, 2, batch_size=96)
    for batch_size in (1, 3, 7, "auto"):
        assert alike(whole, divlens.sample(model, prompts, 2, batch_size=batch_size)), batch_size
    alone = divlens.sample(model, prompts[1:], 1)
    assert torch.equal(alone.tokens[0], whole.tokens[1, :1]) and torch.equal(alone.images[0], whole.images[1, :1])
    assert not alike(whole, divlens.sample(model, prompts, 2, seed=1))  # the control


def test_tokens_and_pictures_of_the_packaged_weights_are_those_of_any_batch():
    """A masked generator, whose four steps cost little; for the other families their logits tell, below."""
    model, prompts = zoo("mim"), PROMPTS[:2]
    whole = divlens.sample(model, prompts, 2)
    for batch_size in (1, 3):
        assert alike(whole, divlens.sample(model, prompts, 2, batch_size=batch_size)), batch_size
    assert not alike(whole, divlens.sample(model, prompts, 2, seed=1))  # the control


def logits_of(model: ZooModel, conditions: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Both branches at the first three views of the family, in one row per sample."""
    ask = model.predictor(conditions, guided=True)
    found = [part for step in range(3) for part in ask(model.rule.view(tokens, step)) if part is not None]
    return torch.cat([part.flatten(1) for part in found], 1)


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_logits_and_pictures_depend_neither_on_the_place_nor_on_the_other_rows(family):
    """Bit for bit, which is more than that no draw falls the other way; 101 rows fill no block."""
    model = zoo(family)
    rows = 101 if family == "ar" else 9
    order = torch.randperm(rows)
    conditions = model.encode(PROMPTS)[torch.arange(rows) % 3]
    tokens = torch.randint(model.codes, (rows, 64))
    whole = logits_of(model, conditions, tokens)
    assert torch.equal(logits_of(model, conditions[order], tokens[order]), whole[order])
    for some in (slice(0, 1), slice(rows - 2, rows)):
        assert torch.equal(logits_of(model, conditions[some], tokens[some]), whole[some])
        pictures = model.decode(tokens.view(-1, 8, 8)[:9])[some]
        assert torch.equal(model.decode(tokens.view(-1, 8, 8)[:9][some]), pictures)
    assert torch.equal(model.encode(PROMPTS[1:2])[0], model.encode(PROMPTS)[1])
    assert not torch.equal(whole[0], whole[3])  # the control: other tokens, other logits


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_a_batch_that_matters_would_be_seen(family, monkeypatch):
    """Positive control: the network itself, given a rounding error that goes with the number of rows. (Without blocks
    the kernels make such an error too, but which ones do is the processor's affair.)"""
    trunk = Backbone.trunk
    monkeypatch.setattr(Backbone, "trunk", lambda self, x, *rest: trunk(self, x, *rest) * (1 + 1e-6 * len(x)))
    model = narrow(family)
    conditions, tokens = model.encode(PROMPTS), torch.randint(model.codes, (3, 64))
    whole = logits_of(model, conditions, tokens)
    assert torch.equal(logits_of(model, conditions[:1], tokens[:1]), whole[:1])  # blocks hide it
    monkeypatch.setattr(adapter, "in_blocks", lambda rows, size: [rows])
    assert not torch.equal(logits_of(model, conditions[:1], tokens[:1]), logits_of(model, conditions, tokens)[:1])


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@torch.inference_mode()
def test_logits_and_pictures_are_the_same_on_any_number_of_threads(threads):
    """Bit for bit, and each block has a thread to itself, which leaves torch's own number as it was."""
    model, tokens = zoo("mim"), torch.randint(1024, (9, 64))
    conditions = model.encode(PROMPTS).repeat(3, 1)
    found = []
    for count in (1, 2, 3):
        threads(count)
        found.append((logits_of(model, conditions, tokens), model.decode(tokens.view(-1, 8, 8))))
        assert torch.get_num_threads() == count
    for logits, pictures in found[1:]:
        assert torch.equal(logits, found[0][0]) and torch.equal(pictures, found[0][1])


def test_each_block_has_a_thread_alone_in_the_mode_of_its_caller(threads):
    threads(2)

    def seen() -> torch.Tensor:
        return torch.tensor([torch.get_num_threads(), int(torch.is_inference_mode_enabled())])

    for mode in (True, False):
        with torch.inference_mode(mode):
            assert adapter.side_by_side([seen, seen]).tolist() == [1, int(mode)] * 2
            assert adapter.side_by_side([seen]).tolist() == [1, int(mode)]
            assert seen().tolist() == [2, int(mode)]  # the control
    with pytest.raises(ZeroDivisionError):
        adapter.side_by_side([seen, lambda: torch.tensor(1 // 0)])
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("count", [0, 1, 4, 5, 8])
def test_blocks_hold_all_rows_in_order_and_all_have_one_size(count):
    rows = torch.arange(3 * count).view(count, 3) + 1
    blocks = adapter.in_blocks(rows, 4)
    assert count == 0 or {len(block) for block in blocks} == {4}
    assert torch.equal(torch.cat(list(blocks))[:count], rows)
    assert not torch.cat(list(blocks))[count:].any()
    assert torch.equal(adapter.block_by_block(lambda block: block * 2, rows, 4), rows * 2)


# --- what a result says of how it was drawn -------------------------------------------------------------------------


class Wordless(ToyModel):
    """A model whose conditions are integers and which does not say what it computes in."""

    def encode(self, wordings):
        return torch.ones(len(wordings), 1, dtype=torch.long)


class Half(Wordless):
    dtype = torch.bfloat16


def test_the_precision_is_the_models_own_word_else_that_of_its_conditions_else_unknown():
    for model, expected in (
        (Wordless("ar", Raster(3)), None),
        (Half("ar", Raster(3)), "bfloat16"),
        (divlens.load("toy/mim"), "float64"),
    ):
        run = plan(model, [Prompt("a cat")], 1, 0, batch_size=5)
        assert run.drawn_with == DrawnWith("cpu", expected, 5)


def test_of_an_automatic_batch_the_size_that_fitted_is_told():
    run = plan(divlens.load("toy/mim"), [Prompt("a cat")], 1, 0, batch_size="auto")
    assert run.drawn_with.batch_size == 96
    run.rooms.drawing.fits = 12
    assert run.drawn_with.batch_size == 12


def test_every_result_says_how_it_was_drawn():
    prompts, expected = ["red heart", "a cat"], DrawnWith("cpu", "float64", 7)
    model = divlens.load("toy/ar")
    assert divlens.sample(model, prompts, 2, batch_size=7).drawn_with == expected
    assert divlens.probe([model], prompts, 2, conditions={"baseline": ()}, batch_size=7).drawn_with == {
        "toy/ar:0": expected
    }
    assert divlens.enhance(model, prompts, 2, batch_size=7).drawn_with == expected
    assert divlens.information(model, prompts, 2, batch_size=7).drawn_with == expected
    assert divlens.decompose(model, prompts, 1, 1, 2, batch_size=7).drawn_with == expected
    assert divlens.sample(divlens.load("zoo/ar"), prompts, 1).drawn_with == DrawnWith("cpu", "float32", 96)
