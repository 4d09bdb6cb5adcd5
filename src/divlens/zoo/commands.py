"""`divlens zoo atlas | train | evaluate | sheet`: EmojiScenes, from art to packaged weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import torch
from jaxtyping import Float, Int
from rich.progress import track
from torch import Tensor

from divlens.errors import DivlensError
from divlens.fidelity.judge import CONFUSION, load_judge
from divlens.files import BESIDE, written_beside
from divlens.lab.attributes import ATTRIBUTES, STYLE
from divlens.lab.scenes import COUNT, scenes_of
from divlens.models.loading import Options
from divlens.models.zoo import adapter
from divlens.models.zoo.adapter import tokenizer_from
from divlens.models.zoo.assets import packaged_folder, write_tensors
from divlens.models.zoo.networks import CODES
from divlens.models.zoo.tokenizer import Tokenizer
from divlens.report.terminal import put, show
from divlens.sampler import sample
from divlens.sheets import contact_sheet, side_by_side
from divlens.showing import visible
from divlens.zoo import sprites, train_generators, train_judge, train_tokenizer
from divlens.zoo.scene_evaluate import Reader
from divlens.zoo.scene_measures import held_out_sample
from divlens.zoo.scene_report import check_checkpoints, measured_parts, table_of, write_card
from divlens.zoo.train_generators import FAMILIES

PARTS = ("tokenizer", "judge", *FAMILIES)
CONFUSED = 3000  # scenes that the judge's confusions are counted over
CALIBRATION_SAMPLES = 4
SHEET_PROMPTS = (
    "rocket",
    "fox",
    "heart, blue background",
    "small guitar, top left",
    "large hamburger, pink background",
    "penguin, flat style",
    "sunflower, glossy style, green background",
    "small umbrella, right, purple background",
)
SCENES_IN_A_ROW = 16

folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".zoo"),
    show_default=True,
    help="Where art, checkpoints and weights are kept.",
)
weights_option = click.option(
    "--weights", type=click.Path(path_type=Path), help="A folder of weights. Default: the packaged ones."
)
device_option = click.option("--device", default="cpu", show_default=True, help="A torch device, such as cuda.")


@click.group()
def zoo() -> None:
    """The built-in laboratory: draw its sprites, train it, measure it."""


@zoo.command()
@folder_option
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
def atlas(folder: Path, path: Path) -> None:
    """Fetch the emoji art with npm and draw the sprites into the file PATH (half a minute)."""
    check_writable(path)
    content = sprites.make_atlas(made(folder / "data")).to_bytes()
    with written_beside(path) as partial:
        partial.write_bytes(content)
    put(f"{len(content):,} bytes in {visible(str(path))}\n")


@zoo.command()
@folder_option
@device_option
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Train this part only (repeatable).")
def train(folder: Path, device: str, only: Sequence[str]) -> None:
    """Train tokenizer, judge and generators; a run that was stopped goes on where it was.

    Checkpoints are kept in FOLDER/runs. Weights are written to FOLDER/weights; `zoo/ar:FOLDER/weights` loads them.
    """
    place = torch.device(Options(device).device)  # a bad one is refused here, before the work
    wanted, runs, target = set(only or PARTS), made(folder / "runs"), made(folder / "weights")
    if "tokenizer" in wanted:
        write_tensors("tokenizer", train_tokenizer.train(runs, place).state_dict(), target)
    tokenizer = tokenizer_from(target, str(place))
    if "judge" in wanted:
        judge, test = train_judge.train(tokenizer, runs, place), held_out_sample(CONFUSED)
        tables = train_judge.confusions(train_judge.readings(judge, tokenizer, test), test)
        named = {f"{CONFUSION}{name}": table for name, table in tables.items()}
        write_tensors("judge", {**judge.state_dict(), **named}, target)
    for family in FAMILIES:
        if family in wanted:
            state = train_generators.train(family, tokenizer, runs, place).cpu().state_dict()
            write_tensors(family, state, target)
            write_tensors(family, {**state, "counts": calibration_counts(family, target)}, target)


@zoo.command()
@weights_option
@folder_option
@click.option(
    "--only",
    type=click.Choice(PARTS),
    multiple=True,
    help="Measure this part only (repeatable). Default: all there are.",
)
@click.option("--cards", is_flag=True, help="Write a model card of each part beside the weights.")
def evaluate(weights: Path | None, folder: Path, only: Sequence[str], cards: bool) -> None:
    """Measure every bar of tokenizer, judge and generators and print the tables (about ten minutes).

    What was trained, of which cards tell, is looked up in FOLDER/runs.
    """
    target = weights or packaged_folder()
    wanted = only or [part for part in PARTS if (target / f"{part}.safetensors").exists()]
    judge = load_judge(target)
    reader = Reader(tokenizer_from(target, "cpu"), judge.network, judge.confusions)
    generators = {family: adapter.load(family, weights and str(weights)) for family in FAMILIES if family in wanted}
    if cards:  # refused here, before the work
        check_checkpoints(wanted, folder)
    for part, rows in measured_parts(reader, generators, wanted):
        show(table_of(part, rows), width=120)
        if cards:
            write_card(part, rows, folder, target)


@zoo.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@weights_option
@click.option("--seeds", type=click.IntRange(min=1), default=8, show_default=True, help="Pictures of each prompt.")
@click.option(
    "--scenes", is_flag=True, help="Real scenes of each style, and below them what the tokenizer makes of them."
)
def sheet(path: Path, weights: Path | None, seeds: int, scenes: bool) -> None:
    """Draw eight prompts from each family, side by side, into the PNG file PATH."""
    check_png(path)
    if scenes:
        found = contact_sheet(real_and_reconstructed(tokenizer_from(weights or packaged_folder(), "cpu")))
    else:
        sheets = {}
        for family in track(FAMILIES, "drawing"):
            drawn = sample(adapter.load(family, weights and str(weights)), SHEET_PROMPTS, n=seeds, seed=0, trace=False)
            sheets[f"zoo/{family}"] = contact_sheet(drawn.images)
        found = side_by_side(sheets)
    with written_beside(path) as partial:
        found.save(partial, "PNG")


@torch.inference_mode()
def real_and_reconstructed(tokenizer: Tokenizer) -> Float[Tensor, "rows n 3 h w"]:
    """Random scenes, a row for each style, and below each row what the tokenizer makes of it."""
    styles, wide = len(ATTRIBUTES[STYLE]), SCENES_IN_A_ROW
    chosen = scenes_of(np.random.default_rng(0).integers(0, COUNT, styles * wide))
    chosen[:, STYLE] = np.repeat(np.arange(styles), wide)
    real = train_tokenizer.pictures_of(chosen)
    both = [pictures.unflatten(0, (styles, wide)) for pictures in (real, tokenizer.decode(tokenizer.encode(real)))]
    return torch.stack(both, dim=1).flatten(0, 1)


def calibration_counts(family: adapter.Family, target: Path) -> Int[Tensor, " codes"]:
    """How often each code comes out over all concepts with default sampling: what Subset and DisableTop rank by."""
    model = adapter.load(family, str(target))
    drawn = sample(model, model.calibration_prompts(), n=CALIBRATION_SAMPLES, seed=9, trace=False)
    return torch.bincount(drawn.tokens.flatten(), minlength=CODES)


def made(folder: Path) -> Path:
    """The folder, which is made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DivlensError(f"expected a folder that can be made, got {str(folder)!r}: {error.strerror}") from None
    return folder


def check_png(path: Path) -> None:
    """Raises DivlensError where no PNG file can be written, before anything is drawn."""
    if path.suffix.lower() != ".png":
        raise DivlensError(f"expected a PNG file, such as sheet.png, got {str(path)!r}")
    check_writable(path)


def check_writable(path: Path) -> None:
    try:
        with TemporaryDirectory(prefix=BESIDE, dir=path.parent) as folder:
            (Path(folder) / path.name).touch()
    except OSError as error:
        raise DivlensError(f"expected a file that can be written, got {str(path)!r}: {error.strerror}") from None
