"""Drawing the samples of a run: each batch is added to running sums, and a few samples are kept to be asked again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from divlens.information.accounting import QUANTITIES, BatchAccount, Tally
from divlens.information.kept import Kept
from divlens.information.relevance import Judge, Readings, read_pictures
from divlens.information.replay import Recorder
from divlens.information.strata import strata_of
from divlens.information.token_entropy import GROUPS, TokenCounts
from divlens.loop import Moment
from divlens.noise import prompt_key
from divlens.run import Row, Run, fill


@dataclass(frozen=True)
class Sample:
    """A kept sample. stratum: its wording, of the tally's strata; states, committed: (steps, n), its record; joint:
    bits of QUANTITIES' trajectory_joint; uses: for which of the bounds it was chosen."""

    row: Row
    prompt: int
    stratum: int
    states: Tensor
    committed: Tensor
    joint: Tensor
    uses: Bool[np.ndarray, " uses"]


@dataclass
class Collected:
    """Running sums of a run; all but `kept`, whose size `Effort` fixes, are free of the number of samples."""

    tally: Tally
    tokens: TokenCounts
    readings: Readings
    kept: list[Sample] = field(default_factory=list)


PATHS, MIXTURE = 0, 1  # what samples are kept for: the bounds over paths, and those over prompts


def chosen(stratum: Int[np.ndarray, " n"], keep: int, seed: int, prompt: str) -> Bool[np.ndarray, " n"]:
    """Which samples of a prompt are kept, `keep` in number: one of each wording, then one more of each, and so on; or,
    where they are fewer than its wordings, any. Which ones is random, and another choice for another prompt."""
    random = np.random.default_rng([seed, len(stratum), prompt_key(prompt)]).permutation(len(stratum))
    if keep < len(np.unique(stratum)):
        return random < keep
    turn, result = np.empty_like(random), np.empty_like(random)
    for each in np.unique(stratum):
        turn[stratum == each] = random[stratum == each].argsort().argsort()
    result[np.lexsort((random, turn))] = np.arange(len(stratum))
    return result < keep


def groups_of(stratum: Int[np.ndarray, "prompts n"]) -> Int[np.ndarray, "prompts n"]:
    """The group of each sample, modulo GROUPS, for the error and, by parity, for the halves of a fit: as many groups
    as there are samples of every wording, each with a sample of each, so that no group is that of a wording. With one
    sample of a wording they are dealt wording after wording."""
    order = stratum.flatten().argsort(kind="stable").argsort()
    _, place, count = np.unique(stratum.flatten(), return_inverse=True, return_counts=True)
    if count.min() < 2:
        return order.reshape(stratum.shape) % stratum.shape[1]
    within = order - (count.cumsum() - count)[place]
    return within.reshape(stratum.shape) % min(GROUPS, count.min())


def collect(run: Run, keep: Sequence[int], judge: Judge | None, on_batch: Callable[[int], None]) -> Collected:
    """Draw all samples, adding each batch to the sums when it is done. `keep`: how many of each prompt are kept, for
    PATHS and for MIXTURE."""
    model, prompts, n = run.model, len(run.wordings), len(run.wordings[0])
    strata, stratum = strata_of(run.wordings)
    steps, positions = run.settings.rule.steps, math.prod(model.grid)
    collected = Collected(Tally.empty(strata, steps, positions), TokenCounts.empty(prompts, model.codes), Readings())
    own = [row.prompt.text for row in run.rows[::n]]
    both = list(zip(stratum.numpy(), own, strict=True))
    uses = np.stack([np.concatenate([chosen(part, k, run.seed, text) for part, text in both]) for k in keep], 1)
    group, stratum = groups_of(stratum.numpy()).flatten(), stratum.flatten()

    def see(place: slice, passing: Iterator[Moment]) -> tuple[BatchAccount, Recorder]:
        account, recorder = BatchAccount(), Recorder(torch.from_numpy(np.flatnonzero(uses[place].any(axis=1))))
        for moment in passing:
            account.add(moment)
            if len(recorder.keep):
                recorder.add(moment)
        return account, recorder

    for batch in fill(run, see):
        account, recorder = batch.seen
        index = np.arange(batch.place.start, batch.place.stop)
        collected.tally = collected.tally.merged(Tally.of_batch(account, stratum[index], strata))
        collected.tokens.add(batch.tokens.flatten(1), index // n, group[index])
        if judge is not None:
            collected.readings.add(read_pictures(judge, batch.pictures()), index // n, group[index])
        if len(recorder.keep):
            states, committed = torch.stack(recorder.states, 1), torch.stack(recorder.committed, 1)
            joint = account.sums[:, QUANTITIES.index("trajectory_joint")].cpu()
            for place, within in enumerate(recorder.keep.tolist()):
                number = index[within]
                whose = (run.rows[number], int(number // n), int(stratum[number]))
                collected.kept.append(Sample(*whose, states[place], committed[place], joint[within], uses[number]))
        on_batch(len(batch.rows))
    return collected


def kept_of(collected: Collected, use: int) -> Kept | None:
    """The samples that were kept for PATHS or for MIXTURE, if any."""
    found = [item for item in collected.kept if item.uses[use]]
    if not found:
        return None
    states = torch.stack([item.states for item in found])
    committed = torch.stack([item.committed for item in found])
    prompt, stratum = (torch.tensor([getattr(item, name) for item in found]) for name in ("prompt", "stratum"))
    joint = torch.stack([item.joint for item in found])
    records = (list(states.unbind(1)), list(committed.unbind(1)), joint)
    return Kept([item.row for item in found], prompt, stratum, collected.tally.strata, *records)
