"""Drawing the samples of a run. Each batch is added to running sums. The records of a few samples are stored, so that
the probability of their grids can be computed later under other conditions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from divlens.information.accounting import QUANTITIES, Tally
from divlens.information.accounts import Accounts, Seen, account_for
from divlens.information.kept import Kept
from divlens.information.rare import RareDraws
from divlens.information.relevance import Judge, Readings, read_pictures
from divlens.information.stored import StoredSamples
from divlens.information.strata import Sums, strata_of
from divlens.information.token_entropy import GROUPS, TokenCounts
from divlens.models.answers import pictures_of
from divlens.noise import prompt_key
from divlens.progress import OnBatch
from divlens.run import Filled, Row, Run
from divlens.store.draw import BATCHES, grids_of, windows


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


def collect(
    run: Run, stored: Sequence[int], judge: Judge | None, on_batch: OnBatch, kept: Kept | None = None
) -> Collected:
    """Account for all samples, drawing those that are not `kept`, and add them up. `stored`: the number of samples of
    each prompt whose records are stored, for PATHS and for MIXTURE.

    While they are drawn, memory grows by 48 bytes a sample: their bits are added up at the end, so that the sums do not
    depend on what was drawn together.
    """
    model, prompts, n = run.model, len(run.wordings), len(run.wordings[0])
    strata, stratum = strata_of(run.wordings)
    own = [prompt.text for prompt in run.prompts]
    both = list(zip(stratum.numpy(), own, strict=True))
    uses = np.stack(
        [np.concatenate([choice_of_samples(part, k, run.seed, text) for part, text in both]) for k in stored], 1
    )
    recorded = np.logical_or.reduce(uses, 1)
    group, stratum = groups_of(stratum.numpy()).flatten(), stratum.flatten()

    bits, rare = torch.zeros(len(run.rows), len(QUANTITIES), dtype=torch.float64), RareDraws.empty(len(strata))
    maps = torch.zeros(2, run.settings.rule.steps, math.prod(model.grid), dtype=torch.float64)
    tokens, readings, batches = TokenCounts.empty(prompts, model.codes), Readings(), set[int]()
    found = list[Sample]()
    for place in windows(run):
        part = accounts_of(run, place, recorded[place], judge, on_batch, kept)
        bits[place] = part.bits
        rare.add(part.rare, stratum[place])
        maps += part.maps
        batches |= part.batches
        for some in np.array_split(part.numbers, BATCHES):
            tokens.add(part.tokens[some - place.start], some // n, group[some])
        if judge is not None:
            readings.add(part.labels, part.numbers // n, group[place])
        for i, record in sorted(part.records.items()):
            number = int(part.numbers[i])
            states, committed = record.states.to(run.device), record.committed.to(run.device)
            joint = part.bits[i, QUANTITIES.index("trajectory_joint")]
            whose = (run.rows[number], number // n, int(stratum[number]))
            found.append(Sample(*whose, states, committed, joint, uses[number]))
    if kept is not None:
        for sums in kept.maps(batches):
            maps += sums
        kept.warn_of_differing()
    return Collected(Tally(strata, Sums.of(bits, stratum, len(strata)), rare, *maps), tokens, readings, found)


def accounts_of(
    run: Run,
    place: slice,
    recorded: Bool[np.ndarray, " rows"],
    judge: Judge | None,
    on_batch: OnBatch,
    kept: Kept | None,
) -> Accounts:
    """The accounts of some rows of a run, with the records of those that are to be `recorded`. What is kept is read;
    what is not is drawn, and kept as soon as a batch is there."""
    rows, accounts = run.rows[place], Accounts.empty(run, place)
    if kept is not None:
        kept.find(accounts, recorded)
    if accounts.known.any():
        on_batch(int(accounts.known.sum()))
    for here, batch in account_for(run, rows, np.flatnonzero(~accounts.known), recorded):
        account, _ = batch.seen
        enter(accounts, here, batch, kept)
        accounts.put(here, account)
        if judge is not None:
            grids = grids_of(run, accounts.tokens[here])
            accounts.labels[here] = read_pictures(judge, pictures_of(run.model, grids, run.rooms.decoding))
        if kept is not None:
            kept.add(accounts, here, account.maps())
        on_batch(len(here))
    # A run that grew chooses other samples for its records; and tokens may be lost alone, to `--repair`.
    lacking = recorded & ~np.isin(np.arange(len(rows)), list(accounts.records)) | ~accounts.stored
    for here, batch in account_for(run, rows, np.flatnonzero(accounts.known & lacking), recorded):
        enter(accounts, here, batch, kept)
    return accounts


def enter(accounts: Accounts, here: Int[np.ndarray, " batch"], batch: Filled[Seen], kept: Kept | None) -> None:
    """Enter tokens and records of a batch, whose rows have the indices `here`, and keep those that are new."""
    tokens, stored = batch.tokens.flatten(1).to("cpu", accounts.tokens.dtype), accounts.stored[here]
    records = {i: record for i, record in batch.seen[1].items() if i not in accounts.records}
    if kept is not None:
        kept.compare(accounts.tokens[here[stored]], tokens[stored])
        kept.add_tokens(accounts.numbers[here[~stored]], tokens[~stored])
        kept.add_records(accounts.numbers[list(records)], list(records.values()))
    accounts.tokens[here[~stored]] = tokens[~stored]
    accounts.records |= records


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
