"""Fingerprints: equal for equal content wherever it comes from, another for every part that changes a draw."""

import copy
import importlib
import pkgutil
from dataclasses import dataclass, fields, is_dataclass, replace
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import divlens.models
from divlens.errors import DivlensError
from divlens.models import load
from divlens.models.amused import AmusedModel
from divlens.models.causal import Pixels, Reader
from divlens.models.clip_text import ClipText
from divlens.models.emu3 import Emu3Model
from divlens.models.fingerprint import UnknownContentError, content_hash, fingerprint_of, tensor_hash, weights_digits
from divlens.models.glm_image import GlmImageModel, Request
from divlens.models.glm_image_decoder import DiffusionDecoder
from divlens.models.janus import Chat, JanusModel
from divlens.models.llamagen.adapter import LlamaGen
from divlens.models.llamagen.text import CaptionEncoder
from divlens.models.protocol import Model, missing
from divlens.models.toy import ToyModel
from divlens.models.vq_diffusion import VQDiffusionModel
from divlens.models.wrap import wrap
from divlens.models.zoo.adapter import ZooModel
from divlens.models.zoo.text import Vocabulary
from divlens.paths import ConfidenceUnmasking, MaskReplaceDiffusion, Raster
from oracles import tiny_diffusers
from oracles.every_model import made

# The fields that change neither a draw nor a picture. What is not named here belongs to the fingerprint.
ASIDE: dict[type, set[str]] = {
    AmusedModel: {"name"},
    VQDiffusionModel: {"name"},
    LlamaGen: {"name", "truncate"},
    JanusModel: {"name"},
    Emu3Model: {"name", "truncate"},
    GlmImageModel: {"name", "truncate"},
    DiffusionDecoder: set(),
    Request: set(),
    ZooModel: {"name"},
    ToyModel: {"device"},
    ClipText: {"name", "truncate"},
    Reader: {"name", "truncate"},
    CaptionEncoder: set(),
    Chat: set(),
    Pixels: set(),
    Vocabulary: set(),
    ConfidenceUnmasking: set(),
    MaskReplaceDiffusion: set(),
    Raster: set(),
}


@pytest.fixture(scope="module")
def adapters() -> dict[type, Any]:
    """One model of each kind."""
    names = ["amused", "vq-diffusion", "llamagen", "janus", "emu3", "glm-image", "zoo/mim", "toy/diffusion"]
    found = [made(name) for name in names]
    return {type(model): model for model in found}


@pytest.fixture(scope="module")
def records(adapters) -> dict[type, Any]:
    """The models, and the records they are made of."""
    parts = (
        adapters[AmusedModel].text,
        adapters[AmusedModel].rule,
        adapters[VQDiffusionModel].rule,
        adapters[LlamaGen].text,
        adapters[LlamaGen].rule,
        adapters[JanusModel].reader,
        adapters[JanusModel].reader.template,
        adapters[JanusModel].pixels,
        adapters[GlmImageModel].decoder,
        adapters[GlmImageModel].reader.template,
        adapters[ZooModel].vocabulary,
    )
    return adapters | {type(part): part for part in parts}


def changed(value: Any) -> Any:
    """Another value of the same kind, as near as can be: one weight, one word, one field."""
    other: Any
    if isinstance(value, MethodType):
        return getattr(changed(value.__self__), value.__name__)
    if isinstance(value, nn.Module):
        other = copy.deepcopy(value)
        with torch.no_grad():
            list(other.parameters())[-1].view(-1)[-1].add_(1e-3)
        return other
    if hasattr(value, "register_to_config"):  # a scheduler
        other = copy.deepcopy(value)
        other.register_to_config(shift=value.config.shift + 1)
        return other
    if isinstance(value, Tensor):
        other = value.detach().clone()
        other.view(-1)[-1] += 1
        return other
    if is_dataclass(value):
        name = next(field.name for field in fields(value) if field.name not in ASIDE.get(type(value), ()))
        return with_changed(value, name)
    if hasattr(value, "tokenizer") or hasattr(value, "backend_tokenizer"):  # a processor, or a tokenizer
        other = copy.deepcopy(value)
        if hasattr(value, "tokenizer"):
            other.chat_template += " "
        else:
            other.add_tokens(["another-word"])
        return other
    if isinstance(value, tuple):
        return (*value[:-1], changed(value[-1]))
    if isinstance(value, bool):
        return not value
    return value + {int: 1, float: 0.25, str: "x"}[type(value)]


def with_changed(record: Any, name: str) -> Any:
    """A copy with one field changed; what the record checks of itself when it is made is left out."""
    other = copy.copy(record)
    object.__setattr__(other, name, changed(getattr(record, name)))
    return other


