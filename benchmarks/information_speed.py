"""What the exact accounting adds to sampling the zoo: time with it over time without, in one process.

    python benchmarks/information_speed.py [--samples 32] [--repeats 5] [--models zoo/mim ...]

Exits with 1 when a median ratio is above what is promised: 1.1 for AR and diffusion, 1.5 for MIM.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

import torch

from divlens import models
from divlens.information.one_pass import collect
from divlens.models.protocol import Model
from divlens.planning import plan
from divlens.run import fill
from divlens.types import Prompt

MOST = {"zoo/ar": 1.1, "zoo/mim": 1.5, "zoo/diffusion": 1.1}
PROMPTS = ("red heart", "cat face", "rocket", "pizza")


def seconds(model: Model, samples: int, accounting: bool) -> float:
    """One run over all prompts: the loop alone, or with each sample accounted for and added up."""
    run = plan(model, [Prompt(text) for text in PROMPTS], samples, 0)
    start = time.perf_counter()
    if accounting:
        collect(run, (0, 0), None, lambda count: None)
    else:
        for _ in fill(run):
            pass
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description="Time of sampling with exact accounting over that without.")
    parser.add_argument("--samples", type=int, default=24, help="per prompt, of four prompts")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=list(MOST))
    options = parser.parse_args()
    print(
        f"{len(PROMPTS)} prompts x {options.samples} samples; torch {torch.__version__}, CPU, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, load average {os.getloadavg()[0]:.1f} at the start; "
        f"median (smallest to largest) of {options.repeats} repetitions"
    )
    failed = False
    for name in options.models:
        model = models.load(name)
        seconds(model, 2, accounting=True)
        # Side by side, so that what else the machine does hits both.
        pairs = [
            (seconds(model, options.samples, False), seconds(model, options.samples, True))
            for _ in range(options.repeats)
        ]
        ratios = [counted / alone for alone, counted in pairs]
        ratio, most = statistics.median(ratios), MOST.get(name, 1.5)
        print(
            f"{name:14} {statistics.median(alone for alone, _ in pairs):8.3f} s alone   {ratio:5.3f} x with accounting "
            f"({min(ratios):.3f} to {max(ratios):.3f}), promised at most {most}"
        )
        failed |= ratio > most
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
