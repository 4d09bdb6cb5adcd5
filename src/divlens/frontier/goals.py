"""The goal in words: whether a setting is nearer to the true law than baseline and guidance, at no loss of fidelity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from divlens.experiment import columns
from divlens.frontier.standing import Candidate, Goal
from divlens.showing import Block, counted, interval_text
from divlens.verdict.contrasts import LEVEL


def goal_rows(model: str, goal: Goal) -> Iterator[dict[str, Any]]:
    """A row of each candidate; intervals have `_low` and `_high`."""
    for one in goal.candidates:
        row: dict[str, Any] = {"model": model, "method": one.method, "setting": one.setting, "guidance": goal.guidance}
        row |= columns.with_ends("law_distance", one.distance)
        row |= columns.with_ends("from_baseline", one.from_baseline)
        row |= columns.with_ends("from_guidance", one.from_guidance)
        row |= columns.with_ends("fidelity_change", one.fidelity)
        row |= {"p_baseline": one.p_baseline, "p_guidance": one.p_guidance, "p_fidelity": one.p_fidelity}
        yield row | {"p": one.p, "reaches": one.reaches}


def goal_block(model: str, goal: Goal) -> Block:
    rows = [
        (
            one.setting,
            interval_text(one.from_baseline, "+.3f"),
            interval_text(one.from_guidance, "+.3f"),
            interval_text(one.fidelity, "+.0f", 100),
            p_text(one.p),
        )
        for one in goal.candidates
    ]
    headings = ("law distance of", "from baseline", "from guidance", "fidelity +", "p")
    return Block("goal", headings, rows, lines=list(goal_lines(model, goal)))


def goal_lines(model: str, goal: Goal) -> Iterator[str]:
    """Whether it is reached, by what, and if not what is in the way."""
    margin = f"{100 * goal.margin:.3g} points"
    held_against = (
        f"{interval_text(goal.baseline_distance)} at baseline and {interval_text(goal.guidance_distance)} under "
        f"{goal.guidance}, the nearest of guidance"
    )
    if goal.reached_by:
        best = goal.reached_by[0]
        fidelity = interval_text(best.fidelity, "+.1f", 100)
        yield (
            f"Goal reached by {best.setting} for {model}: its distance to the true law is "
            f"{interval_text(best.distance)}, against {held_against}; fidelity {fidelity} points, no loss of {margin}; "
            f"p {p_text(best.p, sign=True)} after Holm over {counted(len(goal.candidates), 'method')}."
        )
        if others := [one.setting for one in goal.reached_by[1:]]:
            yield f"So do {', '.join(others)}." if len(others) > 1 else f"So does {others[0]}."
    elif goal.candidates:
        best = min(goal.candidates, key=lambda one: one.p)
        yield (
            f"Goal not reached for {model}: {best.setting} comes closest, with a distance to the true law of "
            f"{interval_text(best.distance)}, against {held_against}; not decided: {', '.join(open_parts(best, goal))}."
        )
    else:
        yield (
            f"Goal not reached for {model}: on the prompts that choose, no setting at no loss of fidelity is nearer to "
            f"the true law than baseline and guidance; here their distances are {held_against}."
        )


def open_parts(one: Candidate, goal: Goal) -> list[str]:
    """Which of the three questions of the goal have no answer at the level; where each has, it is Holm's adjustment."""
    parts = {
        "nearer than baseline": one.p_baseline,
        f"nearer than {goal.guidance}": one.p_guidance,
        f"no loss of {100 * goal.margin:.3g} points": one.p_fidelity,
    }
    found = [f"{name} (p {p_text(p, sign=True)})" for name, p in parts.items() if p >= LEVEL]
    together = f"all at once, after Holm over {counted(len(goal.candidates), 'method')} (p {p_text(one.p, sign=True)})"
    return found or [together]


def p_text(p: float, sign: bool = False) -> str:
    """`.012`, or `<.001`."""
    if p < 0.001:
        return "< .001" if sign else "<.001"
    return f"{'= ' if sign else ''}{f'{p:.3f}'.removeprefix('0')}"
