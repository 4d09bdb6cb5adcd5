"""The stored tables of a run as SQL sees them: what was stored, each row once.

DuckDB reads the Parquet files where they stand. Each is held against the hash in its name before it is first read, but
not on an object store, which does so by itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from divlens.errors import DivlensError
from divlens.store.place import Place
from divlens.store.schemas import SAMPLES, SCORES, VERDICTS, schema_of
from divlens.store.shards import DamagedShardError, Shard, Shards

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

VIEWS = {"samples": SAMPLES, "scores": SCORES, "verdicts": VERDICTS}
LAST = "ORDER BY filename DESC, file_row_number DESC"  # names of files rise with time
TRIES = 5  # to read files that another process replaces by larger ones meanwhile


@dataclass(frozen=True)
class CheckedFiles:
    """The files of a run's tables. `known`: those that are what was written."""

    place: Place
    known: set[tuple[str, Shard]] = field(default_factory=set)

    def of(self, folder: str) -> list[Shard]:
        """Those that count, each checked. Raises DivlensError that names one that is not what was written."""
        for left in reversed(range(TRIES)):
            found = Shards(self.place, folder)
            try:
                self.check(found)
            except DamagedShardError:
                if left:  # another process may have put a larger one in its place
                    continue
                raise
            return found.live
        raise AssertionError("the last try returns or raises")

    def check(self, shards: Shards) -> None:
        if gaps := shards.missing():
            raise DamagedShardError(f"{self.place}/{shards.folder}/{gaps[0]:06} is missing")
        new = [shard for shard in shards.live if (shards.folder, shard) not in self.known]
        if self.place.local:
            with ThreadPoolExecutor() as pool:  # hashing leaves the interpreter free
                for _ in pool.map(lambda shard: len(shards.content(shard)), new):
                    pass
        self.known.update((shards.folder, shard) for shard in new)


def answer(query: str, files: CheckedFiles, tables: Mapping[str, str], sizes: Collection[int]) -> pd.DataFrame:
    """What DuckDB answers. `tables`: further ones, the name of the file of each. `sizes`: see `view_of`.

    Raises DivlensError for what is no query of these tables, and for files that are not what was written.
    """
    import duckdb

    words = {word.lower() for word in re.findall(r"\w+", query)}  # files of tables that it does not name are left alone
    for left in reversed(range(TRIES)):
        with duckdb.connect() as connection:
            try:
                offer(connection, words, files, tables, sizes)
                return connection.execute(query).df()
            except duckdb.IOException as error:
                if not left:  # else another process has put a larger file in the place of several
                    raise DivlensError(f"cannot read {files.place}: {first_line(error)}") from None
            except duckdb.Error as error:
                raise DivlensError(f"{first_line(error)}; tables: {', '.join([*VIEWS, *tables])}") from None
    raise AssertionError("the last try returns or raises")


def offer(
    connection: duckdb.DuckDBPyConnection,
    words: Collection[str],
    files: CheckedFiles,
    tables: Mapping[str, str],
    sizes: Collection[int],
) -> None:
    """Make the tables that these words of a query may name."""
    place = files.place
    if not place.local:
        connection.register_filesystem(place.files)
    for name, folder in VIEWS.items():
        if name in words:
            source = source_of(connection, folder, files.of(folder), place)
            connection.execute(f"CREATE VIEW {name} AS {view_of(name, source, sizes)}")
    for name, file in tables.items():
        if name.lower() in words:
            connection.execute(f'CREATE VIEW "{name}" AS SELECT * FROM read_parquet({literal(place.address(file))})')


def source_of(connection: duckdb.DuckDBPyConnection, folder: str, shards: Collection[Shard], place: Place) -> str:
    """The rows of some files, or of none, as SQL names them."""
    if shards:
        addresses = ", ".join(literal(place.address(f"{folder}/{shard.name}")) for shard in shards)
        return f"read_parquet([{addresses}], filename = true, file_row_number = true)"
    nothing = "no " + folder
    connection.register(nothing, schema_of(folder).empty_table())
    return f"(SELECT *, '' AS filename, 0 AS file_row_number FROM \"{nothing}\")"


def view_of(name: str, source: str, sizes: Collection[int]) -> str:
    """The query behind a table. `source`: the rows of its files, with the file and the place in it of each.

    Figures of a run that grew are there of fewer samples, too: those over `sizes` samples, as asked for now, count.
    What is there twice, for a process was killed between two files, counts as it was stored last.
    """
    if name == "samples":
        return f"SELECT * EXCLUDE (filename, file_row_number) FROM {source}"
    if name == "scores":
        asked = f"n IN ({', '.join(map(str, sorted(sizes)))})" if sizes else "false"
        each = "model, condition, prompt, n, name"
        return (
            f"SELECT model, condition, prompt, n, name, value FROM {source} WHERE {asked} "
            f"QUALIFY row_number() OVER (PARTITION BY {each} {LAST}) = 1"
        )
    each = "cell, model, condition, prompt, sample"
    return (
        f"SELECT {each}, judged_concept, judged_style FROM {source} "
        f"QUALIFY row_number() OVER (PARTITION BY {each} {LAST}) = 1"
    )


def literal(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
