"""What is known of each of some samples: its tokens, its bits, what the judge read and, of a few, the record."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from divlens.information.accounting import QUANTITIES, BatchAccount
from divlens.information.rare import RareDraws
from divlens.information.replay import Recorder
from divlens.loop import Moment
from divlens.run import Filled, Row, Run, fill


@dataclass(frozen=True)
class Record:
    """The grid of a sample after each step, and the positions that the step committed."""

    states: Int[Tensor, "steps n"]
    committed: Bool[Tensor, "steps n"]


@dataclass
class Accounts:
    """Of some rows of a run, on the CPU.

    numbers: those of the rows in the run. stored, known: of which rows the folder of the run has the tokens, and of
    which it has the bits. bits: a column for each of QUANTITIES. rare: the draws that were possible, where each sample
    is a group. labels: what the judge read; 0 without a judge. records: those that are wanted, by the index of the
    sample among these. maps: the bits of each step and position, of path and of execution, summed over the samples that
    are not `known`. batches: the numbers of the batches with those that are; the folder has such sums of each.
    """

    numbers: Int[np.ndarray, " samples"]
    stored: Bool[np.ndarray, " samples"]
    known: Bool[np.ndarray, " samples"]
    tokens: Int[Tensor, "samples n"]
    bits: Float[Tensor, "samples quantities"]
    rare: RareDraws
    labels: Int[Tensor, " samples"]
    maps: Float[Tensor, "two steps n"]
    records: dict[int, Record] = field(default_factory=dict)
    batches: set[int] = field(default_factory=set)

    @classmethod
    def empty(cls, run: Run, place: slice) -> Accounts:
        numbers = np.arange(place.start, place.stop)
        count, positions, steps = len(numbers), math.prod(run.model.grid), run.settings.rule.steps
        return cls(
            numbers=numbers,
            stored=np.zeros(count, bool),
            known=np.zeros(count, bool),
            tokens=torch.zeros(count, positions, dtype=torch.int32),
            bits=torch.zeros(count, len(QUANTITIES), dtype=torch.float64),
            rare=RareDraws.empty(count),
            labels=torch.zeros(count, dtype=torch.long),
            maps=torch.zeros(2, steps, positions, dtype=torch.float64),
        )

    def put(self, place: Int[np.ndarray, " some"], account: BatchAccount) -> None:
        """Enter what was added up of a batch, whose samples have these indices."""
        here, rare = torch.from_numpy(place), account.rare.cpu()
        self.bits[here] = account.sums.cpu()
        for name, part in vars(self.rare).items():
            part[here] = getattr(rare, name)
        self.maps += account.maps()


Seen = tuple[BatchAccount, dict[int, Record]]


def account_for(
    run: Run, rows: Sequence[Row], which: Int[np.ndarray, " some"], recorded: Bool[np.ndarray, " rows"]
) -> Iterator[tuple[Int[np.ndarray, " batch"], Filled[Seen]]]:
    """Draw those of the rows whose indices are `which`: batches with the indices of their rows, what is added up of
    them, and the records of those that are to be `recorded`, by their indices."""

    def see(place: slice, passing: Iterator[Moment]) -> Seen:
        here = which[place]
        account, recorder = BatchAccount(), Recorder(torch.from_numpy(np.flatnonzero(recorded[here])))
        for moment in passing:
            account.add(moment)
            if len(recorder.rows):
                recorder.add(moment)
        return account, dict(records_in(recorder, here))

    for batch in fill(replace(run, rows=[rows[int(i)] for i in which]), see):
        yield which[batch.place], batch


def records_in(recorder: Recorder, index: Int[np.ndarray, " batch"]) -> Iterator[tuple[int, Record]]:
    """The records of a batch, with the index of each sample. `index`: those of all rows of the batch."""
    if len(recorder.rows):
        states, committed = torch.stack(recorder.states, 1).cpu(), torch.stack(recorder.committed, 1).cpu()
        for i, row in enumerate(recorder.rows.tolist()):
            yield int(index[row]), Record(states[i], committed[i])
