"""What the laboratory's known truth says of its three generators, in four tables.

    python studies/laboratory.py > studies/laboratory.txt

bits: H(Z|X) beside the entropy of the scenes, by how much a prompt names. The judge reads style, background, size and
place; H(A|X) is their entropy under the law, and "drawn" that among the pictures, the sum over attributes, corrected
for judge and number of pictures. It is at most that sum, so the bits that are left, noise of the tokens that changes no
attribute, are at least what is printed.
wordings: pictures of bare names under neutral wordings, short to long, and under detailed ones, which fill in one open
attribute or all four at random.
sources: how much of each attribute's variety comes from wording, path and execution, and from where they act together.
steps: the share of each attribute's variety that is decided before a step: pictures that share all noise before it and
nothing after are compared by pairs with pictures that share none.

Wants about half an hour of a core. [95% interval over prompts].
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import click
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

import divlens
from divlens.decompose import split_by_source
from divlens.experiment.design import Levels, design_of
from divlens.fidelity.judge import ZooJudge, load_judge
from divlens.information import Effort
from divlens.interventions import Wordings
from divlens.lab.attributes import ATTRIBUTES, CONCEPT
from divlens.lab.captions import NAMING, as_prompt, detailed_meanings, neutral_wordings
from divlens.lab.correction import corrected_entropies
from divlens.lab.law import Law
from divlens.lab.meanings import Meaning
from divlens.lab.reading import read
from divlens.models import load
from divlens.models.protocol import Model
from divlens.noise import CounterNoise, Noise
from divlens.planning import Reading
from divlens.run import Row, fill
from divlens.showing import interval_text
from divlens.statistics import Interval, bootstrap_mean, ratio_of_means
from divlens.types import Prompt

FAMILIES = ("zoo/ar", "zoo/mim", "zoo/diffusion")
OPEN = tuple(place for place in NAMING if place != CONCEPT)  # what a bare name leaves open and a judge reads
NAMES = [ATTRIBUTES[place].name for place in OPEN]
SHARES = (0.0, 0.0625, 0.125, 0.25, 0.5, 0.75)  # of all steps
EFFORT = Effort(paths=8, mixture_samples=0)


def bare_prompts(count: int) -> list[Prompt]:
    """Names of things, evenly spread over all that there are."""
    places = np.linspace(0, len(ATTRIBUTES[CONCEPT]) - 1, count).round().astype(int)
    meanings = [Meaning.of(concept=ATTRIBUTES[CONCEPT].values[place]) for place in places]
    return [as_prompt(meaning, neutral_wordings(meaning)) for meaning in meanings]


def prompts_of_detail(count: int) -> dict[int, list[Prompt]]:
    """By the number of attributes that are named beside the concept, `count` prompts."""
    bare = [read(prompt.text) for prompt in bare_prompts(count)]
    found = {0: bare, **{more: [detailed_meanings(one, 1, 0, more)[0] for one in bare] for more in (2, len(OPEN))}}
    return {more: [as_prompt(meaning) for meaning in meanings] for more, meanings in found.items()}


def readings_of(model: Model, judge: ZooJudge, prompts: Sequence[Prompt], n: int) -> Int[np.ndarray, "prompts n read"]:
    """What the judge reads in n pictures of each prompt, one column for each attribute that captions name."""
    reading = Reading(model)
    rows = [Row(prompt, prompt.text, i, i) for prompt in prompts for i in range(n)]
    drawn = [judge(batch.pictures()) for batch in fill(reading.run(rows, reading.settings(()), 0))]
    return torch.cat(drawn).view(len(prompts), n, -1).numpy()


def drawn_entropies(judge: ZooJudge, readings: Int[np.ndarray, "prompts n read"]) -> Float[np.ndarray, " prompts"]:
    """Bits of all attributes but the concept, each by itself, added up."""
    total = np.zeros(len(readings))
    for column, attribute in enumerate(judge.attributes):
        if column != 0:
            counts = (readings[:, :, column, None] == np.arange(len(attribute))).sum(1).astype(float)
            total += corrected_entropies(counts, judge.confusions[attribute.name])
    return total


def bits(model: Model, judge: ZooJudge, count: int, n: int) -> Iterator[str]:
    yield f"{'named':>5} {'H(A|X)':>7} {'drawn':>16} {'H(Z|X) at least':>22} {'H(Z|X) at most':>22}  noise of tokens"
    for more, prompts in prompts_of_detail(count).items():
        true = Law.uniform([read(prompt.text) for prompt in prompts]).conditional_entropy() - 1  # the mirror's bit
        found = divlens.information(model, prompts, n, effort=EFFORT)
        drawn = bootstrap_mean(drawn_entropies(judge, readings_of(model, judge, prompts, n)))
        low, high = found.conditional_lower.over_prompts, found.conditional_upper.over_prompts
        left = f"{low.value - drawn.value:.0f} to {high.value - drawn.value:.0f}"
        cells = [interval_text(drawn, ".1f"), interval_text(low, ".1f"), interval_text(high, ".1f")]
        yield f"{more:5} {true:7.2f} {cells[0]:>16} {cells[1]:>22} {cells[2]:>22}  {left}"


@dataclass(frozen=True)
class Neutral:
    """Neutral wordings of a bare name, of one length."""

    length: str

    def wordings(self, prompt: Prompt, known: Wordings) -> tuple[str, ...]:
        return neutral_wordings(read(prompt.text), lengths=(self.length,))


def wordings(model: Model, judge: ZooJudge, count: int, n: int) -> Iterator[str]:
    conditions = {
        "baseline": (),
        **{f"neutral, {length}": (Neutral(length),) for length in ("short", "medium", "long")},
        "one more": (divlens.Detailed(1, n=16),),
        "all named": (divlens.Detailed(n=16),),
    }
    yield str(divlens.probe(model, bare_prompts(count), n, conditions=conditions))


def sources(model: Model, judge: ZooJudge, count: int, n: int) -> Iterator[str]:
    """Variance components of one attribute's readings: two pictures differ in it or not."""
    design = design_of(model, bare_prompts(count), Levels(2, 4, 4), 0)
    seen = [judge(batch.pictures()) for batch in fill(design.run)]
    for column, place in enumerate(NAMING):
        if place == CONCEPT:
            continue
        size = len(judge.attributes[column])
        ones = (one_hot(readings[:, column], size).double() / 2**0.5 for readings in seen)
        found = [components for components, _ in split_by_source(design.plans, design.levels, ones)]
        if place == OPEN[0]:
            yield f"{'':10} {'differ':>15} " + " ".join(f"{short(source):>15}" for source in found[0])
        values = np.array([list(components.values()) for components in found])
        shares = [ratio_of_means(of_source, values.sum(1)) for of_source in values.T]
        cells = " ".join(f"{interval_text(share, '.0f', 100):>15}" for share in shares)
        yield f"{ATTRIBUTES[place].name:10} {interval_text(bootstrap_mean(values.sum(1)), '.2f'):>15} {cells}"


