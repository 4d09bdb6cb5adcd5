"""`divlens zoo scenes atlas | train | evaluate`: EmojiScenes, from art to weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch

from divlens.lab.attributes import ATTRIBUTES, sizes_of
from divlens.lab.captions import vocabulary
from divlens.lab.evaluation import Confusions
from divlens.lab.pictures import compose
from divlens.lab.scenes import COUNT, scenes_of
from divlens.models.loading import load_checked
from divlens.models.zoo.adapter import DEFAULTS, ZooModel
from divlens.models.zoo.assets import read_tensors, write_tensors
from divlens.models.zoo.networks import Backbone
from divlens.models.zoo.scene_networks import SceneJudge, SceneTokenizer
from divlens.models.zoo.text import Vocabulary
from divlens.paths import MaskReplaceDiffusion
from divlens.report.terminal import show
from divlens.sheets import contact_sheet
from divlens.zoo import sprites, train_scene_generators, train_scene_judge, train_scene_tokenizer
from divlens.zoo.scene_evaluate import Reader, drawing
from divlens.zoo.scene_measures import held_out_sample
from divlens.zoo.scene_report import check_checkpoints, measured_parts, sample_sheet, table_of, write_card

FAMILIES: tuple[train_scene_generators.Family, ...] = ("ar", "mim", "diffusion")
PARTS = ("tokenizer", "judge", *FAMILIES)
CONFUSION = "confusion."  # what names of tensors in the judge's file begin with
SAMPLE = 3000  # scenes that the judge's confusions are counted over
folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".zoo") / "scenes",
    show_default=True,
    help="Where art, checkpoints and weights are kept.",
)
device_option = click.option("--device", default="cpu", show_default=True, help="A torch device, such as cuda.")


@click.group()
def scenes() -> None:
    """EmojiScenes, the laboratory whose law is known."""


@scenes.command()
@folder_option
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
def atlas(folder: Path, path: Path) -> None:
    """Fetch the emoji art with npm and draw the sprites into the file PATH (half a minute)."""
    content = sprites.make_atlas(folder / "data").to_bytes()
    path.write_bytes(content)
    print(f"{len(content):,} bytes in {path}")


@scenes.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--weights", type=click.Path(path_type=Path), help="Draw each picture as this folder's tokenizer does, too."
)
@click.option("--seed", default=0, show_default=True)
def sheet(path: Path, weights: Path | None, seed: int) -> None:
    """Draw 16 random scenes of each style into the PNG file PATH; below each row, its reconstruction."""
    chosen = scenes_of(np.random.default_rng(seed).integers(0, COUNT, 96))
    chosen[:, 1] = np.arange(96) // 16
    rows = [train_scene_tokenizer.pictures_of(chosen).view(6, 16, 3, *compose(chosen).shape[1:3])]
    if weights is not None:
        with torch.inference_mode():
            rows.append(
                tokenizer_from(weights).decode(tokenizer_from(weights).encode(rows[0].flatten(0, 1))).view_as(rows[0])
            )
    contact_sheet(torch.stack(rows, dim=1).flatten(0, 1)).save(path)


@scenes.command()
@folder_option
@device_option
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Train this part only (repeatable).")
def train(folder: Path, device: str, only: Sequence[str]) -> None:
    """Train tokenizer, judge and generators; a run that was stopped goes on where it was.

    Checkpoints are kept in FOLDER/runs, weights are written to FOLDER/weights.
    """
    wanted, runs, target, place = set(only or PARTS), folder / "runs", folder / "weights", torch.device(device)
    if "tokenizer" in wanted:
        write_tensors("tokenizer", train_scene_tokenizer.train(runs, place).state_dict(), target)
    tokenizer = tokenizer_from(target).to(place)
    if "judge" in wanted:
        judge = train_scene_judge.train(tokenizer, runs, place)
        test = held_out_sample(SAMPLE)
        tables = train_scene_judge.confusions(train_scene_judge.readings(judge, tokenizer, test), test)
        write_tensors("judge", {**judge.state_dict(), **tables}, target)
    for family in FAMILIES:
        if family in wanted:
            model = train_scene_generators.train(family, tokenizer, runs, place)
            write_tensors(family, model.state_dict(), target)


@scenes.command()
@folder_option
@click.option(
    "--only",
    type=click.Choice(PARTS),
    multiple=True,
    help="Measure this part only (repeatable). Default: all there are.",
)
@click.option("--cards", is_flag=True, help="Write a model card of each part, and a sheet of samples, to the weights.")
def evaluate(folder: Path, only: Sequence[str], cards: bool) -> None:
    """Measure every bar of the parts in FOLDER/weights and print the tables (three families: about ten minutes)."""
    target = folder / "weights"
    wanted = only or [part for part in PARTS if (target / f"{part}.safetensors").exists()]
    reader = Reader(tokenizer_from(target), judge_from(target), confusions_from(target))
    generators = {family: generator_from(family, target) for family in FAMILIES if family in wanted}
    if cards:  # refused here, before the work
        check_checkpoints(wanted, folder)
    for part, rows in measured_parts(reader, generators, wanted):
        show(table_of(part, rows), width=120)
        if cards:
            write_card(part, rows, folder, target)
    if cards:
        for family, model in generators.items():
            sample_sheet(drawing(model), reader.tokenizer).save(target / f"sheet-{family}.png")


def generator_from(family: train_scene_generators.Family, target: Path) -> ZooModel:
    tokenizer, words = tokenizer_from(target), Vocabulary(vocabulary())
    codes = len(tokenizer.codebook)
    backbone = Backbone(train_scene_generators.sizes_of(family, len(words), codes))
    load_checked(backbone, read_tensors(family, target), str(target / f"{family}.safetensors"))
    rule, guidance = DEFAULTS[family]
    if isinstance(rule, MaskReplaceDiffusion):
        rule = replace(rule, codes=codes)
    return ZooModel(
        family,
        backbone.eval().requires_grad_(False),
        tokenizer,  # pyright: ignore[reportArgumentType]
        words,
        rule,
        guidance,
        None,
        name=f"scenes/{family}",
        codes=codes,
        mask=codes,
    )


def tokenizer_from(target: Path) -> SceneTokenizer:
    tokenizer = SceneTokenizer()
    tokenizer.load_state_dict(read_tensors("tokenizer", target))
    return tokenizer.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def judge_from(target: Path) -> SceneJudge:
    judge = SceneJudge(sizes_of(ATTRIBUTES))
    state = read_tensors("judge", target)
    judge.load_state_dict({key: value for key, value in state.items() if not key.startswith(CONFUSION)})
    return judge.eval().requires_grad_(False)


def confusions_from(target: Path) -> Confusions:
    """How the judge errs, by attribute, as it was measured when it was trained."""
    state = read_tensors("judge", target)
    return {key.removeprefix(CONFUSION): state[key].numpy() for key in state if key.startswith(CONFUSION)}
