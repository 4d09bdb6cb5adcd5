"""`divlens zoo scenes atlas | train | evaluate`: EmojiScenes, from art to weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch
from jaxtyping import Int
from rich.console import Console
from rich.table import Table

from divlens.lab.attributes import ATTRIBUTES, sizes_of
from divlens.lab.evaluation import Confusions
from divlens.lab.pictures import compose
from divlens.lab.scenes import COUNT, all_scenes, held_out, in_whole_pairs, scenes_of
from divlens.models.zoo.assets import read_tensors, write_tensors
from divlens.models.zoo.scene_networks import SceneJudge, SceneTokenizer
from divlens.sheets import contact_sheet
from divlens.zoo import sprites, train_scene_generators, train_scene_judge, train_scene_tokenizer

FAMILIES: tuple[train_scene_generators.Family, ...] = ("ar", "mim", "diffusion")
PARTS = ("tokenizer", "judge", *FAMILIES)
CONFUSION = "confusion."  # what names of tensors in the judge's file begin with
SAMPLE = 3000  # scenes that figures are means over
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
        test = held_out_sample()
        tables = train_scene_judge.confusions(train_scene_judge.readings(judge, tokenizer, test), test)
        write_tensors("judge", {**judge.state_dict(), **tables}, target)
    for family in FAMILIES:
        if family in wanted:
            model = train_scene_generators.train(family, tokenizer, runs, place)
            write_tensors(family, model.state_dict(), target)


@scenes.command()
@folder_option
@click.option("--only", type=click.Choice(("tokenizer", "judge")), multiple=True)
def evaluate(folder: Path, only: Sequence[str]) -> None:
    """Measure tokenizer and judge on held-out scenes, and on (concept, style) pairs that were never shown."""
    wanted, target = set(only or ("tokenizer", "judge")), folder / "weights"
    tokenizer = tokenizer_from(target)
    judge = judge_from(target) if "judge" in wanted else None
    table = Table("what", "held-out scenes", "pairs never shown")
    columns = [measure(tokenizer, judge, sample) for sample in (held_out_sample(), whole_pairs_sample())]
    for name in columns[0]:
        table.add_row(name, *(f"{column[name]:.3f}" if name in column else "-" for column in columns))
    Console(width=100).print(table)


def measure(
    tokenizer: SceneTokenizer, judge: SceneJudge | None, sample: Int[np.ndarray, "n attributes"]
) -> dict[str, float]:
    """Figures by name: PSNR of all and of each style, perplexity of the codes, what the judge reads right."""
    signal = train_scene_tokenizer.signal_to_noise(tokenizer, sample)
    tokens = train_scene_generators.encode_scenes(tokenizer, sample).long()
    counts = torch.bincount(tokens.flatten(), minlength=len(tokenizer.codebook)).float()
    styles = train_scene_tokenizer.by_style(sample, signal)
    found = {"PSNR (dB)": float(signal.mean()), **{f"PSNR, {name} (dB)": value for name, value in styles.items()}}
    found["perplexity of the codes"] = train_scene_tokenizer.perplexity(counts)
    if judge is None:
        return found
    for given, kind in ((None, "pictures"), (tokenizer, "reconstructions")):
        right = train_scene_judge.accuracies(train_scene_judge.readings(judge, given, sample), sample)
        found |= {f"{name} read right, {kind}": value for name, value in right.items()}
    return found


def held_out_sample(count: int = SAMPLE) -> Int[np.ndarray, "n attributes"]:
    """Held-out scenes of pairs of concept and style that were shown, evenly over all of them."""
    every = all_scenes()
    rows = np.flatnonzero(held_out(every) & ~in_whole_pairs(every))
    return every[np.random.default_rng(7).permutation(rows)[:count]]


def whole_pairs_sample(count: int = SAMPLE // 4) -> Int[np.ndarray, "n attributes"]:
    every = all_scenes()
    return every[np.random.default_rng(7).permutation(np.flatnonzero(in_whole_pairs(every)))[:count]]


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
