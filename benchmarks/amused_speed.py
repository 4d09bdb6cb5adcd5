"""aMUSEd's loop: divlens with tracing on against `diffusers.AmusedPipeline`, in one process, same steps and batch.

    python benchmarks/amused_speed.py > benchmarks/amused_speed.txt

A U-ViT of the published shape, narrower and shallower so that a run takes seconds: 8192 codes, 16 x 16 positions, 12
steps, guidance 10. Both start from encoded text and end at tokens. The network is nearly all of the time, so the ratio
says what the loop around it costs; on the published network, which is 20 times larger, it costs less. Timed in turn in
every repetition, order swapped, in seconds of the processor on one thread, which a busy machine disturbs less. Fails
when the median ratio is above 1.03, or when the two do not draw the same tokens from the same generator.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.autoencoders.vq_model import VQModel
from diffusers.models.unets.uvit_2d import UVit2DModel
from diffusers.pipelines.deprecated.amused.pipeline_amused import AmusedPipeline
from diffusers.schedulers.scheduling_amused import AmusedScheduler
from torch import Tensor
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModelWithProjection
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from divlens.loop import moments
from divlens.models import amused
from divlens.models.loading import Options
from divlens.noise import CounterNoise, Noise, TorchNoise
from divlens.planning import Reading
from divlens.sampler import step_of

PROMPTS = ["a", "b", "c", "d"]
ALLOWED_RATIO = 1.03


def pipeline() -> AmusedPipeline:
    torch.manual_seed(0)
    words = [*"abcd", *(letter + "</w>" for letter in "abcd"), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)
    text = CLIPTextConfig(
        vocab_size=10,
        hidden_size=768,
        projection_dim=768,
        num_hidden_layers=2,
        num_attention_heads=12,
        bos_token_id=8,
        eos_token_id=9,
        pad_token_id=9,
    )
    blocks = ("DownEncoderBlock2D",) * 5
    made = AmusedPipeline(
        vqvae=VQModel(
            block_out_channels=(8,) * 5,
            down_block_types=blocks,
            up_block_types=tuple(block.replace("DownEncoder", "UpDecoder") for block in blocks),
            norm_num_groups=4,
            latent_channels=64,
            num_vq_embeddings=8192,
            lookup_from_codebook=True,
        ),
        tokenizer=tokenizer,
        text_encoder=CLIPTextModelWithProjection(text).eval(),
        transformer=UVit2DModel(
            hidden_size=384,
            in_channels=384,
            block_out_channels=384,
            block_num_heads=6,
            num_res_blocks=2,
            num_hidden_layers=6,
            num_attention_heads=6,
            intermediate_size=1024,
            sample_size=16,
        ).eval(),
        scheduler=AmusedScheduler(mask_token_id=8255),
    )
    made.set_progress_bar_config(disable=True)
    return made


def theirs(reference: Any, conditions: Tensor, empty: Tensor) -> Callable[[], Tensor]:
    rows = len(conditions)
    encoded = {"prompt_embeds": conditions[:, -1], "encoder_hidden_states": conditions[:, :-1]}
    negative = {
        "negative_prompt_embeds": empty[None, -1].expand(rows, -1),
        "negative_encoder_hidden_states": empty[None, :-1].expand(rows, -1, -1),
    }

    def run() -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return reference(**encoded, **negative, generator=generator, output_type="latent").images

    return run


def ours(model: amused.AmusedModel, conditions: Tensor, noise: Callable[[], Noise]) -> Callable[[], Tensor]:
    settings = Reading(model).settings([])

    @torch.inference_mode()
    def run() -> Tensor:
        tokens = start = torch.full((len(conditions), 256), model.mask)
        predictor = model.predictor(conditions, guided=True)
        for moment in moments(predictor, settings, noise(), start, model.mask):
            step_of(moment)
            tokens = moment.result.tokens
        return tokens.view(-1, *model.grid)

    return run


def timed(run: Callable[[], Tensor]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> int:
    parser = argparse.ArgumentParser(description="aMUSEd's loop: divlens against diffusers.")
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    reference = pipeline()
    model = amused.from_pipeline(reference, Options())
    conditions, batch = model.encode(PROMPTS), len(PROMPTS)
    shared = ours(model, conditions, lambda: TorchNoise(torch.Generator().manual_seed(0), batch))
    runs = {
        "AmusedPipeline": theirs(reference, conditions, model.unconditional),
        "divlens, its own noise": ours(
            model, conditions, lambda: CounterNoise.of(0, PROMPTS, range(batch), range(batch))
        ),
        "divlens, torch's noise": shared,
    }
    if not torch.equal(runs["AmusedPipeline"](), shared()):
        print("FAILED: the two drew other tokens from the same generator")
        return 1
    print(
        f"torch {torch.__version__}, CPU seconds, 1 thread, load average {os.getloadavg()[0]:.1f} at the start; "
        f"batch {batch}, {model.rule.steps} steps; same tokens from the same generator; "
        f"median (smallest to largest) of {repeats} repetitions, ratios paired within a repetition"
    )
    orders = [list(runs), list(reversed(runs))]
    rounds = [{name: timed(runs[name]) for name in orders[i % 2]} for i in range(repeats)]
    for name in runs:
        seconds = [run[name] for run in rounds]
        ratios = [run[name] / run["AmusedPipeline"] for run in rounds]
        print(
            f"{name:24} {statistics.median(seconds):7.2f} s ({min(seconds):.2f} to {max(seconds):.2f})   "
            f"{statistics.median(ratios):.3f} x AmusedPipeline ({min(ratios):.3f} to {max(ratios):.3f})"
        )
    ratio = statistics.median(run["divlens, its own noise"] / run["AmusedPipeline"] for run in rounds)
    if ratio > ALLOWED_RATIO:
        print(f"FAILED: ratio {ratio:.3f}, expected at most {ALLOWED_RATIO}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
