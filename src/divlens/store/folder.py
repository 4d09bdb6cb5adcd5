"""The folder of a run while it is written: what was drawn is found, what is new is stored batch by batch."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt64
from torch import Tensor

from divlens.errors import DivlensError
from divlens.models.fingerprint import fingerprint_of
from divlens.models.protocol import Model
from divlens.output import Record, as_read
from divlens.run import Row, Run
from divlens.showing import first_of
from divlens.store import record
from divlens.store.cells import cells_of, number_of, stratum_of
from divlens.store.lock import only_writer
from divlens.store.place import Place, writing
from divlens.store.schemas import SAMPLES, SCHEMAS, SCORES, TABLES, VERDICTS, schema_of
from divlens.store.shards import Shard, Shards
from divlens.store.share import Share
from divlens.store.stopping import undisturbed

if TYPE_CHECKING:
    import pyarrow as pa


INDICES = 2  # of a table that are held: those of a condition, and of the same one under another name


class Index:
    """Where the rows of one owner stand, by a number that names them: a cell, or what a score is of."""

    def __init__(self, shards: Shards, owner: Mapping[str, Any], column: str) -> None:
        self.owner, self.table, self.shards = owner, shards, list(shards.owned_by(owner))
        keys = [shards.read(shard, [column])[column].to_numpy() for shard in self.shards]
        counts = [len(part) for part in keys]
        whole = np.concatenate([*keys, np.empty(0, np.uint64)])
        self.order = np.argsort(whole, kind="stable")
        self.keys = whole[self.order]
        self.starts = np.cumsum([0, *counts])

    def find(
        self, keys: UInt64[np.ndarray, " n"]
    ) -> Iterator[tuple[Shard, Int[np.ndarray, " m"], Int[np.ndarray, " m"]]]:
        """For each shard that has some of the keys: which of them, and in which of its rows; those stored last."""
        if not len(self.keys):
            return
        place = (np.searchsorted(self.keys, keys, side="right") - 1).clip(min=0)
        found = np.flatnonzero(self.keys[place] == keys)
        rows = self.order[place[found]]
        which = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(which):
            here = which == number
            shard, start = self.now(number)
            yield shard, found[here], rows[here] - self.starts[number] + start

    def now(self, number: int) -> tuple[Shard, int]:
        """Where the rows of a shard are, which may have been folded since: after which row of which shard."""
        shard = self.shards[number]
        return self.table.moved.get(shard, (shard, 0))

    def __contains__(self, key: int) -> bool:
        place = np.searchsorted(self.keys, np.uint64(key))
        return bool(place < len(self.keys) and self.keys[place] == np.uint64(key))

    def all_of(self, key: int) -> Iterator[tuple[Shard, Int[np.ndarray, " m"]]]:
        """The rows that have a key, shard by shard, in the order in which they were stored."""
        wanted = np.uint64(key)
        rows = np.sort(self.order[slice(*(np.searchsorted(self.keys, wanted, side) for side in ("left", "right")))])
        which = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(which):
            shard, start = self.now(number)
            yield shard, rows[which == number] - self.starts[number] + start


class RunFolder:
    """A run that is open for writing. Made by `writing_run`."""

    def __init__(self, place: Place, about: dict[str, Any]) -> None:
        self.place, self.record, self.drawn = place, about, 0
        self.begun = False  # whether run.json tells of this session; one that is refused leaves no trace
        self.tables = {name: Shards(place, name, about["stored"].get(name, 0)) for name in SCHEMAS}
        self.contents: dict[int, tuple[Model, str | None]] = {}
        self.strata: dict[int, tuple[Run, str]] = {}
        self.indices: dict[str, list[Index]] = {}
        self.recent: dict[str, tuple[Shard, pa.Table]] = {}

    @property
    def share(self) -> Share | None:
        """Which share of a run it is for; None for a whole one."""
        return record.share_in(self.record)

    def content(self, model: Model) -> str | None:
        """The fingerprint of a model, taken once."""
        if id(model) not in self.contents:
            self.contents[id(model)] = model, fingerprint_of(model)
        return self.contents[id(model)][1]

    def cells(self, run: Run, rows: Sequence[Row]) -> UInt64[np.ndarray, " rows"]:
        if id(run) not in self.strata:
            self.strata[id(run)] = run, stratum_of(run, self.content(run.model))
        return cells_of(self.strata[id(run)][1], rows)

    def index(self, folder: str, owner: Mapping[str, Any], column: str) -> Index:
        """Of one owner at a time, as it was when it was first asked for; see `written`."""
        recent = self.indices.setdefault(folder, [])
        known = next((each for each in recent if each.owner == owner), None)
        if known is None:
            known = Index(self.tables[folder], owner, column)
            self.indices[folder] = [known, *recent[: INDICES - 1]]
        return known

    def written(self) -> None:
        """To be called when what was stored is to be found, too: while a run is drawn, nothing is asked for twice."""
        self.indices.clear()

    def read(self, shard: Shard, folder: str) -> pa.Table:
        """A shard's rows; of each folder the one that was read last is kept, for neighbours mostly stand together."""
        if folder not in self.recent or self.recent[folder][0] != shard:
            self.recent[folder] = shard, self.tables[folder].read(shard)
        return self.recent[folder][1]

    def find(
        self, run: Run, condition: str, rows: Sequence[Row], into: Int[Tensor, "rows positions"]
    ) -> Bool[np.ndarray, " rows"]:
        """Which of the rows are stored; their tokens are written into `into`."""
        cells = self.cells(run, rows)
        stored = np.zeros(len(rows), bool)
        for shard, asked, places in self.index(SAMPLES, owner_of(run, condition), "cell").find(cells):
            tokens = self.read(shard, SAMPLES)["tokens"].take(places).combine_chunks().flatten().to_numpy()
            into[torch.from_numpy(asked)] = torch.from_numpy(tokens.copy()).view(len(asked), -1).to(into.dtype)
            stored[asked] = True
        return stored

    def check_files(self) -> None:
        """Raises DivlensError, which names them, for files that are not what was written. Only reads."""
        bad = [name for shards in self.tables.values() for name in shards.damaged()]
        if bad:
            raise DivlensError(
                f"{self.place} has files that are not what was written: {first_of(bad, 5)}. "
                "`divlens resume` with --repair removes them and draws again what they held"
            )

    def tidy(self, repair: bool) -> None:
        """What is to be done before more is stored. Files that are not what was written go with `repair`, else they are
        refused as by `check_files`; and what a process that was killed left to do is done."""
        if repair:
            for name, shards in self.tables.items():
                shards.repair(schema_of(name).empty_table())
        else:
            self.check_files()
        for shards in self.tables.values():
            shards.tidy()

    def add(
        self,
        run: Run,
        condition: str,
        samples: Int[np.ndarray, " rows"],
        rows: Sequence[Row],
        tokens: Int[Tensor, "rows *grid"],
        *,
        new: bool = True,
    ) -> None:
        """Store a batch. `samples`: the number of each among those of its prompt. `new`: they were drawn for it."""
        import pyarrow as pa

        owner = owner_of(run, condition)
        flat = tokens.flatten(1).to("cpu", torch.int32)
        lists = pa.ListArray.from_arrays(
            np.arange(0, flat.numel() + 1, flat.shape[1], dtype=np.int32), flat.flatten().numpy()
        )
        columns = {
            "cell": self.cells(run, rows),
            "model": [owner["model"]] * len(rows),
            "condition": [condition] * len(rows),
            "prompt": [row.prompt.text for row in rows],
            "wording": [row.wording for row in rows],
            "sample": samples.astype(np.int32),
            "seed": np.full(len(rows), run.seed, np.uint64),
            "path": [row.path for row in rows],
            "execution": [row.execution for row in rows],
            "tokens": lists,
        }
        self.tables[SAMPLES].append(pa.table(columns, schema_of(SAMPLES)), owner)
        self.drawn += len(rows) if new else 0

    def other_names(self, condition: str) -> list[str]:
        """Under which other names the interventions of a condition stand in what this run was asked for."""
        asked = [pair for request in self.record["requests"].values() for pair in request["conditions"].items()]
        done = {interventions for name, interventions in asked if name == condition}
        return sorted({name for name, interventions in asked if interventions in done and name != condition})

    def scores(self, run: Run, condition: str, of: int) -> dict[str, float]:
        """The stored figures of the samples that `of` names, by the names of what was measured."""
        found: dict[str, float] = {}
        for shard, rows in self.index(SCORES, owner_of(run, condition), "of").all_of(of):
            mine = self.read(shard, SCORES).take(rows)
            found |= zip(mine["name"].to_pylist(), mine["value"].to_pylist(), strict=True)
        return found

    def verdicts(self, run: Run, condition: str, of: int) -> list[tuple[str | None, str | None]]:
        """What the judge said of each of the samples that `of` names."""
        found: list[tuple[str | None, str | None]] = []
        for shard, rows in self.index(VERDICTS, owner_of(run, condition), "of").all_of(of):
            mine = self.read(shard, VERDICTS).take(rows)
            found += zip(mine["judged_concept"].to_pylist(), mine["judged_style"].to_pylist(), strict=True)
        return found

    def add_scores(self, run: Run, condition: str, scored: Sequence[Scored]) -> None:
        """Store what was measured of the samples of some prompts, and what the judge said of each."""
        import pyarrow as pa

        owner = owner_of(run, condition)
        judged = self.index(VERDICTS, owner, "of")
        verdicts = [
            {
                **(owner | {"cell": int(one.cells[i]), "prompt": one.prompt, "sample": i, "of": one.of}),
                **{"judged_concept": concept, "judged_style": style},
            }
            for one in scored
            if one.of not in judged  # a process that was killed may have come so far
            for i, (concept, style) in enumerate(one.verdicts)
        ]
        figures = [
            {**owner, "prompt": one.prompt, "n": one.n, "of": one.of, "name": name, "value": value}
            for one in scored
            for name, value in one.figures.items()
        ]
        # Verdicts first: where there are figures, they are there.
        for folder, rows in ((VERDICTS, verdicts), (SCORES, figures)):
            if rows:
                self.tables[folder].append(pa.Table.from_pylist(rows, schema_of(folder)), owner)

    def begin(self, request: Record, share: Share | None = None) -> None:
        """Enter what is asked for into run.json. Raises DivlensError where it is not what was asked for before, or more
        of it, or another share of it."""
        asked, command = as_read(request), request["command"]
        record.check_share(self.record, share, self.place)
        if share is not None:
            self.record["shard"] = share.recorded
        before = self.record["requests"].get(command)
        if before is not None:
            record.check_grown(before, asked, self.place)
        self.record["requests"][command] = asked
        self.record["complete"] = [each for each in self.record["complete"] if each != command]
        self.save()

    def enter_models(self, models: Iterable[Model]) -> None:
        """Enter the content of the models. Raises DivlensError for one that is another than the one of this name with
        which samples were drawn."""
        for model in models:
            self.enter_content(model.name, self.content(model))

    def enter_content(self, model: str, content: str | None) -> None:
        before = self.record["models"].get(model)
        if before is not None:
            record.check_content(self.place, model, before["content"], content, ". Name another folder")
        self.record["models"][model] = {"content": content}

    def came_of(self, sessions: Sequence[Record]) -> None:
        """Enter the sessions in which others drew what is here, before one's own."""
        known = self.record["sessions"]
        known[-1:-1] = [session for session in sessions if session not in known]
        self.save()

    def finish(self, command: str, found: Record, write: Callable[[Path], None]) -> None:
        """Put the tables of a command in their place, and what was found besides into run.json. `write` fills an empty
        folder."""
        self.put_tables(command, write)
        self.record["found"][command] = as_read(found)
        self.complete(command)

    def complete(self, command: str) -> None:
        """All that a command was asked for is here."""
        self.record["complete"] = [*self.record["complete"], command]
        self.save()

    def put_tables(self, name: str, write: Callable[[Path], None]) -> None:
        """Put tables in their place, all at once. `write` fills an empty folder."""
        with tempfile.TemporaryDirectory() as folder, writing(self.place.path):
            write(Path(folder))
            self.place.put_folder(Path(folder), f"{TABLES}/{name}")

    def save(self) -> None:
        self.begun = True
        self.record["stored"] = {name: shards.next for name, shards in self.tables.items()}
        record.write_record(self.place, self.record)


