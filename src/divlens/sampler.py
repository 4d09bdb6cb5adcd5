"""`sample`: a run whose grids are kept, with their pictures and, when it is asked for, a trace of every step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.conditions import name_of
from divlens.errors import DivlensError, is_whole
from divlens.interventions import Intervention
from divlens.loop import Moment
from divlens.models.answers import check_same_size, loaded_model, with_own_paraphrases
from divlens.models.protocol import Model
from divlens.noise import entropy_of
from divlens.output import Record, write_tables
from divlens.planning import BATCH_SIZE, BatchSize, plan
from divlens.plots import GenerationPlots
from divlens.progress import OnBatch, ShowProgress, followed
from divlens.prompts import as_prompts
from divlens.results import Result, found_of, request_of, used_in
from divlens.run import Run, fill, wording_notes
from divlens.sheets import write_pictures
from divlens.showing import Block, counted
from divlens.types import DrawnWith, Prompt, Step, Trace

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class Generation(Result):
    """What `sample` returns.

    images: float32 (prompts, n, 3, H, W) in [0, 1]; tokens: int64 (prompts, n, h, w); wordings: per prompt and
    sample, the text that was given to the model; samples: their indices, which with `seed` fix the noise;
    wording_notes: what the model did not read of a wording, for those wordings only.
    """

    model: str
    condition: str
    prompts: tuple[Prompt, ...]
    wordings: tuple[tuple[str, ...], ...]
    seed: int
    drawn_with: DrawnWith
    samples: tuple[int, ...]
    tokens: Int[Tensor, "prompts n h w"]
    images: Float[Tensor, "prompts n 3 H W"]
    trace: Trace | None = None
    wording_notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def table(self) -> pd.DataFrame:
        """One row per prompt: its samples, how many wordings they were drawn with, and how many different grids."""
        import pandas as pd

        grids = [len(torch.unique(grid.flatten(1), dim=0)) for grid in self.tokens]
        rows = zip(self.prompts, self.wordings, grids, strict=True)
        columns = ["prompt", "samples", "wordings", "different_grids"]
        return pd.DataFrame([(p.text, len(used), len(set(used)), count) for p, used, count in rows], columns=columns)

    @property
    def per_sample(self) -> pd.DataFrame:
        """One row per sample: prompt, sample, seed, wording, and its tokens in raster order."""
        import pandas as pd

        rows = [
            (prompt.text, sample, self.seed, wording, grid.flatten().tolist())
            for prompt, wordings, grids in zip(self.prompts, self.wordings, self.tokens, strict=True)
            for sample, wording, grid in zip(self.samples, wordings, grids, strict=True)
        ]
        return pd.DataFrame(rows, columns=["prompt", "sample", "seed", "wording", "tokens"])

    @property
    def plot(self) -> GenerationPlots:
        """Its figures: `plot.replay()`."""
        texts = tuple(prompt.text for prompt in self.prompts)
        return GenerationPlots(self.images, texts, tuple(self.tokens.shape[2:]), self.trace)

    @property
    def headline(self) -> str:
        height, width = self.images.shape[-2:]
        return (
            f"Generation: {counted(len(self.prompts), 'prompt')}, {counted(len(self.samples), 'sample')} each, "
            f"{height} x {width} pixels, seed {self.seed}"
        )

    @property
    def blocks(self) -> list[Block]:
        table = self.table
        return [Block("", [str(name) for name in table], [[str(cell) for cell in row] for row in table.to_numpy()])]

    @property
    def notes(self) -> list[str]:
        said = "Nothing is measured here, neither diversity nor fidelity: `divlens.probe` does both."
        return [said, *(f"{wording!r}: {note}" for wording, note in self.wording_notes.items())]

    @property
    def found(self) -> Record:
        used = used_in(self.model, self.condition, self.prompts, self.wordings)
        return found_of(used, {self.model: self.drawn_with}, wording_notes={self.model: dict(self.wording_notes)})

    @classmethod
    def write_files(cls, results: Sequence[Self], folder: Path) -> None:
        """Every picture, a sheet of them, the table (see `write_tables`)."""
        (result,) = results
        write_pictures(result.images, folder, "pictures")
        write_tables({"table": [result.table]}, folder)

    @classmethod
    def write_samples(cls, results: Sequence[Self], folder: Path) -> None:
        (result,) = results
        result.per_sample.to_parquet(folder / "samples.parquet", index=False)


def sample(
    model: str | Model,
    prompts: Sequence[str | Prompt],
    n: int = 8,
    seed: int = 0,
    interventions: Sequence[Intervention] = (),
    *,
    indices: Sequence[int] | None = None,
    batch_size: BatchSize = BATCH_SIZE,
    trace: bool = False,
    progress: ShowProgress = None,
    on_batch: OnBatch | None = None,
) -> Generation:
    """Draw `n` samples of each prompt, the first ones, or those that `indices` name: the numbers of samples, from 0.

    `model`: a model, or the spec of one ("zoo/mim"). The noise of a sample is a function of (seed, prompt, its index):
    it does not depend on `batch_size`, on the other prompts, or on `n`. Nor does the sample of a model whose logits do
    not, as the zoo's on a processor. Logits of other models may differ by a rounding error with the number of rows, so
    that a draw falls the other way now and then; `drawn_with` of the result records it.

    `batch_size="auto"` finds what fits the device. `trace`: keep what every step left behind. `progress`: True shows a
    bar on stderr. `on_batch` is told how many more samples are done. All pictures are returned, so memory grows with
    prompts * n, and with `trace` by the steps of each; `divlens.probe` measures more samples than fit.

    Raises DivlensError for an empty list of prompts, an empty prompt, a wording the model cannot read, n < 1 or above a
    million, indices that are none or come twice, a seed that is no unsigned 64-bit number, interventions that leave
    nothing to draw, and a model whose answers do not fit.
    """
    known = loaded_model(model)
    asked = with_own_paraphrases([known], as_prompts(prompts))
    chosen = None if indices is None else checked_indices(indices)
    run = plan(known, asked, max(chosen) + 1 if chosen else n, seed, interventions, batch_size=batch_size)
    if chosen:
        run, n = only(run, chosen), len(chosen)
    numbers = {"indices": chosen} if chosen else {"n": n}
    tokens, images = torch.empty(len(run.rows), *known.grid, dtype=torch.long), torch.empty(0)
    steps: list[tuple[Step, ...]] = []
    with followed(progress, on_batch, len(run.rows), known.name) as told:
        for batch in fill(run, traced if trace else untraced):
            pictures = batch.pictures()
            if not len(images):
                images = torch.empty(len(run.rows), *pictures.shape[1:])
            check_same_size(known, pictures, images)
            tokens[batch.place], images[batch.place] = batch.tokens.cpu(), pictures
            steps.append(batch.seen)
            told.advance(len(batch.rows))
    name, wordings = name_of(interventions), [row.wording for row in run.rows]
    return Generation(
        request=request_of("sample", {known.name: {name: run}}, {name: interventions}, asked, **numbers),
        model=known.name,
        condition=name,
        prompts=asked,
        wordings=tuple(tuple(wordings[i : i + n]) for i in range(0, len(wordings), n)),
        seed=seed,
        drawn_with=run.drawn_with,
        samples=chosen or tuple(range(n)),
        tokens=tokens.view(len(asked), n, *known.grid),
        images=images.view(len(asked), n, *images.shape[1:]),
        trace=joined(steps) if trace else None,
        wording_notes=wording_notes(known, wordings),
    )


def checked_indices(indices: Sequence[int]) -> tuple[int, ...]:
    """Raises DivlensError for what are no numbers of samples, each once."""
    listed = tuple(indices) if isinstance(indices, Iterable) and not isinstance(indices, str) else ()
    if not listed or len(set(listed)) < len(listed) or not all(is_whole(one) and one >= 0 for one in listed):
        raise DivlensError(f"indices expects numbers of samples, from 0 and each once, got {indices!r:.80}")
    return tuple(map(int, listed))


def only(run: Run, samples: Sequence[int]) -> Run:
    """These samples of each prompt alone, of a run that goes as far as the last of them."""
    each = max(samples) + 1
    return run.part([run.rows[first + one] for first in range(0, len(run.rows), each) for one in samples])


def traced(place: slice, passing: Iterator[Moment]) -> tuple[Step, ...]:
    """The trace of a batch."""
    return tuple(step_of(moment) for moment in passing)


def untraced(place: slice, passing: Iterator[Moment]) -> tuple[Step, ...]:
    return ()


def step_of(moment: Moment) -> Step:
    """What a step leaves behind, scattered to the whole grid. A greedy draw has probability 1 and entropy 0."""
    view, drawn, greedy = moment.view, moment.drawn, moment.settings.greedy_at(moment.view.step)

    def place(values: Tensor) -> Tensor:
        whole = torch.zeros(view.tokens.shape, dtype=values.dtype, device=values.device)
        whole[:, view.first : view.first + view.count] = values
        return whole

    entropy = entropy_of(moment.log_p)
    zero = torch.zeros_like(entropy)
    return Step(
        drawn=place(drawn),
        committed=moment.result.committed,
        tokens=place(moment.draws.tokens.masked_fill(~drawn, 0)),
        state=moment.result.tokens,
        log_probability=place(zero if greedy else torch.where(drawn, moment.draws.log_probability, zero)),
        entropy=place(zero if greedy else torch.where(drawn, entropy, zero)),
        path_log_probability=moment.result.path_log_probability,
    )


def joined(batches: Sequence[Sequence[Step]]) -> Trace:
    """The steps of several batches, batch dimension concatenated."""
    names = [field.name for field in fields(Step)]
    return Trace(
        tuple(
            Step(**{name: torch.cat([getattr(s, name) for s in steps]).cpu() for name in names})
            for steps in zip(*batches, strict=True)
        )
    )
