"""One training loop for everything in the zoo: progress, checkpoints, exact resume, weight averaging.

A step draws all its randomness from the global generator, which is seeded with (seed, step): a run that was killed
and resumed is the run that was never killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from divlens.errors import DivlensError
from divlens.files import written_beside


@dataclass(frozen=True)
class Recipe:
    """How long and how fast. The learning rate warms up, stays, and falls linearly to 0 over the last `decay`."""

    steps: int
    batch: int = 64
    rate: float = 1e-3
    muon_rate: float = 0.0  # 0: AdamW for everything
    weight_decay: float = 0.01
    warmup: int = 200
    decay: float = 0.4
    averaging: float = 0.999
    seed: int = 0

    def factor(self, step: int) -> float:
        falling = (self.steps - step) / max(1.0, self.decay * self.steps)
        return min(1.0, (step + 1) / self.warmup, falling)


def make_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al., 2024) for the matrices inside blocks when asked for, AdamW for the rest."""
    matrices = [
        p for name, p in model.named_parameters() if recipe.muon_rate and p.ndim == 2 and name.startswith("blocks.")
    ]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    decayed, plain = ([p for p in others if (p.ndim > 1) == flag] for flag in (True, False))
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98))]
    if matrices:
        optimizers.append(torch.optim.Muon(matrices, lr=recipe.muon_rate, weight_decay=recipe.weight_decay))
    return optimizers


class Average:
    """Exponential moving average of the floating-point state of a module, warmed up."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in model.state_dict().items():
            self.state[key].lerp_(value, 1 - decay) if value.is_floating_point() else self.state[key].copy_(value)


def fit(
    name: str,
    model: nn.Module,
    loss: Callable[[int], tuple[Tensor, Mapping[str, float]]],
    recipe: Recipe,
    folder: Path,
    *,
    device: torch.device,
    every_seconds: float = 30.0,
) -> dict[str, Tensor]:
    """Train `model` in place, or go on where `folder/name.pt` stopped; returns the averaged state.

    `loss(step)` gives the loss of one batch and figures to show. A checkpoint made with another recipe is refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.pt"
    model.to(device).train()
    optimizers = make_optimizers(model, recipe)
    average = Average(model, recipe.averaging)
    first, minutes = 0, 0.0
    if path.exists():
        stored = torch.load(path, weights_only=True, map_location=device)
        if stored["recipe"] != asdict(recipe):
            raise DivlensError(f"{path} was made with another recipe ({stored['recipe']}); move it away to start anew")
        model.load_state_dict(stored["model"])
        average.state = stored["average"]
        if stored["step"] >= recipe.steps:
            return average.state
        for optimizer, state in zip(optimizers, stored["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        first, minutes = stored["step"], stored["minutes"]

    def checkpoint(step: int, elapsed: float) -> None:
        record = {
            "recipe": asdict(recipe),
            "model": model.state_dict(),
            "average": average.state,
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "step": step,
            "minutes": minutes + elapsed / 60,
        }
        with written_beside(path) as partial:
            torch.save(record, partial)

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[figures]}")) as progress:
        task = progress.add_task(name, total=recipe.steps, completed=first, figures="")
        start = saved = time.monotonic()
        smooth: dict[str, float] = {}
        for step in range(first, recipe.steps):
            torch.manual_seed(recipe.seed * 1_000_003 + step)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    base = recipe.muon_rate if isinstance(optimizer, torch.optim.Muon) else recipe.rate
                    group["lr"] = base * recipe.factor(step)
            with torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16(device)):
                value, figures = loss(step)
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            average.update(model, step)
            for key, figure in {"loss": value.item(), **figures}.items():
                smooth[key] = figure if key not in smooth else smooth[key] + 0.02 * (figure - smooth[key])
            progress.update(task, advance=1, figures=" ".join(f"{k} {v:.3f}" for k, v in smooth.items()))
            if time.monotonic() - saved > every_seconds:
                saved = time.monotonic()
                checkpoint(step + 1, saved - start)
                with open(folder / f"{name}.log", "a") as log:
                    log.write(f"{step + 1} {minutes + (saved - start) / 60:.1f}min {smooth}\n")
        checkpoint(recipe.steps, time.monotonic() - start)
    return average.state


def fast_bfloat16(device: torch.device) -> bool:
    """bf16 products pay on GPUs and on CPUs with AVX-512 BF16 or AMX; elsewhere they are emulated and very slow."""
    if device.type == "cuda":
        return True
    capability = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capability.get("avx512_bf16") or capability.get("amx_bf16"))
