"""The draw by inversion: its time and its rarest codes, with sums in float64 as they are and in float32.

    python benchmarks/draw_speed.py [--repeats 15] [--codes 512 4096 16384 65536]

Ratios are paired: both draws take the same probabilities, one after the other. "codes that come out": of the codes
with a logit of -19 beside one of 0, how many some uniform reaches. Exits with 1 when a code is out of reach in float64,
or when the draw costs more than 3% of drawing zoo/mim beyond what it cost in float32.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

import torch
from torch import Tensor

from divlens import models
from divlens.noise import draw_by_inversion, rows_at_once
from divlens.sampler import sample

NUMBERS = 2**22  # probabilities of a draw
MOST = 0.03


def float32_draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The same draw with its sums in float32."""
    rows = rows_at_once(probabilities)
    found = []
    for part, targets in zip(probabilities.flatten(0, 1).split(rows), uniform.flatten().split(rows), strict=True):
        sums = part.cumsum(-1)
        total = sums[..., -1]
        target = torch.minimum(targets.float() * total, torch.nextafter(total, torch.zeros_like(total)))
        found.append(torch.searchsorted(sums, target.unsqueeze(-1), right=True).squeeze(-1))
    return torch.cat(found).view(uniform.shape)


def seconds(draw, *arguments: Tensor) -> float:
    start = time.perf_counter()
    draw(*arguments)
    return time.perf_counter() - start


def reached(codes: int, dtype: torch.dtype) -> int:
    """How many codes some uniform draws: those at which the cumulative sum rises."""
    logits = torch.full((codes,), -19.0)
    logits[0] = 0
    sums = logits.softmax(-1).cumsum(-1, dtype=dtype)
    return int(sums.diff().gt(0).sum()) + 1


def main() -> int:
    parser = argparse.ArgumentParser(description="The draw with sums in float64 over that with sums in float32.")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--codes", type=int, nargs="+", default=[512, 4096, 16384, 65536])
    options = parser.parse_args()
    print(
        f"{NUMBERS} probabilities a draw; torch {torch.__version__}, CPU, {torch.get_num_threads()} threads of "
        f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the start; median (smallest to largest) of "
        f"{options.repeats} repetitions"
    )
    failed, extra = False, {}
    for codes in options.codes:
        generator = torch.Generator().manual_seed(0)
        p = torch.randn(1, NUMBERS // codes, codes, generator=generator).softmax(-1)
        uniform = torch.rand(1, NUMBERS // codes, generator=generator, dtype=torch.float64)
        draw_by_inversion(p, uniform)
        pairs = [
            (seconds(float32_draw, p, uniform), seconds(draw_by_inversion, p, uniform)) for _ in range(options.repeats)
        ]
        ratios = [double / single for single, double in pairs]
        found = {dtype: reached(codes, dtype) for dtype in (torch.float32, torch.float64)}
        extra[codes] = statistics.median(double - single for single, double in pairs) * codes / NUMBERS
        print(
            f"{codes:6} codes   {1e3 * statistics.median(single for single, _ in pairs):7.2f} ms in float32   "
            f"{statistics.median(ratios):5.3f} x in float64 ({min(ratios):.3f} to {max(ratios):.3f})   codes that come "
            f"out: {found[torch.float32]} in float32, {found[torch.float64]} in float64"
        )
        failed |= found[torch.float64] < codes
    model = models.load("zoo/mim")
    sampling = seconds(lambda: sample(model, ["heart"], 24)) / (24 * 64 * model.rule.steps)
    if model.codes in extra:
        share = max(extra[model.codes], 0.0) / sampling
        print(
            f"of drawing {model.name}, 24 samples, float64 adds {100 * share:.2f}%, promised at most {100 * MOST:.0f}%"
        )
        failed |= share > MOST
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
