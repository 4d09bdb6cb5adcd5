"""The record of every sample: seed, wording, tokens and what the judge read, in memory and in a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import overload

from jaxtyping import Int
from torch import Tensor

from divlens.experiment.columns import OF_SAMPLE
from divlens.results import Used

AT_ONCE = 4096  # records that are written; it bounds memory


@dataclass(frozen=True)
class SampleRecord:
    """One sample: what is needed to make it again, its tokens in raster order, and what the judge reads in its picture,
    a word for each of its attributes (or None).

    `note`: what the model did not read of the wording, or None.
    """

    model: str
    condition: str
    prompt: str
    sample: int
    seed: int
    wording: str
    tokens: tuple[int, ...]
    judged: tuple[str, ...] | None
    note: str | None = None


@dataclass(frozen=True, eq=False)
class PromptSamples:
    """All samples of a prompt under one condition, as they are kept: tokens as (n, positions), in integers as small as
    their ids allow; of each sample the wording and what was read in it."""

    model: str
    condition: str
    prompt: str
    seed: int
    tokens: Int[Tensor, "n positions"]
    wordings: Sequence[str]
    judged: Sequence[tuple[str, ...] | None]
    notes: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.tokens)

    def record(self, sample: int) -> SampleRecord:
        wording, tokens = self.wordings[sample], tuple(self.tokens[sample].tolist())
        whose = (self.model, self.condition, self.prompt, sample, self.seed)
        return SampleRecord(*whose, wording, tokens, self.judged[sample], self.notes.get(wording))


@dataclass(frozen=True, eq=False)
class Samples(Sequence[SampleRecord]):
    """The records of all samples in order, each made when it is asked for: `parts` hold them in less memory."""

    parts: tuple[PromptSamples, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[SampleRecord]:
        return (part.record(sample) for part in self.parts for sample in range(len(part)))

    @overload
    def __getitem__(self, index: int) -> SampleRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[SampleRecord]: ...
    def __getitem__(self, index: int | slice) -> SampleRecord | Sequence[SampleRecord]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        for part in self.parts:
            if place < len(part):
                return part.record(place)
            place -= len(part)
        raise AssertionError("a range has no index beyond its end")

    def __repr__(self) -> str:
        return f"<{len(self)} samples>"


def wordings_in(*samples: Samples) -> Iterator[Used]:
    parts = (part for some in samples for part in some.parts)
    return ((part.model, part.condition, part.prompt, wording) for part in parts for wording in part.wordings)


def unread(*samples: Samples) -> dict[str, dict[str, str]]:
    """What was not read of a wording, by model, for those wordings only."""
    found: dict[str, dict[str, str]] = {}
    for part in (part for some in samples for part in some.parts):
        found.setdefault(part.model, {}).update(part.notes)
    return found


def write_samples(samples: Iterable[SampleRecord], path: Path) -> None:
    """Seed, wording, tokens and what was read of every sample, in Parquet; nothing read and no note are null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    lists = {"tokens": pa.list_(pa.int32()), "judged": pa.list_(pa.string())}
    kinds = {"sample": pa.int32(), "seed": pa.uint64(), **lists}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in OF_SAMPLE])
    remaining = iter(samples)
    with pq.ParquetWriter(path, schema) as writer:
        while part := [vars(record) for record in islice(remaining, AT_ONCE)]:
            writer.write_table(pa.Table.from_pylist(part, schema=schema))