def test_every_model_of_the_package_is_looked_at_here():
    found = set()
    for entry in pkgutil.walk_packages(divlens.models.__path__, "divlens.models."):
        for kind in vars(importlib.import_module(entry.name)).values():
            if isinstance(kind, type) and kind is not Model and "predictor" in vars(kind) and "decode" in vars(kind):
                found.add(kind)
    assert found == {kind for kind in ASIDE if "predictor" in vars(kind)}
    assert all("identity" in vars(kind) for kind in found)


@pytest.mark.parametrize("kind", ASIDE, ids=lambda kind: kind.__name__)
def test_every_field_belongs_to_the_fingerprint_or_is_named_as_one_that_changes_nothing(kind, records):
    record = records[kind]
    own = content_hash(record)
    names = {field.name for field in fields(record)}
    assert ASIDE[kind] <= names
    same = {name for name in names if content_hash(with_changed(record, name)) == own}
    assert same == ASIDE[kind]


def test_a_field_that_is_added_counts_by_itself_and_one_that_cannot_be_hashed_leaves_no_fingerprint():
    @dataclass(frozen=True)
    class More(ToyModel):
        strength: Any = 1.0

        def identity(self):
            return ToyModel.identity(self)

    more = More("ar", Raster(3))
    assert fingerprint_of(more) != fingerprint_of(replace(more, strength=2.0))
    assert fingerprint_of(replace(more, strength=object())) is None


# Equal content


def test_what_the_package_ships_has_a_fingerprint_that_a_copy_shares(tmp_path):
    from divlens.models.zoo.assets import packaged_folder

    for path in packaged_folder().iterdir():
        (tmp_path / path.name).symlink_to(path)
    names = ["zoo/ar", "zoo/mim", "toy/ar", "toy/mim", "toy/diffusion", "toy/ar:7"]
    found = [fingerprint_of(load(name)) for name in names]
    assert None not in found and len(set(found)) == len(names)
    assert fingerprint_of(load(f"zoo/mim:{tmp_path}")) == found[1]
    assert fingerprint_of(load("toy/ar:0")) == found[2]


# Tensors


def test_bytes_dtype_and_shape_count_and_the_layout_does_not():
    tensor = torch.randn(2, 3, 4, 5)
    assert tensor_hash(tensor) == tensor_hash(tensor.clone().to(memory_format=torch.channels_last))
    assert tensor_hash(tensor) == tensor_hash(torch.stack([tensor, tensor], dim=1)[:, 1])  # not contiguous
    others = [tensor.double(), tensor.half(), tensor.view(6, 4, 5), -tensor, tensor + 0]
    others[-1][0, 0, 0, 0] += 1e-6
    assert len({tensor_hash(other) for other in (tensor, *others)}) == 6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool])
def test_every_dtype_can_be_hashed(dtype):
    tensor = (torch.arange(9) % 2).to(dtype)
    assert tensor_hash(tensor) == tensor_hash(tensor.clone()) != tensor_hash(tensor.flip(0).roll(1))
    assert tensor_hash(tensor[:0]) != tensor_hash(tensor[0]) != tensor_hash(tensor[:1])


def test_a_large_tensor_is_hashed_whole():
    tensor = torch.randn(100)
    whole = tensor_hash(tensor)
    assert tensor_hash(tensor, at_once=7) == whole
    tensor[-1] += 1
    assert tensor_hash(tensor, at_once=7) != whole


def test_weights_that_trade_places_or_have_the_same_sum_have_other_digits():
    network = nn.Linear(2, 2)
    swapped, shifted = copy.deepcopy(network), copy.deepcopy(network)
    with torch.no_grad():
        swapped.weight.copy_(network.weight.flip(0))
        shifted.weight.view(-1)[:2] += torch.tensor([0.5, -0.5])
    assert weights_digits(network) == weights_digits(copy.deepcopy(network))
    assert len({weights_digits(one) for one in (network, swapped, shifted)}) == 3
    assert len(weights_digits(network)) == 8
    assert weights_digits(nn.Linear(2, 2, device="meta")) != weights_digits(nn.Linear(2, 3, device="meta"))


# Networks: what no tensor shows


def attention() -> Any:
    return tiny_diffusers.vq_diffusion().transformer


def with_other_heads(network: Any) -> None:
    network.transformer_blocks[0].attn1.heads = 1


def with_other_scale(network: Any) -> None:
    network.transformer_blocks[1].attn2.scale *= 2


def with_other_configuration(network: Any) -> None:
    network.register_to_config(sample_size=8)


def with_other_activation(network: Any) -> None:
    network.transformer_blocks[0].ff.net[1] = nn.Identity()


def with_other_processor(network: Any) -> None:
    from diffusers.models.attention_processor import AttnProcessor

    network.transformer_blocks[0].attn1.set_processor(AttnProcessor())


def with_other_buffer(network: Any) -> None:
    network.register_buffer("more", torch.zeros(1), persistent=False)


OTHERS = [
    with_other_heads,
    with_other_scale,
    with_other_configuration,
    with_other_activation,
    with_other_processor,
    with_other_buffer,
]


