"""`divlens study`. Thin: arguments in, a call of the library, tables out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from divlens.cli.options import log_option, quiet_option, reporter_of, said_when_stopped, shard_option
from divlens.report.terminal import put, show
from divlens.showing import visible

if TYPE_CHECKING:
    from divlens.store.share import Share


@click.command()
@click.argument("file", metavar="FILE.yaml", type=click.Path(path_type=Path))
@click.option("--out", metavar="FOLDER", required=True, help="The folder of the run; given again, it goes on.")
@click.option("--device", help="A torch device, such as cuda; default: that of the file.")
@shard_option
@quiet_option
@log_option
def study(file: Path, out: str, device: str | None, share: Share | None, quiet: bool, log: IO[str] | None) -> None:
    """Carry out the study that FILE.yaml describes, into one run: probe, sweeps, information, decompose, verdicts.

    docs/studies.md has the fields of such a file. With --shard only the K-th of N shards of the probe is drawn; after
    `divlens merge`, the same command without it, for the merged run, adds the rest.
    """
    from divlens.showing import together
    from divlens.study.conduct import study as carried_out
    from divlens.study.conduct import study_share

    telling = {"arguments": sys.argv[1:], "progress": reporter_of(quiet, log)}
    with said_when_stopped(out):
        if share is not None:
            drawn = study_share(file, share, out=out, device=device, **telling)
            put(
                f"written: {visible(out)} has shard {share} of the probe, {drawn} samples drawn now; when all are "
                "there: divlens merge SHARD... --out RUN, then this command with --out RUN and without --shard\n"
            )
            return
        found = carried_out(file, out=out, device=device, **telling)
    show(together([found]))
    put(f"written: {visible(out)}\n")
