"""A comparison on many processes: each draws and measures some prompts at a time, and one alone writes the run.

What is sent to a worker is a `Window`: all that decides its samples, but for the model, which a worker loads by its
name; and what the run has of them already. A worker fills a run in its own memory, with the same code as everybody, and
sends back what was added. So nothing depends on how many workers there are, or on which of them draws what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from jaxtyping import UInt64
from torch import Tensor

from divlens.conditions import BASELINE
from divlens.diversity import load_network
from divlens.errors import DivlensError
from divlens.experiment.comparison import Comparison
from divlens.experiment.measure import Instruments, figure_names, measure, samples_each
from divlens.experiment.measures import Measure
from divlens.experiment.pieces import Piece, pieces_of
from divlens.fidelity import judge_of
from divlens.models.fingerprint import fingerprint_of
from divlens.models.protocol import Model
from divlens.models.room import Rooms
from divlens.output import Record
from divlens.progress import OnBatch, ShowProgress, followed
from divlens.results import setup_of
from divlens.run import Rows, Run
from divlens.scale import check_ray, dealt
from divlens.settings import Settings
from divlens.store.asked import loaded_again
from divlens.store.draw import drawn, no_tokens_yet, read_stored, windows
from divlens.store.folder import SAMPLES, SCORES, VERDICTS, RunFolder, of_samples, owner_of
from divlens.store.place import Place
from divlens.store.record import new_record

if TYPE_CHECKING:
    import pyarrow as pa

Measured = TypeVar("Measured")
TABLES = (SAMPLES, VERDICTS, SCORES)  # figures last: where they are, all is there


@dataclass(frozen=True, eq=False)
class Window:
    """The rows `place` of some prompts of a run, and those of the run's tables that are there already.

    setup, content: how the model of this name is loaded, and what must come of it. batch: how many samples are drawn at
    once, and whether that was asked for.
    """

    model: str
    setup: Record
    content: str | None
    condition: str
    settings: Settings
    seed: int
    rows: Rows
    conditions: Mapping[str, Tensor]
    batch: tuple[int, bool]
    place: slice
    measured: bool
    stored: Mapping[str, Sequence[pa.Table]]


Added = Mapping[str, Sequence["pa.Table"]]


class Worker:
    """What a process of its own does. It holds one model at a time. `extra`: the measures that a user brings."""

    def __init__(self, lpips: str, extra: Sequence[Measure]) -> None:
        self.network, self.lpips, self.extra = load_network(lpips), lpips, extra
        self.loaded: tuple[str, Model, Rooms] | None = None

    def ready(self) -> None:
        """It is, as soon as it can answer."""

    def answer(self, window: Window) -> Added:
        """The rows that the tables of the run are to get."""
        model, rooms = self.model_of(window)
        device = torch.device(str(window.setup["device"])).type
        conditions = {wording: row.to(device) for wording, row in window.conditions.items()}
        run = Run(model, window.settings, window.seed, window.rows, conditions, rooms)
        folder = folder_in_memory(window, model)
        before = {name: len(folder.tables[name].live) for name in TABLES}
        try:
            if window.measured:
                self.network.to(run.device)
                eyes = Instruments.of(self.network, judge_of(model), self.extra, self.lpips)
                floor = window.condition == BASELINE
                measure(run, window.condition, eyes, with_noise_floor=floor, folder=folder)
            else:
                drawn(run, window.place, folder, window.condition, lambda count: None)
            shards = {name: folder.tables[name] for name in TABLES}
            return {name: [each.read(shard) for shard in each.live[before[name] :]] for name, each in shards.items()}
        finally:
            folder.place.clear()

    def model_of(self, window: Window) -> tuple[Model, Rooms]:
        """The model, loaded where it is another than the last. Raises DivlensError for one with other weights than the
        run's."""
        if self.loaded is None or self.loaded[0] != window.model:
            self.loaded = None  # there may be no room for two
            model = loaded_again(window.model, window.setup, torch.device(str(window.setup["device"])).type)
            if (content := fingerprint_of(model)) != window.content:
                raise DivlensError(
                    f"a worker of Ray loads another {window.model}: its content is {content}, that of the run "
                    f"{window.content}"
                )
            fits, asked_for = window.batch
            self.loaded = window.model, model, Rooms.of(fits, asked_for=asked_for)
        return self.loaded[1:]


def folder_in_memory(window: Window, model: Model) -> RunFolder:
    """A run that holds what is there of a window."""
    folder = RunFolder(Place(f"memory://divlens-worker/{id(window)}"), new_record())
    folder.contents[id(model)] = model, window.content
    owner = {"model": window.model, "condition": window.condition}
    for name, tables in window.stored.items():
        for rows in tables:
            folder.tables[name].append(rows, owner, width=2)  # never folded with what is new
    return folder


