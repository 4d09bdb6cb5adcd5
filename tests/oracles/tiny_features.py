"""CLIP and DINOv2 in the published classes and layouts, with random weights and few of them."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers.models.bit.image_processing_bit import BitImageProcessor
from transformers.models.clip.configuration_clip import CLIPConfig
from transformers.models.clip.image_processing_clip import CLIPImageProcessor
from transformers.models.clip.modeling_clip import CLIPModel
from transformers.models.clip.processing_clip import CLIPProcessor
from transformers.models.dinov2.configuration_dinov2 import Dinov2Config
from transformers.models.dinov2.modeling_dinov2 import Dinov2Model

from oracles.tiny_diffusers import tokenizer

SIDE = 32  # pixels that the networks see
TIMM = "vit_small_patch14_dinov2"


def clip(folder: Path, seed: int = 0) -> str:
    """A folder as `openai/clip-vit-base-patch16` is laid out."""
    torch.manual_seed(seed)
    words = tokenizer()
    text = {
        "vocab_size": len(words),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
        "bos_token_id": len(words) - 2,
        "eos_token_id": len(words) - 1,
        "pad_token_id": len(words) - 1,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 8,
    }
    model = sensitive(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)))
    sizes: dict[str, Any] = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    model.save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessor(**sizes), words).save_pretrained(folder)
    # Repositories older than transformers 5 have the two parts apart.
    CLIPImageProcessor(**sizes).save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def dinov2(folder: Path, seed: int = 0) -> str:
    """A folder as `facebook/dinov2-base` is laid out."""
    torch.manual_seed(seed)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=SIDE, patch_size=8
    )
    sensitive(Dinov2Model(config)).save_pretrained(folder)
    size, crop = {"shortest_edge": SIDE + 4}, {"height": SIDE, "width": SIDE}
    BitImageProcessor(size=size, crop_size=crop, do_center_crop=True).save_pretrained(folder)
    return str(folder)


def dinov2_of_timm(folder: Path, seed: int = 0) -> str:
    """A folder as `timm/vit_small_patch14_dinov2.lvd142m` is laid out."""
    import timm
    from timm.models import save_for_hf

    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"img_size": 28, "embed_dim": 16, "depth": 2, "num_heads": 2}
    model: Any = sensitive(timm.create_model(TIMM, pretrained=False, num_classes=0, **sizes))
    save_for_hf(model, str(folder), model_args=sizes, safe_serialization="both")
    described = json.loads((folder / "config.json").read_text())
    described["pretrained_cfg"]["input_size"] = [3, 28, 28]
    (folder / "config.json").write_text(json.dumps(described))
    return str(folder)


def sensitive(network: Any) -> Any:
    """With weights so large that other pictures and texts have clearly other features."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1 and "embedding" not in name:
                parameter.mul_(8)
            if "gamma" in name:  # timm's layers begin as next to nothing
                parameter.fill_(1)
    return network.eval()
