"""How outside models are set up: options, wrapping, batches that fit, and wordings that are cut."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

import divlens
from divlens.errors import DivlensError
from divlens.models import load
from divlens.models.loading import DTYPES, Options, read_pt
from divlens.models.toy import RULES, ToyModel
from divlens.sampler import sample
from divlens.types import View, is_out_of_memory
from oracles import tiny_transformers


def toy(**changes) -> ToyModel:
    return ToyModel("mim", RULES["mim"], **changes)


def test_options_place_a_network_on_its_device_in_its_dtype_frozen():
    for name, dtype in DTYPES.items():
        network = Options(dtype=name).place(torch.nn.Linear(2, 2))
        assert network.weight.dtype == dtype and not network.weight.requires_grad and not network.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float8"}, "dtype expects one of float32, bfloat16, float16, got 'float8'"),
        ({"device": "abacus"}, "device expects one that torch can use here, got 'abacus'"),
        ({"device": "meta"}, "device expects one that holds numbers, got 'meta'"),
        ({"device": "cuda:99"}, "device expects one that torch can use here, got 'cuda:99'"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(DivlensError) as error:
        Options(**options)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("spec", ["toy/ar", "zoo/mim"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "bfloat16"}, "expects dtype float32, got bfloat16"),
        ({"truncate": True}, "has no option truncate"),
        ({"truncate": True, "compile": True}, "has no option truncate or compile"),
    ],
)
def test_an_option_that_a_model_does_not_have_is_refused_not_ignored(spec, options, message):
    with pytest.raises(DivlensError, match=message):
        load(spec, **options)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def test_damaged_checkpoints_are_one_line_and_no_accusation(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.arange(6.0).view(2, 3)}, path)
    whole = path.read_bytes()
    assert torch.equal(read_pt(path)["weight"], torch.arange(6.0).view(2, 3))  # type: ignore[arg-type]
    random = np.random.default_rng(0)
    flipped = []
    for _ in range(60):
        damaged = bytearray(whole)
        for place in random.integers(len(whole), size=20):
            damaged[place] ^= int(random.integers(1, 256))
        flipped.append(bytes(damaged))
    refused = 0
    for content in (b"", POINTER, whole[: len(whole) // 2], *flipped):
        path.write_bytes(content)
        try:
            read_pt(path)  # some flips hit nothing but numbers
        except DivlensError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 30
    for content in (b"", POINTER):
        path.write_bytes(content)
        with pytest.raises(DivlensError, match="cannot be read as a torch checkpoint"):
            read_pt(path)


@pytest.mark.parametrize("thing", [object(), torch.nn.Linear(1, 1)])
def test_wrap_says_what_it_takes(thing):
    with pytest.raises(DivlensError, match=f"wrap expects one of AmusedPipeline, .*, got {type(thing).__name__}"):
        divlens.wrap(thing)


def test_wrap_asks_for_the_processor_of_a_transformers_model():
    class JanusForConditionalGeneration:
        pass

    with pytest.raises(DivlensError, match="wrap expects the processor of a JanusForConditionalGeneration"):
        divlens.wrap(JanusForConditionalGeneration())


@dataclass(frozen=True)
class Small(ToyModel):
    """A toy whose device holds a few samples at a time."""

    room: int = 5
    full: Exception = torch.OutOfMemoryError("no room")  # noqa: RUF009

    def predictor(self, conditions, guided):
        if len(conditions) > self.room:
            raise self.full
        return super().predictor(conditions, guided)


# As CUDA, the processor (of Linux and of Windows), numpy, Apple's GPU and CUDA's libraries put it.
FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:81] data. DefaultCPUAllocator: not enough memory:"),
    MemoryError("Unable to allocate 7.45 GiB for an array"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB, other allocations: 100 MB, max allowed: 18 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: out of memory"),
]


@pytest.mark.parametrize("full", FULL, ids=str)
def test_an_automatic_batch_gives_way_on_every_device(full):
    counts: list[int] = []
    sample(
        Small("mim", RULES["mim"], full=full), ["a cat"], n=16, batch_size="auto", trace=True, on_batch=counts.append
    )
    assert sum(counts) == 16 and max(counts) <= 5


def test_the_processor_says_what_is_expected_of_it():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("other", [RuntimeError("shapes do not fit"), ValueError("DefaultCPUAllocator"), KeyError("x")])
def test_another_error_is_not_taken_for_a_full_device(other):
    with pytest.raises(type(other)):
        sample(Small("mim", RULES["mim"], full=other), ["a cat"], n=16, batch_size="auto")


def test_an_automatic_batch_finds_what_fits_and_changes_no_sample():
    small = Small("mim", RULES["mim"])
    counts: list[int] = []
    found = sample(small, ["a cat", "red heart"], n=8, batch_size="auto", trace=True, on_batch=counts.append)
    assert sum(counts) == 16 and max(counts) <= 5
    assert torch.equal(found.tokens, sample(toy(), ["a cat", "red heart"], n=8).tokens)
    assert found.trace is not None and all(len(step.tokens) == 16 for step in found.trace.steps)
    with pytest.raises(torch.OutOfMemoryError):  # the control: a size that was asked for is kept to
        sample(small, ["a cat"], n=8)
    with pytest.raises(torch.OutOfMemoryError):
        sample(Small("mim", RULES["mim"], room=0), ["a cat"], n=2, batch_size="auto")


@dataclass(frozen=True)
class SmallDecoder(ToyModel):
    """A toy whose device draws as many samples as one likes, and decodes a few at a time. It notes how many each."""

    room: int = 5
    asked: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))

    @property
    def drawn(self) -> list[int]:
        return self.asked[0]

    @property
    def decoded(self) -> list[int]:
        return self.asked[1]

    def predictor(self, conditions, guided):
        self.drawn.append(len(conditions))
        return super().predictor(conditions, guided)

    def decode(self, tokens):
        if len(tokens) > self.room:
            raise torch.OutOfMemoryError("no room")
        self.decoded.append(len(tokens))
        return super().decode(tokens)


def small_decoder(room: int = 5) -> SmallDecoder:
    return SmallDecoder("mim", RULES["mim"], room=room)


def test_an_automatic_batch_decodes_in_parts_that_fit_and_draws_nothing_again():
    small, prompts, n = small_decoder(), ["a cat", "red heart"], 60
    found, plain = sample(small, prompts, n, batch_size="auto"), sample(toy(), prompts, n)
    assert torch.equal(found.tokens, plain.tokens) and torch.equal(found.images, plain.images)
    assert not torch.equal(found.images, sample(toy(), prompts, n, seed=1).images)  # the control
    assert small.drawn == [96, 24] and found.drawn_with.batch_size == 96
    assert sum(small.decoded) == 120 and max(small.decoded) == 3  # halved from 96; a part of 24 is not tried anew


def test_a_decoder_without_room_ends_a_run_of_another_batch_or_of_single_pictures():
    with pytest.raises(torch.OutOfMemoryError):  # a size that was asked for is kept to
        sample(small_decoder(), ["a cat"], 8, batch_size=8)
    assert sample(small_decoder(), ["a cat"], 8, batch_size=5).images.shape[1] == 8
    with pytest.raises(torch.OutOfMemoryError):
        sample(small_decoder(room=0), ["a cat"], 8, batch_size="auto")


@pytest.mark.usefixtures("colours_for_lpips")
@pytest.mark.parametrize("verb", ["probe", "enhance", "information", "decompose"])
def test_every_measurement_decodes_in_parts_that_fit(verb):
    def measured(model, batch_size):
        if verb == "information":
            judge = lambda images: images[:, :, 0, 0].argmax(1)  # noqa: E731
            return divlens.information(model, ["a cat", "snow"], 12, judge=judge, batch_size=batch_size).relevant
        if verb == "decompose":
            return divlens.decompose(model, ["a cat"], 1, 4, 4, batch_size=batch_size).components.tolist()
        if verb == "enhance":
            found = divlens.enhance(model, ["a cat"], 12, batch_size=batch_size)
            return found.table.to_csv(), found.images.tolist()
        return divlens.probe(model, ["a cat", "snow"], 12, batch_size=batch_size).table.to_csv()

    assert measured(small_decoder(), "auto") == measured(small_decoder(room=96), "auto")
    with pytest.raises(torch.OutOfMemoryError):  # the control
        measured(small_decoder(), 12)


@dataclass(frozen=True)
class Short(ToyModel):
    """A toy that reads two words of a wording and leaves the rest."""

    limit: int = 2

    def lengths(self, wordings: Sequence[str]) -> list[int]:
        return [len(wording.split()) for wording in wordings]

    def encode(self, wordings):
        return super().encode([" ".join(wording.split()[: self.limit]) for wording in wordings])


def test_a_wording_that_was_cut_is_recorded():
    out = sample(Short("ar", RULES["ar"]), ["three green apples", "red heart"], n=2)
    assert out.wording_notes == {"three green apples": "cut from 3 to 2 tokens"}
    assert sample(toy(), ["three green apples"], n=2).wording_notes == {}
    probed = divlens.probe(
        [Short("ar", RULES["ar"])], ["three green apples", "red heart"], n=2, conditions={"baseline": ()}
    )
    assert [record.note for record in probed.samples] == ["cut from 3 to 2 tokens"] * 2 + [None] * 2


@dataclass(frozen=True)
class TopTwo(ToyModel):
    top_k: int = 2


def test_a_models_own_top_k_is_its_default():
    own = sample(TopTwo("ar", RULES["ar"]), ["a cat"], n=64)
    asked = sample(ToyModel("ar", RULES["ar"]), ["a cat"], n=64, interventions=[divlens.TopK(2)])
    assert torch.equal(own.tokens, asked.tokens)
    assert not torch.equal(own.tokens, sample(ToyModel("ar", RULES["ar"]), ["a cat"], n=64).tokens)


@dataclass(frozen=True)
class Broken(ToyModel):
    def predictor(self, conditions, guided):
        inner = super().predictor(conditions, guided)

        def predict(view: View):
            conditional, unconditional = inner(view)
            return conditional * (float("nan") if view.step == 1 else 1.0), unconditional

        return predict


def test_nan_logits_name_the_model_and_the_step():
    with pytest.raises(DivlensError, match="toy/ar:0 gave NaN logits at step 1"):
        sample(Broken("ar", RULES["ar"]), ["a cat"], n=1)


@pytest.mark.parametrize("name", ["janus", "emu3"])
def test_what_a_network_computes_for_itself_keeps_its_precision(name, tmp_path):
    """Rotary frequencies in half precision put far positions at another phase than the reference's."""
    network, _ = getattr(tiny_transformers, name)()
    network.save_pretrained(tmp_path)
    reference = dict(type(network).from_pretrained(tmp_path, dtype=torch.bfloat16).named_buffers())
    placed = dict(Options(dtype="bfloat16").place(network).named_buffers())
    frequencies = [key for key in reference if key.endswith("inv_freq")]
    assert frequencies and all(torch.equal(placed[key], reference[key]) for key in frequencies)
    assert {placed[key].dtype for key in frequencies} == {torch.float32}
    assert next(network.parameters()).dtype == torch.bfloat16
    # It can fail: half precision does change them.
    assert any(not torch.equal(placed[key], placed[key].bfloat16().float()) for key in frequencies)
