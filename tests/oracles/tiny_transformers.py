"""Janus and Emu3 in the published classes and layout, with random weights and few of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.models.emu3.configuration_emu3 import Emu3Config, Emu3TextConfig, Emu3VQVAEConfig
from transformers.models.emu3.image_processing_emu3 import Emu3ImageProcessor
from transformers.models.emu3.modeling_emu3 import Emu3ForConditionalGeneration
from transformers.models.emu3.processing_emu3 import Emu3Processor
from transformers.models.janus.configuration_janus import JanusConfig, JanusVisionConfig, JanusVQVAEConfig
from transformers.models.janus.image_processing_janus import JanusImageProcessor
from transformers.models.janus.modeling_janus import JanusForConditionalGeneration
from transformers.models.janus.processing_janus import JanusProcessor
from transformers.models.llama.configuration_llama import LlamaConfig

from divlens.interventions import Intervention
from divlens.loop import filled
from divlens.planning import Reading
from oracles.tiny_diffusers import sensitive

PROMPTS = ["red heart", "a cat on the sea", "blue"]
WIDTH = 32
# The published template: a turn of the user's, then the word that the assistant begins.
TEMPLATE = (
    "{% for message in messages %}<|User|>: {% for part in message['content'] %}{{ part['text'].strip() }}{% endfor %}"
    "\n\n{% endfor %}{% if add_generation_prompt %}<|Assistant|>:{% endif %}"
)
EXTRA = {"image_token": "<image>", "boi_token": "<|image start|>", "eoi_token": "<|image end|>"}
STRUCTURE = {"image_wrapper_token": "<|image token|>", "eof_token": "<|extra_201|>"}
END_OF_LINE = "<|extra_200|>"


def tokenizer(special: list[str], extra: dict[str, str], begins: bool) -> PreTrainedTokenizerFast:
    """Bytes, and the special tokens given, without merges. `begins`: it puts the begin token itself."""
    tokens = ["<pad>", "<s>", "</s>", *extra.values(), *special]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*tokens, *letters])}
    base = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    base.add_special_tokens(tokens)
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = decoders.ByteLevel()
    if begins:
        base.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=base,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=extra,
        padding_side="left",
    )


def text_sizes(words: Any, positions: int) -> dict[str, Any]:
    """The configuration of the network that reads and writes tokens, alike for both."""
    return {
        "vocab_size": len(words),
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": positions,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def janus(side: int = 4, codes: int = 70, seed: int = 0) -> tuple[Any, Any]:
    """A network and its processor: `side` x `side` codes, a prompt of at most 64 tokens."""
    torch.manual_seed(seed)
    words = tokenizer(["<|User|>", "<|Assistant|>"], EXTRA, begins=True)
    text = LlamaConfig(**text_sizes(words, positions=side * side + 64))
    vision = JanusVisionConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=2 * side,
        patch_size=2,
        projection_dim=WIDTH,
        num_image_tokens=side * side,
    )
    vq = JanusVQVAEConfig(
        embed_dim=8,
        num_embeddings=codes,
        latent_channels=32,
        base_channels=32,
        channel_multiplier=[1, 1],
        num_res_blocks=1,
        projection_dim=WIDTH,
        image_token_embed_dim=WIDTH,
    )
    config = JanusConfig(text_config=text, vision_config=vision, vq_config=vq, image_token_id=3)
    network = sensitive(JanusForConditionalGeneration(config), 1.5).eval()
    own = network.generation_config
    own.bos_token_id, own.eos_token_id, own.pad_token_id = 1, 2, 0
    own.guidance_scale, own.generation_kwargs = 5, {"boi_token_id": words.convert_tokens_to_ids(EXTRA["boi_token"])}
    own._from_model_config = False  # else an entry of its own, boi_token_id, is lost when it is loaded
    images = JanusImageProcessor(image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5])
    return network, JanusProcessor(images, words, chat_template=TEMPLATE)


def emu3(codes: int = 40, positions: int = 9216, seed: int = 0, scattered: bool = False) -> tuple[Any, Any]:
    """A network and its processor. `scattered`: the tokens of the codes neither side by side nor in order."""
    torch.manual_seed(seed)
    visual = [f"<|visual token {code:06d}|>" for code in range(codes)]
    special = [*visual[::-2], END_OF_LINE, *visual[-2::-2]] if scattered else [END_OF_LINE, *visual]
    words = tokenizer(special, EXTRA | STRUCTURE, begins=False)
    text = Emu3TextConfig(**text_sizes(words, positions))
    vq = Emu3VQVAEConfig(
        codebook_size=codes,
        base_channels=32,
        channel_multiplier=[1, 1],
        num_res_blocks=1,
        hidden_size=32,
        attn_resolutions=[],
        temporal_downsample_factor=1,
    )
    config = Emu3Config(text_config=text, vq_config=vq, vocabulary_map=words.get_vocab())
    network = sensitive(Emu3ForConditionalGeneration(config), 1.5).eval()
    images = Emu3ImageProcessor(image_mean=[0.5, 0.4, 0.3], image_std=[0.5, 0.6, 0.7])
    return network, Emu3Processor(images, words)


def saved(parts: tuple[Any, Any], folder: Path) -> str:
    for part in parts:
        part.save_pretrained(folder)
    return str(folder)


def tokens_of(
    model: Any, rows: list[str], noise: Any, interventions: Sequence[Intervention] = ()
) -> Int[torch.Tensor, "batch h w"]:
    """The one loop over `rows`, a wording each, with a noise source of the test's own."""
    start = torch.full((len(rows), model.rule.positions), model.mask)
    settings = Reading(model).settings(interventions)
    with torch.inference_mode():
        predictor = model.predictor(model.encode(rows), guided=settings.guidance != 1.0)
        return filled(predictor, settings, noise, start, model.mask).view(-1, *model.grid)


def logits_along(model: Any, rows: list[str], tokens: Int[torch.Tensor, "batch n"], guided: bool) -> list[torch.Tensor]:
    """Logits (batch, n, codes) of every position when the grid fills with `tokens`: conditional, unconditional."""
    with torch.inference_mode():
        predictor = model.predictor(model.encode(rows), guided)
        steps = [predictor(model.rule.view(tokens, step)) for step in range(model.rule.steps)]
    branches = list(zip(*steps, strict=True))
    return [torch.cat(branch, dim=1) for branch in (branches if guided else branches[:1])]


def fed_rows(network: Any, call: Callable[[], object]) -> list[int]:
    """Rows of every call of the transformer `network` while `call` runs."""
    seen: list[int] = []
    hook = network.register_forward_pre_hook(
        lambda _, __, named: seen.append(len(named["inputs_embeds"])), with_kwargs=True
    )
    call()
    hook.remove()
    return seen


def rewrite_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path, metadata={"format": "pt"})
