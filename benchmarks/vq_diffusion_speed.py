"""The sampling part of a VQ-Diffusion step: divlens against `diffusers.VQDiffusionScheduler.step`, in one process.

    python benchmarks/vq_diffusion_speed.py > benchmarks/vq_diffusion_speed.txt

4096 codes, 1024 positions, both branches of guidance. Ours is all of a step but the network: guidance, filters, both
draws, the trace. Theirs is `step` alone, which takes log-probabilities that are guided already; the second row adds the
pipeline's guidance and truncation, as a like-for-like. Each starts from what its own network hands over: logits with
the codes last here, log-probabilities with the codes before the positions there (that log-softmax, in float64, is
counted for neither). Timed in turn in every repetition, in seconds of the processor on one thread, which a busy machine
disturbs less.

Memory is the high-water mark of the resident set during one step, above what was there before it, each in a process of
its own. Large blocks are returned to the system at once (MALLOC_MMAP_THRESHOLD_), so that the mark is what was in use.

Fails when the time ratio is below 3 or the memory ratio above one half.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion import VQDiffusionPipeline
from diffusers.schedulers.scheduling_vq_diffusion import VQDiffusionScheduler
from torch import Tensor

from divlens.loop import moments
from divlens.noise import CounterNoise
from divlens.paths import MaskReplaceDiffusion
from divlens.sampler import step_of
from divlens.settings import Settings
from divlens.types import View

CODES, POSITIONS, GUIDANCE = 4096, 1024, 5.0
TIMESTEP = 50  # of 100: half of the positions are masked
REQUIRED_RATIO, ALLOWED_MEMORY = 3.0, 0.5


class OneStep:
    """The published rule, cut to the step at `TIMESTEP`, for the library's own loop."""

    steps = 1

    def __init__(self, rule: MaskReplaceDiffusion) -> None:
        self.rule, self.drawn, self.advance = rule, rule.drawn, rule.advance

    def view(self, tokens: Tensor, step: int) -> View:
        return View(99 - TIMESTEP, tokens, first=0, count=POSITIONS, time=TIMESTEP)

    def silenced(self) -> OneStep:
        return self


def problem(batch: int) -> tuple[Tensor, Tensor]:
    """Logits of both branches, unconditional first, (2 batch, positions, codes), and a state half masked."""
    random = torch.Generator().manual_seed(0)
    common = torch.randn(batch, POSITIONS, CODES, generator=random) * 2
    logits = torch.cat([common, common]) + torch.randn(2 * batch, POSITIONS, CODES, generator=random) / 2
    state = torch.randint(CODES, (batch, POSITIONS), generator=random)
    state[torch.rand(batch, POSITIONS, generator=random) < 0.5] = CODES
    return logits, state


def ours(logits: Tensor, state: Tensor) -> Callable[[], Any]:
    batch = len(state)
    settings = Settings(OneStep(MaskReplaceDiffusion.vq_diffusion(CODES)), GUIDANCE)
    noise = CounterNoise.of(0, ["a"] * batch, range(batch), range(batch))

    def predictor(view: View) -> tuple[Tensor, Tensor]:
        unconditional, conditional = logits.chunk(2)
        return conditional, unconditional

    @torch.inference_mode()
    def run() -> None:
        for moment in moments(predictor, settings, noise, state, CODES):
            step_of(moment)

    return run


def step(state: Tensor) -> Callable[[Tensor], Any]:
    scheduler: Any = VQDiffusionScheduler(num_vec_classes=CODES + 1)
    generator = torch.Generator().manual_seed(0)
    return lambda guided: scheduler.step(guided, TIMESTEP, state, generator=generator)


def guided_by_pipeline(log_p: Tensor) -> Tensor:
    """The pipeline's lines between the network and `step`."""
    unconditional, conditional = log_p.chunk(2)
    guided = unconditional + GUIDANCE * (conditional - unconditional)
    guided -= torch.logsumexp(guided, dim=1, keepdim=True)
    truncate: Any = VQDiffusionPipeline.truncate
    return truncate(None, guided, 1.0).clamp(-70)


def handed_over(logits: Tensor) -> Tensor:
    """As the reference's network ends: log-probabilities, codes before positions."""
    return torch.nn.functional.log_softmax(logits.permute(0, 2, 1).double(), dim=1).float()


def step_alone(logits: Tensor, state: Tensor) -> Callable[[], Any]:
    guided = guided_by_pipeline(handed_over(logits))
    run = step(state)
    return torch.inference_mode()(lambda: run(guided))


def step_with_guidance(logits: Tensor, state: Tensor) -> Callable[[], Any]:
    log_p = handed_over(logits)
    run = step(state)
    return torch.inference_mode()(lambda: run(guided_by_pipeline(log_p)))


WAYS = {
    "VQDiffusionScheduler.step": step_alone,
    "guidance, truncation, step": step_with_guidance,
    "divlens, all but the network": ours,
}


def status(key: str) -> int:
    """Kilobytes of this process: VmRSS now, VmHWM at the highest."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1])


def peak_of(name: str, batch: int) -> None:
    """Print how far the resident set rises during one step, in kilobytes."""
    run = WAYS[name](*problem(batch))
    run()  # once before: libraries are loaded, small pools are filled
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = status("VmRSS")
    run()
    print(status("VmHWM") - before)


def peaks(batch: int) -> dict[str, float]:
    """Megabytes above the network's output, by way."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}

    def measured(name: str) -> float:
        command = [sys.executable, __file__, "--peak", name, "--batch", str(batch)]
        shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        return int(shown.split()[-1]) / 1024

    return {name: measured(name) for name in WAYS}


def timed(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def compare(batch: int, repeats: int) -> int:
    """Print both comparisons for a batch; 1 when a target is missed, else 0."""
    logits, state = problem(batch)
    runs = {name: way(logits, state) for name, way in WAYS.items()}
    for run in runs.values():
        run()
    rounds = [{name: timed(run) for name, run in runs.items()} for _ in range(repeats)]
    memory = peaks(batch)
    own = "divlens, all but the network"
    print(f"\nbatch {batch}: {CODES} codes, {POSITIONS} positions")
    ratios = {}
    for name in WAYS:
        seconds = [run[name] for run in rounds]
        paired = [run[name] / run[own] for run in rounds]
        ratios[name] = statistics.median(paired)
        print(
            f"{name:30} {statistics.median(seconds) * 1000:8.1f} ms ({min(seconds) * 1000:.1f} to "
            f"{max(seconds) * 1000:.1f})   {ratios[name]:5.1f} x divlens ({min(paired):.1f} to {max(paired):.1f})   "
            f"peak {memory[name]:7.1f} MB, divlens / this {memory[own] / memory[name]:.2f}"
        )
    reference = "VQDiffusionScheduler.step"
    share = memory[own] / memory[reference]
    if ratios[reference] < REQUIRED_RATIO or share > ALLOWED_MEMORY:
        print(f"FAILED: expected at least {REQUIRED_RATIO} x the speed and at most {ALLOWED_MEMORY} of the memory")
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Sampling part of a VQ-Diffusion step: divlens against diffusers.")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--peak", choices=WAYS, help="print the peak memory of one way and stop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        peak_of(options.peak, options.batch)
        return 0
    print(
        f"torch {torch.__version__}, CPU seconds, 1 thread, load average {os.getloadavg()[0]:.1f} at the start; "
        f"median (smallest to largest) of {options.repeats} repetitions, ratios paired within a repetition"
    )
    return max(compare(batch, options.repeats) for batch in (1, options.batch))


if __name__ == "__main__":
    sys.exit(main())
