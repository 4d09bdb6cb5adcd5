"""Mean pairwise LPIPS of 32 pictures: divlens against the package stlpips_pytorch, in one process.

    python benchmarks/lpips_speed.py > benchmarks/lpips_speed.txt

Three ways to the same number, each timed in turn in every repetition, so that a busy machine slows all three:
the package's loop over the 496 pairs i < j as in its README; the same pairs in batches of 32, which shows how much of
the ratio is small batches; and `lpips_diversity`. Fails when the numbers differ or the first ratio is below 25.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from divlens.diversity import load_network, lpips_diversity

PICTURES = Path(__file__).parents[1] / "tests" / "data" / "emoji8.png"
REQUIRED_RATIO = 25


def load_pictures() -> Tensor:
    """float32 (32, 3, 64, 64) in [0, 1]: eight pictures, each as it is and turned by 90, 180 and 270 degrees."""
    with Image.open(PICTURES) as strip:
        pixels = torch.from_numpy(np.array(strip.convert("RGB")))
    upright = pixels.reshape(64, 8, 64, 3).permute(1, 3, 0, 2).float().div(255)
    return torch.cat([upright.rot90(turns, (2, 3)) for turns in range(4)]).contiguous()


def timed(work: Callable[[], float]) -> tuple[float, float]:
    start = time.perf_counter()
    value = work()
    return time.perf_counter() - start, value


def main() -> int:
    parser = argparse.ArgumentParser(description="Mean pairwise LPIPS of 32 pictures: divlens against stlpips_pytorch.")
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from stlpips_pytorch import stlpips

        package = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    network = load_network("stlpips")
    pictures = load_pictures()
    pairs = list(itertools.combinations(range(len(pictures)), 2))

    @torch.inference_mode()
    def pair_loop() -> float:
        return statistics.fmean(float(package(pictures[i], pictures[j], normalize=True)) for i, j in pairs)

    @torch.inference_mode()
    def batched_pairs() -> float:
        first, second = torch.tensor(pairs).T
        batches = zip(first.split(32), second.split(32), strict=True)
        return float(torch.cat([package(pictures[i], pictures[j], normalize=True) for i, j in batches]).mean())

    def ours() -> float:
        return float(lpips_diversity(pictures[None], network, batch_size=32))

    ways = {"package, pair by pair": pair_loop, "package, 32 pairs a batch": batched_pairs, "divlens": ours}
    for work in (batched_pairs, ours):  # the first run of each shape pays for allocation
        work()
    available = torch.get_num_threads()
    print(
        f"{len(pictures)} pictures of 64x64, {len(pairs)} pairs; torch {torch.__version__}, CPU, "
        f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the start; "
        f"median (smallest to largest) of {repeats} repetitions"
    )
    # One thread as well: on a busy machine more threads scatter widely, and favour whichever way waits less.
    return max(compare(ways, threads, repeats) for threads in sorted({1, available}))


def compare(ways: dict[str, Callable[[], float]], threads: int, repeats: int) -> int:
    """Times all ways with a number of threads, prints them, and returns 1 when they differ or are too slow, else 0."""
    torch.set_num_threads(threads)
    rounds = [{name: timed(work) for name, work in ways.items()} for _ in range(repeats)]
    print(f"\n{threads} thread{'s' * (threads > 1)}")
    for name in ways:
        seconds = [run[name][0] for run in rounds]
        ratios = [run[name][0] / run["divlens"][0] for run in rounds]
        print(
            f"{name:26} {statistics.median(seconds):8.3f} s ({min(seconds):.3f} to {max(seconds):.3f})   "
            f"{statistics.median(ratios):6.1f} x divlens ({min(ratios):.1f} to {max(ratios):.1f})   "
            f"value {rounds[0][name][1]:.7f}"
        )

    values = [run[name][1] for run in rounds for name in ways]
    if max(values) / min(values) - 1 > 1e-4:
        print(f"FAILED: values differ by {max(values) / min(values) - 1:.1e}, expected at most 1e-4")
        return 1
    ratio = statistics.median(run["package, pair by pair"][0] / run["divlens"][0] for run in rounds)
    if ratio < REQUIRED_RATIO:
        print(f"FAILED: ratio {ratio:.1f}, expected at least {REQUIRED_RATIO}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
