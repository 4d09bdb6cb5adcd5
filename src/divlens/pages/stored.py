"""The rows of a page's gallery, made of the tokens that a run has stored: each different grid is decoded and looked at
once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.diversity import NETWORKS, FeatureNetwork, load_network
from divlens.errors import DivlensError
from divlens.fidelity import Judge, judge_of, named_by, respects
from divlens.models.answers import pictures_of
from divlens.models.protocol import Model
from divlens.models.room import Room
from divlens.output import Record
from divlens.pages.distances import changed_distance, mean_distance, nearest_and_farthest, squared_distances
from divlens.pages.gallery import UNKNOWN, Budget, Gallery, Picture, Row, reference_of, trimmed
from divlens.planning import BATCH_SIZE
from divlens.store.asked import prompts_of
from divlens.store.reader import StoredRun
from divlens.store.schemas import SAMPLES
from divlens.store.views import literal
from divlens.types import Prompt

if TYPE_CHECKING:
    import pandas as pd


def gallery_of(run: StoredRun, request: Record, most: int, device: str | None) -> Gallery:
    """The pictures of a command of a run, at most so many. A model that cannot be loaded again is left out and said,
    unless `device` is given: then the DivlensError is raised."""
    prompts, n = prompts_of(request), request["n"]
    budget = Budget(len(prompts), n, len(request["models"]) * len(request["conditions"]), most)
    network, unmeasured = network_of(request)
    rows: list[Row] = []
    missing: list[str] = []
    for name in request["models"] if budget.extent.samples else ():
        try:
            model = run.model(name, device)
        except DivlensError as error:
            if device is not None:
                raise
            missing.append(f"No pictures of {name}: {error}.")
            continue
        where = device or run.setup(name)["device"]
        maker = Maker(model, where, judge_of(model), network, budget)
        rows += rows_of(run, request, prompts, maker)
    if not budget.extent.samples:
        missing.append("No pictures: none were asked for.")
    elif not rows and not missing:
        missing.append(f"No pictures: {run.place} holds no samples of {request['command']} yet.")
    shown = {prompt.text for prompt in prompts[: budget.extent.prompts]}
    return trimmed([row for row in rows if row.prompt in shown], budget, [*missing, *unmeasured])


def network_of(request: Record) -> tuple[FeatureNetwork | None, list[str]]:
    """The network that the run was measured with or, where its package is not installed, what is missing without it."""
    try:
        return load_network(request.get("lpips") or NETWORKS[0]), []
    except DivlensError as error:
        return None, [f"No pairs of pictures and no intervals of single prompts: {error}."]


def rows_of(run: StoredRun, request: Record, prompts: Sequence[Prompt], maker: Maker) -> Iterator[Row]:
    """Those of a model, prompt by prompt."""
    conditions = list(request["conditions"])
    for place, prompt in enumerate(prompts):
        if place >= maker.budget.extent.prompts:
            return
        found = samples_of(run, maker.model.name, prompt.text, conditions, maker.budget.extent.samples)
        if len(found):
            yield from maker.rows(found, prompt, run.prompts.index(prompt.text), conditions)


def samples_of(run: StoredRun, model: str, prompt: str | None, conditions: Sequence[str], n: int) -> pd.DataFrame:
    """The first n samples of a prompt, or of all, under some conditions, each once, as of a command that has n of
    each."""
    wanted = " OR ".join(f"(condition = {literal(name)} AND {run.numbered(model, name)})" for name in conditions)
    of_prompt = "" if prompt is None else f"AND prompt = {literal(prompt)} "
    found = run.sql(
        f"SELECT samples.*, judged FROM {SAMPLES} LEFT JOIN (SELECT DISTINCT ON (cell) cell, judged FROM verdicts) "
        f"USING (cell) WHERE model = {literal(model)} AND ({wanted}) {of_prompt}"
        f"AND sample < {n} ORDER BY sample, cell"
    )
    return found.drop_duplicates(["prompt", "condition", "sample"])


@dataclass(frozen=True)
class Maker:
    """What makes rows of stored samples."""

    model: Model
    device: str
    judge: Judge | None
    network: FeatureNetwork | None
    budget: Budget

    def rows(self, found: pd.DataFrame, prompt: Prompt, place: int, conditions: Sequence[str]) -> Iterator[Row]:
        """Those of a prompt, each different grid decoded and looked at once."""
        grids, grid_of = different_grids(found)
        shaped = torch.from_numpy(grids).view(-1, *self.model.grid).to(self.device)
        pictures = pictures_of(self.model, shaped, Room(BATCH_SIZE))
        images = [self.budget.embedded.add(picture) for picture in pictures]
        self.budget.seen += len(found)
        between, right = self.distances(pictures), right_of(self.judge, prompt, list(found["judged"]))
        sides: dict[str, tuple[Row, Float[np.ndarray, "n n"]]] = {}
        for row, here in rows_under(conditions, found, self.model.name, prompt, place, images, grid_of, right):
            sides[row.condition] = row, between[np.ix_(here, here)]
        reference = sides.get(reference_of(conditions))
        for row, apart in sides.values():
            yield with_distances(row, apart, reference)

    def distances(self, pictures: Float[Tensor, "some 3 h w"]) -> Float[np.ndarray, "some some"]:
        """Between all of them; NaN without a network, and for pictures too small for it."""
        unknown = np.full((len(pictures), len(pictures)), np.nan)
        if self.network is None:
            return unknown
        try:
            self.network.check_size(pictures)
        except DivlensError:
            return unknown
        with torch.inference_mode():
            parts = [self.network(part.to(self.network.device)).cpu() for part in pictures.split(BATCH_SIZE)]
        return squared_distances(torch.cat(parts).numpy())


def different_grids(found: pd.DataFrame) -> tuple[Int[np.ndarray, "grids positions"], Int[np.ndarray, " samples"]]:
    """The grids among the tokens of samples, each once and in the order in which they come, and which of them each
    sample has."""
    tokens = np.stack(found["tokens"].to_list()).astype(np.int64)
    _, first, grid_of = np.unique(tokens, axis=0, return_index=True, return_inverse=True)
    rank = first.argsort().argsort()
    return tokens[np.sort(first)], rank[grid_of.reshape(-1)]  # numpy 2.0 gives the inverse another shape


def rows_under(
    conditions: Sequence[str],
    found: pd.DataFrame,
    model: str,
    prompt: Prompt,
    place: int,
    images: Sequence[int],
    grid_of: Int[np.ndarray, " samples"],
    right: Sequence[bool | None],
) -> Iterator[tuple[Row, Int[np.ndarray, " here"]]]:
    """The row of each condition that has samples among those `found` of a prompt, and the grids of its pictures.
    `images`: the number of the picture of each grid. `right`: of each sample, see `right_of`."""
    records: list[dict[str, Any]] = found.to_dict("records")
    for condition in conditions:
        here = [at for at, record in enumerate(records) if record["condition"] == condition]
        if not here:
            continue
        twins = twins_in([(int(grid_of[at]), int(records[at]["sample"])) for at in here])
        shown = tuple(
            picture_of(records[at], images[grid_of[at]], right[at], twin) for at, twin in zip(here, twins, strict=True)
        )
        row = Row(model=model, condition=condition, prompt=prompt.text, place=place, pictures=shown)
        yield row, grid_of[here]


def right_of(judge: Judge | None, prompt: Prompt, judged: Sequence[Any]) -> list[bool | None]:
    """Of each sample whether what the judge read is all that the prompt names; None where nobody knows."""
    named = None if judge is None else named_by(judge, prompt)
    if judge is None or named is None:
        return [None] * len(judged)
    values = [attribute.values for attribute in judge.attributes]

    def one(words: Any) -> bool | None:
        if not is_read(words) or len(words) != len(values):
            return None
        try:
            read = [of.index(word) for of, word in zip(values, words, strict=True)]
        except ValueError:  # another judge had other words
            return None
        return bool(respects(torch.tensor([read]), named)[0])

    return [one(words) for words in judged]


def is_read(words: Any) -> bool:
    """Whether a judge has read a sample: where none has, DuckDB and pandas have one of several kinds of nothing."""
    return isinstance(words, Sequence | np.ndarray)


def twins_in(samples: Sequence[tuple[int, int]]) -> list[int | None]:
    """Of each (grid, sample) of a row the first sample with the same grid; None for one that is alone."""
    by_grid: dict[int, list[int]] = {}
    for grid, sample in samples:
        by_grid.setdefault(grid, []).append(sample)
    return [by_grid[grid][0] if len(by_grid[grid]) > 1 else None for grid, _ in samples]


def picture_of(record: Mapping[str, Any], image: int, right: bool | None, twin: int | None) -> Picture:
    words = record["judged"]
    return Picture(
        sample=int(record["sample"]),
        image=image,
        wording=str(record["wording"]),
        path=int(record["path"]),
        execution=int(record["execution"]),
        seed=str(int(record["seed"])),
        cell=f"{int(record['cell']):016x}",
        tokens=hash_of(np.asarray(record["tokens"])),
        judged=", ".join(words) if is_read(words) else "",
        right=right,
        twin=twin,
    )


def hash_of(tokens: Int[np.ndarray, " positions"]) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of the tokens, in raster order, as little-endian int32."""
    return hashlib.sha256(tokens.astype("<i4").tobytes()).hexdigest()[:12]


def with_distances(
    row: Row, apart: Float[np.ndarray, "n n"], reference: tuple[Row, Float[np.ndarray, "m m"]] | None
) -> Row:
    """`apart`: distances in the row. `reference`: the row that it is held against, where there is one."""
    if np.isnan(apart).any():
        return row
    near, far = nearest_and_farthest(apart) or (None, None)
    change = UNKNOWN
    if reference is not None and reference[0] is not row and samples_in(reference[0]) == samples_in(row):
        change = changed_distance(apart, reference[1])
    return replace(row, mean=mean_distance(apart), change=change, nearest=near, farthest=far)


def samples_in(row: Row) -> list[int]:
    return [picture.sample for picture in row.pictures]
