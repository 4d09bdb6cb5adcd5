"""What the folder of a run keeps of the accounting, beside the samples, so that none is drawn again for it.

Of every sample its bits, of some the record, and of every batch the sums of its maps, which are large. A batch's maps
are written before the accounts of its samples, so that where there is an account there are the maps that it is part of.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt64
from torch import Tensor

from divlens.errors import DivlensWarning
from divlens.information.accounting import QUANTITIES
from divlens.information.accounts import Accounts, Record
from divlens.information.relevance import Judge
from divlens.run import Row, Run
from divlens.store.cells import name_of_code, number_of
from divlens.store.draw import read_stored
from divlens.store.folder import RunFolder, owner_of
from divlens.store.schemas import ACCOUNTS, MAPS, RECORDS, schema_of

if TYPE_CHECKING:
    import pyarrow as pa

RARE = {"chance": "rare_chance", "open_after": "rare_open_after", "rarest": "rarest"}  # columns of `RareDraws`
MAPPED = ("path", "execution")
VERSION = 1  # of how samples are accounted for: another number makes what was kept count for nothing


@dataclass
class Kept:
    """The accounts of a run under one condition.

    run: as it was planned, for its samples are those of `probe`. drawn_again, differing: how many stored samples were
    drawn once more to be accounted for, and how many came out otherwise.
    """

    folder: RunFolder
    run: Run
    condition: str
    judge: Judge | None
    drawn_again: int = 0
    differing: int = 0

    @cached_property
    def owner(self) -> Mapping[str, str]:
        return owner_of(self.run, self.condition)

    def keys(self, numbers: Int[np.ndarray, " rows"]) -> UInt64[np.ndarray, " rows"]:
        """What names the account of each of these rows. Under Freeze several samples of a prompt may be one cell."""
        cells = self.folder.cells(self.run, self.rows(numbers))
        judge, samples = name_of_code(self.judge), self.run.samples(numbers).tolist()
        named = ([VERSION, judge, cell, sample] for cell, sample in zip(cells.tolist(), samples, strict=True))
        return np.array(list(map(number_of, named)), np.uint64)

    def rows(self, numbers: Int[np.ndarray, " rows"]) -> list[Row]:
        return [self.run.rows[int(number)] for number in numbers]

    def matching(
        self, table: str, keys: UInt64[np.ndarray, " keys"]
    ) -> Iterator[tuple[Int[np.ndarray, " some"], pa.Table]]:
        """The stored rows that have these keys: shard by shard the indices of the keys, and a row for each."""
        for shard, asked, rows in self.folder.index(table, self.owner, "of").find(keys):
            yield asked, self.folder.read(shard, table).take(rows)

    def find(self, accounts: Accounts, recorded: Bool[np.ndarray, " rows"]) -> None:
        """Enter all that is kept of these rows, and which rows that are. `recorded`: those whose records are wanted."""
        keys = self.keys(accounts.numbers)
        accounts.stored[:] = read_stored(self.run, accounts.numbers, self.folder, self.condition, accounts.tokens)
        with_maps = self.folder.index(MAPS, self.owner, "of").keys
        for asked, table in self.matching(ACCOUNTS, keys):
            # Maps may be lost alone, to `--repair`.
            whole = np.flatnonzero(np.isin(table["batch"].to_numpy(), with_maps))
            here, found = torch.from_numpy(asked[whole]), table.take(whole)
            accounts.known[asked[whole]] = True
            accounts.batches.update(found["batch"].to_pylist())
            accounts.labels[here] = torch.from_numpy(found["label"].to_numpy().copy())
            accounts.bits[here] = torch.from_numpy(np.stack([found[name].to_numpy() for name in QUANTITIES], 1))
            for name, column in RARE.items():
                part = getattr(accounts.rare, name)
                part[here] = items_of(found, column).view(len(here), *part.shape[1:]).to(part.dtype)
        for asked, table in self.matching(RECORDS, keys[recorded]):
            states, committed = (
                items_of(table, name).view(len(asked), -1, accounts.tokens.shape[1]) for name in ("states", "committed")
            )
            for i, index in enumerate(np.flatnonzero(recorded)[asked]):
                accounts.records[int(index)] = Record(states[i].long(), committed[i])

    def maps(self, batches: set[int]) -> Iterator[Float[Tensor, "two steps n"]]:
        """The sums of these batches."""
        keys = np.array(sorted(batches), np.uint64)
        steps = self.run.settings.rule.steps
        for _, table in self.matching(MAPS, keys):
            yield from torch.stack([items_of(table, name).view(len(table), steps, -1) for name in MAPPED], 1)

    def compare(self, stored: Int[Tensor, "samples n"], drawn: Int[Tensor, "samples n"]) -> None:
        """Count the samples that were drawn again, and those among them that are not what was stored."""
        self.drawn_again += len(stored)
        self.differing += int((stored != drawn).any(1).sum())

    def add_tokens(self, numbers: Int[np.ndarray, " rows"], tokens: Int[Tensor, "rows n"]) -> None:
        if len(numbers):
            grids = tokens.view(-1, *self.run.model.grid)
            self.folder.add(self.run, self.condition, self.run.samples(numbers), self.rows(numbers), grids)

    def add_records(self, numbers: Int[np.ndarray, " rows"], records: Sequence[Record]) -> None:
        if records:
            parts = {
                name: lists_of(torch.stack([getattr(record, name) for record in records]))
                for name in ("states", "committed")
            }
            self.append(RECORDS, self.whose(numbers) | {"of": self.keys(numbers)} | parts)

    def add(self, accounts: Accounts, place: Int[np.ndarray, " batch"], maps: Float[Tensor, "two steps n"]) -> None:
        """Keep what was added up of a batch, whose rows have the indices `place` in `accounts`, and the sums of its
        `maps`."""
        numbers, here = accounts.numbers[place], torch.from_numpy(place)
        keys = self.keys(numbers)
        batch = number_of(keys.tolist())
        sums = {name: lists_of(part[None]) for name, part in zip(MAPPED, maps, strict=True)}
        self.append(MAPS, self.owner_columns(1) | {"of": [batch], "samples": [len(keys)]} | sums)
        columns = {
            "of": keys,
            "batch": np.full(len(keys), batch, np.uint64),
            "label": accounts.labels[here].numpy(),
            **dict(zip(QUANTITIES, accounts.bits[here].T.numpy(), strict=True)),
            **{column: lists_of(getattr(accounts.rare, name)[here]) for name, column in RARE.items()},
        }
        self.append(ACCOUNTS, self.whose(numbers) | columns)

    def owner_columns(self, count: int) -> dict[str, object]:
        return {name: [value] * count for name, value in self.owner.items()}

    def whose(self, numbers: Int[np.ndarray, " rows"]) -> dict[str, object]:
        """The columns that say whose these rows are."""
        texts = [row.prompt.text for row in self.rows(numbers)]
        return self.owner_columns(len(numbers)) | {
            "prompt": texts,
            "sample": self.run.samples(numbers).astype(np.int32),
        }

    def append(self, table: str, columns: Mapping[str, object]) -> None:
        import pyarrow as pa

        self.folder.tables[table].append(pa.table(columns, schema_of(table)), self.owner)

    def warn_of_differing(self) -> None:
        """Say, where it is so, that samples came out otherwise when they were drawn again."""
        if self.differing:
            warnings.warn(
                f"{self.differing} of {self.drawn_again} stored samples of {self.run.model.name} under "
                f"{self.condition} came out otherwise when they were drawn again to be accounted for, as on another "
                "device: their bits are those of the new draws",
                DivlensWarning,
                stacklevel=2,
            )


def lists_of(rows: Tensor) -> pa.Array:
    """A list for each row of a tensor, whose items come in their order."""
    import pyarrow as pa

    flat = rows.flatten(1)
    starts = np.arange(0, flat.numel() + 1, flat.shape[1])
    return pa.LargeListArray.from_arrays(starts, pa.array(flat.flatten().numpy()))


def items_of(table: pa.Table, column: str) -> Tensor:
    """All items of a column of lists, one after the other."""
    return torch.from_numpy(table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False).copy())
