"""Pictures as PNG: contact sheets, and the folder of an enhancement."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from divlens.enhance import Enhanced
from divlens.experiment import store

GAP = 4  # white pixels between pictures
COLUMNS = 8


def to_picture(image: Float[Tensor, "3 h w"]) -> Image.Image:
    """A picture in [0, 1] to 8 bits."""
    return Image.fromarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def contact_sheet(images: Float[Tensor, "prompts n 3 h w"], columns: int | None = None) -> Image.Image:
    """All pictures on white: a row per prompt, a column per sample; rows are wrapped after `columns`."""
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


def save_pictures(images: Float[Tensor, "prompts n 3 h w"], folder: Path, name: str) -> None:
    """`<name>.png` with all, and `<name>/<prompt>-<sample>.png` for each."""
    contact_sheet(images, COLUMNS).save(folder / f"{name}.png")
    (folder / name).mkdir()
    for p, row in enumerate(images):
        for i, image in enumerate(row):
            to_picture(image).save(folder / name / f"{p:03d}-{i:03d}.png")


def write_enhanced(result: Enhanced, request: store.Record, folder: Path) -> None:
    """before.png and after.png, every picture, the table (see `store.write_tables`), samples.parquet, run.json.

    `request`: what was asked for (see `store.request_of`). Raises DivlensError as `store.write_output` does.
    """
    samples = (*result.before.result.samples, *result.after.result.samples)

    def write(partial: Path) -> None:
        save_pictures(result.before.generation.images, partial, "before")
        save_pictures(result.after.generation.images, partial, "after")
        store.write_tables({"table": [result.table]}, partial)
        store.write_samples(samples, partial / "samples.parquet")

    found = store.found_of(store.wordings_in(samples), {result.model: result.drawn_with}, templated=result.templated)
    store.write_output(folder, request, found, write)
