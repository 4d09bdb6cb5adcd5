"""Confidence unmasking: the exact probability that a step commits the set of positions V, and that it commits V with
the tokens z_V.

Given the state, positions are independent. Position i draws a token u ~ p_i and gets the score log p_i(u) + tau * G,
where G is standard Gumbel noise. The positions with the highest scores are committed. F_i is the distribution function
of the score of position i, S_i = 1 - F_i is its tail, and S_{i, z} is its tail given that the token is z. Then

    P(V)      = integral of -d/dc [ prod_{i in V} S_i(c) ]                     prod_{i not in V} F_i(c) dc
    P(V, z_V) = integral of -d/dc [ prod_{i in V} p_i(z_i) S_{i, z_i}(c) ]     prod_{i not in V} F_i(c) dc

where c stands for the lowest committed score (docs/theory.md derives both). The integrands are analytic and vanish at
both ends, so the trapezoidal rule converges exponentially (Trefethen and Weideman, 2014). All values are logarithms in
float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from divlens.information.laws.atoms import atom_log_probabilities
from divlens.information.laws.gumbel_mixtures import (
    USUAL,
    Accuracy,
    Direct,
    Mixture,
    enclosing_mixtures,
    gumbel_tail,
    mixture_in_bins,
)
from divlens.information.laws.integrands import integrands, node_step
from divlens.information.laws.little_noise import little_noise
from divlens.information.laws.scores import Scores

FEW_CODES = 32  # with up to this many codes, each code is computed on its own instead of in bins
COARSE = 96  # the number of nodes and bins in the search for the range where the integrand is not negligible
WIDEST_INTERVAL = 2.0  # in units of tau; once the intervals of the search are narrower, it is not repeated
# This number is small so that only a few samples share their nodes. Many would need nodes over a wider range than each
# of them needs alone.
CODES_AT_ONCE = 330_000
ELEMENTS_AT_ONCE = 300_000
MORE_OFF_CPU = 64  # a GPU does not depend on a cache, and starting an operation takes time, so its batches are larger
FEW_OFF_CPU = 8  # the same for codes that are not in bins: smaller, as the search stores COARSE numbers for each
SMALL_TAU = 0.003  # below this tau `little_noise` is faster with hundreds of codes and as fast with few
NODES_AT_ONCE = 320  # nodes are split into blocks because each block needs only the bins near it


def event_log_probabilities(
    scores: Scores,
    samples: int,
    tau: float,
    shift: Float[Tensor, " rows"] | None = None,
    few_codes: int = FEW_CODES,
    accuracy: Accuracy = USUAL,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """log P(V) and log P(V, z_V) of each sample, in natural logarithms.

    `tau` >= 0 is the temperature of the Gumbel noise. `shift` is the value of tau * G, given when the noise is known
    because the path is frozen. With known noise, or at tau = 0, the scores are discrete and both probabilities are
    finite sums. Vocabularies of more than `few_codes` codes are put in bins, see `gumbel_mixtures.mixture_in_bins`.
    """
    device = scores.weight.device
    log_path = torch.zeros(samples, dtype=torch.float64, device=device)
    log_token = torch.where(scores.committed, scores.of_token(scores.weight).log(), 0.0)
    log_joint = log_path.index_add(0, scores.sample, log_token)
    opened = log_path.index_add(0, scores.sample, torch.ones_like(log_token))
    fixed = log_path.index_add(0, scores.sample, scores.committed.double())
    # If a step commits all open positions or none, there is only one V, and the initial values are already the result.
    choice = (fixed > 0) & (fixed < opened)
    if not bool(choice.all()):
        rows = choice[scores.sample]
        scores, shift = scores.rows(rows), None if shift is None else shift[rows]
    ends = torch.cat([opened.new_zeros(1), opened[choice].cumsum(0)]).long().tolist()
    more = FEW_OFF_CPU if scores.weight.shape[1] <= few_codes else MORE_OFF_CPU
    at_once = max(1, room(CODES_AT_ONCE, device, more) * samples // max(1, scores.weight.numel()))
    paths, joints = [log_path[:0]], [log_path[:0]]
    for first in range(0, len(ends) - 1, at_once):
        last = min(first + at_once, len(ends) - 1)
        part = slice(ends[first], ends[last])  # rows are sorted by sample
        rows = scores.rows(part)
        place = torch.unique_consecutive(rows.sample, return_inverse=True)[1]
        rows = replace(rows, sample=place)
        if tau == 0 or shift is not None:
            moved = torch.zeros_like(rows.weight[:, 0]) if shift is None else shift[part]
            path, joint = atom_log_probabilities(rows, last - first, moved)
        elif tau < SMALL_TAU:
            path, joint = little_noise(rows, last - first, tau)
        else:
            path, joint = log_integrals(rows, last - first, tau, few_codes, accuracy)
        paths.append(path.clamp(max=0))
        joints.append(torch.minimum(joint, path).clamp(max=0))
    log_path[choice], log_joint[choice] = torch.cat(paths), torch.cat(joints)
    return log_path, log_joint


def room(elements: int, device: torch.device, more: int = MORE_OFF_CPU) -> int:
    """How many elements to process at once: `elements` on the CPU, whose cache has room for that many, and `more` times
    as many on other devices."""
    return elements if device.type == "cpu" else more * elements


def log_integrals(
    scores: Scores, samples: int, tau: float, few_codes: int, accuracy: Accuracy = USUAL
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """The logarithms of both integrals, by the trapezoidal rule with the same nodes for all samples.

    The integrals depend only on differences between scores. The scores of each sample are therefore measured from the
    low end of that sample's window. The nodes then need to cover only the widest window, even if the scores of
    different samples are far apart.
    """
    direct = scores.weight.shape[1] <= few_codes
    window = windows(scores, samples, tau, direct, accuracy.negligible)
    # The origin is a multiple of the bin width, so that the place of a code between two bins does not depend on which
    # other samples are in the batch.
    origin = (window.low / tau * accuracy.bins_per_tau).floor() * tau / accuracy.bins_per_tau
    extent = float((window.high - origin).max())
    scores = replace(scores, location=scores.location - origin[scores.sample, None])
    largest = int(torch.bincount(scores.sample).max())
    step = node_step(tau, largest, accuracy)
    if direct:
        mixture: Mixture = Direct(scores.weight, scores.location)
    else:
        mixture = in_bins(scores, origin, extent, window.below, tau, accuracy)
    parts = scores.weight.shape[1] if direct else 1
    size = min(max(16, room(ELEMENTS_AT_ONCE, scores.weight.device) // (len(scores.sample) * parts)), NODES_AT_ONCE)
    nodes = torch.arange(0, extent + step, step, dtype=torch.float64, device=scores.weight.device)
    paths, joints = [], []
    for part in nodes.split(size):
        log_path, log_joint = integrands(scores, samples, mixture, part, tau)
        paths.append(log_path.logsumexp(1))
        joints.append(log_joint.logsumexp(1))
    return torch.stack(paths).logsumexp(0) + math.log(step), torch.stack(joints).logsumexp(0) + math.log(step)


@dataclass(frozen=True)
class Windows:
    """The range of thresholds that matters for each sample.

    low, high: outside these thresholds lies a share of about 100 exp(-28) of both integrals. below: a lower bound of
    log F between them for each row, 0 for committed rows.
    """

    low: Float[Tensor, " batch"]
    high: Float[Tensor, " batch"]
    below: Float[Tensor, " rows"]


def windows(scores: Scores, samples: int, tau: float, direct: bool, negligible: float = USUAL.negligible) -> Windows:
    """The window of each sample. It starts from a range outside which the lowest committed score cannot be, but for
    negligible probability.

    The search is repeated within the windows it found while its intervals are wide and it still shrinks the widest
    window to a quarter or less. A single search would be too coarse for all samples if one score were far from the
    others.
    """
    empty = torch.zeros(samples, dtype=torch.float64, device=scores.weight.device)
    rows = scores.rows(scores.committed)
    possible = rows.location.masked_fill(rows.weight == 0, torch.inf)
    bottom = empty.scatter_reduce(0, rows.sample, possible.amin(1), "amin", include_self=False)
    top = empty.scatter_reduce(0, scores.sample, scores.location.amax(1), "amax", include_self=False)
    found = Windows(bottom - 6 * tau, top + 40 * tau, torch.zeros_like(scores.location[:, 0]))
    while True:
        before = float((found.high - found.low).max())
        found = windows_within(scores, found, top, tau, direct, negligible)
        after = float((found.high - found.low).max())
        if before < COARSE * WIDEST_INTERVAL * tau or after > before / 4:
            return found


def windows_within(
    scores: Scores, found: Windows, top: Float[Tensor, " batch"], tau: float, direct: bool, negligible: float
) -> Windows:
    """The smaller windows that leave out those intervals of `found` whose part of the integrals is negligible.

    prod S decreases in c and prod F increases. The part of an interval (a, b) is therefore at most
    prod S(a) * prod F(b), and the whole integral is at least prod S(c) * prod F(c) at any c. Moving the codes down or
    up to the edges of their bins gives lower and upper bounds of these products.
    """
    width = float((found.high - found.low).max())
    nodes = torch.linspace(0, width, COARSE, dtype=torch.float64, device=scores.weight.device)
    low = found.low[scores.sample]
    if direct:
        down = up = Direct(scores.weight, scores.location - low[:, None])
    else:
        occupied = min(width, float((top - found.low).max()) * (1 + 1e-9))  # the highest code is inside a bin
        down, up = enclosing_mixtures(scores.weight, scores.location, low, occupied, COARSE)
    inside, rows = scores.committed, scores.rows(scores.committed)
    empty = torch.zeros(len(top), COARSE, dtype=torch.float64, device=scores.weight.device)

    def tails(mixture: Mixture) -> Tensor:
        return empty.index_add(0, rows.sample, mixture.rows(inside).tail(nodes, tau)[0])

    drawn = gumbel_tail(rows.of_token(rows.location) - low[inside], nodes, tau)[0]
    drawn = empty.index_add(0, rows.sample, drawn + rows.of_token(rows.weight).log()[:, None])
    under = up.rows(~inside).log_below(nodes, tau)
    least = empty.index_add(0, scores.sample[~inside], under)
    most = empty.index_add(0, scores.sample[~inside], down.rows(~inside).log_below(nodes, tau))
    keep = torch.zeros_like(empty[:, 1:], dtype=torch.bool)
    for lower, upper in ((tails(down), tails(up)), (drawn, drawn)):
        whole = (lower + least).amax(1, keepdim=True)
        keep |= upper[:, :-1] + most[:, 1:] > whole - negligible
    first, last = keep.int().argmax(1), COARSE - 1 - keep.flip(1).int().argmax(1)
    below = torch.zeros_like(found.below)
    below[~inside] = under.gather(1, first[scores.sample[~inside], None])[:, 0]
    return Windows(found.low + nodes[first], found.low + nodes[last], below)


def in_bins(
    scores: Scores,
    origin: Float[Tensor, " batch"],
    extent: float,
    below: Float[Tensor, " rows"],
    tau: float,
    accuracy: Accuracy,
) -> Mixture:
    """The mixture in bins. Improbable codes, whose scores would hardly ever be high enough, are treated together as if
    their scores were below every threshold.

    Doing so for a code of probability p changes F(c) and S(c) by p S_p(c) <= p exp((log p - c) / tau), where S_p is the
    tail of the score of this code. The change is allowed to be `bulk` / codes times the smallest F in the window, or
    for committed rows times the share of the likeliest code in S. Thresholds are measured from `origin`, so that log p
    is location + origin.
    """
    top = scores.location.amax(1)
    start = torch.where(scores.committed, top.clamp(max=0), 0.0)
    origin = origin[scores.sample]
    spare = torch.where(scores.committed, top + origin, below)
    bulk = (math.log(accuracy.bulk / scores.weight.shape[1]) + spare + (start + origin) / tau) / (1 + 1 / tau) - origin
    lowest = torch.maximum(torch.maximum(bulk, start - 37 * tau), scores.location.amin(1))
    highest = max(min(extent + 6 * tau, float(top.max())), float(lowest.min()) + tau)
    return mixture_in_bins(scores.weight, scores.location, lowest, highest, tau, accuracy.bins_per_tau)


def selections(opened: Bool[Tensor, " n"], count: int) -> Iterator[Bool[Tensor, " n"]]:
    """All ways to choose `count` of the open positions."""
    places = opened.nonzero()[:, 0]
    for chosen in torch.combinations(places, count):
        which = torch.zeros_like(opened)
        which[chosen] = True
        yield which
