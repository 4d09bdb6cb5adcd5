"""What diffusers is dropping: divlens reads both layouts of VQ-Diffusion, and needs none of the pipelines' classes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.vq_model import VQModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion import (
    LearnedClassifierFreeSamplingEmbeddings,
    VQDiffusionPipeline,
)
from diffusers.schedulers.scheduling_vq_diffusion import VQDiffusionScheduler
from safetensors.torch import load_file
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from divlens.models import vq_diffusion
from divlens.models.fingerprint import fingerprint_of
from divlens.models.loading import Options
from oracles import tiny_diffusers as tiny

# How the attention of a decoder was called when VQ-Diffusion was published, and what that is called today.
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated.*:FutureWarning:diffusers")


def as_published(folder: Path) -> None:
    """The layout of November 2022: another module for one part, torch's own files, other names in the decoder."""
    index = json.loads((folder / "model_index.json").read_text())
    assert index[vq_diffusion.LEARNED] == ["diffusers", "LearnedClassifierFreeSamplingEmbeddings"]
    tiny.change_config(
        folder, "model_index.json", **{vq_diffusion.LEARNED: ["vq_diffusion", index[vq_diffusion.LEARNED][1]]}
    )
    for path in folder.rglob("*.safetensors"):
        tensors = load_file(path)
        if path.parent.name == "vqvae":
            for new, old in OLD_NAMES.items():
                tensors = {
                    name.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): t for name, t in tensors.items()
                }
        name = "pytorch_model.bin" if path.parent.name == "text_encoder" else f"{path.stem}.bin"
        torch.save(tensors, path.with_name(name))
        path.unlink()
    assert any("query" in name for name in torch.load(folder / "vqvae" / "diffusion_pytorch_model.bin"))


@pytest.mark.parametrize("learnable", [True, False])
def test_both_layouts_of_vq_diffusion_are_read(tmp_path, learnable):
    """They are one model, which is that of the pipeline; another one would have another fingerprint."""
    pipeline = tiny.vq_diffusion(learnable=learnable)
    place = tiny.saved(pipeline, tmp_path)
    today = fingerprint_of(vq_diffusion.load(place, Options()))
    as_published(tmp_path)
    assert today is not None and fingerprint_of(vq_diffusion.load(place, Options())) == today
    assert (
        fingerprint_of(vq_diffusion.load(tiny.saved(tiny.vq_diffusion(seed=1), tmp_path / "other"), Options())) != today
    )


@pytest.mark.parametrize("published", [False, True])
def test_a_pipeline_to_wrap_is_had_as_the_docs_say(tmp_path, published):
    place = tiny.saved(tiny.vq_diffusion(), tmp_path)
    if published:
        as_published(tmp_path)
    with pytest.raises(ValueError, match=r"LearnedClassifierFreeSamplingEmbeddings|vq_diffusion"):
        VQDiffusionPipeline.from_pretrained(place)  # where this passes, docs/models.md need no longer say how
    kinds: dict[str, Any] = {
        "tokenizer": CLIPTokenizer,
        "text_encoder": CLIPTextModel,
        "vqvae": VQModel,
        "transformer": Transformer2DModel,
        "scheduler": VQDiffusionScheduler,
        "learned_classifier_free_sampling_embeddings": LearnedClassifierFreeSamplingEmbeddings,
    }
    pipeline = VQDiffusionPipeline(
        **{name: kind.from_pretrained(place, subfolder=name) for name, kind in kinds.items()}
    )
    wrapped, loaded = vq_diffusion.from_pipeline(pipeline, Options()), vq_diffusion.load(place, Options())
    tokens = torch.randint(wrapped.codes, (1, *wrapped.grid))
    assert torch.equal(wrapped.decode(tokens), loaded.decode(tokens))
    assert wrapped.learned is not None and loaded.learned is not None
    assert torch.equal(wrapped.learned, loaded.learned)


HIDDEN = """
import importlib.abc, sys
import torch

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.startswith("diffusers.pipelines.") and ("amused" in name or "vq_diffusion" in name):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
import diffusers
for name in ("AmusedPipeline", "VQDiffusionPipeline"):
    try:
        getattr(diffusers, name)
    except (ImportError, AttributeError, RuntimeError):
        continue
    raise SystemExit(f"{name} is still there")
import divlens
for spec in sys.argv[1:]:
    print(divlens.sample(divlens.load(spec), ["red heart"], n=1, seed=3).tokens.flatten().tolist())
"""


def test_divlens_draws_the_same_where_the_pipelines_are_gone(tmp_path):
    """In a process of its own, in which no import finds them: the tokens are those of this process, which has them."""
    places = [
        f"amused:{tiny.saved(tiny.amused(), tmp_path / 'masked')}",
        f"vq-diffusion:{tiny.saved(tiny.vq_diffusion(steps=12), tmp_path / 'diffusion')}",
    ]
    import divlens

    expected = [
        divlens.sample(divlens.load(place), ["red heart"], n=1, seed=3).tokens.flatten().tolist() for place in places
    ]
    ended = subprocess.run([sys.executable, "-c", HIDDEN, *places], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert [json.loads(line) for line in ended.stdout.splitlines()] == expected
