"""`divlens zoo data | train | evaluate`: from SVG art to packaged weights."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import torch
from rich.progress import track
from rich.table import Table
from rich.text import Text

from divlens.errors import DivlensError
from divlens.fidelity.judge import load_judge
from divlens.files import BESIDE, written_beside
from divlens.models.loading import Options
from divlens.models.zoo import adapter
from divlens.models.zoo.assets import packaged_folder, read_tensors, write_tensors
from divlens.models.zoo.networks import MASK, Tokenizer
from divlens.report.terminal import put, show
from divlens.sampler import sample
from divlens.showing import visible
from divlens.zoo import evaluate, train_generators, train_judge, train_tokenizer
from divlens.zoo.data import STYLES, Pictures, build, concepts
from divlens.zoo.evaluate import Measure
from divlens.zoo.scene_commands import scenes
from divlens.zoo.wordings import vocabulary_of

FAMILIES: tuple[train_generators.Family, ...] = ("ar", "mim", "diffusion")
PARTS = ("tokenizer", "judge", *FAMILIES)
CALIBRATION_SAMPLES = 4
SHEET_PROMPTS = ("rocket", "red heart", "cat face", "hamburger", "guitar", "sunflower", "penguin", "church")

COVERAGE_CONCEPTS = len(concepts())

folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".zoo"),
    show_default=True,
    help="Where art, checkpoints and weights are kept.",
)
device_option = click.option("--device", default="cpu", show_default=True, help="A torch device, such as cuda.")


@click.group()
def zoo() -> None:
    """The built-in laboratory: fetch its data, train it, measure it."""


zoo.add_command(scenes)


@zoo.command()
@folder_option
def data(folder: Path) -> None:
    """Fetch the emoji art with npm and render it (about a minute)."""
    pictures = pictures_of(folder)
    zoo_rows = pictures.concept >= 0
    put(
        f"{len(pictures.images)} pictures, {int(zoo_rows.sum())} of the zoo's {len(concepts())} concepts, "
        f"{int(pictures.held_out.sum())} held-out pairs, in {visible(str(folder / 'data'))}\n"
    )


@zoo.command()
@folder_option
@device_option
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Train this part only (repeatable).")
def train(folder: Path, device: str, only: Sequence[str]) -> None:
    """Train tokenizer, judge and generators; a run that was stopped goes on where it was.

    Weights are written to FOLDER/weights; `zoo/ar:FOLDER/weights` loads them.
    """
    place = torch.device(Options(device).device)  # a bad one is refused here, before the work
    pictures, words, target = pictures_of(folder), words_of(folder), folder / "weights"
    runs, wanted = folder / "runs", set(only or PARTS)
    vocabulary = vocabulary_of(words)
    target.mkdir(parents=True, exist_ok=True)
    (target / "concepts.txt").write_text("\n".join(concepts()) + "\n")
    (target / "styles.txt").write_text("\n".join(STYLES) + "\n")
    (target / "vocabulary.txt").write_text("\n".join(vocabulary.words) + "\n")
    if "tokenizer" in wanted:
        state = train_tokenizer.train(pictures, runs, place).state_dict()
        write_tensors("tokenizer", state, target)
        write_tensors("real", real_grids(pictures, tokenizer_from(target)), target)
    if "judge" in wanted:
        write_tensors("judge", train_judge.train(pictures, runs, place).state_dict(), target)
    if families := chosen_families(wanted):
        tokenizer = tokenizer_from(target).to(place)
        grids = train_generators.training_grids(pictures, tokenizer)
        captions = train_generators.Captions(words, vocabulary)
        for family in families:
            model = train_generators.train(family, grids, captions, vocabulary, tokenizer, runs, place)
            state = model.cpu().state_dict()
            write_tensors(family, state, target)
            write_tensors(family, {**state, "counts": calibration_counts(family, target)}, target)


@zoo.command("evaluate")
@folder_option
@click.option("--weights", type=click.Path(path_type=Path), default=None, help="Default: the packaged weights.")
@click.option("--only", type=click.Choice(PARTS), multiple=True)
@click.option(
    "--coverage-concepts",
    type=click.IntRange(1, COVERAGE_CONCEPTS),
    default=COVERAGE_CONCEPTS,
    show_default=True,
    help="Concepts whose styles are counted.",
)
@click.option("--cards", is_flag=True, help="Write the model cards beside the weights.")
def evaluate_command(
    folder: Path, weights: Path | None, only: Sequence[str], coverage_concepts: int, cards: bool
) -> None:
    """Measure every bar of the zoo and print the tables."""
    wanted, target = set(only or PARTS), weights or packaged_folder()
    tokenizer, judge = tokenizer_from(target), load_judge(target)  # a bad folder is refused here, before the work
    if cards:
        check_runs(wanted, folder)
    pictures, words = pictures_of(folder), words_of(folder)
    grids = train_generators.training_grids(pictures, tokenizer)
    found: dict[str, list[Measure]] = {}
    if "tokenizer" in wanted:
        found["tokenizer"] = evaluate.tokenizer_measures(tokenizer, pictures)
    reconstructed = evaluate.reconstructed_hits(judge, tokenizer, pictures)
    reference = float(reconstructed[0].mean())
    if "judge" in wanted:
        found["judge"] = evaluate.judge_measures(judge, pictures, reconstructed)
    for family in chosen_families(wanted):
        model = adapter.load(family, str(weights) if weights else None)
        found[family] = evaluate.generator_measures(
            model, judge, pictures, grids.tokens, reference, words, coverage_concepts
        )
    for part, measures in found.items():
        show(table_of(part, measures), width=100)
        if cards:
            write_card(part, measures, folder, target)


@zoo.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seeds", type=click.IntRange(min=1), default=8, show_default=True)
def sheet(path: Path, seeds: int) -> None:
    """Draw eight prompts from each family, side by side, into the PNG file PATH."""
    from divlens.sheets import contact_sheet, side_by_side

    check_png(path)
    sheets = {}
    for family in track(FAMILIES, "drawing"):
        drawn = sample(adapter.load(family), SHEET_PROMPTS, n=seeds, seed=0, trace=False)
        sheets[f"zoo/{family}"] = contact_sheet(drawn.images)
    with written_beside(path) as partial:
        side_by_side(sheets).save(partial, "PNG")


def chosen_families(wanted: Collection[str]) -> list[train_generators.Family]:
    return [family for family in FAMILIES if family in wanted]


def pictures_of(folder: Path) -> Pictures:
    return build(folder / "data", lambda entries: track(list(entries), "rendering"))


def words_of(folder: Path) -> Mapping[str, Sequence[str]]:
    return json.loads((folder / "data" / "words.json").read_text())


def check_png(path: Path) -> None:
    """Raises DivlensError where no PNG file can be written, before anything is drawn."""
    if path.suffix.lower() != ".png":
        raise DivlensError(f"expected a PNG file, such as sheet.png, got {str(path)!r}")
    try:
        with TemporaryDirectory(prefix=BESIDE, dir=path.parent) as folder:
            (Path(folder) / path.name).touch()
    except OSError as error:
        raise DivlensError(f"expected a file that can be written, got {str(path)!r}: {error.strerror}") from None


def runs_of(part: str, folder: Path) -> dict[str, Path]:
    """The checkpoints of what a part was trained in, by name."""
    names = ("judge-concept", "judge-style") if part == "judge" else (part,)
    return {name: folder / "runs" / f"{name}.pt" for name in names}


def check_runs(parts: Collection[str], folder: Path) -> None:
    """Raises DivlensError for a checkpoint that is missing, which a model card tells of."""
    for part in sorted(parts):
        for path in runs_of(part, folder).values():
            if not path.exists():
                raise DivlensError(f"--cards expects the checkpoints of `divlens zoo train`, but {path} is missing")


def tokenizer_from(target: Path) -> Tokenizer:
    tokenizer = Tokenizer()
    tokenizer.load_state_dict(read_tensors("tokenizer", target))
    return tokenizer.eval()


def real_grids(pictures: Pictures, tokenizer: Tokenizer) -> dict[str, torch.Tensor]:
    """Every real picture of a zoo concept as a token grid, int16: a reference set that is at hand offline."""
    rows = np.flatnonzero(pictures.concept >= 0)
    return {
        "tokens": train_generators.encode_pictures(tokenizer, pictures.images[rows]).short(),
        "concept": torch.from_numpy(pictures.concept[rows]),
        "style": torch.from_numpy(pictures.style[rows]),
        "held_out": torch.from_numpy(pictures.held_out[rows]),
    }


def calibration_counts(family: train_generators.Family, target: Path) -> torch.Tensor:
    """How often each code comes out over all concepts with default sampling: what Subset and DisableTop rank by."""
    model = adapter.load(family, str(target))
    drawn = sample(model, [name.lower() for name in concepts()], n=CALIBRATION_SAMPLES, seed=9, trace=False)
    return torch.bincount(drawn.tokens.flatten(), minlength=MASK)


def table_of(part: str, measures: Sequence[Measure]) -> Table:
    table = Table(title=Text(part), title_justify="left")
    for heading in ("what", "value", "95% interval", "bar", ""):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for item in measures:
        interval = "no sample" if np.isnan(item.low) else f"[{item.low:.3f}, {item.high:.3f}]"
        verdict = {None: "", True: "met", False: "MISSED"}[item.passes]
        bar = "" if np.isnan(item.bar) else f"{item.bar:.3f}"
        table.add_row(*map(Text, (item.name, f"{item.value:.3f}", interval, bar, verdict)))
    return table


def write_card(part: str, measures: Sequence[Measure], folder: Path, target: Path) -> None:
    """A model card: data, recipe, minutes, figures. Written whole or not at all."""
    paths = runs_of(part, folder)
    runs = [torch.load(path, weights_only=True, map_location="cpu") for path in paths.values()]
    lines = [
        f"# zoo {part}",
        "",
        f"Trained on EmojiStyles (see ATTRIBUTION.md): {len(concepts())} concepts in up to {len(STYLES)} styles, "
        "64x64 pixels. Stored in half precision.",
        "",
    ]
    for name, run in zip(paths, runs, strict=True):
        values = sum(value.numel() for value in run["model"].values())
        recipe = ", ".join(f"{key} {value}" for key, value in run["recipe"].items())
        lines.append(
            f"- {name}: {values:,} numbers; {run['step']:,} steps, {run['minutes']:.0f} minutes of wall time on"
        )
        lines.append(f"  one or two shared CPU cores; recipe: {recipe}.")
    lines += ["", "| what | value | 95% interval | bar |", "|---|---|---|---|"]
    for item in measures:
        bar = "" if np.isnan(item.bar) else f"at least {item.bar:.3f}: {'met' if item.passes else 'missed'}"
        interval = "one number, no sample" if np.isnan(item.low) else f"{item.low:.3f} to {item.high:.3f}"
        lines.append(f"| {item.name} | {item.value:.3f} | {interval} | {bar} |")
    write_text(target / f"card-{part}.md", "\n".join(lines) + "\n")
    write_text(target / f"card-{part}.json", json.dumps([asdict(item) for item in measures], indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    if not path.parent.is_dir():
        raise DivlensError(f"expected the folder {path.parent} to exist")
    with written_beside(path) as partial:
        partial.write_text(text)
