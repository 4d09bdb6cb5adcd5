"""Drawing the samples of a run. Each batch is added to running sums. The records of a few samples are stored, so that
the probability of their grids can be computed later under other conditions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from divlens.information.accounting import QUANTITIES, BatchAccount, Tally
from divlens.information.relevance import Judge, Readings, read_pictures
from divlens.information.replay import Recorder
from divlens.information.stored import StoredSamples
from divlens.information.strata import strata_of
from divlens.information.token_entropy import GROUPS, TokenCounts
from divlens.loop import Moment
from divlens.noise import prompt_key
from divlens.run import Row, Run, fill


@dataclass(frozen=True)
class Sample:
    """A sample whose record is stored.

    prompt: the index of its prompt. stratum: the index of its wording among the strata of the tally. states, committed:
    its record, (steps, n), which is the grid after each step and the positions that the step committed. joint: its
    value in bits of "trajectory_joint", one of QUANTITIES. uses: the bounds for which it is stored, which are PATHS,
    MIXTURE or both.
    """

    row: Row
    prompt: int
    stratum: int
    states: Tensor
    committed: Tensor
    joint: Tensor
    uses: Bool[np.ndarray, " uses"]


@dataclass
class Collected:
    """The running sums of a run, whose size does not depend on the number of samples, and the stored samples, whose
    number is set in `Effort`."""

    tally: Tally
    tokens: TokenCounts
    readings: Readings
    stored: list[Sample] = field(default_factory=list)


PATHS, MIXTURE = 0, 1  # the two uses of stored samples: bounds that average over paths, and bounds that compare prompts


def choice_of_samples(stratum: Int[np.ndarray, " n"], number: int, seed: int, prompt: str) -> Bool[np.ndarray, " n"]:
    """The choice of `number` samples of a prompt to be stored. It takes one sample of each wording, then a second of
    each, and so on. If `number` is smaller than the number of wordings, wordings are ignored. The choice is random and
    differs between prompts."""
    random = np.random.default_rng([seed, len(stratum), prompt_key(prompt)]).permutation(len(stratum))
    if number < len(np.unique(stratum)):
        return random < number
    turn, result = np.empty_like(random), np.empty_like(random)
    for each in np.unique(stratum):
        turn[stratum == each] = random[stratum == each].argsort().argsort()
    result[np.lexsort((random, turn))] = np.arange(len(stratum))
    return result < number


def groups_of(stratum: Int[np.ndarray, "prompts n"]) -> Int[np.ndarray, "prompts n"]:
    """The group of each sample. There are at most GROUPS groups. The jackknife uses them, and fits use the even and the
    odd groups as their two halves.

    There are as many groups as the rarest wording has samples, and each group has samples of every wording, so that
    groups do not differ in their wordings. If some wording has only one sample, the samples are sorted by wording and
    dealt to the groups in turn.
    """
    order = stratum.flatten().argsort(kind="stable").argsort()
    _, place, count = np.unique(stratum.flatten(), return_inverse=True, return_counts=True)
    if count.min() < 2:
        return order.reshape(stratum.shape) % stratum.shape[1]
    within = order - (count.cumsum() - count)[place]
    return within.reshape(stratum.shape) % min(GROUPS, count.min())


def collect(run: Run, stored: Sequence[int], judge: Judge | None, on_batch: Callable[[int], None]) -> Collected:
    """Draw all samples and add each batch to the sums when it is done. `stored`: the number of samples of each prompt
    whose records are stored, for PATHS and for MIXTURE."""
    model, prompts, n = run.model, len(run.wordings), len(run.wordings[0])
    strata, stratum = strata_of(run.wordings)
    steps, positions = run.settings.rule.steps, math.prod(model.grid)
    collected = Collected(Tally.empty(strata, steps, positions), TokenCounts.empty(prompts, model.codes), Readings())
    own = [prompt.text for prompt in run.prompts]
    both = list(zip(stratum.numpy(), own, strict=True))
    uses = np.stack(
        [np.concatenate([choice_of_samples(part, k, run.seed, text) for part, text in both]) for k in stored], 1
    )
    group, stratum = groups_of(stratum.numpy()).flatten(), stratum.flatten()

    def see(place: slice, passing: Iterator[Moment]) -> tuple[BatchAccount, Recorder]:
        account, recorder = BatchAccount(), Recorder(torch.from_numpy(np.flatnonzero(uses[place].any(axis=1))))
        for moment in passing:
            account.add(moment)
            if len(recorder.rows):
                recorder.add(moment)
        return account, recorder

    for batch in fill(run, see):
        account, recorder = batch.seen
        index = np.arange(batch.place.start, batch.place.stop)
        collected.tally += Tally.of_batch(account, stratum[index], strata)
        collected.tokens.add(batch.tokens.flatten(1), index // n, group[index])
        if judge is not None:
            collected.readings.add(read_pictures(judge, batch.pictures()), index // n, group[index])
        if len(recorder.rows):
            states, committed = torch.stack(recorder.states, 1), torch.stack(recorder.committed, 1)
            joint = account.sums[:, QUANTITIES.index("trajectory_joint")].cpu()
            for place, within in enumerate(recorder.rows.tolist()):
                number = index[within]
                whose = (run.rows[number], int(number // n), int(stratum[number]))
                collected.stored.append(Sample(*whose, states[place], committed[place], joint[within], uses[number]))
        on_batch(len(batch.rows))
    return collected


def stored_for(use: int, collected: Collected) -> StoredSamples | None:
    """The samples that were stored for PATHS or for MIXTURE, if any."""
    found = [item for item in collected.stored if item.uses[use]]
    if not found:
        return None
    states = torch.stack([item.states for item in found])
    committed = torch.stack([item.committed for item in found])
    prompt, stratum = (torch.tensor([getattr(item, name) for item in found]) for name in ("prompt", "stratum"))
    joint = torch.stack([item.joint for item in found])
    records = (list(states.unbind(1)), list(committed.unbind(1)), joint)
    return StoredSamples([item.row for item in found], prompt, stratum, collected.tally.strata, *records)
