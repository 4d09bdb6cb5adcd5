"""`divlens calibrate`: which codes a model uses most. Thin: arguments in, a call of the library, lines out."""

from __future__ import annotations

import click

from divlens.cli.options import dtype_option
from divlens.report.terminal import put


@click.command()
@click.argument("model")
@click.option("--run", metavar="RUN", help="Count the tokens of the model's samples in the folder of this run.")
@click.option("--condition", default="baseline", show_default=True, help="With --run: under which condition.")
@click.option(
    "--pictures",
    metavar="FOLDER",
    help="Count the tokens of these pictures, by the tokenizer of aMUSEd, VQ-Diffusion, LlamaGen or the zoo.",
)
@dtype_option
@click.option("--device", default="cpu", show_default=True, help="A torch device, such as cuda.")
def calibrate(model: str, run: str | None, condition: str, pictures: str | None, dtype: str, device: str) -> None:
    """Measure how often MODEL uses each code, by a run or by pictures of your own, for Subset and DisableTop.

    It is kept for the same model wherever it is used on this machine. With neither --run nor --pictures that is
    forgotten, and the usual calibration is made.
    """
    from divlens.calibrate import calibrate as calibrated
    from divlens.models import load

    found = calibrated(load(model, device, dtype=dtype), run=run, pictures=pictures, condition=condition)
    for note in found.notes:
        put(f"{note}\n")