def short(source: str) -> str:
    return source.replace("wording", "w").replace("path", "p").replace("execution", "e")


@dataclass(frozen=True)
class Branching:
    """Noise that rows share before a step, and have each for themselves from it on."""

    shared: CounterNoise
    own: CounterNoise
    step: int

    def at(self, step: int) -> CounterNoise:
        return self.shared if step < self.step else self.own

    def draw(self, probabilities: Float[Tensor, "batch m codes"], step: int, first: int) -> Int[Tensor, "batch m"]:
        return self.at(step).draw(probabilities, step, first)

    def path_uniform(self, step: int, positions: int, device: torch.device) -> Float[Tensor, "batch n two"]:
        return self.at(step).path_uniform(step, positions, device)

    def path_gumbel(self, step: int, positions: int, device: torch.device) -> Float[Tensor, "batch n"]:
        return self.at(step).path_gumbel(step, positions, device)

    def condition_normal(self, step: int, numbers: int, device: torch.device) -> Float[Tensor, "batch numbers"]:
        return self.at(step).condition_normal(step, numbers, device)


def branching_at(step: int, siblings: int) -> Callable[[Sequence[Row], int], Noise]:
    """Rows are siblings when their number is the same over `siblings`."""

    def noise(rows: Sequence[Row], seed: int) -> Noise:
        texts, own = [row.prompt.text for row in rows], [row.path for row in rows]
        parents = [number // siblings for number in own]
        return Branching(
            CounterNoise.of(seed, texts, parents, parents), CounterNoise.of(seed + 1, texts, own, own), step
        )

    return noise


def steps(model: Model, judge: ZooJudge, count: int, n: int) -> Iterator[str]:
    """n pictures of a prompt, in groups of siblings as large as there are groups."""
    prompts, siblings, reading = bare_prompts(count), round(n**0.5), Reading(model)
    rows = [Row(prompt, prompt.text, i, i) for prompt in prompts for i in range(siblings**2)]
    run = reading.run(rows, reading.settings(()), 0)
    yield f"{'before':>9} " + " ".join(f"{name:>18}" for name in NAMES) + "   decided, %"
    for step in dict.fromkeys(round(share * run.settings.rule.steps) for share in SHARES):
        drawn = [judge(batch.pictures()) for batch in fill(run, noise=branching_at(step, siblings))]
        read = torch.cat(drawn).view(len(prompts), siblings, siblings, -1).numpy()
        cells = [interval_text(decided(read[..., column]), ".0f", 100) for column in range(1, read.shape[-1])]
        yield f"{step:3} of {run.settings.rule.steps:2} " + " ".join(f"{cell:>18}" for cell in cells)


def decided(read: Int[np.ndarray, "prompts groups siblings"]) -> Interval:
    """1 less the chance that two siblings differ, over that of two pictures of different groups."""
    _, groups, siblings = read.shape
    differ = read[:, :, :, None, None] != read[:, None, None]  # prompts, groups, siblings, groups, siblings
    differ = np.moveaxis(differ, 2, 3)  # prompts, groups, groups, siblings, siblings
    same = np.eye(groups, dtype=bool)
    within = differ[:, same].sum((1, 2, 3)) / (groups * siblings * (siblings - 1))
    between = differ[:, ~same].mean((1, 2, 3))
    return ratio_of_means(between - within, between)


PARTS = {"bits": (bits, 8, 16), "wordings": (wordings, 8, 16), "sources": (sources, 8, 0), "steps": (steps, 8, 25)}


@click.command()
@click.option("--model", "models", multiple=True, default=FAMILIES)
@click.option("--part", "parts", multiple=True, type=click.Choice(tuple(PARTS)), default=tuple(PARTS))
@click.option("--prompts", type=int, help="Of each part; default: 8.")
def main(models: Sequence[str], parts: Sequence[str], prompts: int | None) -> None:
    judge = load_judge()
    for part in parts:
        table, count, n = PARTS[part]
        for spec in models:
            print(f"{part}, {spec}: {prompts or count} prompts" + (f", {n} pictures each" if n else ""))
            for line in table(load(spec), judge, prompts or count, n):
                print(line, flush=True)
            print()
            sys.stdout.flush()


if __name__ == "__main__":
    main()
