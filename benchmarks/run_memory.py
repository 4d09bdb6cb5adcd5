"""The memory of a run in a folder: peak with some prompts, and with ten times as many. It must not grow.

    python benchmarks/run_memory.py [--prompts 24] [--samples 4096] [--times 10]

Each line is a process of its own that probes toy/ar under the baseline, with pictures compared by their colours alone.
Peak: the most memory that the process held at any time, as the system says. Exits with 1 when the larger run holds more
than 1.1 times as much.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MOST = 1.1


def measured(prompts: int, samples: int) -> dict[str, float]:
    """In this process: mebibytes at the peak, before the run and after it, and seconds."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    import torch

    import divlens
    from divlens.experiment import comparison
    from oracles.colour_network import colour_network  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    comparison.load_network = lambda name="": colour_network()
    with tempfile.TemporaryDirectory() as folder:
        arguments = {"conditions": {"baseline": ()}, "batch_size": min(1024, samples)}
        # What is loaded once is no part of the growth.
        divlens.probe("toy/ar", ["a cat", "snow"], samples, out=f"{folder}/first", **arguments)
        before, start = peak(), time.perf_counter()
        divlens.probe("toy/ar", [f"cat {i}" for i in range(prompts)], samples, out=f"{folder}/run", **arguments)
        return {"before": before, "peak": peak(), "seconds": time.perf_counter() - start}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description="The peak of memory of a run, and of one of ten times the prompts.")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--samples", type=int, default=4096, help="of each prompt")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--once", action="store_true", help="one run, in this process, as JSON")
    options = parser.parse_args()
    if options.once:
        print(json.dumps(measured(options.prompts, options.samples)))
        return 0
    peaks = []
    print("prompts  samples of each    before      peak   seconds")
    for prompts in (options.prompts, options.prompts * options.times):
        command = [sys.executable, __file__, "--once", "--prompts", str(prompts), "--samples", str(options.samples)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        found = json.loads(done.stdout)
        peaks.append(found["peak"])
        print(
            f"{prompts:7}  {options.samples:15}  {found['before']:4.0f} MiB  {found['peak']:4.0f} MiB  "
            f"{found['seconds']:8.1f}",
            flush=True,
        )
    print(f"{peaks[1] / peaks[0]:.3f} x the peak with {options.times} x the prompts, promised at most {MOST}")
    return int(peaks[1] / peaks[0] > MOST)


if __name__ == "__main__":
    sys.exit(main())
