"""Which measure of diversity to believe: rank correlations with the truth, which only a laboratory has.

    divlens probe zoo/ar zoo/mim zoo/diffusion -n 16 --out R
    divlens score R --measures law_distance,token_entropy,vendi,vendi:2,rke,repeat,repeat:0.02
    divlens information zoo/ar zoo/mim zoo/diffusion -n 16 --mixture-samples 0 --out R \\
        --under baseline --under subset --under argmax --under paraphrase --under enhanced
    python studies/proxies.py R > studies/proxies.txt

The committed output is of the run of studies/lab.yaml, with -n 8 and ten conditions, scored by the second command.

Of one core, the first command takes about 25 minutes, the second 3, the third 50 and the last 1. A trial takes two
minutes without the third: zoo/ar alone, with -n 8 --limit 8.

A row of the table is a proxy, anything that a user could measure of a generator whose law nobody knows; whatever else
is scored in R becomes a row, too. `information` may be left out, and its rows are, then. The columns are what the
laboratory knows: openness, the true diversity; the share of pictures that are wrong, 1 - fidelity; and the distance to
the law, which counts both. A proxy to believe rises with openness and does not rise with what is wrong.

over prompts and conditions: Spearman's rank correlation over all (model, condition, prompt), which mixes what prompts
leave open with what conditions do. within a prompt: the same over the models and conditions of one prompt, mean over
prompts. [95% interval over prompts]: prompts are resampled with all of their cells, and percentiles taken; of the mean
within a prompt it is that of `bootstrap_mean`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from scipy.stats import rankdata

from divlens.errors import DivlensError
from divlens.experiment.columns import NOISE_FLOOR, OF_PROMPT
from divlens.experiment.measures import FIDELITY, LAW_DISTANCE, OPENNESS
from divlens.showing import Block, Shown, counted, interval_text
from divlens.statistics import CONFIDENCE, FEWEST_TO_RESAMPLE, Interval, bootstrap_mean
from divlens.store.reader import StoredRun, open_run

WRONG = "1 - fidelity"
TRUTHS = (OPENNESS, WRONG, LAW_DISTANCE.name)
INFORMATION = ("path", "execution", "joint", "conditional_lower", "conditional_upper")
OTHER_NETWORKS = ("dreamsim", "clip", "dinov2")
RESAMPLES = 2000
FEWEST_CELLS = 3  # of two, every rank correlation is 1 or -1


def cells_of(run: StoredRun) -> pd.DataFrame:
    """A row per model, condition and prompt of a probe: the truths and every proxy. Raises DivlensError for a run whose
    distance to the law was not scored."""
    keys = list(OF_PROMPT)
    found = run.tables("probe")["per_prompt"].drop(columns=NOISE_FLOOR).set_index(keys)
    scored = run.tables("score")["per_prompt"]
    found = found.join(scored[scored["command"] == "probe"].drop(columns="command").set_index(keys))
    if LAW_DISTANCE.name not in found:
        raise DivlensError(f"{run.place} expects to be scored: divlens score {run.place} --measures law_distance,vendi")
    if "information" in run.requests:
        bits = run.tables("information")["per_prompt"]
        bits = bits[bits["quantity"].isin(INFORMATION)]
        found = found.join(bits.pivot(index=keys, columns="quantity", values="bits_per_image")[list(INFORMATION)])
    found[WRONG] = 1 - found.pop(FIDELITY)
    return found.reset_index()


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, of what both have; NaN for fewer than three pairs, and where one of them never changes."""
    both = ~(np.isnan(one) | np.isnan(other))
    if both.sum() < FEWEST_CELLS:
        return math.nan
    ranks = np.stack([rankdata(one[both]), rankdata(other[both])])
    return float(np.corrcoef(ranks)[0, 1]) if (np.ptp(ranks, axis=1) > 0).all() else math.nan


def over_all(one: np.ndarray, other: np.ndarray, prompts: np.ndarray) -> Interval:
    """Over all cells. `prompts`: the number of the prompt of each cell."""
    value, places = rank_correlation(one, other), [np.flatnonzero(prompts == p) for p in np.unique(prompts)]
    if math.isnan(value) or len(places) < FEWEST_TO_RESAMPLE:
        return Interval(value)
    generator, resampled = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        chosen = np.concatenate([places[i] for i in generator.integers(len(places), size=len(places))])
        resampled.append(rank_correlation(one[chosen], other[chosen]))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(resampled, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def within_prompts(one: np.ndarray, other: np.ndarray, prompts: np.ndarray) -> Interval:
    """The mean over prompts of the correlation over the cells of each."""
    each = [rank_correlation(one[prompts == p], other[prompts == p]) for p in np.unique(prompts)]
    return bootstrap_mean(np.array(each), limits=(-1.0, 1.0))


@dataclass(frozen=True, repr=False)
class Proxies(Shown):
    """`cells`: see `cells_of`."""

    cells: pd.DataFrame

    @property
    def headline(self) -> str:
        return "Rank correlation of what can be measured with what is true"

    @property
    def proxies(self) -> Sequence[str]:
        return [name for name in self.cells if name not in (*OF_PROMPT, *TRUTHS)]

    @property
    def blocks(self) -> Sequence[Block]:
        return [self.block("over prompts and conditions", over_all), self.block("within a prompt", within_prompts)]

    def block(self, title: str, correlation: Any) -> Block:
        prompts = self.cells["prompt"].factorize()[0]
        rows = []
        for proxy in self.proxies:
            pairs = [(self.cells[proxy].to_numpy(float), self.cells[truth].to_numpy(float)) for truth in TRUTHS]
            rows.append((proxy, *(interval_text(correlation(*pair, prompts), "+.2f") for pair in pairs)))
        return Block(title, ("proxy", *(truth.replace("_", " ") for truth in TRUTHS)), rows)

    @property
    def notes(self) -> Sequence[str]:
        counts = [counted(self.cells[column].nunique(), column) for column in OF_PROMPT]
        lines = [
            f"{', '.join(counts)}; [95% interval over prompts]; n/a: one of the two never changes, or is undefined.",
            "diversity: LPIPS. A proxy to believe rises with openness, and not with what is wrong.",
        ]
        if not any(network in proxy for proxy in self.proxies for network in OTHER_NETWORKS):
            lines.append(
                "No network but that of LPIPS looked at the pictures: DreamSim, CLIP and DINOv2 cannot be downloaded "
                "where this was run. Where they are at hand, `divlens score` with dreamsim, clip:PLACE or "
                "vendi@clip:PLACE adds their rows."
            )
        return lines


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--model", help="One of the run's; default: all together.")
def main(run: Path, model: str | None) -> None:
    try:
        cells = cells_of(open_run(run))
    except DivlensError as error:
        raise click.UsageError(str(error)) from None
    if model is not None and model not in set(cells["model"]):
        raise click.UsageError(f"expected a model among {', '.join(cells['model'].unique())}, got {model}")
    cells = cells if model is None else cells[cells["model"] == model]
    print("\n".join(line.rstrip() for line in str(Proxies(cells)).splitlines()))


if __name__ == "__main__":
    main()
