"""Pictures as PNG: contact sheets, and the folder of an enhancement."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import no_type_check

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from divlens.enhance import Enhanced, Side
from divlens.experiment import store
from divlens.pictures import checked_pictures
from divlens.planning import BATCH_SIZE

GAP = 4  # white pixels between pictures
COLUMNS = 8
SHOWN = 64  # pictures of a prompt on a sheet; one with thousands could not be opened


def to_picture(image: Float[Tensor, "3 h w"]) -> Image.Image:
    """A picture in [0, 1] to 8 bits. Raises PictureError for anything else."""
    image = checked_pictures(image, "a picture")
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).cpu().numpy())


@no_type_check  # it checks its input itself; the shapes are for readers
def contact_sheet(images: Float[Tensor, "prompts n 3 h w"], columns: int | None = None) -> Image.Image:
    """All pictures on white: a row per prompt, a column per sample; rows are wrapped after `columns`.

    Raises PictureError for what are no pictures in [0, 1].
    """
    images = checked_pictures(images, "images", "prompts", "n")
    prompts, n, _, height, width = images.shape
    columns = min(columns or n, n)
    lines = -(-n // columns)
    size = (GAP + columns * (width + GAP), GAP + prompts * lines * (height + GAP))
    sheet = Image.new("RGB", size, (255, 255, 255))
    for prompt in range(prompts):
        for i in range(n):
            line = prompt * lines + i // columns
            place = (GAP + (i % columns) * (width + GAP), GAP + line * (height + GAP))
            sheet.paste(to_picture(images[prompt, i]), place)
    return sheet


def side_by_side(sheets: Mapping[str, Image.Image]) -> Image.Image:
    """Sheets of one height in a row, each under its name."""
    title, gap = 18, 16
    height = max(sheet.height for sheet in sheets.values())
    whole = Image.new("RGB", (sum(s.width + gap for s in sheets.values()) - gap, height + title), (255, 255, 255))
    left = 0
    for name, sheet in sheets.items():
        ImageDraw.Draw(whole).text((left + GAP, 3), name, fill=(60, 60, 60))
        whole.paste(sheet, (left, title))
        left += sheet.width + gap
    return whole


def save_pictures(side: Side, folder: Path, name: str) -> None:
    """`<name>/<prompt>-<sample>.png` for every picture, and `<name>.png` with the first SHOWN of each prompt."""
    (folder / name).mkdir()
    for prompt in range(len(side.prompts)):
        for first in range(0, side.n, BATCH_SIZE):
            for i, image in enumerate(side.pictures_of(prompt, slice(first, first + BATCH_SIZE)), first):
                to_picture(image).save(folder / name / f"{prompt:03d}-{i:03d}.png")
    shown = torch.stack([side.pictures_of(prompt, slice(SHOWN)) for prompt in range(len(side.prompts))])
    contact_sheet(shown, COLUMNS).save(folder / f"{name}.png")


def write_enhanced(result: Enhanced, request: store.Record, folder: Path) -> None:
    """before.png and after.png, every picture, the table (see `store.write_tables`), samples.parquet, run.json.

    `request`: what was asked for (see `store.request_of`). Raises DivlensError as `store.write_output` does.
    """
    both = result.before.result.samples, result.after.result.samples

    def write(partial: Path) -> None:
        save_pictures(result.before, partial, "before")
        save_pictures(result.after, partial, "after")
        store.write_tables({"table": [result.table]}, partial)
        store.write_samples(chain(*both), partial / "samples.parquet")

    found = store.found_of(store.wordings_in(*both), {result.model: result.drawn_with}, templated=result.templated)
    store.write_output(folder, request, found, write)
