"""The bottleneck plane of the zoo over its concepts: I(X;Z) and I(Z;Y) of each family under each intervention.

    python studies/plane.py --device cuda --batch-size 1024 --limit 40
    python studies/plane.py --device cuda --batch-size 1024 --limit 160

X is the concept's name, Y the concept itself, so both are at most log2(concepts). 16 samples of each prompt, of which
two are asked under every wording of every prompt. [95% interval over prompts]; I(X;Z) is exact for AR. The output of
both is in `plane.txt`, of the second what an H200 did in ten minutes, its families side by side.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

import divlens
from divlens.conditions import default_conditions
from divlens.fidelity.judge import load_judge
from divlens.information import Effort, Estimate
from divlens.models import load

SAMPLES, ASKED_AGAIN = 16, 2
FAMILIES = ("zoo/ar", "zoo/mim", "zoo/diffusion")


def shown(found: Estimate, digits: int = 2) -> str:
    low, high = found.over_prompts.low, found.over_prompts.high
    return f"{found.value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


@click.command()
@click.option("--device", default="cpu", show_default=True)
@click.option("--batch-size", default=96, show_default=True)
@click.option("--limit", default=160, show_default=True, help="Concepts, evenly spaced among all.")
@click.option("--under", multiple=True, default=tuple(default_conditions()))
@click.option("--model", "models", multiple=True, default=FAMILIES)
def main(device: str, batch_size: int, limit: int, under: Sequence[str], models: Sequence[str]) -> None:
    judge, conditions = load_judge(), default_conditions()
    names = judge.concepts
    prompts = [names[i * len(names) // limit] for i in range(limit)]
    print(f"{limit} prompts, {SAMPLES} samples each, {ASKED_AGAIN} of these asked under all; bits per image")
    columns = ("path", "execution", "I(X;Z) at least", "I(X;Z) at most", "I(Z;Y) at least")
    print(f"{'':13} {'':10} {columns[0]:>6} {columns[1]:>22} " + " ".join(f"{one:>18}" for one in columns[2:]))
    for spec in models:
        model = load(spec, device)
        for name in under:
            start = time.perf_counter()
            found = divlens.information(
                model,
                prompts,
                SAMPLES,
                interventions=conditions[name],
                judge=judge,
                effort=Effort(paths=0, mixture_samples=ASKED_AGAIN),
                batch_size=batch_size,
            )
            bounds = (found.mutual_lower, found.mutual_upper, found.relevant)
            row = [f"{found.path.value:6.1f}", f"{shown(found.execution, 1):>22}"]
            row += [f"{shown(bound):>18}" for bound in bounds]
            seconds = f"{time.perf_counter() - start:5.0f} s"
            print(f"{spec:13} {name:10} {' '.join(row)} {seconds}", flush=True)


if __name__ == "__main__":
    main()
