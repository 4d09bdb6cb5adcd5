"""What storing costs: time of a run with a folder over time without, on the zoo.

    python benchmarks/run_overhead.py [--samples 8] [--repeats 5] [--models zoo/ar ...]

Whole: a probe under the baseline with `out=`, to a new folder on the disk of temporary files, over the same without.
Drawing: the loop alone, each of whose batches is stored by `RunFolder.add`: the time of storing over that of the loop,
and its milliseconds a batch. Runs with and without follow each other in one process, so that what else the machine does
hits both; medians (smallest to largest). Exits with 1 when storing takes more than 3% of drawing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import divlens
from divlens import models
from divlens.models.protocol import Model
from divlens.models.zoo.prompts import default_prompts
from divlens.planning import BATCH_SIZE, plan
from divlens.run import fill
from divlens.store.folder import writing_run

MOST = 0.03
PROMPTS = default_prompts()[:4]


def probe_seconds(model: Model, samples: int, folder: Path | None) -> float:
    start = time.perf_counter()
    divlens.probe(model, PROMPTS, samples, conditions={"baseline": ()}, out=folder)
    return time.perf_counter() - start


def drawing_seconds(model: Model, samples: int, folder: Path) -> tuple[float, float, int]:
    """Of the loop, and of storing its batches besides; and how many batches these were."""
    run = plan(model, PROMPTS, samples, 0)
    storing, batches = 0.0, 0
    with writing_run(folder) as written:
        written.content(model)  # once a run
        start = time.perf_counter()
        for batch in fill(run):
            before = time.perf_counter()
            written.add(run, "baseline", np.arange(batch.place.start, batch.place.stop), batch.rows, batch.tokens)
            storing, batches = storing + time.perf_counter() - before, batches + 1
        whole = time.perf_counter() - start
    return whole - storing, storing, batches


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def main() -> int:
    parser = argparse.ArgumentParser(description="Time of runs that are stored, over that of runs that are not.")
    parser.add_argument("--samples", type=int, default=8, help="per prompt, of four prompts")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=["zoo/ar", "zoo/mim", "zoo/diffusion"])
    options = parser.parse_args()
    drawn = len(PROMPTS) * options.samples
    print(
        f"{len(PROMPTS)} prompts x {options.samples} samples, batches of {min(BATCH_SIZE, drawn)}; torch "
        f"{torch.__version__}, CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads, load average "
        f"{os.getloadavg()[0]:.1f} at the start"
    )
    failed = False
    for name in options.models:
        model = models.load(name)
        with tempfile.TemporaryDirectory() as place:
            probe_seconds(model, 2, Path(place, "first"))
            ratios, shares, each = list[float](), list[float](), list[float]()
            for i in range(options.repeats):
                alone = probe_seconds(model, options.samples, None)
                ratios.append(probe_seconds(model, options.samples, Path(place, f"probe {i}")) / alone)
                loop, storing, batches = drawing_seconds(model, options.samples, Path(place, f"drawn {i}"))
                shares.append(storing / loop)
                each.append(1000 * storing / batches)
        print(f"{name:14} whole: {spread(ratios)} x", flush=True)
        print(
            f"{'':14} storing / drawing: {spread(shares)}, promised at most {MOST}; {statistics.median(each):.1f} ms a "
            "batch",
            flush=True,
        )
        failed |= statistics.median(shares) > MOST
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
