"""A table that grows batch by batch, as numbered Parquet files: each is there whole or not at all.

A shard's name has its number and a hash of its content, `000012-000012-3f9a....parquet`, so that one write is all that
it takes, and a file that was cut or changed is found by its name. The numbers have no gaps, and run.json says how many
there were when it was written, so that a file that is missing is found, too. Many small shards are folded into a large
one, whose name has their first and last number; those that a larger one covers no longer count, whether they are
removed yet or not.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from divlens.errors import DivlensError
from divlens.store.place import Place

if TYPE_CHECKING:
    import pyarrow as pa

FOLDED = 64  # shards of one owner, one after the other, that become one
NAME = re.compile(r"(\d{6})-(\d{6})-([0-9a-f]{16})\.parquet")
OWNER = b"divlens"


class DamagedShardError(DivlensError):
    """A file of a run is not what was written."""


@dataclass(frozen=True, order=True)
class Shard:
    """`first`, `last`: the numbers that it covers. `digest`: of its content."""

    first: int
    last: int
    digest: str

    @property
    def name(self) -> str:
        return f"{self.first:06}-{self.last:06}-{self.digest}.parquet"


class Shards:
    """The table in the folder `folder` of a place. One process writes it; see `lock`. `least`: how many numbers are
    known to have been given, for the last files leave no gap when they are missing."""

    def __init__(self, place: Place, folder: str, least: int = 0) -> None:
        self.place, self.folder, self.least = place, folder, least
        self.live = live_shards(place.names(folder))
        self.owners: dict[Shard, Mapping[str, Any]] = {}
        self.moved: dict[Shard, tuple[Shard, int]] = {}  # to which shard the rows of one were folded, after which row

    def name(self, shard: Shard) -> str:
        return f"{self.folder}/{shard.name}"

    @property
    def next(self) -> int:
        """The number that the next shard gets, which is how many were given."""
        return max(self.least, self.live[-1].last + 1 if self.live else 0)

    def missing(self) -> list[int]:
        """Numbers that were given and that no shard covers."""
        covered = {number for shard in self.live for number in range(shard.first, shard.last + 1)}
        return sorted(set(range(self.next)) - covered)

    def damaged(self) -> list[str]:
        """The names of files that are not what was written, and of numbers of which there is none. Reads all."""
        bad = []
        for shard in self.live:
            try:
                content = self.content(shard)
            except DamagedShardError:
                bad.append(self.name(shard))
            else:
                self.owners[shard] = owner_of_content(content)  # so that it is not read once more for that
        return [*bad, *(f"{self.folder}/{number:06} (missing)" for number in self.missing())]

    def content(self, shard: Shard) -> bytes:
        """Raises DamagedShardError where it is not what was written."""
        try:
            content = self.place.read(self.name(shard))
        except FileNotFoundError:
            raise DamagedShardError(f"{self.place}/{self.name(shard)} is missing") from None
        if digest_of(content) != shard.digest:
            raise DamagedShardError(
                f"{self.place}/{self.name(shard)} is not what was written: expected the hash {shard.digest}, got "
                f"{digest_of(content)} of {len(content)} bytes"
            )
        return content

    def read(self, shard: Shard, columns: Sequence[str] | None = None) -> pa.Table:
        import pyarrow.parquet as pq

        return pq.read_table(io.BytesIO(self.content(shard)), columns=list(columns) if columns else None)

    def owner(self, shard: Shard) -> Mapping[str, Any]:
        """Whose rows they are, as `append` was told."""
        if shard not in self.owners:
            self.owners[shard] = owner_of_content(self.content(shard))
        return self.owners[shard]

    def owned_by(self, owner: Mapping[str, Any]) -> Iterator[Shard]:
        return (shard for shard in list(self.live) if self.owner(shard) == owner)

    def append(self, table: pa.Table, owner: Mapping[str, Any], width: int = 1) -> Shard:
        """Add rows, all of one owner. When this returns they are stored. `width`: how many numbers they take; a
        shard of several is large already, and never folded again."""
        number = self.next
        shard = self.put(table, owner, number, number + width - 1)
        self.live.append(shard)
        self.fold_when_due()
        return shard

    def put(self, table: pa.Table, owner: Mapping[str, Any], first: int, last: int) -> Shard:
        import pyarrow.parquet as pq

        target = io.BytesIO()
        marked = table.replace_schema_metadata({OWNER: json.dumps(owner, sort_keys=True).encode()})
        pq.write_table(marked, target, compression="zstd", row_group_size=4096)
        content = target.getvalue()
        shard = Shard(first, last, digest_of(content))
        self.place.write(self.name(shard), content)
        self.owners[shard] = dict(owner)
        return shard

    def fold_when_due(self) -> None:
        recent = self.live[-FOLDED:]
        if len(recent) == FOLDED and all(s.first == s.last and self.owner(s) == self.owner(recent[0]) for s in recent):
            self.fold(recent, self.owner(recent[0]))

    def fold(self, shards: Sequence[Shard], owner: Mapping[str, Any]) -> None:
        """One shard of the last ones. Those that it covers count until it is there, and no longer from then on."""
        import pyarrow as pa

        parts = [self.read(shard) for shard in shards]
        whole = self.put(pa.concat_tables(parts), owner, shards[0].first, shards[-1].last)
        self.live = [*self.live[: -len(shards)], whole]
        for shard, start in zip(shards, accumulate(map(len, parts), initial=0), strict=False):
            self.moved[shard] = whole, start
            del self.owners[shard]
            self.place.remove(self.name(shard))

    def tidy(self) -> None:
        """Do what a process that was killed left to do: fold the last shards, remove files that a larger one covers."""
        self.fold_when_due()
        names = {shard.name for shard in self.live}
        for name in self.place.names(self.folder):
            if NAME.fullmatch(name) and name not in names:
                self.place.remove(f"{self.folder}/{name}")

    def repair(self, empty: pa.Table) -> None:
        """Put `empty` in the place of what is not what was written: what it held counts as never stored."""
        lost = self.missing()
        for shard in list(self.live):
            try:
                self.content(shard)
            except DamagedShardError:
                if self.place.has(self.name(shard)):
                    self.place.remove(self.name(shard))
                lost += range(shard.first, shard.last + 1)
                self.live.remove(shard)
        for first, last in ranges(sorted(lost)):
            self.live.append(self.put(empty, {}, first, last))
        self.live.sort()


def owner_in(schema: pa.Schema) -> Mapping[str, Any]:
    """Whose rows a file holds; of one that only fills a gap, nobody's."""
    return json.loads((schema.metadata or {}).get(OWNER, b"{}"))


def owner_of_content(content: bytes) -> Mapping[str, Any]:
    import pyarrow.parquet as pq

    return owner_in(pq.read_schema(io.BytesIO(content)))


def ranges(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Runs of consecutive numbers, of rising ones."""
    start = previous = None
    for number in numbers:
        if start is None or previous is None or number != previous + 1:
            if start is not None and previous is not None:
                yield start, previous
            start = number
        previous = number
    if start is not None and previous is not None:
        yield start, previous


def live_shards(names: Sequence[str]) -> list[Shard]:
    """Those that no larger one covers, in order."""
    found = [Shard(int(m[1]), int(m[2]), m[3]) for m in map(NAME.fullmatch, names) if m]
    live: list[Shard] = []
    for shard in sorted(found, key=lambda s: (s.first, -s.last)):
        if not live or shard.last > live[-1].last:
            live.append(shard)
    return live


def digest_of(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