def draw_on_ray(
    comparison: Comparison,
    folder: RunFolder,
    address: str,
    *,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> None:
    """Draw and measure on the workers of a Ray cluster what is planned, or the share of it that the folder is for, but
    for what the folder holds, and store it there."""
    pieces = pieces_of(comparison.runs, folder.share)
    runs, eyes = [piece.run for piece in pieces], next(iter(comparison.instruments.values()))
    cluster: dict[str, Any] = {
        "address": address,
        "gpus": any(run.device.type == "cuda" for run in runs),
        "cores": torch.get_num_threads(),
    }
    with followed(progress, on_batch, sum(map(len, pieces)), "") as told:
        todo = (window for piece in pieces for window in windows_of(comparison, piece, folder, told.advance))
        with closing(dealt(todo, Worker, (comparison.lpips, eyes.extra), **cluster)) as answers:
            for window, added in answers:
                owner = {"model": window.model, "condition": window.condition}
                for name in TABLES:
                    for rows in added[name]:
                        folder.tables[name].append(rows, owner)
                count = sum(map(len, added[SAMPLES]))
                folder.drawn += count
                if count:
                    told.advance(count)
    folder.written()


def on_workers(
    comparison: Comparison,
    measured: Callable[..., Measured],
    folder: RunFolder | None,
    ray: str | None,
    *,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> Measured:
    """What `measured(folder=, progress=, on_batch=)` makes of a comparison. With the address of a cluster, `ray`, its
    workers draw and measure first, so that all is there."""
    if folder is not None and ray is not None:
        draw_on_ray(comparison, folder, ray, progress=progress, on_batch=on_batch)
        progress = on_batch = None
    return measured(folder=folder, progress=progress, on_batch=on_batch)


def check_on_ray(address: object, out: object) -> None:
    """Raises DivlensError where workers are asked for that cannot be had, or no folder is named; None asks for none."""
    if address is None:
        return
    check_ray(address)
    if out is None:
        raise DivlensError("ray expects the folder of a run, out= or --out: what workers draw is stored there")


def windows_of(comparison: Comparison, piece: Piece, folder: RunFolder, on_batch: OnBatch) -> Iterator[Window]:
    """What is left to do of a piece, some prompts at a time. `on_batch` is told how many samples are there already."""
    run, condition = piece.run, piece.condition
    n = samples_each(run)
    eyes = comparison.instruments[run.model.name]
    names = figure_names(eyes, condition == BASELINE) if piece.measured else set[str]()
    drawing, whole = run.rooms.drawing, n if piece.measured else 1
    if folder.other_names(condition):
        for place in windows(run, whole, piece.place):
            numbers = np.arange(place.start, place.stop)
            read_stored(run, numbers, folder, condition, no_tokens_yet(run, len(numbers)))
        folder.written()
    for place in windows(run, whole, piece.place):
        assert isinstance(run.rows, Rows)  # as `planning.plans` makes them
        first, last = place.start // n, (place.stop - 1) // n
        groups = run.rows.groups[first : last + 1]
        cells = folder.cells(run, run.rows[place])
        samples = rows_with(folder, SAMPLES, run, condition, "cell", cells)
        if there := sum(map(len, samples)):
            on_batch(there)
        parts = np.split(cells, range(n, len(cells), n)) if piece.measured else []
        looks = np.array([of_samples(part, eyes.identity) for part in parts], np.uint64)
        if there == len(cells) and all(names <= folder.scores(run, condition, int(of)).keys() for of in looks):
            continue
        scores = {name: rows_with(folder, name, run, condition, "of", looks) for name in (VERDICTS, SCORES)}
        yield Window(
            model=run.model.name,
            setup=setup_of(run),
            content=folder.content(run.model),
            condition=condition,
            settings=run.settings,
            seed=run.seed,
            rows=Rows(groups),
            conditions={text: run.conditions[text].cpu() for group in groups for text in group.wordings},
            batch=(drawing.fits, drawing.asked_for),
            place=slice(place.start - first * n, place.stop - first * n),
            measured=piece.measured,
            stored={SAMPLES: samples, **scores},
        )


def rows_with(
    folder: RunFolder, name: str, run: Run, condition: str, column: str, keys: UInt64[np.ndarray, " keys"]
) -> list[pa.Table]:
    """The rows of a table that have one of the keys."""
    index = folder.index(name, owner_of(run, condition), column)
    if column == "cell":
        return [folder.read(shard, name).take(rows) for shard, _, rows in index.find(keys)]
    return [folder.read(shard, name).take(rows) for key in keys for shard, rows in index.all_of(int(key))]
