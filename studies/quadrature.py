"""The error of log P at scale: binned codes against every code by itself, for 256 positions and 8192 codes.

    python studies/quadrature.py > studies/quadrature.txt

Takes about six minutes. Logits are random with a standard deviation of 2.5; the event is one that the rule drew.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))  # the events are those of the tests

from divlens.information.laws.unmasking_events import event_log_probabilities
from oracles.unmasking_events import one_event

POSITIONS, CODES = 256, 8192


def main() -> None:
    torch.set_num_threads(1)
    print(f"{POSITIONS} positions, {CODES} codes; natural logarithms")
    print(
        f"{'tau':>5} {'committed':>9} {'log P(V)':>12} {'log P(V, z)':>12} {'error':>9} {'seconds':>8} {'by itself':>9}"
    )
    for tau in (0.2, 0.5, 2.0):
        for committed in (9, 60, 128):
            scores, samples = one_event(POSITIONS, CODES, committed, tau, samples=1)
            started = time.perf_counter()
            path, joint = event_log_probabilities(scores, samples, tau)
            between = time.perf_counter()
            every = event_log_probabilities(scores, samples, tau, few_codes=CODES)
            seconds, by_itself = between - started, time.perf_counter() - between
            error = max(float((one - other).abs()) for one, other in zip((path, joint), every, strict=True))
            values = f"{float(path):12.4f} {float(joint):12.4f} {error:9.1e} {seconds:8.2f} {by_itself:9.1f}"
            print(f"{tau:5.1f} {committed:9} {values}", flush=True)


if __name__ == "__main__":
    main()
