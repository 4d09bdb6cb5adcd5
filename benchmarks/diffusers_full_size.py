"""aMUSEd and VQ-Diffusion at their published sizes with random weights, end to end on this machine.

    python benchmarks/diffusers_full_size.py amused > benchmarks/amused_full_size.txt
    python benchmarks/diffusers_full_size.py vq-diffusion --dtype bfloat16 > benchmarks/vq_diffusion_full_size.txt

Networks of the published configuration are saved in the published layout, in a temporary folder (1 to 6 GB), and loaded
back by `divlens.load`; the tokenizer knows single letters only, for the published vocabulary is a file.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from typing import Any

import torch
from diffusers.models.autoencoders.vq_model import VQModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.uvit_2d import UVit2DModel
from diffusers.pipelines.deprecated.amused.pipeline_amused import AmusedPipeline
from diffusers.pipelines.deprecated.vq_diffusion import pipeline_vq_diffusion as vq
from diffusers.schedulers.scheduling_amused import AmusedScheduler
from diffusers.schedulers.scheduling_vq_diffusion import VQDiffusionScheduler
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection
from transformers.models.clip.tokenization_clip import CLIPTokenizer

import divlens
from divlens.models.loading import DTYPES


def tokenizer() -> CLIPTokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[], model_max_length=77)


def text_encoder(kind: Any, width: int, heads: int) -> Any:
    return kind(
        CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=12,
            num_attention_heads=heads,
        )
    )


def amused() -> Any:
    vqvae = VQModel(
        block_out_channels=(128, 256, 256, 512, 768),
        down_block_types=("DownEncoderBlock2D",) * 5,
        up_block_types=("UpDecoderBlock2D",) * 5,
        latent_channels=64,
        layers_per_block=2,
        num_vq_embeddings=8192,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
        force_upcast=True,
    )
    text = text_encoder(CLIPTextModelWithProjection, 768, 12)
    transformer = UVit2DModel(sample_size=16)
    return AmusedPipeline(vqvae, tokenizer(), text, transformer, AmusedScheduler(mask_token_id=8255))


def vq_diffusion() -> Any:
    transformer = Transformer2DModel(
        num_attention_heads=16,
        attention_head_dim=88,
        num_layers=36,
        cross_attention_dim=512,
        attention_bias=True,
        sample_size=32,
        num_vector_embeds=4097,
        num_embeds_ada_norm=100,
        activation_fn="geglu-approximate",
        norm_type="ada_norm",
    )
    vqvae = VQModel(
        block_out_channels=(64, 128, 256, 512),
        down_block_types=("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3,
        latent_channels=256,
        layers_per_block=2,
        num_vq_embeddings=4096,
        vq_embed_dim=128,
    )
    learned = vq.LearnedClassifierFreeSamplingEmbeddings(True, 512, 77)
    scheduler = VQDiffusionScheduler(num_vec_classes=4097)
    text = text_encoder(CLIPTextModel, 512, 8)
    return vq.VQDiffusionPipeline(vqvae, text, tokenizer(), transformer, scheduler, learned)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=["amused", "vq-diffusion"])
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32")
    parser.add_argument("-n", type=int, default=1, help="pictures of the one prompt")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_default_dtype(DTYPES[arguments.dtype])
    pipeline = amused() if arguments.model == "amused" else vq_diffusion()
    torch.set_default_dtype(torch.float32)
    networks = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    count = sum(weight.numel() for network in networks for weight in network.parameters())
    with tempfile.TemporaryDirectory() as folder:
        pipeline.save_pretrained(folder)
        del pipeline, networks
        start = time.perf_counter()
        model = divlens.load(f"{arguments.model}:{folder}", dtype=arguments.dtype)
    loaded, used = time.perf_counter(), time.process_time()
    out = divlens.sample(model, ["a cat on a mat"], n=arguments.n)
    done, used = time.perf_counter(), time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    what = f"{arguments.model}, {arguments.dtype}, {count / 1e6:.0f} M parameters in all, {model.rule.steps} steps, "
    what += f"guidance {model.guidance:g}, {arguments.n} pictures {tuple(out.images.shape[-2:])}"
    times = f"loaded in {loaded - start:.0f} s, drawn in {done - loaded:.0f} s ({used:.0f} s of all cores) with trace"
    threads = f"{torch.get_num_threads()} threads, load average {os.getloadavg()[0]:.1f}"
    print(f"{what}: {times}, peak memory {peak:.1f} GiB; torch {torch.__version__}, CPU, {threads}")


if __name__ == "__main__":
    main()
