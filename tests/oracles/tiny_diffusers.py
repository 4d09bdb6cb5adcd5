"""aMUSEd and VQ-Diffusion in the published classes and layout, with random weights and few of them."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.vq_model import VQModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.uvit_2d import UVit2DModel
from diffusers.pipelines.deprecated.amused.pipeline_amused import AmusedPipeline
from diffusers.pipelines.deprecated.vq_diffusion import pipeline_vq_diffusion as vq
from diffusers.schedulers.scheduling_amused import AmusedScheduler
from diffusers.schedulers.scheduling_vq_diffusion import VQDiffusionScheduler
from torch import nn
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection
from transformers.models.clip.tokenization_clip import CLIPTokenizer

HIDDEN, PROJECTION = 16, 12
PROMPTS = ["red heart", "a cat on the sea", "blue"]
LONG = "a very long wording " * 30


def tokenizer() -> CLIPTokenizer:
    """Letters, with and without an end of word, and CLIP's two special tokens; no merges."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'"
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def text_encoder(kind: Any) -> Any:
    words = len(tokenizer())
    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=HIDDEN,
        intermediate_size=32,
        projection_dim=PROJECTION,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        pad_token_id=words - 1,
    )
    return kind(config)


def vqvae(codes: int, channels: int = 4, **changes: Any) -> VQModel:
    return VQModel(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        norm_num_groups=4,
        latent_channels=channels,
        num_vq_embeddings=codes,
        **changes,
    )


def sensitive(network: Any, scale: float) -> Any:
    """Matrices drawn wide: the default ones barely react to the text, and then mixed-up prompts would go unseen."""
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=scale / weight[0].numel() ** 0.5)
    return network


def amused(side: int = 4, codes: int = 24, seed: int = 0) -> AmusedPipeline:
    torch.manual_seed(seed)
    transformer = UVit2DModel(
        hidden_size=32,
        cond_embed_dim=PROJECTION,
        micro_cond_encode_dim=8,
        micro_cond_embed_dim=40,
        encoder_hidden_size=HIDDEN,
        vocab_size=codes + 8,
        codebook_size=codes,
        in_channels=16,
        block_out_channels=16,
        num_res_blocks=1,
        downsample=side > 4,  # as published: the larger grid is halved inside
        upsample=side > 4,
        block_num_heads=2,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        sample_size=side,
    )
    pipeline = AmusedPipeline(
        vqvae=vqvae(codes, mid_block_add_attention=False, lookup_from_codebook=True, force_upcast=True),
        tokenizer=tokenizer(),
        text_encoder=sensitive(text_encoder(CLIPTextModelWithProjection), 1.5),
        transformer=sensitive(transformer, 1.0),
        scheduler=AmusedScheduler(mask_token_id=codes + 7),
    )
    return quiet(pipeline)


def vq_diffusion(
    side: int = 4, codes: int = 20, learnable: bool = True, seed: int = 0, steps: int = 100
) -> vq.VQDiffusionPipeline:
    torch.manual_seed(seed)
    transformer = Transformer2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        cross_attention_dim=HIDDEN,
        attention_bias=True,
        sample_size=side,
        num_vector_embeds=codes + 1,
        num_embeds_ada_norm=steps,
        activation_fn="geglu-approximate",
        norm_type="ada_norm",
    )
    learned = vq.LearnedClassifierFreeSamplingEmbeddings(learnable, HIDDEN, 77)
    if learnable:
        nn.init.normal_(learned.embeddings, std=0.25)
    pipeline = vq.VQDiffusionPipeline(
        vqvae=vqvae(codes, vq_embed_dim=6),
        tokenizer=tokenizer(),
        text_encoder=sensitive(text_encoder(CLIPTextModel), 1.5),
        transformer=sensitive(transformer, 1.5),
        scheduler=VQDiffusionScheduler(num_vec_classes=codes + 1, num_train_timesteps=steps),
        learned_classifier_free_sampling_embeddings=learned,
    )
    return quiet(pipeline)


def quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.eval()
    return pipeline


def saved(pipeline: Any, folder: Path) -> str:
    pipeline.save_pretrained(folder)
    return str(folder)


def change_config(folder: Path, name: str, **changes: Any) -> None:
    """Rewrite entries of a JSON file below `folder`."""
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
