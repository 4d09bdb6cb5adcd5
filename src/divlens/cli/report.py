"""`divlens report`. Thin: arguments in, a call of the library, the name of a file out."""

from __future__ import annotations

from pathlib import Path

import click

from divlens.report.terminal import put
from divlens.showing import visible

PICTURES, REPLAY, HTML = 4000, 1, "html"
FORMATS = (HTML, "md", "csv", "json", "latex")


@click.command()
@click.argument("run", metavar="RUN")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The file; default: RUN's name in this folder, with .html or what the format is called.",
)
@click.option(
    "--format",
    "form",
    default=HTML,
    show_default=True,
    type=click.Choice(FORMATS),
    help="md, csv, json and latex have figures and how they came about, and no pictures.",
)
@click.option("--force", is_flag=True, help="Write over a file that exists.")
@click.option(
    "--device", help="A torch device on which pictures are made of the stored tokens; default: that of the run."
)
@click.option(
    "--pictures",
    default=PICTURES,
    show_default=True,
    type=click.IntRange(min=0),
    help="Embed at most so many pictures.",
)
@click.option(
    "--replay",
    default=REPLAY,
    show_default=True,
    type=click.IntRange(min=0),
    help="Show step by step how so many samples of one prompt came about. Each model draws them once more.",
)
def report(run: str, out: Path | None, form: str, force: bool, device: str | None, pictures: int, replay: int) -> None:
    """Write one HTML file about the folder RUN that needs no network: verdict, pictures, figures, limits."""
    from divlens.pages.formats import SUFFIXES
    from divlens.pages.report import report as written
    from divlens.pages.texts import file_name

    target = out or Path(f"{file_name(run.rstrip('/').rpartition('/')[2])}{SUFFIXES[form]}")
    found = written(run, target, force=force, device=device, pictures=pictures, replay=replay, format=form)
    put(f"written: {visible(str(found))}, {found.stat().st_size / 1e6:.1f} MB\n")
