"""`diversity`: pictures that exist already, whoever made them, measured prompt by prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from divlens.diversity import FeatureNetwork, network_of
from divlens.errors import DivlensError
from divlens.experiment import columns
from divlens.experiment.built_in import KNOWN, measure_or_name
from divlens.experiment.measure import IMAGES_PER_PASS, values_of
from divlens.experiment.measures import (
    DIVERSITY,
    FIDELITY,
    KEPT,
    LAW_DISTANCE,
    OPENNESS,
    Look,
    Measure,
    checked_measures,
    named,
    notes_of,
    partial_notes,
    usual_measures,
)
from divlens.output import Record, as_read, write_tables
from divlens.picture_files.albums import Album, album_of
from divlens.progress import OnBatch, ShowProgress, followed
from divlens.results import Result
from divlens.showing import Block, counted, first_of, interval_text, missing_intervals
from divlens.statistics import Interval
from divlens.types import Prompt

if TYPE_CHECKING:
    import pandas as pd

COMMAND = "diversity"
SEED = 0  # of the intervals' resampling; no picture is drawn
Images = str | Path | Tensor | Sequence[str | Path]


@dataclass(frozen=True, eq=False)
class Plan:
    """Which pictures are measured, and what of them; all of it checked. lpips: the name of the network."""

    album: Album
    measures: tuple[Measure, ...]
    network: FeatureNetwork
    lpips: str

    @property
    def request(self) -> Record:
        """What was asked for, as a record holds it; other pictures in the same folder are another request."""
        album = self.album
        return as_read(
            {
                "command": COMMAND,
                "models": [album.name],
                "conditions": {"as they are": "none"},
                "prompts": list(album.pictures),
                "content": album.digits,
                "measures": [each.name for each in self.measures],
                "lpips": self.lpips,
            }
        )


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class PicturesMeasured(Result):
    """What `diversity` returns. values: of each measure by its name a value of every prompt."""

    album: Album
    measures: tuple[Measure, ...]
    values: Mapping[str, Float[np.ndarray, " prompts"]]
    lpips: str

    @property
    def table(self) -> pd.DataFrame:
        """One row per figure: its mean over prompts, `value`, with `_low` and `_high`; how many prompts have a value,
        and how many pictures there are of all. Undefined is NaN."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for each in self.measures:
            row = {"figure": each.name, "prompts": self.known(each.name), "pictures": sum(self.album.counts)}
            rows.append(row | columns.with_ends("value", self.mean(each)))
        return pd.DataFrame(rows)

    @property
    def per_prompt(self) -> pd.DataFrame:
        """One row per prompt: how many pictures it has, and the value of each measure."""
        import pandas as pd

        whose = {"prompt": list(self.album.pictures), "n": self.album.counts}
        return pd.DataFrame(whose | dict(self.values))

    def mean(self, measure: Measure) -> Interval:
        """Over prompts, with its interval."""
        # Of a share, as if all prompts had as many pictures as the one with the fewest: wider rather than narrower.
        trials = min(count for count in self.album.counts if count)
        return measure.mean(self.values[measure.name], trials, SEED)

    @property
    def headline(self) -> str:
        prompts, pictures = counted(len(self.album.counts), "prompt"), counted(sum(self.album.counts), "picture")
        return f"PicturesMeasured: {self.album.name}, {prompts}, {pictures}"

    @property
    def blocks(self) -> list[Block]:
        rows = [(each.heading, interval_text(self.mean(each), *each.form)) for each in self.measures]
        return [Block(self.album.name, ("figure", "mean"), rows)]

    @property
    def notes(self) -> list[str]:
        counts, prompts = self.album.counts, len(self.album.counts)
        least, most = min(counts), max(counts)
        each = counted(least, "picture") if least == most else f"{least} to {most} pictures"
        height, width = self.album.size
        lines = [
            f"Means over {counted(prompts, 'prompt')}, {each} each, {height} x {width} pixels; [95% interval]. LPIPS "
            f"by {self.lpips}, which depends on the size: compare at one size only.",
            *notes_of(self.measures),
            *missing_intervals(prompts),
        ]
        if least != most:
            lines.append("Prompts have unequal numbers of pictures: figures that depend on these are no fair means.")
        if broken := self.album.broken:
            lines.append(f"{counted(len(broken), 'picture')} left out, unreadable: {first_of(broken, 3)}.")
        return [*lines, *partial_notes(self.measures, self.known, prompts)]

    def known(self, name: str) -> int:
        """How many prompts have a value of the measure of this name."""
        return int((~np.isnan(self.values[name])).sum())

    @property
    def found(self) -> Record:
        return {"size": list(self.album.size), "pictures": sum(self.album.counts), "broken": list(self.album.broken)}

    @classmethod
    def write_files(cls, results: Sequence[Self], folder: Path) -> None:
        """table and per_prompt (see `write_tables`)."""
        (result,) = results
        write_tables({"table": [result.table], "per_prompt": [result.per_prompt]}, folder)


