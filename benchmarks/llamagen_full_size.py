"""LlamaGen XL at its published size with random weights, end to end on this machine: time and peak memory.

    python benchmarks/llamagen_full_size.py > benchmarks/llamagen_full_size.txt

Text encoder (flan-t5-xl), transformer (XL) and picture tokenizer are built from the published sizes, so that only the
numbers in them are not the published ones; the caption's tokens are made up, for the tokenizer's vocabulary is a file.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable
from typing import TypeVar

import torch
from transformers import T5Config, T5EncoderModel
from transformers.initialization import no_init_weights

import divlens
from divlens.models.llamagen.adapter import LlamaGen
from divlens.models.llamagen.gpt import Gpt, Sizes
from divlens.models.llamagen.text import CaptionEncoder
from divlens.models.llamagen.vq import VqSizes, VqTokenizer
from divlens.models.loading import DTYPES, Options

XL = Sizes(layers=36, heads=20, width=1280, hidden=3584, codes=16384, caption_tokens=120, caption_width=2048)
VQ_DS16 = VqSizes(base=128, channels=(128, 128, 256, 256, 512), blocks=2, width=256, codes=16384, code_width=8)
FLAN_T5_XL = T5Config(
    d_model=2048, d_kv=64, d_ff=5120, num_layers=24, num_heads=32, vocab_size=32128, feed_forward_proj="gated-gelu"
)
Built = TypeVar("Built", bound=torch.nn.Module)


def built(make: Callable[[], Built], options: Options) -> Built:
    """A network whose matrices are drawn once, in place, in its own dtype."""
    torch.set_default_dtype(DTYPES[options.dtype])
    with no_init_weights():
        network = make()
    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.uniform_(-0.03, 0.03)
    return options.place(network)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pixels", type=int, choices=[256, 512], default=256)
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32")
    parser.add_argument("-n", type=int, default=2, help="pictures of the one prompt")
    arguments = parser.parse_args()
    options, start = Options(dtype=arguments.dtype), time.perf_counter()
    text = built(lambda: T5EncoderModel(FLAN_T5_XL), options)
    gpt = built(lambda: Gpt(XL), options)
    tokenizer = built(lambda: VqTokenizer(VQ_DS16), Options())
    count = sum(p.numel() for network in (text, gpt, tokenizer) for p in network.parameters())
    encoder = CaptionEncoder(lambda caption, **_: {"input_ids": [7] * 12}, text)
    model = LlamaGen("llamagen:random", gpt, gpt.step, tokenizer, encoder, arguments.pixels // 16)
    ready = time.perf_counter()
    out = divlens.sample(model, ["a cat on a mat"], n=arguments.n)
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"LlamaGen XL {arguments.pixels} px, {arguments.dtype}, {count / 1e6:.0f} M parameters in all, guidance 7.5, "
        f"{arguments.n} pictures {tuple(out.images.shape[-2:])}: built in {ready - start:.0f} s, drawn in "
        f"{done - ready:.0f} s with trace, peak memory {peak:.1f} GiB; torch {torch.__version__}, CPU, "
        f"{torch.get_num_threads()} threads, load average {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
