"""LlamaGen at GPT-B size with random weights: the cost of reading captions, and of a step, as ratios in one process.

    python benchmarks/llamagen_speed.py > benchmarks/llamagen_speed.txt

Prefill: 8 samples of one prompt against 1 sample of it, guidance on. A step: a whole decode step, averaged over all
positions of a 16 x 16 grid, against the matrix products in it and nothing else (the linear layers on the same weights
and rows, and the two products of attention over as many slots). Both are timed in turn, so that a busy machine slows
both. Fails when the first ratio is above 1.1 or the second above 1.25.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from divlens.models.llamagen.adapter import RasterPredictor
from divlens.models.llamagen.captions import left_padded
from divlens.models.llamagen.gpt import Gpt, Sizes, rotary_table
from divlens.types import View

GPT_B = Sizes(layers=12, heads=12, width=768, hidden=2048, codes=16384, caption_tokens=120, caption_width=2048)
SIDE = 16
PREFILL_LIMIT, STEP_LIMIT = 1.1, 1.25
CAPTION_TOKENS = 30
STRIDE = 5  # between the positions that are timed


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def caption(tokens: int) -> Tensor:
    return left_padded(torch.randn(tokens, GPT_B.caption_width), GPT_B.caption_tokens)


class Bench:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.gpt = Gpt(GPT_B).eval().requires_grad_(False)
        torch.nn.init.normal_(self.gpt.cls_embedding.uncond_embedding)
        self.table = rotary_table(SIDE, GPT_B.head_width, torch.device("cpu"))

    def predictor(self, conditions: Tensor) -> RasterPredictor:
        return RasterPredictor("llamagen", self.gpt, self.gpt.step, self.table, conditions, guided=True)

    def prefill(self, conditions: Tensor) -> float:
        """Seconds until a batch is ready for its first token."""
        return timed(lambda: self.predictor(conditions))

    def steps(self, samples: int, positions: range) -> tuple[float, float, float]:
        """Seconds of decode steps at the positions, for that many samples of one prompt; of the matrix products in
        them; and of those of their linear layers alone."""
        predictor = self.predictor(caption(CAPTION_TOKENS).expand(samples, -1, -1))
        tokens = torch.randint(GPT_B.codes, (samples, SIDE**2))
        rows, heads, d = 2 * samples, GPT_B.heads, GPT_B.head_width
        linears = [module for module in self.gpt.layers.modules() if isinstance(module, torch.nn.Linear)]
        linears.append(self.gpt.output)
        inputs = {width: torch.randn(rows, width) for width in {layer.in_features for layer in linears}}
        query = torch.randn(rows, heads, 1, d)
        keys, values = torch.randn(2, GPT_B.layers, rows, heads, SIDE**2, d)

        def linear_products() -> None:
            for layer in linears:
                F.linear(inputs[layer.in_features], layer.weight)

        def products(i: int) -> None:
            linear_products()
            for own_keys, own_values in zip(keys[..., :i, :], values[..., :i, :], strict=True):
                torch.matmul(query @ own_keys.mT, own_values)

        # Position by position, so that whatever else the machine does falls on all three.
        times = [
            (
                timed(lambda i=i: predictor(View(i, tokens, first=i, count=1, time=i))),
                timed(lambda i=i: products(i)),
                timed(linear_products),
            )
            for i in positions
        ]
        whole, all_products, linear = (sum(column) for column in zip(*times, strict=True))
        return whole, all_products, linear


def line(label: str, above: list[float], below: list[float], each: int) -> float:
    """Print both times and their ratio; returns the median ratio."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    milliseconds = (1000 * statistics.median(times) / each for times in (above, below))
    ratio = statistics.median(ratios)
    print("{:58} {:8.2f} ms {:8.2f} ms".format(label, *milliseconds), end="")
    print(f"   ratio {ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    return ratio


@torch.inference_mode()
def main() -> int:
    parser = argparse.ArgumentParser(description="Ratios of LlamaGen's prefill and decode step at GPT-B size.")
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    bench = Bench()
    print(
        f"GPT-B, random weights, float32, guidance on, {SIDE} x {SIDE} tokens; torch {torch.__version__}, CPU, "
        f"{torch.get_num_threads()} threads of {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the "
        f"start; median (smallest to largest) of {repeats} repetitions\n"
    )
    failures = []
    for tokens in (CAPTION_TOKENS, GPT_B.caption_tokens):
        one = caption(tokens)[None]
        eight = one.repeat(8, 1, 1)
        bench.prefill(eight)
        pairs = [(bench.prefill(eight), bench.prefill(one)) for _ in range(repeats)]
        label = f"prefill of a caption of {tokens} tokens, 8 samples and 1"
        ratio = line(label, [pair[0] for pair in pairs], [pair[1] for pair in pairs], 1)
        failures += [f"{label}: {ratio:.3f}, expected at most {PREFILL_LIMIT}"] * (ratio > PREFILL_LIMIT)
    positions = range(1, SIDE**2, STRIDE)
    for samples in (1, 8):
        bench.steps(samples, positions[:3])
        rounds = [bench.steps(samples, positions) for _ in range(repeats)]
        whole, products, linear = (list(column) for column in zip(*rounds, strict=True))
        label = f"a step of {samples} sample{'s' * (samples > 1)}, and its matrix products"
        ratio = line(label, whole, products, len(positions))
        line("    and those of its linear layers alone", whole, linear, len(positions))
        failures += [f"{label}: {ratio:.3f}, expected at most {STEP_LIMIT}"] * (ratio > STEP_LIMIT)
    for failure in failures:
        print(f"FAILED: {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
