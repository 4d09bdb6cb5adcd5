"""`divlens verdict` and `divlens doses`, with which `probe` ends, too."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from divlens.report.terminal import put, show

if TYPE_CHECKING:
    from divlens.conditions import Conditions
    from divlens.results import Result


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--margin", default=0.1, show_default=True, help="Share of baseline below which a change counts as none.")
@click.option(
    "--kept",
    metavar="NAME",
    help="Which pictures are right, by a measure kept:... that `divlens score` put into the run; default: the judge "
    "where it knows the prompts, else the only such measure.",
)
def verdict(run: str, margin: float, kept: str | None) -> None:
    """Which strategy each model of the probe in the folder RUN has, and why. Nothing is drawn."""
    from divlens.showing import together
    from divlens.verdict import verdict as found

    show(together([found(run, margin=margin, kept=kept)]))


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--out", metavar="FOLDER", help="Write the tables to this folder.")
def doses(run: str, out: str | None) -> None:
    """How much is left at each dose of the probe's sweeps in the folder RUN, and where half is. Nothing is drawn."""
    from divlens.doses import doses as found
    from divlens.showing import together

    result = found(run)
    if out:
        result.save(out)
    show(together([result]))


def say_too_few(conditions: Conditions, prompts: int) -> None:
    """Before anything is drawn: that no verdict will come of so few prompts."""
    from divlens.verdict.result import why_no_decision

    if reason := why_no_decision(conditions, prompts):
        with suppress(OSError):  # what cannot be told stops no run
            put(f"divlens: note: {reason}\n", sys.stderr)


def show_with_verdicts(results: Sequence[Result]) -> None:
    """Tables; below those of a probe its sweeps, and its verdict: nothing where its conditions allow none, and why
    where they do but prompts or samples are too few."""
    from divlens.doses.result import doses as swept
    from divlens.doses.result import sweeps_in
    from divlens.experiment.result import ProbeResult
    from divlens.showing import together, wrapped
    from divlens.verdict import verdict as found
    from divlens.verdict.result import has_conditions, why_no_verdict

    show(together(results))
    for result in results:
        if not isinstance(result, ProbeResult):
            continue
        if sweeps_in(result.conditions):
            put("\n")
            show(together([swept(result)]))
        if not has_conditions(result):
            continue
        if reason := why_no_verdict(result):
            put(f"\n{wrapped(f'No verdict: it takes {reason}.')}\n")
        else:
            put("\n")
            show(together([found(result)]))
