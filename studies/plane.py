"""The bottleneck plane of the zoo: I(X;Z) and I(Z;Y) of each family under each intervention, beside the data's own.

    python studies/plane.py --device cuda --batch-size 1024 > studies/plane.txt

X is a prompt of mixed detail, drawn as training captions are, and Y its concept, one of eight: so prompts overlap, and
nothing is at a ceiling. The first line has the point of the data, I(X;A) and I(A;Y) with A the scene: exact. 16 samples
of each prompt, of which two are asked under every wording of every prompt. [95% interval over prompts]; I(X;Z) is exact
for AR.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import click
import numpy as np

import divlens
from divlens.conditions import default_conditions
from divlens.information import Effort, Estimate
from divlens.lab.attributes import ATTRIBUTES, CONCEPT
from divlens.lab.captions import TRAINING, draw_captions
from divlens.lab.law import Law, plane
from divlens.lab.reading import read
from divlens.lab.scenes import COUNT, scenes_of
from divlens.models import load

SAMPLES, ASKED_AGAIN, CONCEPTS = 16, 2, 8
FAMILIES = ("zoo/ar", "zoo/mim", "zoo/diffusion")


def mixed_prompts(count: int, seed: int = 0) -> list[str]:
    """Different captions of random scenes of a few concepts, all by the shortest template."""
    generator = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        scenes = scenes_of(generator.integers(0, COUNT, count))
        scenes[:, CONCEPT] = scenes[:, CONCEPT] % CONCEPTS * (len(ATTRIBUTES[CONCEPT]) // CONCEPTS)
        found |= dict.fromkeys(draw_captions(scenes, generator, TRAINING[:1]))
    return list(found)[:count]


def shown(found: Estimate, digits: int = 2) -> str:
    low, high = found.over_prompts.low, found.over_prompts.high
    return f"{found.value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


@click.command()
@click.option("--device", default="cpu", show_default=True)
@click.option("--batch-size", default=96, show_default=True)
@click.option("--limit", default=40, show_default=True, help="Prompts.")
@click.option("--under", multiple=True, default=tuple(default_conditions()))
@click.option("--model", "models", multiple=True, default=FAMILIES)
def main(device: str, batch_size: int, limit: int, under: Sequence[str], models: Sequence[str]) -> None:
    prompts, conditions = mixed_prompts(limit), default_conditions()
    meanings = [read(prompt) for prompt in prompts]
    data = plane(Law.uniform(meanings), [meaning.values[CONCEPT] for meaning in meanings])
    print(f"{limit} prompts, {SAMPLES} samples each, {ASKED_AGAIN} of these asked under all; bits per image")
    print(
        f"data: H(X) {data.prompt:.2f}, I(X;A) {data.through:.2f}, H(A|X) {data.conditional:.2f}, "
        f"H(Y) {data.target:.2f}, I(A;Y) {data.about:.2f}"
    )
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
