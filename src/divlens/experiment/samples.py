"""The record of every sample: seed, wording, tokens and what the judge said, in memory and in a file."""

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
from divlens.run import Run
from divlens.store.draw import all_stored
from divlens.store.folder import RunFolder

AT_ONCE = 4096  # records that are written; it bounds memory


@dataclass(frozen=True)
class SampleRecord:
    """One sample: what is needed to make it again, its tokens in raster order, and the judge's verdict (or None).

    `note`: what the model did not read of the wording, or None.
    """

    model: str
    condition: str
    prompt: str
    sample: int
    seed: int
    wording: str
    tokens: tuple[int, ...]
    judged_concept: str | None
    judged_style: str | None
    note: str | None = None


@dataclass(frozen=True, eq=False)
class PromptSamples:
    """All samples of a prompt under one condition, as they are kept: tokens as (n, positions), in integers as small as
    their ids allow; of each sample the wording and the verdict."""

    model: str
    condition: str
    prompt: str
    seed: int
    tokens: Int[Tensor, "n positions"]
    wordings: Sequence[str]
    verdicts: Sequence[tuple[str | None, str | None]]
    notes: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.tokens)

    def record(self, sample: int) -> SampleRecord:
        wording, (concept, style) = self.wordings[sample], self.verdicts[sample]
        tokens = tuple(self.tokens[sample].tolist())
        whose = (self.model, self.condition, self.prompt)
        return SampleRecord(*whose, sample, self.seed, wording, tokens, concept, style, self.notes.get(wording))

    def loaded(self) -> PromptSamples:
        return self

    @property
    def used(self) -> Sequence[str]:
        """The wordings, each once."""
        return list(dict.fromkeys(self.wordings))


@dataclass(frozen=True, eq=False)
class SamplesInFolder:
    """All samples of a prompt under one condition, which are read from the folder of a run when they are asked for.

    place: their rows in the run. of: the number of their scores.
    """

    model: str
    condition: str
    prompt: str
    seed: int
    folder: RunFolder
    run: Run
    place: slice
    of: int
    notes: Mapping[str, str]

    def __len__(self) -> int:
        return self.place.stop - self.place.start

    @property
    def used(self) -> Sequence[str]:
        """The wordings, each once."""
        return list(dict.fromkeys(row.wording for row in self.run.rows[self.place]))

    def loaded(self) -> PromptSamples:
        rows = self.run.rows[self.place]
        tokens = all_stored(self.run, self.place, self.folder, self.condition)
        verdicts = self.folder.verdicts(self.run, self.condition, self.of)
        whose = (self.model, self.condition, self.prompt, self.seed)
        return PromptSamples(*whose, tokens, [row.wording for row in rows], verdicts, self.notes)


@dataclass(frozen=True, eq=False)
class Samples(Sequence[SampleRecord]):
    """The records of all samples in order, each made when it is asked for: `parts` hold them in less memory, or in the
    folder of a run."""

    parts: tuple[PromptSamples | SamplesInFolder, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[SampleRecord]:
        whole = ((part.loaded(), len(part)) for part in self.parts)
        return (part.record(sample) for part, count in whole for sample in range(count))

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
                return part.loaded().record(place)
            place -= len(part)
        raise AssertionError("a range has no index beyond its end")

    def __repr__(self) -> str:
        return f"<{len(self)} samples>"


def wordings_in(*samples: Samples) -> Iterator[Used]:
    parts = (part for some in samples for part in some.parts)
    return ((part.model, part.condition, part.prompt, wording) for part in parts for wording in part.used)


def unread(*samples: Samples) -> dict[str, dict[str, str]]:
    """What was not read of a wording, by model, for those wordings only."""
    found: dict[str, dict[str, str]] = {}
    for part in (part for some in samples for part in some.parts):
        found.setdefault(part.model, {}).update(part.notes)
    return found


def write_samples(samples: Iterable[SampleRecord], path: Path) -> None:
    """Seed, wording, tokens and verdict of every sample, in Parquet; no verdict and no note are null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = {"sample": pa.int32(), "seed": pa.uint64(), "tokens": pa.list_(pa.int32())}
    schema = pa.schema([(name, numbers.get(name, pa.string())) for name in OF_SAMPLE])
    remaining = iter(samples)
    with pq.ParquetWriter(path, schema) as writer:
        while part := [vars(record) for record in islice(remaining, AT_ONCE)]:
            writer.write_table(pa.Table.from_pylist(part, schema=schema))
