"""The files of LlamaGen: sizes, wrappings, pickles that run code, and what does not fit."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from divlens.errors import DivlensError
from divlens.models.llamagen.adapter import load
from divlens.models.llamagen.checkpoints import gpt_sizes
from divlens.models.llamagen.gpt import Gpt, Sizes
from divlens.models.llamagen.vq import VqSizes, VqTokenizer
from divlens.models.loading import Options
from oracles import tiny_llamagen as tiny
from oracles.every_model import made


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("llamagen") / "files")


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """The files, to be changed."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_published_sizes():
    """XL has 775 million parameters and the picture tokenizer 72 million, as the paper says."""
    with torch.device("meta"):
        gpt = Gpt(Sizes(36, 20, 1280, 3584, 16384, 120, 2048))
        tokenizer = VqTokenizer(VqSizes(128, (128, 128, 256, 256, 512), 2, 256, 16384, 8))
    assert gpt_sizes(Path("t2i"), gpt.state_dict(), None) == gpt.sizes
    assert round(sum(p.numel() for p in gpt.parameters()) / 1e6) == pytest.approx(775, abs=5)
    assert round(sum(p.numel() for p in tokenizer.parameters()) / 1e6) == pytest.approx(72, abs=1)
    assert tokenizer.sizes.pixels == 16


def test_the_picture_size_is_that_of_the_file_or_chosen(copy):
    """Without `grid` in config.json it follows from the file's name: 2 pixels to a token here, 16 in the published."""
    (copy / "config.json").write_text(json.dumps({"n_head": 2}))
    large = "t2i_XL_stage2_512.pt"
    assert load(str(copy), Options()).grid == (128, 128)
    with pytest.raises(DivlensError, match=f"lacks {large}"):
        load(f"{copy}#512", Options())
    torch.save({"model": tiny.gpt_state(seed=1)}, copy / large)
    assert load(str(copy), Options()).grid == (256, 256)
    assert load(f"{copy}#512", Options()).grid == (256, 256)
    small = load(f"{copy}#256", Options())
    assert small.grid == (128, 128) and small.name.endswith("#256")
    assert torch.equal(small.gpt.output.weight, tiny.gpt_state()["output.weight"])
    with pytest.raises(DivlensError, match="#256 or #512"):
        load(f"{copy}#384", Options())


@pytest.mark.parametrize("wrapper", ["module", "state_dict", None])
def test_other_wrappings_and_what_training_leaves_behind(copy, wrapper):
    gpt = tiny.gpt_state()
    torch.save({wrapper: gpt} if wrapper else gpt, copy / tiny.GPT_FILE)
    torch.save({"model": tiny.vq_state() | {"quantize.codebook_used": torch.zeros(65536)}}, copy / tiny.VQ_FILE)
    found = load(str(copy), Options())
    tokens = torch.arange(9).view(1, 3, 3)
    assert torch.equal(found.decode(tokens), made("llamagen").decode(tokens))
    assert all(torch.equal(value, gpt[name]) for name, value in found.gpt.state_dict().items())


