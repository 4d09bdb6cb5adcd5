"""Draws docs/before_after.png: eight pictures of a prompt as each generator of the laboratory draws them (first row),
under the paper's recipe (second row) and under the recipe of the laboratory (third row), from the same noise.

    python docs/before_after.py
"""

from __future__ import annotations

from pathlib import Path

import torch

import divlens
from divlens.recipes import DETAILED, PAPER
from divlens.sheets import contact_sheet, side_by_side

PROMPT, COUNT = "penguin", 8
SPECS = ("zoo/ar", "zoo/mim", "zoo/diffusion")


def main() -> None:
    sheets = {}
    for spec in SPECS:
        paper, detailed = (divlens.enhance(spec, [PROMPT], COUNT, recipe=recipe) for recipe in (PAPER, DETAILED))
        rows = torch.stack([paper.before.images[0], paper.images[0], detailed.images[0]])
        sheets[spec] = contact_sheet(rows)
    side_by_side(sheets).save(Path(__file__).with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
