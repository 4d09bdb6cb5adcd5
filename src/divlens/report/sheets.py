"""Contact sheets: a row per prompt, a column per sample."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from PIL import Image
from torch import Tensor

GAP = 4  # white pixels between pictures


def to_picture(image: Float[Tensor, "3 h w"]) -> Image.Image:
    """A picture in [0, 1] to 8 bits."""
    return Image.fromarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def contact_sheet(images: Float[Tensor, "prompts n 3 h w"], columns: int | None = None) -> Image.Image:
    """All pictures on white. With `columns`, each prompt's samples are wrapped at that many."""
    prompts, n, _, height, width = images.shape
    columns = min(columns or n, n)
    lines = -(-n // columns)
    sheet = Image.new(
        "RGB", (GAP + columns * (width + GAP), GAP + prompts * lines * (height + GAP)), (255, 255, 255)
    )
    for prompt in range(prompts):
        for i in range(n):
            line = prompt * lines + i // columns
            place = (GAP + (i % columns) * (width + GAP), GAP + line * (height + GAP))
            sheet.paste(to_picture(images[prompt, i]), place)
    return sheet


def save_pictures(images: Float[Tensor, "prompts n 3 h w"], folder: Path, name: str) -> None:
    """`<name>.png` with all, and `<name>/<prompt>-<sample>.png` for each."""
    contact_sheet(images, columns=8).save(folder / f"{name}.png")
    (folder / name).mkdir()
    for p, row in enumerate(images):
        for i, image in enumerate(row):
            to_picture(image).save(folder / name / f"{p:03d}-{i:03d}.png")
