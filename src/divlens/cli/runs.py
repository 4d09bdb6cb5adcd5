"""The commands that read a run, or go on from what it holds. Thin: arguments in, a call of the library, a table out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from divlens.cli.options import listed, log_option, quiet_option, reporter_of, skip_broken_option
from divlens.errors import DivlensError
from divlens.report.terminal import put, show
from divlens.showing import visible

if TYPE_CHECKING:
    from divlens.store.again import DrawnAgain


@click.command()
@click.argument("run", metavar="RUN")
@click.option(
    "--measures",
    required=True,
    metavar="NAME,...",
    help="Of diversity, openness, fidelity, kept_diversity, law_distance, lpips:stlpips, lpips:alex, lpips:vgg, "
    "token_entropy, vendi, rke, repeat, prdc_precision:FOLDER, prdc_recall:FOLDER, prdc_density:FOLDER, "
    "prdc_coverage:FOLDER, dinov2:PLACE, clip:PLACE, dreamsim, clipscore:PLACE, clipiqa:PLACE, kept:clipscore:PLACE. "
    "docs/measures.md explains them.",
)
@skip_broken_option
@quiet_option
@log_option
def score(run: str, measures: str, skip_broken: bool, quiet: bool, log: IO[str] | None) -> None:
    """Measure something else of the samples in the folder RUN. None is drawn again."""
    from divlens.score import score as measured
    from divlens.showing import together

    names = listed(measures)
    result = measured(run, names, skip_broken=skip_broken, arguments=sys.argv[1:], progress=reporter_of(quiet, log))
    show(together([result]))
    put(f"written: {visible(run)}\n")


@click.command()
@click.argument("run_a", metavar="RUN_A")
@click.argument("run_b", metavar="RUN_B")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write a page with their pictures in pairs."
)
@click.option("--force", is_flag=True, help="With --out: write over a file that exists.")
@click.option("--device", help="With --out: a torch device on which pictures are made; default: those of the runs.")
@click.option("--pictures", default=4000, show_default=True, help="With --out: embed at most so many pictures.")
def compare(run_a: str, run_b: str, out: Path | None, force: bool, device: str | None, pictures: int) -> None:
    """Every figure that two runs have, prompt by prompt: RUN_B against RUN_A."""
    from divlens.compare import compare as compared
    from divlens.showing import together

    if out is None:
        show(together([compared(run_a, run_b)]))
        return
    from divlens.pages.paired import report_of_two

    show(together([report_of_two(run_a, run_b, out, force=force, device=device, pictures=pictures)]))
    put(f"written: {visible(str(out))}\n")


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--prompt", required=True, help="Its text, or its place among the run's prompts, from 0.")
@click.option("--condition", required=True, help="Its name in the run.")
@click.option("--index", required=True, type=click.IntRange(min=0), help="Which sample of the prompt, from 0.")
@click.option("--model", help="Needed where the run has several.")
@click.option("--device", help="A torch device; default: that of the run.")
@click.option("--png", type=click.Path(path_type=Path), help="Write the picture to this file.")
def sample(
    run: str, prompt: str, condition: str, index: int, model: str | None, device: str | None, png: Path | None
) -> None:
    """Draw one sample of the folder RUN once more, and say whether it is the same. Exits with 1 where it is not."""
    from divlens.showing import together
    from divlens.store.again import draw_again
    from divlens.store.reader import open_run

    found = draw_again(open_run(run), prompt, condition, index, model, device)
    if png is not None:
        write_png(found, png)
    show(together([found]))
    if not found.equal:
        sys.exit(1)


def write_png(found: DrawnAgain, path: Path) -> None:
    from divlens.files import written_beside
    from divlens.sheets import to_picture

    try:
        with written_beside(path) as partial:
            to_picture(found.picture).save(partial, "PNG")
    except OSError as error:
        raise DivlensError(f"cannot write to {path}: {error.strerror or error}") from error
