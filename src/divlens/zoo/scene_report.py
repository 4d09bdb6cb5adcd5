"""Every bar of the laboratory, part by part: tokenizer, judge, each generator, and the generators beside each other."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from rich.table import Table
from rich.text import Text

from divlens.errors import DivlensError
from divlens.files import written_beside
from divlens.lab.bars import BARS, FAMILY_BARS, JUDGE_BARS, LIKELIHOOD_BARS, TOKENIZER_BARS, Row, table_rows
from divlens.lab.evaluation import Figure
from divlens.models.protocol import Model
from divlens.models.zoo.networks import Backbone
from divlens.models.zoo.text import Vocabulary
from divlens.models.zoo.tokenizer import Tokenizer
from divlens.progress import followed
from divlens.showing import interval_text
from divlens.zoo.likelihood import DRAWS, is_exact, rounds_of
from divlens.zoo.scene_evaluate import (
    Answers,
    Questions,
    Reader,
    answers,
    compared,
    drawing,
    families_apart,
    figures_of,
    questions,
    the_law,
)
from divlens.zoo.scene_likelihood import Pictures, bits_under, likelihood_figures, pictures_to_find
from divlens.zoo.scene_measures import judge_figures, samples, tokenizer_figures

FAMILIES = "families"  # the part that has the generators beside each other


class Generator(Model, Protocol):
    """A model of which the likelihood is known, too."""

    @property
    def backbone(self) -> Backbone: ...
    @property
    def vocabulary(self) -> Vocabulary: ...


def measured_parts(
    reader: Reader,
    generators: Mapping[str, Generator],
    wanted: Collection[str],
    asked: Questions | None = None,
    pictures: Pictures | None = None,
) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each part, as soon as it is measured, with bars on stderr that show how far each generator is.

    `wanted`: "tokenizer" and "judge" among them, where they are. `asked` and `pictures`: by default what makes three
    families measurable in about ten minutes of a core.
    """
    scenes = samples() if {"tokenizer", "judge"} & set(wanted) else {}
    if "tokenizer" in wanted:
        yield "tokenizer", table_rows(tokenizer_figures(reader.tokenizer, scenes), TOKENIZER_BARS)
    if "judge" in wanted:
        yield "judge", table_rows(judge_figures(reader.judge, reader.tokenizer, scenes), JUDGE_BARS)
    if not generators:
        return
    asked, pictures = asked or questions(), pictures or pictures_to_find()
    beside = compared(reader.tokenizer, asked.unseen_pairs)
    real = figures_of(answers(the_law(reader.tokenizer), asked, reader), asked, reader, beside)
    found: dict[str, Answers] = {}
    for name, model in generators.items():
        with followed(True, None, asked.pictures, f"{name}: drawing") as told:
            found[name] = answers(drawing(model, told.advance), asked, reader)
        figures = figures_of(found[name], asked, reader, beside)
        figures += bits_found(name, model, pictures, reader.tokenizer)
        yield name, table_rows(figures, (*BARS, *LIKELIHOOD_BARS), real)
    if len(found) > 1:
        yield FAMILIES, table_rows(families_apart(found, asked), FAMILY_BARS)


def bits_found(name: str, model: Generator, pictures: Pictures, tokenizer: Tokenizer) -> list[Figure]:
    kind = "exact" if is_exact(model.rule) else "bound"
    with followed(True, None, pictures.count * rounds_of(model.rule, DRAWS), f"{name}: likelihood") as told:
        bits = bits_under(model.backbone, model.rule, model.vocabulary, told.advance)
        return likelihood_figures(bits, pictures, tokenizer, kind)


def table_of(part: str, rows: Sequence[Row]) -> Table:
    """For rich. Below it stands what is to be said of single figures."""
    table = Table(title=Text(part), title_justify="left", caption_justify="left", box=None)
    with_real = any(row.real for row in rows)
    for heading in ("what", "value, 95% interval", *(["real pictures"] if with_real else []), "bar", ""):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for row in rows:
        real = [interval_text(row.real.interval) if row.real else ""] if with_real else []
        cells = (row.figure.name, interval_text(row.figure.interval), *real, str(row.bar or ""), verdict(row))
        table.add_row(*map(Text, cells))
    table.caption = Text("\n".join(notes_of(rows)))
    return table


def verdict(row: Row) -> str:
    return {None: "", True: "met", False: "MISSED"}[row.passed]


def notes_of(rows: Sequence[Row]) -> list[str]:
    return [f"{row.figure.name}: {row.figure.note}" for row in rows if row.figure.note]


def checkpoint_of(part: str, folder: Path) -> Path | None:
    """Of the training of a part; generators beside each other have none."""
    return None if part == FAMILIES else folder / "runs" / f"{part}.pt"


def check_checkpoints(parts: Collection[str], folder: Path) -> None:
    """Raises DivlensError for a checkpoint that is missing, which a model card tells of."""
    for part in sorted(parts):
        path = checkpoint_of(part, folder)
        if path is not None and not path.exists():
            raise DivlensError(f"--cards expects the checkpoints of `divlens zoo train`, but {path} is missing")


def write_card(part: str, rows: Sequence[Row], folder: Path, target: Path) -> None:
    """A model card, as text and as JSON: data, recipe, minutes, every figure. Each file written whole or not at all."""
    lines = [f"# zoo {part}", "", *recipe_lines(checkpoint_of(part, folder))]
    lines += ["| what | value, 95% interval | real pictures | bar | |", "|---|---|---|---|---|"]
    for row in rows:
        real = interval_text(row.real.interval) if row.real else ""
        cells = (row.figure.name, interval_text(row.figure.interval), real, str(row.bar or ""), verdict(row))
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {note}" for note in notes_of(rows))]
    write_text(target / f"card-{part}.md", "\n".join(lines).rstrip() + "\n")
    write_text(target / f"card-{part}.json", json.dumps([record_of(row) for row in rows], indent=1) + "\n")


def recipe_lines(checkpoint: Path | None) -> list[str]:
    if checkpoint is None:
        return []
    run = torch.load(checkpoint, weights_only=True, map_location="cpu")
    numbers = sum(value.numel() for value in run["model"].values())
    recipe = ", ".join(f"{key} {value}" for key, value in run["recipe"].items())
    return [
        "Trained on EmojiScenes (see ATTRIBUTION.md), pictures of 48x48 pixels; 15% of the combinations are held out,",
        "and figures are of these. Stored in half precision.",
        "",
        f"{numbers:,} numbers; {run['step']:,} steps, {run['minutes']:.0f} minutes of wall time on one or two shared",
        f"CPU cores; recipe: {recipe}.",
        "",
    ]


def record_of(row: Row) -> dict[str, object]:
    interval, bar = row.figure.interval, row.bar
    real = row.real.interval.value if row.real else None
    found = {"name": row.figure.name, "value": interval.value, "low": interval.low, "high": interval.high}
    return {**found, "real": real, "bar": str(bar) if bar else None, "passed": row.passed, "note": row.figure.note}


def write_text(path: Path, text: str) -> None:
    with written_beside(path) as partial:
        partial.write_text(text)
