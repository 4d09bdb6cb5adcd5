"""Pictures as PNG, one by one and on contact sheets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import no_type_check

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from divlens.pictures import checked_pictures

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


def write_pictures(pictures: Iterable[Iterable[Float[Tensor, "3 h w"]]], folder: Path, name: str) -> None:
    """`<name>/<prompt>-<sample>.png` for every picture of every prompt, and `<name>.png` with the first SHOWN of
    each. Pictures are taken one by one, so that only those of the sheet are held."""
    (folder / name).mkdir()
    rows: list[Tensor] = []
    for prompt, of_prompt in enumerate(pictures):
        shown: list[Tensor] = []
        for i, image in enumerate(of_prompt):
            to_picture(image).save(folder / name / f"{prompt:03d}-{i:03d}.png")
            shown += [image] if i < SHOWN else []
        rows.append(torch.stack(shown))
    contact_sheet(torch.stack(rows), COLUMNS).save(folder / f"{name}.png")