def test_settings_of_a_network_count_though_no_tensor_shows_them():
    networks = [attention() for _ in (None, None, *OTHERS)]
    for change, network in zip(OTHERS, networks[2:], strict=True):
        change(network)
    found = [content_hash(network) for network in networks]
    assert found[0] == found[1] and len(set(found)) == 1 + len(OTHERS)


class Mine:
    """Code that may change between two runs under the same name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return None


def with_my_processor(network: Any) -> None:
    network.transformer_blocks[0].attn1.set_processor(Mine())


def with_my_module(network: Any) -> None:
    network.transformer_blocks[0].ff.net[1] = type("Mine", (nn.Module,), {"__module__": "studio"})()


def with_a_hook(network: Any) -> None:
    network.transformer_blocks[0].register_forward_hook(lambda module, arguments, output: 2 * output)


def with_a_hook_before(network: Any) -> None:
    network.transformer_blocks[0].register_forward_pre_hook(lambda module, arguments: None)


def with_a_forward_of_its_own(network: Any) -> None:
    network.transformer_blocks[0].forward = Mine()


def without_its_numbers(network: Any) -> None:
    network.transformer_blocks[0].to("meta")


def with_a_packed_tensor(network: Any) -> None:
    class Packed(nn.Parameter):
        pass

    network.more = Packed(torch.zeros(2))


@pytest.mark.parametrize(
    "change",
    [
        with_my_processor,
        with_my_module,
        with_a_hook,
        with_a_hook_before,
        with_a_forward_of_its_own,
        without_its_numbers,
        with_a_packed_tensor,
    ],
)
def test_a_network_whose_content_is_not_known_has_no_fingerprint(change):
    pipeline = tiny_diffusers.vq_diffusion()
    assert fingerprint_of(wrap(pipeline)) is not None
    model = wrap(pipeline)
    change(pipeline.transformer)
    assert fingerprint_of(model) is None
    with pytest.raises(UnknownContentError, match=r"^network\.transformer\."):
        content_hash(model)


# Tokenizers


def test_a_tokenizer_is_its_words_and_not_how_it_was_called_last():
    one, same = tiny_diffusers.tokenizer(), tiny_diffusers.tokenizer()
    same(["red", "heart"], padding="max_length", max_length=9, truncation=True)
    assert content_hash(one) == content_hash(same)
    longer, left, other_padding = (tiny_diffusers.tokenizer() for _ in range(3))
    longer.add_tokens(["heart"])
    left.padding_side = "left"
    other_padding.pad_token = "a"
    assert len({content_hash(words) for words in (one, longer, left, other_padding)}) == 4


# Plain values and outside models


def test_values_are_told_apart_and_equal_numbers_are_not():
    values = [1, True, "1", None, "None", 1.5, float("nan"), [], {}, [1], [[1], []], [[], [1]], {"a": 1}, {"b": 1}]
    values += [["a", "b"], ["a b"], ["a", ["b"]], {"a": {"b": 1}}, torch.tensor(1), torch.tensor([1])]
    assert len({content_hash(value) for value in values}) == len(values)
    for one, same in ((5, 5.0), ((1, 2), [1, 2]), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ({"a", "b"}, {"b", "a"})):
        assert content_hash(one) == content_hash(same)
    for unknown in (object(), lambda: None, Mine(), Mine, changed):
        with pytest.raises(UnknownContentError):
            content_hash({"a": [unknown]})


class Outside:
    def __init__(self, **members: object) -> None:
        self.__dict__.update(members)


class Delegating(Outside):
    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)


class Declaring(Outside):
    def identity(self) -> Any:
        return self.content  # type: ignore[attr-defined]


class Inheriting(Declaring):
    pass


def test_an_outside_model_has_the_fingerprint_of_what_it_declares():
    network = nn.Linear(2, 2)
    one = Declaring(content={"weights": network.state_dict(), "strength": 0.5})
    same = Declaring(content={"weights": copy.deepcopy(network).state_dict(), "strength": 0.5})
    assert fingerprint_of(one) == fingerprint_of(same) is not None
    assert fingerprint_of(one) != fingerprint_of(Declaring(content={"weights": network.state_dict(), "strength": 1}))
    toy = load("toy/ar")
    assert missing(Delegating(inner=toy), Model) == []
    assert [fingerprint_of(model) for model in (Outside(), Delegating(inner=toy), Inheriting(content={"a": 1}))] == [
        None
    ] * 3
    assert [fingerprint_of(Declaring(content=content)) for content in ("a name", {"a": object()})] == [None] * 2


def test_two_models_of_the_same_weights_are_one():
    with pytest.raises(DivlensError, match="expected different models"):
        divlens.probe([wrap(tiny_diffusers.amused()), wrap(tiny_diffusers.amused())], ["red heart"], n=2)
