"""What `information` returns: estimates by their names, maps of where the bits fall, and tables of both."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from jaxtyping import Float

from divlens.conditions import BASELINE
from divlens.heat_maps import heat_sheet
from divlens.information.estimates import Estimate
from divlens.output import Record, write_tables
from divlens.paraphrase.notes import wording_lines
from divlens.plots import InformationPlots
from divlens.results import Result, columns_of, found_of, title_of, used_in
from divlens.showing import UNKNOWN, Block, counted, interval_text, missing_intervals, number_text
from divlens.types import DrawnWith, Prompt


@dataclass(frozen=True)
class Tightness:
    """The bounds on H(Z|X) that so many paths per grid give, in bits per image, with their Monte-Carlo errors."""

    paths: int
    lower: float
    lower_mc_error: float
    upper: float
    upper_mc_error: float


MAPPED = {"reading": "schedule"}  # what maps are of; a trajectory has no positions of its own

LABELS = {
    "path": "path H(P||Z|X), causal",
    "execution": "execution H(Z||P|X), causal",
    "joint": "joint, H(P||Z|X) + H(Z||P|X)",
    "schedule_path": "path H(P||Z|X), causal, schedule",
    "schedule_execution": "execution H(Z||P|X), causal, schedule",
    "schedule_joint": "joint, H(P||Z|X) + H(Z||P|X), schedule",
    "trajectory_path": "path H(P||Z|X), causal, whole trajectory",
    "trajectory_execution": "execution H(Z||P|X), causal, whole trajectory",
    "trajectory_joint": "joint H(Z,P|X), whole trajectory",
    "conditional_lower": "H(Z|X) at least",
    "conditional_upper": "H(Z|X) at most",
    "token_plug_in": "H(Z) of tokens, plug-in",
    "token_miller_madow": "H(Z) of tokens, Miller-Madow by image",
    "token_chao_shen": "H(Z) of tokens, Chao-Shen by image",
    "sequence_lower": "H(Z) of images at least",
    "sequence_upper": "H(Z) of images at most",
    "mutual_lower": "I(X;Z) at least",
    "mutual_upper": "I(X;Z) at most",
    "ceiling": "I(X;Z) ceiling, log2(prompts)",
    "relevant": "I(Z;Y) at least",
}

ROWS = {
    "path": "path H(P||Z|X)",
    "execution": "execution H(Z||P|X)",
    "joint": "joint, sum of both",
    "schedule_path": "path, schedule",
    "schedule_execution": "execution, schedule",
    "trajectory_path": "path, trajectory",
    "trajectory_execution": "execution, trajectory",
    "conditional_lower": "H(Z|X) at least",
    "conditional_upper": "H(Z|X) at most",
    "token_plug_in": "H(Z) tokens, plug-in",
    "token_miller_madow": "H(Z) tokens, Miller-Madow",
    "token_chao_shen": "H(Z) tokens, Chao-Shen",
    "sequence_lower": "H(Z) images at least",
    "sequence_upper": "H(Z) images at most",
    "mutual_lower": "I(X;Z) at least",
    "mutual_upper": "I(X;Z) at most",
    "ceiling": "I(X;Z) ceiling",
    "relevant": "I(Z;Y) at least",
}


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class Information(Result):
    """The entropies of one model under some interventions. All estimates are in bits per image.

    path, execution, joint: the causal entropies H(P||Z|X), H(Z||P|X) and their sum, in the reading that `reading`
    names. The sum is H(Z,P|X). In a diffusion's schedule reading, which counts tokens that are replaced later, it is at
    least that. schedule_*, trajectory_*: the same in both readings, which differ for diffusion only.

    conditional_*, sequence_*, mutual_*: H(Z|X), H(Z) and I(X;Z) from below and above; lower equals upper where the
    quantity is exact. token_*: the entropy of a token drawn from all images, times the number of positions. ceiling:
    log2(prompts), which I(X;Z) over this prompt set cannot exceed. relevant: I(Z;Y) from below. tightness: the bounds
    on H(Z|X) that weigh paths, by the number of paths.

    path_map, execution_map: mean bits of each step and position, which add up to `path` and `execution` in the schedule
    reading. usage: the share of the codebook that came out. perplexity: 2 to the power of the plug-in entropy of a
    token. remarks: what holds of the estimates. wording_notes: for each wording that the model did not read in full,
    what it left out. templated: the prompts whose other wordings are templates, because they have no paraphrases.
    wordings: the wordings of each prompt that were used, once each.
    """

    model: str
    condition: str
    interventions: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    n: int
    seed: int
    drawn_with: DrawnWith
    positions: int
    codes: int
    reading: str
    path: Estimate
    execution: Estimate
    joint: Estimate
    schedule_path: Estimate
    schedule_execution: Estimate
    schedule_joint: Estimate
    trajectory_path: Estimate
    trajectory_execution: Estimate
    trajectory_joint: Estimate
    conditional_lower: Estimate
    conditional_upper: Estimate
    token_plug_in: Estimate
    token_miller_madow: Estimate
    token_chao_shen: Estimate
    sequence_lower: Estimate
    sequence_upper: Estimate
    mutual_lower: Estimate
    mutual_upper: Estimate
    ceiling: Estimate
    relevant: Estimate
    tightness: tuple[Tightness, ...]
    path_map: Float[np.ndarray, "steps h w"]
    execution_map: Float[np.ndarray, "steps h w"]
    usage: float
    perplexity: float
    remarks: tuple[str, ...] = ()
    wording_notes: Mapping[str, str] = field(default_factory=dict)
    templated: tuple[str, ...] = ()
    wordings: tuple[tuple[str, ...], ...] = ()
    alone: ClassVar[bool] = False

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The estimates by their names, in the order of the tables."""
        return {name: getattr(self, name) for name in LABELS}

    @property
    def plot(self) -> InformationPlots:
        """Its figures: `plot.plane()`."""
        return InformationPlots(self.table)

    @property
    def headline(self) -> str:
        name = title_of(self.model, self.interventions)
        prompts, n = counted(len(self.prompts), "prompt"), counted(self.n, "sample")
        return f"Information: {name}, {prompts}, {n} each, seed {self.seed}"

    @property
    def blocks(self) -> list[Block]:
        """Bits per image with interval and Monte-Carlo error, and bits per token."""
        rows = []
        for name, label in ROWS.items():
            found = self.estimates[name]
            if name.startswith(("schedule_", "trajectory_")) and found == self.estimates[name.split("_", 1)[1]]:
                continue  # the reading that is shown above, or a rule that has one only
            error = UNKNOWN if math.isnan(found.mc_error) else f"{found.mc_error:.2g}" if found.mc_error > 1e-9 else "0"
            token = interval_text(found.over_prompts, ".3f", 1 / self.positions)
            rows.append((label, interval_text(found.over_prompts, ".2f"), error, token))
        title = title_of(self.model, self.interventions)
        headings = ("", "bits per image", "MC error", "bits per token")
        remarks = [f"{remark}." for remark in self.remarks]
        return [Block(title, headings, rows, lines=[*self.extras(), *remarks, *self.unread_lines()])]

    def extras(self) -> Iterator[str]:
        """The point of the bottleneck plane, how the codebook is used, and how tight the bounds on H(Z|X) are."""
        known, relevant = (bits_text(value) for value in self.plane)
        yield f"plane (I(X;Z), I(Z;Y)), both at least: ({known}, {relevant}) bits"
        yield f"codes that came out: {100 * self.usage:.0f}%, perplexity {self.perplexity:.0f} of {self.codes}"
        if self.tightness:
            bounds = ", ".join(f"{t.paths}: {bits_text(t.lower)} to {bits_text(t.upper)}" for t in self.tightness)
            yield f"H(Z|X) by the number of paths weighed: {bounds}"

    def unread_lines(self) -> list[str]:
        """What the model did not read of wordings."""
        return wording_lines((), len(self.prompts), {self.model: self.wording_notes})

    @property
    def notes(self) -> list[str]:
        prompts = len(self.prompts)
        lines = [
            f"{counted(prompts, 'prompt')}, {counted(self.n, 'sample')} each; [95% interval over prompts]; MC error: "
            "standard error for exactly these prompts. path and execution are causal and add up to the joint; the "
            "marginal H(P|X) is between path and joint, H(Z|P,X) at most execution, H(Z|X) between its two rows. See "
            f"docs/theory.md. What is called the path of a diffusion: the {self.reading}."
        ]
        undefined = {name: self.estimates[name] for name in ROWS if math.isnan(self.estimates[name].value)}
        lines += [f"{ROWS[name]}: {found.note or 'undefined'}." for name, found in undefined.items()]
        lines += missing_intervals(prompts)
        if self.n < 2:
            lines.append("MC error n/a: it needs at least 2 samples per prompt.")
        return lines + wording_lines(self.templated, prompts, {})

    @property
    def found(self) -> Record:
        used = used_in(self.model, self.condition, self.prompts, self.wordings)
        notes = {self.model: dict(self.wording_notes)}
        return found_of(used, {self.model: self.drawn_with}, wording_notes=notes, templated=self.templated)

    @classmethod
    def write_files(cls, results: Sequence[Self], folder: Path) -> None:
        """table, per_prompt, steps, maps and tightness (see `write_tables`), and maps.png."""
        tables = {"table": "table", "per_prompt": "per_prompt", "steps": "steps_table"}
        tables |= {"maps": "maps_table", "tightness": "tightness_table"}
        write_tables({name: [getattr(one, of) for one in results] for name, of in tables.items()}, folder)
        rows = []
        for one in results:
            name = title_of(one.model, one.interventions or [BASELINE])
            for kind, part in (("path", one.path_map), ("execution", one.execution_map)):
                title = f"{name}: {kind}, {part.sum():.0f} bits. All of them, then in the order of the steps"
                rows.append((title, part))
        heat_sheet(rows).save(folder / "maps.png")

    @property
    def plane(self) -> tuple[float, float]:
        """The point (I(X;Z), I(Z;Y)) of the bottleneck plane, both from below, in bits."""
        return self.mutual_lower.value, self.relevant.value

    @property
    def run(self) -> dict[str, object]:
        """The leading columns of every table."""
        return dict[str, object](columns_of(self.model, self.condition, self.interventions))

    @property
    def table(self) -> pd.DataFrame:
        """One row per quantity: bits per image and per token, each with its interval over prompts, and its Monte-Carlo
        error and interval."""
        rows = []
        for name, found in self.estimates.items():
            row: dict[str, object] = self.run | {"quantity": name, "label": LABELS[name]}
            for unit, scale in (("image", 1.0), ("token", 1.0 / self.positions)):
                scaled = found * scale
                prompts, monte_carlo = scaled.over_prompts, scaled.monte_carlo
                row |= {f"bits_per_{unit}": scaled.value, f"{unit}_low": prompts.low, f"{unit}_high": prompts.high}
                row |= {f"{unit}_mc_error": scaled.mc_error}
                row |= {f"{unit}_mc_low": monte_carlo.low, f"{unit}_mc_high": monte_carlo.high}
            rows.append(row | {"note": found.note})
        return pd.DataFrame(rows)

    @property
    def steps_table(self) -> pd.DataFrame:
        """Bits per image that each step decides, in the schedule reading."""
        path, execution = self.path_map.sum((1, 2)), self.execution_map.sum((1, 2))
        return pd.DataFrame(self.run | MAPPED | {"step": np.arange(len(path)), "path": path, "execution": execution})

    @property
    def maps_table(self) -> pd.DataFrame:
        """Bits per image that each step decides at each position of the grid, in the schedule reading: one row for each
        step, row and column."""
        step, row, column = np.indices(self.path_map.shape).reshape(3, -1)
        maps = {"path": self.path_map.flatten(), "execution": self.execution_map.flatten()}
        return pd.DataFrame(self.run | MAPPED | {"step": step, "row": row, "column": column} | maps)

    @property
    def tightness_table(self) -> pd.DataFrame:
        """H(Z|X) from below and above by the number of paths; without rows where no paths were weighed."""
        names = [*self.run, *(each.name for each in fields(Tightness))]
        return pd.DataFrame([self.run | asdict(each) for each in self.tightness], columns=names)

    @property
    def per_prompt(self) -> pd.DataFrame:
        """Bits of each prompt, per image and per token, with Monte-Carlo error and 95% Monte-Carlo interval, for
        quantities that have a value per prompt."""
        units = {"image": 1.0, "token": 1.0 / self.positions}
        names = [f"bits_per_{unit}{part}" for unit in units for part in ("", "_mc_error", "_mc_low", "_mc_high")]
        rows = [
            [*self.run.values(), prompt.text, quantity, *(part * scale for scale in units.values() for part in parts)]
            for quantity, found in self.estimates.items()
            for prompt, one, error in zip(self.prompts, found.per_prompt, found.per_prompt_mc_error, strict=False)
            for parts in [(one.value, error, one.low, one.high)]
        ]
        return pd.DataFrame(rows, columns=[*self.run, "prompt", "quantity", *names])


def bits_text(value: float) -> str:
    return UNKNOWN if math.isnan(value) else number_text(value, ".2f")