@dataclass(frozen=True)
class Scored:
    """What was measured of the `n` samples of a prompt, which the number `of` names (see `of_samples`), and what the
    judge said of each; with their cells."""

    prompt: str
    n: int
    of: int
    figures: Mapping[str, float]
    verdicts: Sequence[tuple[str | None, str | None]] = ()
    cells: Sequence[int] = ()


def owner_of(run: Run, condition: str) -> dict[str, str]:
    return {"model": run.model.name, "condition": condition}


def of_samples(cells: UInt64[np.ndarray, " n"], instruments: str) -> int:
    """A number that names these samples as they are seen by these instruments."""
    return number_of([cells.tolist(), instruments])


@contextmanager
def writing_run(path: str | Path, arguments: Sequence[str] = (), *, repair: bool = False) -> Iterator[RunFolder]:
    """Open the folder of a run for writing, or make it. However the block ends, what was stored stays, and run.json
    says how it ended.

    Raises DivlensError for a folder that holds something else, that another process writes, that cannot be written, and
    for files that are not what was written; with `repair` these go, and count as never drawn.
    """
    place = Place(path)
    record.read_record(place)  # refuses what is no run, before anything is made
    with only_writer(place):
        about = record.read_record(place) or record.new_record()
        folder = RunFolder(place, about)
        folder.tidy(repair)
        start = time.monotonic()
        session = record.new_session(arguments)
        about["sessions"] = [*map(record.no_longer_running, about["sessions"]), session]
        how = "failed"
        try:
            yield folder
            how = "finished"
        except KeyboardInterrupt:
            how = "stopped"
            raise
        finally:
            if folder.begun:
                peace = undisturbed() if how == "stopped" else nullcontext()
                with peace, suppress(DivlensError):  # what went wrong before is what is to be said
                    about["sessions"][-1] = record.ended(session, how, folder.drawn, time.monotonic() - start)
                    folder.save()


@contextmanager
def run_for(
    path: str | Path | None,
    request: Record,
    models: Sequence[Model],
    arguments: Sequence[str] = (),
    *,
    repair: bool = False,
    share: Share | None = None,
) -> Iterator[RunFolder | None]:
    """The folder of a run that is to hold what a command is asked for, or a share of it; without a path there is none.

    Raises DivlensError as `writing_run`, for a request that the run does not fit, and for models that are others.
    """
    if path is None:
        yield None
        return
    with writing_run(path, arguments, repair=repair) as folder:
        folder.enter_models(models)
        folder.begin(request, share)
        yield folder
