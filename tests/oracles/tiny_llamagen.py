"""LlamaGen in the published layout, with random weights and few of them, and a plain computation of what it gives."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from divlens.models.llamagen.adapter import LlamaGen, load
from divlens.models.llamagen.gpt import Gpt, Sizes
from divlens.models.llamagen.vq import VqSizes, VqTokenizer
from divlens.models.loading import Options

GOLDENS = Path(__file__).parents[1] / "data" / "llamagen"
GPT_FILE, VQ_FILE, TEXT_FOLDER = "t2i_XL_stage1_256.pt", "vq_ds16_t2i.pt", "flan-t5-xl"
TINY = Sizes(layers=2, heads=2, width=16, hidden=24, codes=50, caption_tokens=120, caption_width=16)


def save_text(folder: Path, width: int = 16, seed: int = 0) -> None:
    """A T5 with both of its halves, as on the hub, whose tokenizer makes a token of each byte and adds an end mark."""
    torch.manual_seed(seed)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(["<pad>", "</s>", *letters])}, merges=[]))
    base.add_special_tokens(["<pad>", "</s>"])
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = decoders.ByteLevel()
    base.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=base, eos_token="</s>", pad_token="<pad>").save_pretrained(folder)
    config = T5Config(
        vocab_size=len(letters) + 2,
        d_model=width,
        d_kv=8,
        num_heads=2,
        d_ff=32,
        num_layers=2,
        feed_forward_proj="gated-gelu",
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)


def gpt_state(sizes: Sizes = TINY, seed: int = 0) -> dict[str, Tensor]:
    """Weights large enough for every part to matter to the logits."""
    random = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in Gpt(sizes).state_dict().items():
        noise = torch.randn(value.shape, generator=random)
        state[name] = 1 + 0.2 * noise if value.dim() == 1 else noise * (1.5 / value.shape[-1] ** 0.5)
    return state


def vq_state(codes: int = TINY.codes, channels: tuple[int, ...] = (32, 32), seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return VqTokenizer(VqSizes(32, channels, 1, 8, codes, 4)).state_dict()


def save(folder: Path, sizes: Sizes = TINY, side: int = 3, seed: int = 0) -> Path:
    """All the published files, small."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": gpt_state(sizes, seed), "steps": 7}, folder / GPT_FILE)
    torch.save({"model": vq_state(sizes.codes)}, folder / VQ_FILE)
    (folder / "config.json").write_text(json.dumps({"n_head": sizes.heads, "grid": side}))
    save_text(folder / TEXT_FOLDER, sizes.caption_width)
    return folder


def golden(folder: Path, options: Options | None = None) -> LlamaGen:
    """The golden checkpoint, loaded through the same entry as the published one."""
    folder.mkdir(parents=True, exist_ok=True)
    for own, published in (("gpt.pt", GPT_FILE), ("vq.pt", VQ_FILE), ("config.json", "config.json")):
        shutil.copy(GOLDENS / own, folder / published)
    save_text(folder / TEXT_FOLDER)
    return load(str(folder), options or Options())


def plain_logits(state: Mapping[str, Tensor], heads: int, captions: Tensor, mask: Tensor, tokens: Tensor) -> Tensor:
    """Logits (batch, n, codes) of all positions of n = side**2, float64, in one pass without a cache.

    As the paper and its code put it: caption and image in one sequence, an explicit table that is 0 for the caption,
    an explicit mask (causal, no padding, the diagonal kept) and an ordinary softmax. captions (batch, 120, d) and mask
    (batch, 120) are padded on the left; tokens (batch, n).
    """
    weight = {name: value.double() for name, value in state.items()}
    text, n = captions.shape[1], tokens.shape[1]
    side = round(n**0.5)

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight[name]

    inner = F.gelu(captions.double() @ weight["cls_embedding.cap_proj.fc1.weight"].T, approximate="tanh")
    prefix = inner @ weight["cls_embedding.cap_proj.fc2.weight"].T
    x = torch.cat([prefix, weight["tok_embeddings.weight"][tokens[:, :-1]]], dim=1)
    length, width = x.shape[1:]
    d = width // heads
    phases = torch.zeros(length, d // 2, dtype=torch.complex128)
    for position in range(n - 1):
        for pair in range(d // 2):
            place = position // side if pair < d // 4 else position % side
            speed = 10000.0 ** (-(pair % (d // 4)) / (d // 4))
            phases[text + position, pair] = torch.polar(
                torch.ones((), dtype=torch.float64), torch.tensor(place * speed).double()
            )
    allowed = torch.ones(length, length, dtype=torch.bool).tril().repeat(len(x), 1, 1)
    allowed[:, :, :text] &= mask.bool()[:, None]
    allowed |= torch.eye(length, dtype=torch.bool)

    def turn(y: Tensor) -> Tensor:  # (batch, heads, length, d)
        pairs = torch.view_as_complex(y.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * phases).flatten(-2)

    for layer in range(len({name.split(".")[1] for name in state if name.startswith("layers.")})):
        at = f"layers.{layer}."
        qkv = norm(x, at + "attention_norm.weight") @ weight[at + "attention.wqkv.weight"].T
        q, k, v = (part.unflatten(-1, (heads, d)).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
        scores = (turn(q) @ turn(k).mT / d**0.5).masked_fill(~allowed[:, None], -torch.inf)
        attended = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + attended @ weight[at + "attention.wo.weight"].T
        normed = norm(x, at + "ffn_norm.weight")
        gate = F.silu(normed @ weight[at + "feed_forward.w1.weight"].T)
        x = x + (gate * (normed @ weight[at + "feed_forward.w3.weight"].T)) @ weight[at + "feed_forward.w2.weight"].T
    return norm(x[:, text - 1 :], "norm.weight") @ weight["output.weight"].T
