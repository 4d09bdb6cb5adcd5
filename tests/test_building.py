"""Networks from outside are built only as large as their files; files are read as what they are; decoders overflow."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from divlens.errors import DivlensError
from divlens.models import amused, emu3, janus, load, vq_diffusion
from divlens.models.building import at_most, weight_files
from divlens.models.loading import Options, load_checked, read_pt
from divlens.sampler import sample
from oracles import tiny_diffusers, tiny_llamagen, tiny_transformers

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path) -> Path:
    tiny_diffusers.saved(tiny_diffusers.amused(), tmp_path)
    return tmp_path


def refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(DivlensError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


# Sizes


def test_building_stops_at_the_first_number_too_many():
    layers: list[nn.Module] = []

    def build(count: int) -> None:
        layers.clear()
        layers.extend(nn.Linear(9, 1) for _ in range(count))  # ten numbers each

    with torch.device("meta"), at_most(100, "a network"):
        build(10)
    with (
        pytest.raises(DivlensError, match=r"a network, got one of more than 100 numbers \(weight of a Linear"),
        torch.device("meta"),
        at_most(100, "a network"),
    ):
        build(10**9)
    assert len(layers) == 10
    build(11)  # nothing is left of it
    assert len(layers) == 11


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "num_hidden_layers",
            10**9,
            r"transformer/config.json expects numbers up to 16777216, got 1000000000 as",
        ),
        (
            "num_hidden_layers",
            10**7,
            r"transformer expects a configuration that fits its weights, got one of more",
        ),
        ("hidden_size", 10**7, r"transformer expects a configuration that fits its weights, got one of more"),
        ("hidden_size", 64, r"transformer does not fit its network: .*expected \(64,"),  # small, so it may be built
        ("hidden_size", "wide", r"transformer expects the configuration and weights of a UVit2DModel, got TypeError"),
    ],
)
def test_a_configuration_that_asks_for_more_than_the_file_holds_is_not_built(folder, field, value, message):
    tiny_diffusers.change_config(folder, "transformer/config.json", **{field: value})
    refused(lambda: amused.load(str(folder), Options()), message)


def test_a_grid_that_no_tensor_bounds_is_bounded(folder):
    tiny_diffusers.change_config(folder, "transformer/config.json", sample_size=5000)
    refused(lambda: load(f"amused:{folder}"), r"expects a grid of at most 65536 positions, got \(5000, 5000\)")
    tiny_diffusers.change_config(folder, "transformer/config.json", sample_size=5)
    assert load(f"amused:{folder}").grid == (5, 5)


def test_what_fits_only_until_it_is_computed_is_one_line(folder):
    """What a norm adds to a variance is in no tensor; that a word was written there shows in the first step."""
    tiny_diffusers.change_config(folder, "transformer/config.json", layer_norm_eps="small")
    model = load(f"amused:{folder}")
    refused(lambda: sample(model, ["red"], n=1), r"amused:.* expects a transformer that works as it is con.*, got T")


def test_sharded_weights_are_found(tmp_path):
    network, _ = tiny_transformers.janus()
    network.save_pretrained(tmp_path, max_shard_size="300KB")
    found = weight_files(str(tmp_path), "", ("model", "pytorch_model"))
    assert len(found) > 2 and found == sorted(tmp_path.glob("model-*.safetensors"))
    assert weight_files(str(tmp_path), "", ("other", "another")) == []


# Files


def compress(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)


def test_a_compressed_checkpoint_is_read_as_what_it_holds(tmp_path):
    path = tmp_path / "weights.pt"
    tensors = {str(i): torch.randn(40, 40) for i in range(20)}
    torch.save(tensors, path)
    stored = path.read_bytes()
    compress(path)
    assert path.read_bytes() != stored
    found = read_pt(path)
    assert all(torch.equal(found[key], tensor) for key, tensor in tensors.items())  # type: ignore[arg-type]
    # The control: mapped into memory, as a stored archive may be, its bytes are taken for numbers.
    mapped = torch.load(path, mmap=True, weights_only=True)
    assert not any(torch.equal(mapped[key], tensor) for key, tensor in tensors.items())


def test_compressed_weights_of_the_packages_are_refused(folder):
    """transformers maps any archive into memory. The same weights, stored, are read."""
    (path,) = (folder / "text_encoder").glob("*.safetensors")
    own = path.with_name("pytorch_model.bin")
    torch.save(load_file(path), own)
    path.unlink()
    expected = sample(load(f"amused:{folder}"), ["red"], n=1).tokens
    assert torch.equal(expected, sample(amused.from_pipeline(tiny_diffusers.amused(), Options()), ["red"], n=1).tokens)
    compress(own)
    refused(lambda: load(f"amused:{folder}"), r"pytorch_model.bin expects an archive that is stored .*got a compressed")


def quantised() -> torch.Tensor:
    with pytest.warns(UserWarning):
        return torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8)


ODD: dict[str, tuple[Callable[[], torch.Tensor], str]] = {
    "sparse": (lambda: torch.ones(2, 3).to_sparse(), "a tensor of layout torch.sparse_coo"),
    "quantised": (quantised, "quantised ones, torch.qint8"),
    "whole": (lambda: torch.ones(2, 3, dtype=torch.int8), "torch.int8"),
    "complex": (lambda: torch.ones(2, 3, dtype=torch.complex64), "torch.complex64"),
    "expanded": (lambda: torch.ones(1).expand(2, 3), r"fewer than its shape \(2, 3\) has"),
    "NaN": (lambda: torch.full((2, 3), torch.nan), "NaN or infinite ones"),
    "without memory": (lambda: torch.empty(2, 3, device="meta"), r"fewer than its shape \(2, 3\) has"),
}


@pytest.mark.parametrize("kind", ODD)
def test_tensors_that_are_no_plain_numbers_are_named(kind):
    make, message = ODD[kind]
    network = nn.Linear(3, 2, bias=False)
    refused(
        lambda: load_checked(network, {"weight": make()}, "a file"),
        f"a file does not fit its network: weight: expected plain floating point numbers, found {message}",
    )
    load_checked(network, {"weight": torch.full((2, 3), 7.0, dtype=torch.float16)}, "a file")
    assert bool((network.weight == 7).all())


def test_a_scalar_stands_for_all_channels(tmp_path):
    folder = tiny_transformers.saved(tiny_transformers.janus(), tmp_path)
    config = json.loads((tmp_path / "processor_config.json").read_text())
    expected = janus.load(folder, Options()).pixels
    config["image_processor"]["image_std"] = 0.5
    (tmp_path / "processor_config.json").write_text(json.dumps(config))
    assert janus.load(folder, Options()).pixels == expected
    config["image_processor"]["image_std"] = [0.5, None, 0.5]
    (tmp_path / "processor_config.json").write_text(json.dumps(config))
    refused(lambda: load(f"janus:{folder}"), r"image_std of the image processor expects a number, or one for each ch")


def test_a_zoo_folder_with_another_vocabulary_or_a_folder_for_a_file(tmp_path):
    from divlens.lab.captions import vocabulary
    from divlens.models.zoo.assets import packaged_folder, read_tensors, write_tensors

    for name in ("ar.safetensors", "tokenizer.safetensors", "checksums.json"):
        (tmp_path / name).write_bytes((packaged_folder() / name).read_bytes())
    assert load(f"zoo/ar:{tmp_path}").codes == 1024
    state = read_tensors("ar", tmp_path)
    write_tensors("ar", state | {"text.words.weight": state["text.words.weight"][:4]}, tmp_path)
    words = len(vocabulary()) + 2
    refused(lambda: load(f"zoo/ar:{tmp_path}"), rf"text.words.weight: expected \({words}, 224\), found \(4, 224\)")
    (tmp_path / "ar.safetensors").unlink()
    (tmp_path / "ar.safetensors").mkdir()
    refused(lambda: load(f"zoo/ar:{tmp_path}"), r"weights are missing: expected ar.safetensors")


# Decoders in half precision


def decoder_of(name: str, model: Any) -> nn.Module:
    return model.vqvae if name in ("amused", "vq-diffusion") else model.network.model.vqmodel


def loud(name: str, folder: Path) -> tuple[Any, ...]:
    """The parts of a tiny model whose decoder passes on numbers near 1e5, beyond float16; its folder is written."""
    if name in ("amused", "vq-diffusion"):
        pipeline = getattr(tiny_diffusers, name.replace("-", "_"))()
        decoder, parts = pipeline.vqvae.decoder, (pipeline,)
    else:
        parts = getattr(tiny_transformers, name)()
        decoder = parts[0].model.vqmodel.decoder
    with torch.no_grad():
        decoder.conv_in.weight.fill_(6e4)
        decoder.conv_in.bias.fill_(6.5e4)
    for part in parts:
        part.save_pretrained(folder)
    return parts


MODULES: dict[str, Any] = {"amused": amused, "vq-diffusion": vq_diffusion, "janus": janus, "emu3": emu3}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", MODULES)
def test_a_loaded_decoder_is_in_float32_and_does_not_overflow(name, dtype, tmp_path):
    """Against the same decoder in float32 throughout; bfloat16 rounds the weights it was stored with to 2**-9."""
    loud(name, tmp_path)
    half, full = (MODULES[name].load(str(tmp_path), Options(dtype=d)) for d in (dtype, "float32"))
    assert {weight.dtype for weight in decoder_of(name, half).parameters()} == {torch.float32}
    tokens = torch.arange(4).view(1, 2, 2) if name == "emu3" else torch.arange(16).view(1, 4, 4)
    pictures = half.decode(tokens)
    assert pictures.isfinite().all()
    assert (pictures - full.decode(tokens)).abs().max() < 0.1
    assert next(iter(half.encode(["red"]).unbind())).dtype in (getattr(torch, dtype), torch.long)


@pytest.mark.parametrize("name", ["vq-diffusion", "janus", "emu3"])
def test_a_wrapped_decoder_is_used_as_it_is_and_its_overflow_is_said(name, tmp_path):
    first, *others = loud(name, tmp_path)
    first.to(torch.float16)
    wrap = MODULES[name].from_pipeline if name == "vq-diffusion" else MODULES[name].from_model
    model = wrap(first, *others, Options())
    tokens = torch.arange(4).view(1, 2, 2) if name == "emu3" else torch.arange(16).view(1, 4, 4)
    assert next(decoder_of(name, model).parameters()).dtype == torch.float16
    refused(lambda: model.decode(tokens), r"expects finite numbers from its decoder, got others in torch.float16; a")
    decoder_of(name, model).float()  # as the error says
    assert model.decode(tokens).isfinite().all()


def test_a_decoder_that_gives_nan_in_float32_is_not_blamed_on_the_precision(tmp_path):
    model = tiny_llamagen.golden(tmp_path / "model")
    with torch.no_grad():
        model.tokenizer.post_quant_conv.weight.fill_(torch.nan)
    with pytest.raises(DivlensError, match=r"finite numbers from its decoder, got others in torch.float32$"):
        model.decode(torch.arange(9).view(1, 3, 3))
    assert replace(model, name="other").name == "other"


# The hub


def test_weights_of_a_repository_are_looked_for_as_they_are_in_a_folder(folder, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    asked: list[str] = []

    def download(repository: str, name: str, subfolder: str | None = None) -> str:
        path = folder / (subfolder or "") / name
        asked.append(str(path.relative_to(folder)))
        if repository != "some/where" or not path.exists():
            raise EntryNotFoundError(f"no {name}")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    stems = ("model", "pytorch_model")
    whole = folder / "text_encoder" / "model.safetensors"
    assert weight_files("some/where", "text_encoder", stems) == [whole]
    whole.rename(whole.with_name("part.safetensors"))
    index = {"weight_map": {"a": "part.safetensors", "b": "part.safetensors"}}
    whole.with_name("model.safetensors.index.json").write_text(json.dumps(index))
    assert weight_files("some/where", "text_encoder", stems) == [whole.with_name("part.safetensors")]
    assert weight_files("some/where", "tokenizer", stems) == []
    assert "tokenizer/pytorch_model.bin" in asked
