"""Diversity against fidelity of the laboratory's three generators, and whether the goal is reached by any method.

    python studies/frontier.py --out frontier-runs > studies/frontier.txt

Prompts name a concept and none, one or two attributes in turn. Half of them choose settings, the others report. Each
generator has a run of its own in the folder, which goes on where it was stopped. Columns: see docs/diversity.md.

The committed output is of two methods, all 48 prompts and, for zoo/ar, 16 samples of each, for the others 8:

    python studies/frontier.py --model zoo/ar --method detailed --method detailed-cooler --method temperature --out F
    python studies/frontier.py --model zoo/mim -n 8 --method detailed --method detailed-cooler --out F
    python studies/frontier.py --model zoo/diffusion -n 8 --method detailed --method detailed-cooler --out F

These took 10 (zoo/ar), 22 and 33 minutes of a core. Time goes with --prompts times -n, and with the methods that are
asked for. All methods and each of their settings, the ablation of the paper's recipe among them, took 17 minutes for
zoo/ar:

    python studies/frontier.py --model zoo/ar -n 8 --settings --picture docs/frontier.png --out G \\
        > studies/frontier_methods.txt
    python studies/frontier.py --model zoo/mim -n 8 --prompts 24 --settings --out G >> studies/frontier_methods.txt

(the second took an hour of a core that it shared).
[95% interval over prompts].
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import pandas as pd

import divlens
from divlens.lab.attributes import ATTRIBUTES, CONCEPT
from divlens.lab.captions import as_prompt, detailed_meanings, neutral_wordings
from divlens.lab.meanings import Meaning
from divlens.types import Prompt

FAMILIES = ("zoo/ar", "zoo/mim", "zoo/diffusion")
MOST_NAMED = 2  # attributes beside the concept: so much stays open that there is a law to be near to


def prompts_of(count: int) -> list[Prompt]:
    """Concepts evenly spread over all that there are, with as many attributes named as comes in turn."""
    places = np.linspace(0, len(ATTRIBUTES[CONCEPT]) - 1, count).round().astype(int)
    found: list[Prompt] = []
    for number, place in enumerate(places):
        meaning = Meaning.of(concept=ATTRIBUTES[CONCEPT].values[place])
        if details := number % (MOST_NAMED + 1):
            (meaning,) = detailed_meanings(meaning, 1, number, details)
        found.append(as_prompt(meaning, neutral_wordings(meaning)[1:]))  # the first is the prompt itself
    return found


def show_settings(table: pd.DataFrame) -> None:
    """A line for each setting, over all prompts: nothing is chosen here."""
    columns = ("openness", "fidelity", "law_distance", "diversity")
    print(f"every setting, over all prompts\n{'':22}" + "".join(f"{name.replace('_', ' '):>19}" for name in columns))
    for row in table.to_dict("records"):
        cells = (f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]" for name in columns)
        print(f"{row['condition']:25}" + "  ".join(cells))
    print()


@click.command()
@click.option("--model", "models", multiple=True, default=FAMILIES)
@click.option("--method", "methods", multiple=True, help="Default: all.")
@click.option("--prompts", default=48, show_default=True, help="At most one for each concept.")
@click.option("-n", default=16, show_default=True, help="Samples of each under each setting.")
@click.option("--settings", is_flag=True, help="Every setting as well.")
@click.option("--picture", type=click.Path(path_type=Path), help="Draw the frontier of the last model into this file.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder for the runs.")
def main(
    models: Sequence[str],
    methods: Sequence[str],
    prompts: int,
    n: int,
    settings: bool,
    picture: Path | None,
    out: Path,
) -> None:
    asked = prompts_of(prompts)
    for spec in models:
        run = out / spec.replace("/", "-")
        found = divlens.frontier(spec, asked, n, methods=list(methods) or None, out=run, progress=True)
        print(f"{found}\n", flush=True)
        if settings:
            show_settings(found.probed.table)
        if picture:
            found.plot.frontier().savefig(picture, dpi=150)


if __name__ == "__main__":
    main()
