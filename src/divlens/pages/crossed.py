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
    rows: Any = run.sql(
        f"SELECT wording, path, execution, tokens FROM {SAMPLES} WHERE model = {literal(model)} AND condition = "
        f"{literal(condition)} AND prompt = {literal(prompt)} AND seed = {int(request['seed'])} "
        f"AND path < {MOST_LEVELS} AND execution < {MOST_LEVELS} ORDER BY path, execution, cell"
    )
    if not len(rows):
        return None
    # A probe in the same folder has samples on the diagonal: the wording of the design is the one with most pictures.
    wording = str(rows["wording"].mode().iloc[0])
    rows = rows[rows["wording"] == wording].drop_duplicates(["path", "execution"])
    known, levels = run.model(model, device), request["levels"][model]
    paths = min(levels["paths"], MOST_LEVELS, int(rows["path"].max()) + 1)
    executions = min(levels["executions"], MOST_LEVELS, int(rows["execution"].max()) + 1)
    noisy = isinstance(known, NoisyDecoding) and paths == 1
    decoders = min(levels.get("decoders", 1), MOST_LEVELS) if noisy else 1
    rows = rows[(rows["path"] < paths) & (rows["execution"] < executions)]
    tokens = torch.from_numpy(np.stack(rows["tokens"].to_list()).astype(np.int64)).view(-1, *known.grid)
    tokens = tokens.to(device or run.setup(model)["device"]).repeat_interleave(decoders, 0)
    noise = [
        (path, execution, decoder)
        for path, execution in zip(rows["path"], rows["execution"], strict=True)
        for decoder in range(decoders)
    ]
    numbers = [(prompt, decoder) for _, _, decoder in noise]
    pictures = pictures_at(known, tokens, numbers, int(request["seed"]), Room(BATCH_SIZE))
    cells: list[list[int | None]] = [[None] * executions for _ in range(max(paths, decoders))]
    for (path, execution, decoder), picture in zip(noise, pictures, strict=True):
        cells[max(path, decoder)][execution] = first + embedded.add(picture)
    return Crossed(model, condition, prompt, wording, "decoder" if decoders > 1 else "path", cells)
