"""Where a run that grows is looked at: how many prompts and samples it has at each look, decided before the first."""

from __future__ import annotations

from typing import NamedTuple

from divlens.errors import DivlensError, check_whole
from divlens.showing import counted
from divlens.verdict.contrasts import LEVEL
from divlens.verdict.significance import fewest_prompts

FIRST = 8  # no look has fewer prompts, unless there are no more: it would share the 5% and hardly decide


class Size(NamedTuple):
    """Of a run: its prompts, and the samples of each."""

    prompts: int
    n: int


def planned_looks(prompts: int, n: int, budget: int | None, tests: int) -> tuple[Size, ...]:
    """The looks at a run that may use so many prompts, with `n` samples each, until `tests` contrasts are decided.

    The last look but for more samples is at all prompts, the one before at half of them, and so on; where prompts run
    out, samples are doubled. `budget`: the most samples of a model under a condition; None is twice those of all
    prompts. A first look at which nothing could be decided at its share of the level is left out. Raises DivlensError
    where prompts or budget are too few for any decision.
    """
    fewest = fewest_prompts(tests, LEVEL)
    if prompts < fewest:
        raise DivlensError(
            f"until_decided expects at least {fewest} prompts, got {prompts}: with fewer no drop or rise of "
            f"{counted(tests, 'contrast')} can be shown, whatever is drawn"
        )
    budget = 2 * prompts * n if budget is None else budget
    check_whole("budget", budget, 1)
    if budget < fewest * n:
        raise DivlensError(
            f"budget expects at least {fewest * n} samples of a model under a condition, {fewest} prompts with {n} "
            f"each, got {budget}"
        )
    last = Size(min(prompts, budget // n), n)
    sizes = [last]
    while (half := (sizes[0].prompts + 1) // 2) >= FIRST:
        sizes.insert(0, Size(half, n))
    while last.prompts == prompts and 2 * sizes[-1].n * prompts <= budget:
        sizes.append(Size(prompts, 2 * sizes[-1].n))
    while len(sizes) > 1 and sizes[0].prompts < fewest_prompts(tests, LEVEL / len(sizes)):
        del sizes[0]
    return tuple(sizes)
