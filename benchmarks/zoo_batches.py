"""What it costs that the zoo's networks see blocks of one size: time of `sample` with blocks over that without.

    python benchmarks/zoo_batches.py [--samples 96 8 1] [--repeats 3] [--models zoo/ar ...]

Processor seconds, paired within a repetition. Exits with 1 when 96 samples cost more than 1.15 times as much.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from unittest import mock

import torch

from divlens import models
from divlens.models.protocol import Model
from divlens.models.zoo import adapter
from divlens.sampler import sample

MOST, MANY = 1.15, 96


def seconds(model: Model, n: int, blocks: bool) -> float:
    whole = mock.patch.object(adapter, "in_blocks", adapter.in_blocks if blocks else lambda rows, size: [rows])
    with whole:
        start = time.process_time()
        sample(model, ["heart"], n)
        return time.process_time() - start


def main() -> int:
    parser = argparse.ArgumentParser(description="Time of drawing from the zoo with blocks over that without.")
    parser.add_argument("--samples", type=int, nargs="+", default=[MANY, 8, 1])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=["zoo/ar", "zoo/mim", "zoo/diffusion"])
    options = parser.parse_args()
    print(
        f"torch {torch.__version__}, CPU, {torch.get_num_threads()} threads of {os.cpu_count()} cores, load average "
        f"{os.getloadavg()[0]:.1f} at the start; median (smallest to largest) of {options.repeats} repetitions"
    )
    failed = False
    for name in options.models:
        model = models.load(name)
        seconds(model, 1, blocks=True)
        for n in options.samples:
            pairs = [(seconds(model, n, False), seconds(model, n, True)) for _ in range(options.repeats)]
            ratios = [blocked / whole for whole, blocked in pairs]
            ratio = statistics.median(ratios)
            print(
                f"{name:14} {n:3} samples {statistics.median(whole for whole, _ in pairs):8.3f} s without   "
                f"{ratio:5.2f} x in blocks ({min(ratios):.2f} to {max(ratios):.2f})",
                flush=True,
            )
            failed |= n == MANY and ratio > MOST
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