def diversity(
    images: Images,
    groups: Sequence[str] | None = None,
    measures: str | Measure | Sequence[str | Measure] = (),
    *,
    lpips: str = "stlpips",
    device: str = "cpu",
    skip_broken: bool = False,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> PicturesMeasured:
    """Measure LPIPS diversity of pictures that exist already, and what `measures` adds to it, prompt by prompt.

    `images`: a folder whose sub-folders are the prompts; a table (.csv or .parquet) with the columns path and prompt; a
    list of files; or float32 pictures in [0, 1], (n, 3, h, w) or (prompts, n, 3, h, w). `groups`: of files and of
    pictures (n, 3, h, w) the prompt of each, else each prompt; None is one prompt for all, or numbers. All pictures
    have one size, for LPIPS depends on it. `measures`: names (`divlens score --help` lists them; not those that read
    tokens or ask the judge of a model) or `divlens.Measure`. `skip_broken`: files that cannot be read, of the
    references of measures too, are left out, and named in the notes. A few pictures are held at a time.

    Raises DivlensError, in a line and before anything is measured, for files that cannot be read, for pictures of
    several sizes, where no prompt has two pictures, and for a measure that is not known or cannot be taken.
    """
    plan = planned(images, groups, measures, lpips=lpips, device=device, skip_broken=skip_broken)
    return measured(plan, progress=progress, on_batch=on_batch)


def planned(
    images: Images,
    groups: Sequence[str] | None = None,
    measures: str | Measure | Sequence[str | Measure] = (),
    *,
    lpips: str = "stlpips",
    device: str = "cpu",
    skip_broken: bool = False,
) -> Plan:
    """Every DivlensError of `diversity` but for pictures that are too small for a network is raised here."""
    asked = [measures] if isinstance(measures, str | Measure) else list(measures)
    first = named(usual_measures(None), DIVERSITY)
    extra = [measure_of(each, skip_broken) for each in dict.fromkeys(asked) if each != DIVERSITY]
    checked = checked_measures(extra)
    return Plan(album_of(images, groups, skip_broken), (first, *checked), network_of(lpips, device), lpips)


def measure_of(asked: str | Measure, skip_broken: bool) -> Measure:
    """Raises DivlensError for one that needs more than pictures and their prompts."""
    if asked in (OPENNESS, FIDELITY, KEPT, LAW_DISTANCE.name):
        raise DivlensError(f"expected a measure of pictures alone, got {asked}, which asks the judge of a model")
    found = measure_or_name(asked, skip_broken)
    measure = KNOWN[found](None) if isinstance(found, str) else found
    if isinstance(measure, Measure) and measure.kind == "tokens":
        hint = "; repeat:0.01 takes pictures at most so far apart for repeats" if measure.name == "repeat" else ""
        raise DivlensError(f"expected a measure of pictures, got {measure.name}, which reads tokens{hint}")
    return measure


def measured(plan: Plan, *, progress: ShowProgress = None, on_batch: OnBatch | None = None) -> PicturesMeasured:
    """Measure what is planned."""
    album = plan.album
    found: dict[str, list[float]] = {each.name: [] for each in plan.measures}
    with followed(progress, on_batch, sum(album.counts), album.name) as told:
        for text in album.pictures:
            prompt = Prompt(text)

            def looks(prompt: Prompt = prompt) -> Iterator[Look]:
                for pictures in album.of(prompt.text, IMAGES_PER_PASS):
                    yield Look(prompt, pictures, album.name, plan.network, None)
                    told.advance(len(pictures))

            for name, value in values_of(plan.measures, prompt, torch.empty(0, 0, dtype=torch.long), looks()).items():
                found[name].append(value)
    values = {name: np.array(of_prompts) for name, of_prompts in found.items()}
    return PicturesMeasured(request=plan.request, album=album, measures=plan.measures, values=values, lpips=plan.lpips)
