"""Drawing the samples of a run: each batch is added to running sums, and a few samples are kept to be asked again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from divlens.information.accounting import QUANTITIES, BatchAccount, Tally
from divlens.information.asking import Asked, Kept
from divlens.information.bounds import Recorder
from divlens.information.relevance import Judge, Readings, read_pictures
from divlens.information.strata import strata_of
from divlens.information.tokens import GROUPS, TokenCounts
from divlens.noise import prompt_key
from divlens.sampler import BatchSize, Observer, Row, fill, noise_of


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


def collect(
    run: Asked,
    rows: Sequence[Sequence[Row]],
    keep: Sequence[int],
    judge: Judge | None,
    on_batch: Callable[[int], None],
    batch_size: BatchSize,
) -> Collected:
    """Draw all samples, adding each batch to the sums when it is done. `keep`: how many of each prompt are kept, for
    PATHS and for MIXTURE."""
    model, settings = run.model, run.settings
    flat = [row for part in rows for row in part]
    n, positions = len(rows[0]), math.prod(model.grid)
    strata, stratum = strata_of([[row.wording for row in part] for part in rows])
    collected = Collected(
        Tally.empty(strata, settings.rule.steps, positions), TokenCounts.empty(len(rows), model.codes), Readings()
    )
    own = [part[0].prompt.text for part in rows]
    both = list(zip(stratum.numpy(), own, strict=True))
    uses = np.stack([np.concatenate([chosen(part, k, run.seed, text) for part, text in both]) for k in keep], 1)
    done, group, stratum = 0, groups_of(stratum.numpy()).flatten(), stratum.flatten()
    account, recorder = BatchAccount(noise_of((), run.seed)), Recorder(torch.zeros(0, dtype=torch.long))

    def observers(batch: Sequence[Row]) -> Sequence[Observer]:
        nonlocal account, recorder
        account = BatchAccount(noise_of(batch, run.seed))
        wanted = np.flatnonzero(uses[done : done + len(batch)].any(axis=1))
        recorder = Recorder(torch.from_numpy(wanted))
        return [account, recorder] if len(wanted) else [account]

    for filled in fill(model, flat, run.seed, settings, run.encoded, batch_size=batch_size, observers=observers):
        index = np.arange(done, done + len(filled.rows))
        prompt = index // n
        collected.tally = collected.tally.merged(Tally.of_batch(account, stratum[index], strata))
        collected.tokens.add(filled.tokens.flatten(1), prompt, group[index])
        if judge is not None:
            collected.readings.add(read_pictures(judge, filled.pictures()), prompt, group[index])
        if len(recorder.keep):
            states, committed = torch.stack(recorder.states, 1), torch.stack(recorder.committed, 1)
            joint = account.sums[:, QUANTITIES.index("trajectory_joint")].cpu()
            for place, row in enumerate(recorder.keep.tolist()):
                whose = (filled.rows[row], int(prompt[row]), int(stratum[done + row]))
                record = (states[place], committed[place], joint[row])
                collected.kept.append(Sample(*whose, *record, uses[done + row]))
        done += len(filled.rows)
        on_batch(len(filled.rows))
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
