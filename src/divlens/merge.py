"""`merge`: the shards of a run, drawn on several machines, become one run. Nothing of what they hold is drawn again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divlens.errors import DivlensError
from divlens.output import Record
from divlens.progress import OnBatch, ShowProgress
from divlens.results import Result
from divlens.resume import resume
from divlens.showing import first_of
from divlens.store.folder import SAMPLES, SCORES, VERDICTS, writing_run
from divlens.store.place import Place
from divlens.store.record import check_request, differing, existing_record, share_in
from divlens.store.shards import Shards, owner_in
from divlens.store.share import Share

# What names a row of each table. Verdicts stand before figures: where there are figures, they are there.
OWNER = ["model", "condition"]
KEYS = {SAMPLES: [*OWNER, "cell"], VERDICTS: [*OWNER, "of", "sample"], SCORES: [*OWNER, "of", "name"]}


@dataclass(frozen=True)
class Part:
    """The folder of a shard, which is only read."""

    place: Place
    record: Mapping[str, Any]
    share: Share

    @property
    def requests(self) -> Mapping[str, Record]:
        """By command."""
        return self.record["requests"]

    def table(self, name: str) -> Shards:
        return Shards(self.place, name)


def merge(
    parts: Sequence[str | Path],
    out: str | Path,
    *,
    arguments: Sequence[str] = (),
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> list[Result]:
    """Copy what all shards of a run hold into one run, and go on with it as `divlens.resume` does: what no shard could
    measure is measured now, and the tables are written. The results of that.

    `out`: a new folder, or one of a run with the same request, which is added to. The models are loaded, for their
    prompts are planned again, but nothing is drawn that a shard holds. The parts stay as they are. Raises DivlensError,
    before anything is written, for a part that is no shard, that is not finished or has damaged files; for a shard that
    is missing or comes twice; and for parts of other requests or of other models.
    """
    read = [part_of(path) for path in parts]
    check_shares(read)
    check_alike(read)
    check_whole(read)
    for request in read[0].requests.values():
        check_request(out, request)
    with writing_run(out, arguments) as folder:
        for model, about in read[0].record["models"].items():
            folder.enter_content(model, about["content"])
        for request in read[0].requests.values():
            folder.begin(request)
        folder.came_of([session for part in read for session in part.record["sessions"]])
        for name, keys in KEYS.items():
            copy([part.table(name) for part in read], folder.tables[name], keys)
    return resume(out, arguments=arguments, progress=progress, on_batch=on_batch)


def part_of(path: str | Path) -> Part:
    """Raises DivlensError for what is not the folder of a shard."""
    place = Place(path)
    record = existing_record(place)
    if (share := share_in(record)) is None:
        raise DivlensError(f"merge expects folders of shards, which --shard makes; {place} holds a whole run")
    return Part(place, record, share)


def check_shares(parts: Sequence[Part]) -> None:
    """Raises DivlensError unless each of the shards 1 to N is there once."""
    if not parts:
        raise DivlensError("merge expects the folders of all shards of a run, got none")
    first, found = parts[0], dict[int, Part]()
    for part in parts:
        if part.share.of != first.share.of:
            raise DivlensError(
                f"merge expects the shards of one run, got {part.share} in {part.place} beside {first.share} in "
                f"{first.place}"
            )
        if before := found.get(part.share.number):
            raise DivlensError(f"merge expects each shard once, got {part.share} in {before.place} and {part.place}")
        found[part.share.number] = part
    if missing := [number for number in range(1, first.share.of + 1) if number not in found]:
        shown = first_of(list(map(str, missing)), 10)
        raise DivlensError(f"merge expects all of the shards 1 to {first.share.of}, missing: {shown}")


def check_alike(parts: Sequence[Part]) -> None:
    """Raises DivlensError for parts of other requests, and of models with other contents."""
    first, *others = parts
    for part in others:
        beside = f"{part.place} beside {first.place}"
        if part.requests.keys() != first.requests.keys():
            commands = " and ".join(", ".join(each.requests) for each in (part, first))
            raise DivlensError(f"merge expects shards of one request, got the commands {commands} in {beside}")
        for command, request in first.requests.items():
            if fields := differing(request, part.requests[command]):
                raise DivlensError(f"merge expects shards of one request, got other {', '.join(fields)} in {beside}")
        models, others_models = first.record["models"], part.record["models"]
        if changed := [name for name in models if models[name] != others_models.get(name)]:
            raise DivlensError(
                f"merge expects shards of the same models, got another content of {', '.join(changed)} in {beside}"
            )


def check_whole(parts: Sequence[Part]) -> None:
    """Raises DivlensError for a part that is not finished or has damaged files."""
    for part in parts:
        if part.requests.keys() - set(part.record["complete"]):
            raise DivlensError(f"{part.place} is not finished: go on with `divlens resume {part.place}`")
        if bad := [name for table in KEYS for name in part.table(table).damaged()]:
            raise DivlensError(
                f"{part.place} has files that are not what was written: {first_of(bad, 5)}. "
                f"`divlens resume {part.place} --repair` draws anew what they held"
            )


def copy(sources: Sequence[Shards], target: Shards, keys: list[str]) -> None:
    """Add the rows of a table that the target does not have yet; the sources have no row in common."""
    import pandas as pd

    before = [target.read(shard, keys).to_pandas() for shard in target.live]
    there = pd.MultiIndex.from_frame(pd.concat(before)) if before else None
    for source in sources:
        for shard in source.live:
            rows = source.read(shard)
            if there is not None:
                rows = rows.filter(~pd.MultiIndex.from_frame(rows.select(keys).to_pandas()).isin(there))
            if len(rows):
                target.append(rows, owner_in(rows.schema), shard.last - shard.first + 1)
