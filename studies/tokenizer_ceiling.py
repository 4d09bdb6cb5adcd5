"""What a part of the codebook can show at best: pictures of the law, encoded with the codes that Subset leaves.

    python studies/tokenizer_ceiling.py [RUN] > studies/tokenizer_ceiling.txt

24 prompts, 16 scenes of each: about two minutes of a core. The codes are those that each family's own calibration
uses most. RUN is a folder that a probe filled: its prompts and its number of samples are taken then, and below
each row stand the generator's own figures under the same Subset, where the run has them, as with

    divlens probe zoo/ar zoo/mim zoo/diffusion --out RUN --condition "half=Subset(0.5)" --condition "tenth=Subset(0.1)"

dB: peak signal to noise, of the pictures of the law only. The other columns are those of `divlens probe`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

import divlens
from divlens.diversity import load_network
from divlens.experiment.columns import interval_in
from divlens.experiment.measures import DIVERSITY, FIDELITY, OPENNESS, Measure, usual_measures
from divlens.fidelity.judge import load_judge
from divlens.interventions import Subset
from divlens.models.zoo.adapter import ZooModel, tokenizer_from
from divlens.models.zoo.prompts import default_prompts
from divlens.showing import Block, Shown, interval_text
from divlens.statistics import bootstrap_mean
from divlens.store.asked import conditions_of, prompts_of
from divlens.store.reader import open_run
from divlens.zoo.ceiling import SIGNAL, allowed_codes, tokenizer_ceiling

FAMILIES = ("zoo/ar", "zoo/mim", "zoo/diffusion")
FRACTIONS = (1.0, 0.5, 0.25, 0.1, 0.05)
FIGURES = {each.name: each for each in usual_measures(None) if each.name in (DIVERSITY, OPENNESS, FIDELITY)}
HEADINGS = ("codes", "of", "dB", *(each.heading for each in FIGURES.values()))


@dataclass(frozen=True)
class Generators:
    """The figures of a run under Subset, and what it was asked. `table`: see `divlens.ProbeResult.table`."""

    prompts: Sequence[divlens.Prompt]
    n: int
    table: Any
    names: Mapping[float, str]  # of conditions, by the fraction of the codebook

    @classmethod
    def of_run(cls, folder: Path) -> Generators:
        run = open_run(folder)
        table, request = run.tables("probe")["table"], run.requests["probe"]
        names = {}
        for name, done in conditions_of(request).items():
            if not done:
                names[1.0] = name
            if len(done) == 1 and isinstance(done[0], Subset):
                names[done[0].fraction] = name
        return cls(prompts_of(request), request["n"], table, names)

    def cells(self, family: str, fraction: float) -> Iterator[list[str]]:
        """The row of a generator, or none where the run has no such condition."""
        mine = self.table[(self.table["model"] == family) & (self.table["condition"] == self.names.get(fraction))]
        for row in mine.to_dict("records"):
            yield [
                "",
                "generator",
                "",
                *(interval_text(interval_in(row, name), *m.form) for name, m in FIGURES.items()),
            ]


@dataclass(frozen=True, repr=False)
class Ceilings(Shown):
    of_families: Sequence[Block]
    said: Sequence[str]

    @property
    def headline(self) -> str:
        return "The tokenizer's ceiling"

    @property
    def blocks(self) -> Sequence[Block]:
        return self.of_families

    @property
    def notes(self) -> Sequence[str]:
        return self.said


def law_cells(fraction: float, found: Mapping[str, np.ndarray], n: int) -> list[str]:
    def cell(name: str, measure: Measure) -> str:
        return interval_text(measure.mean(found[name], n, 0), *measure.form)

    signal = interval_text(bootstrap_mean(found[SIGNAL]), ".1f")
    return [f"{fraction:.0%}", "the law", signal, *(cell(name, measure) for name, measure in FIGURES.items())]


def digits_of(model: ZooModel) -> str:
    """Which tokenizer and which counts of codes the figures are of."""
    counts = model.frequencies()
    assert counts is not None
    content = model.tokenizer.codebook.numpy().tobytes() + counts.numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:8]


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--limit", type=int, help="Prompts, of those that ship.")
@click.option("-n", "samples", default=16, show_default=True, help="Scenes of each prompt.")
def main(run: Path | None, limit: int | None, samples: int) -> None:
    beside = None if run is None else Generators.of_run(run)
    prompts = default_prompts()[:limit] if beside is None else beside.prompts
    n = samples if beside is None else beside.n
    eyes = tokenizer_from(None, "cpu"), load_judge(), load_network("stlpips"), prompts, n
    blocks, weights = [], []
    whole = tokenizer_ceiling(*eyes)
    for family in FAMILIES:
        model = divlens.load(family)
        assert isinstance(model, ZooModel)
        rows = []
        for fraction in FRACTIONS:
            allowed = allowed_codes(model, [Subset(fraction)])
            found = whole if fraction == 1 else tokenizer_ceiling(*eyes, allowed=allowed)
            rows.append(law_cells(fraction, found, n))
            if beside is not None:
                rows += beside.cells(family, fraction)
        blocks.append(Block(f"by the codes of {family}", HEADINGS, rows))
        weights.append(f"{family} {digits_of(model)}")
    notes = [
        f"Means over {len(prompts)} prompts, {n} pictures each; [95% interval over prompts].",
        "the law: scenes of the law, encoded with the nearest of the most used codes of the family, and decoded. What "
        "they lack is damage by the decoder; what a generator lacks beyond it is lost by the generator.",
        f"Of the tokenizer and the counts of codes: {', '.join(weights)}.",
    ]
    print("\n".join(line.rstrip() for line in str(Ceilings(blocks, notes)).splitlines()))


if __name__ == "__main__":
    main()
