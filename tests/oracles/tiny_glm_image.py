"""GLM-Image in the published classes and layout, with random weights and few of them."""

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_glm_image import GlmImageTransformer2DModel
from diffusers.pipelines.glm_image.pipeline_glm_image import GlmImagePipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.models.byt5.tokenization_byt5 import ByT5Tokenizer
from transformers.models.glm_image.configuration_glm_image import GlmImageConfig
from transformers.models.glm_image.image_processing_glm_image import GlmImageImageProcessor
from transformers.models.glm_image.modeling_glm_image import GlmImageForConditionalGeneration
from transformers.models.glm_image.processing_glm_image import GlmImageProcessor
from transformers.models.t5.configuration_t5 import T5Config
from transformers.models.t5.modeling_t5 import T5EncoderModel

from oracles.tiny_diffusers import quiet, saved, sensitive

__all__ = ["drawn", "glm_image", "saved"]

WIDTH, GLYPHS = 64, 12  # of the hidden states that become codes, and of those of the glyphs
OTHERS = 8  # words of the vision vocabulary that are no codes: where a picture begins and ends, and unused ones
EXTRA = {"image_token": "<|image|>", "grid_bos_token": "<sop>", "grid_eos_token": "<eop>"}
TEMPLATE = (
    "[gMASK]{% for message in messages %}<|{{ message['role'] }}|>\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|image|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def tokenizer(codes: int) -> PreTrainedTokenizerFast:
    """The words of the codes first, as published, then special tokens and bytes; no merges."""
    visual = [f"<|dit_token_{number}|>" for number in range(codes + OTHERS)]
    special = [*visual, "<|pad|>", "[gMASK]", "<|user|>", "<|assistant|>", *EXTRA.values()]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate([*special, *letters])}, merges=[]))
    base.add_special_tokens(special)
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=base,
        bos_token=visual[codes],
        eos_token=visual[codes + 1],
        pad_token="<|pad|>",
        extra_special_tokens=EXTRA,
        padding_side="left",
    )


def network(words: Any, codes: int) -> GlmImageForConditionalGeneration:
    text = {
        "vocab_size": len(words),
        "vision_vocab_size": codes + OTHERS,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "pad_token_id": words.pad_token_id,
        "eos_token_id": codes + 1,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000,
            "mrope_section": [2, 1, 1],
            "partial_rotary_factor": 0.5,
        },
    }
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "image_size": 16, "patch_size": 4}
    config = GlmImageConfig(
        text_config=text,
        vision_config=vision,
        vq_config={"embed_dim": 8, "num_embeddings": codes, "latent_channels": 16},
        image_token_id=words.convert_tokens_to_ids(EXTRA["image_token"]),
        image_start_token_id=codes,
        image_end_token_id=codes + 1,
    )
    found = sensitive(GlmImageForConditionalGeneration(config), 1.5).eval()
    own = found.generation_config
    own.temperature, own.top_p, own.top_k, own.do_sample = 0.9, 0.75, codes + OTHERS, True
    own.pad_token_id, own.eos_token_id = words.pad_token_id, codes + 1
    # A trained network ends a picture where it is complete; this one would anywhere, and its pipeline would fail.
    own.suppress_tokens = list(range(codes, codes + OTHERS))
    return found


def glyph_encoder() -> T5EncoderModel:
    config = T5Config(d_model=GLYPHS, d_kv=4, d_ff=16, num_layers=1, num_heads=2, vocab_size=384, dropout_rate=0.0)
    return sensitive(T5EncoderModel(config), 1.0)


def vae() -> AutoencoderKL:
    blocks = 4  # so that a number of a latent stands for 8 x 8 pixels
    lists: dict[str, Any] = {  # whose declared types have one entry
        "block_out_channels": (8,) * blocks,
        "down_block_types": ("DownEncoderBlock2D",) * blocks,
        "up_block_types": ("UpDecoderBlock2D",) * blocks,
        "latents_mean": [0.1, 0.0, -0.1, 0.2],
        "latents_std": [1.0, 0.8, 1.2, 1.0],
    }
    return AutoencoderKL(
        **lists,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )


def transformer(codes: int) -> GlmImageTransformer2DModel:
    found = GlmImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=GLYPHS,
        time_embed_dim=16,
        condition_dim=8,
        prior_vq_quantizer_codebook_size=codes,
    )
    return sensitive(found, 1.0)


def glm_image(codes: int = 40, seed: int = 0) -> GlmImagePipeline:
    torch.manual_seed(seed)
    words = tokenizer(codes)
    pipeline = GlmImagePipeline(
        tokenizer=ByT5Tokenizer(),
        processor=GlmImageProcessor(GlmImageImageProcessor(), words, chat_template=TEMPLATE),
        text_encoder=glyph_encoder(),
        vision_language_encoder=network(words, codes),
        vae=vae(),
        transformer=transformer(codes),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="linear"),
    )
    return quiet(pipeline)


def drawn(pipeline: Any, prompt: str | list[str], seed: int = 0, **asked: Any) -> torch.Tensor:
    """Pictures (n, 3, H, W) of the pipeline itself, and what it draws them of with `torch.manual_seed(seed)`."""
    generator = torch.Generator().manual_seed(seed)
    named = {"height": 64, "width": 64, "num_inference_steps": 2, "output_type": "pt"} | asked
    return pipeline(prompt, generator=generator, **named).images
