"""The crossed pictures of `decompose`: every path noise, or noise of a decoder, with every execution noise, under one
wording."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from divlens.errors import DivlensError
from divlens.experiment.decoders import pictures_at
from divlens.models.protocol import NoisyDecoding
from divlens.models.room import Room
from divlens.output import Record
from divlens.pages.embedding import Embedded
from divlens.planning import BATCH_SIZE
from divlens.store.reader import StoredRun
from divlens.store.schemas import SAMPLES
from divlens.store.views import literal

MOST_LEVELS = 6  # of rows and of columns: more show nothing new
AXES = ("path", "execution")


@dataclass(frozen=True)
class Crossed:
    """Pictures of a prompt: `cells[i][j]` is the number of the one in row i with execution noise j among the embedded
    ones, None where there is none. `rows`: whose noise differs from row to row, that of the path or, where the sampler
    makes no path draw but the decoder draws noise, that of the decoder; without either there is one row."""

    model: str
    condition: str
    prompt: str
    wording: str
    rows: str
    cells: list[list[int | None]]


def crossed_of(
    run: StoredRun, request: Record, prompt: str, embedded: Embedded, first: int, device: str | None
) -> list[dict[str, object]]:
    """Of each model of a request of `decompose` the pictures of a prompt, under the first of its wordings. `first`:
    what is added to the numbers of `embedded`. Models that cannot be loaded again are left out."""
    found = []
    (condition,) = request["conditions"]
    for name in request["models"]:
        try:
            one = of_model(run, request, name, condition, prompt, embedded, first, device)
        except DivlensError:  # the gallery, or the page's list of what is missing, says so
            continue
        if one is not None:
            found.append(asdict(one))
    return found


def of_model(
    run: StoredRun,
    request: Record,
    model: str,
    condition: str,
    prompt: str,
    embedded: Embedded,
    first: int,
    device: str | None,
) -> Crossed | None:
    rows = rows_of_design(run, request, model, condition, prompt)
    if not len(rows):
        return None
    known, wording = run.model(model, device), str(rows["wording"].iloc[0])
    paths, executions = (int(rows[name].max()) + 1 for name in AXES)
    by_decoder = paths == 1 and isinstance(known, NoisyDecoding)
    decoders = min(request["levels"][model].get("decoders", 1), MOST_LEVELS) if by_decoder else 1
    tokens = torch.from_numpy(np.stack(rows["tokens"].to_list()).astype(np.int64)).view(-1, *known.grid)
    tokens = tokens.to(device or run.setup(model)["device"]).repeat_interleave(decoders, 0)
    places = zip(rows["path"], rows["execution"], strict=True)
    noise = [(path, execution, decoder) for path, execution in places for decoder in range(decoders)]
    numbers = [(prompt, decoder) for _, _, decoder in noise]
    pictures = pictures_at(known, tokens, numbers, int(request["seed"]), Room(BATCH_SIZE))
    cells: list[list[int | None]] = [[None] * executions for _ in range(max(paths, decoders))]
    for (path, execution, decoder), picture in zip(noise, pictures, strict=True):
        cells[max(path, decoder)][execution] = first + embedded.add(picture)
    return Crossed(model, condition, prompt, wording, "decoder" if decoders > 1 else "path", cells)


def rows_of_design(run: StoredRun, request: Record, model: str, condition: str, prompt: str) -> Any:
    """The samples of the crossed design under the first of its wordings, as far as they are drawn.

    A probe in the same folder has samples on the diagonal, of the path and the execution of one number. So what counts
    are samples with the first path or the first execution: the wording has most of these, and the levels are theirs.
    """
    levels = request["levels"][model]
    rows: Any = run.sql(
        f"SELECT wording, path, execution, tokens FROM {SAMPLES} WHERE model = {literal(model)} AND condition = "
        f"{literal(condition)} AND prompt = {literal(prompt)} AND seed = {int(request['seed'])} "
        f"AND path < {min(levels['paths'], MOST_LEVELS)} AND execution < {min(levels['executions'], MOST_LEVELS)} "
        "ORDER BY path, execution, cell"
    )
    edge = rows[(rows["path"] == 0) | (rows["execution"] == 0)]
    wording = edge["wording"].mode().iloc[:1]
    edge, rows = (some[some["wording"].isin(wording)].drop_duplicates(list(AXES)) for some in (edge, rows))
    return rows[rows["path"].isin(edge["path"]) & rows["execution"].isin(edge["execution"])]
