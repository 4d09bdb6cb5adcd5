"""`divlens merge`: one run of the shards that several machines drew."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO

import click

from divlens.cli.options import log_option, quiet_option, reporter_of, said_when_stopped
from divlens.cli.verdict import show_with_verdicts
from divlens.report.terminal import put
from divlens.showing import visible


@click.command()
@click.argument("parts", nargs=-1, required=True, metavar="SHARD...")
@click.option("--out", required=True, metavar="FOLDER", help="The folder of the run: a new one, or one to add to.")
@quiet_option
@log_option
def merge(parts: Sequence[str], out: str, quiet: bool, log: IO[str] | None) -> None:
    """Make one run of the folders of all its shards, and its tables. What they hold is not drawn again."""
    from divlens.merge import merge as merged

    with said_when_stopped(out):
        results = merged(parts, out, arguments=sys.argv[1:], progress=reporter_of(quiet, log))
    show_with_verdicts(results)
    put(f"written: {visible(out)}\n")
