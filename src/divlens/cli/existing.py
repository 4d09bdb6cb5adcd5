"""`divlens diversity`: pictures that exist already. Thin: arguments in, a call of the library, a table out."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import click

from divlens.cli.options import listed, log_option, lpips_option, quiet_option, reporter_of, skip_broken_option
from divlens.report.terminal import put, show
from divlens.showing import visible


@click.command()
@click.argument("pictures", metavar="FOLDER|TABLE")
@click.option(
    "--measures",
    default="",
    metavar="NAME,...",
    help="Beside LPIPS diversity, those of divlens score that need neither tokens nor a judge, such as vendi, "
    "repeat:0.01, clip:PLACE, clipscore:PLACE, prdc_recall:FOLDER. docs/measures.md explains them.",
)
@lpips_option
@click.option("--device", default="cpu", show_default=True, help="A torch device, such as cuda.")
@skip_broken_option
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Write the tables to this folder.")
@quiet_option
@log_option
def diversity(
    pictures: str,
    measures: str,
    lpips: str,
    device: str,
    skip_broken: bool,
    out: Path | None,
    quiet: bool,
    log: IO[str] | None,
) -> None:
    """How diverse pictures are that exist already, prompt by prompt.

    FOLDER has a sub-folder of pictures for each prompt, which is called as the prompt; TABLE is a .csv or .parquet file
    with the columns path and prompt.
    """
    from divlens.existing import measured, planned
    from divlens.output import check_output
    from divlens.showing import together

    plan = planned(pictures, None, listed(measures), lpips=lpips, device=device, skip_broken=skip_broken)
    if out is not None:
        check_output(out, plan.request)
    result = measured(plan, progress=reporter_of(quiet, log))
    try:
        if out is not None:
            result.save(out)
    finally:  # a result that cannot be written is at least printed
        show(together([result]))
    if out is not None:
        put(f"written: {visible(str(out))}\n")