class Runs:
    """A pickle that makes a folder when it is read."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("name", [tiny.GPT_FILE, tiny.VQ_FILE])
@pytest.mark.parametrize("how", ["zip", "pickle"])
def test_a_pickle_that_runs_code_is_refused(copy, tmp_path, name, how):
    content, place = {"model": tiny.gpt_state(), "extra": Runs(tmp_path / "ran")}, tmp_path / "ran"
    if how == "zip":
        torch.save(content, copy / name)
    else:
        (copy / name).write_bytes(pickle.dumps(Runs(place), protocol=2))
    with pytest.raises(DivlensError, match=f"{name} is refused: expected tensors only") as caught:
        load(str(copy), Options())
    assert "\n" not in str(caught.value) and not place.exists()
    # The twin: read carelessly, it does run.
    torch.load(copy / name, weights_only=False) if how == "zip" else pickle.loads((copy / name).read_bytes())
    assert place.exists()


def changed(state: dict[str, Tensor], change: str) -> dict[str, Tensor]:
    name = next(key for key in state if key.endswith(("wo.weight", "conv_blocks.1.res.0.conv2.bias")))
    if change == "missing":
        return {key: value for key, value in state.items() if key != name}
    if change == "extra":
        return state | {"layers.0.more": torch.zeros(3)}
    return state | {name: torch.zeros(5, 7)}


@pytest.mark.parametrize("file", [tiny.GPT_FILE, tiny.VQ_FILE])
@pytest.mark.parametrize(
    "change, message",
    [
        ("missing", r"missing \S*(wo.weight|conv2.bias) \("),
        ("extra", r"not expected layers.0.more \(3,\)"),
        ("shape", r"expected \(\S+ ?\d*\), found \(5, 7\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(copy, file, change, message):
    state = tiny.gpt_state() if file == tiny.GPT_FILE else tiny.vq_state()
    torch.save({"model": changed(state, change)}, copy / file)
    with pytest.raises(DivlensError, match=f"{file} does not fit its network: .*{message}"):
        load(str(copy), Options())


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != name}


BROKEN = {
    "no output": ({"model": without(tiny.gpt_state(), "output.weight")}, "lacks the tensor output.weight"),
    "flat output": ({"model": tiny.gpt_state() | {"output.weight": torch.zeros(9)}}, r"2 dimensions.*found \(9,\)"),
    "no layers": ({"model": {k: v for k, v in tiny.gpt_state().items() if "layers" not in k}}, "lacks the tensor"),
    "empty": ({"model": {}}, "empty"),
    "no tensors": ({"steps": 3}, "expects tensors by name.*got int at 'steps'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_transformer_that_is_none(copy, case):
    content, message = BROKEN[case]
    torch.save(content, copy / tiny.GPT_FILE)
    with pytest.raises(DivlensError, match=message):
        load(str(copy), Options())


def test_damaged_and_missing_files(copy, tmp_path):
    (copy / tiny.GPT_FILE).write_bytes((copy / tiny.GPT_FILE).read_bytes()[:5000])
    with pytest.raises(DivlensError, match="cannot be read as a torch checkpoint"):
        load(str(copy), Options())
    shutil.rmtree(copy / tiny.TEXT_FOLDER)
    (copy / tiny.VQ_FILE).unlink()
    with pytest.raises(
        DivlensError, match=r"lacks vq_ds16_t2i.pt, flan-t5-xl; .*peizesun/llamagen_t2i.*google/flan-t5-xl"
    ):
        load(str(copy), Options())
    with pytest.raises(DivlensError, match=r"cannot load .*nowhere.*t2i_XL_stage2_512.pt"):
        load(str(tmp_path / "nowhere"), Options())
    with pytest.raises(DivlensError, match="expects a folder or a repository"):
        load(None, Options())


def test_parts_that_do_not_fit_each_other(copy):
    torch.save({"model": tiny.vq_state(codes=64)}, copy / tiny.VQ_FILE)
    with pytest.raises(DivlensError, match=r"tokenizer of 50 codes.*found 64"):
        load(str(copy), Options())
    torch.save({"model": tiny.vq_state()}, copy / tiny.VQ_FILE)
    shutil.rmtree(copy / tiny.TEXT_FOLDER)
    tiny.save_text(copy / tiny.TEXT_FOLDER, width=24)
    with pytest.raises(DivlensError, match=r"text encoder of width 16.*found 24"):
        load(str(copy), Options())


@pytest.mark.parametrize(
    "content, message",
    [
        ("{}", "2 layers of width 16.*n_head"),
        ('{"n_head": 3}', "multiples of 4 channels, got 3"),
        ('{"n_head": "2"}', "n_head to be a whole number"),
        ('{"n_head": 2, "grid": 0}', "grid to be a whole number"),
        ("{", "expects JSON"),
    ],
)
def test_a_config_that_does_not_help(copy, content, message):
    (copy / "config.json").write_text(content)
    with pytest.raises(DivlensError, match=message):
        load(str(copy), Options())


def test_a_text_encoder_that_lacks_a_tensor(copy):
    from safetensors.torch import load_file, save_file

    path = copy / tiny.TEXT_FOLDER / "model.safetensors"
    tensors = load_file(path)
    name = "encoder.block.1.layer.0.SelfAttention.q.weight"
    save_file(without(tensors, name), path, metadata={"format": "pt"})
    with pytest.raises(DivlensError, match=f"missing {name}"):
        load(str(copy), Options())
    path.write_bytes(b"damaged")
    with pytest.raises(DivlensError, match="flan-t5-xl"):
        load(str(copy), Options())
