"""Draws docs/two_draws.png: a prompt under four path noises (rows) and four execution noises (columns).

    python docs/two_draws.py

A row of `zoo/ar` is like every other, because its path has no noise.
"""

from __future__ import annotations

from pathlib import Path

import torch

from divlens.models import load
from divlens.planning import Reading
from divlens.run import Row, fill
from divlens.sheets import contact_sheet, side_by_side
from divlens.types import Prompt

PROMPT, NOISES, SEED = Prompt("penguin"), range(4), 0
SPECS = ("zoo/ar", "zoo/mim", "zoo/diffusion")


def main() -> None:
    sheets = {}
    for spec in SPECS:
        reading = Reading(load(spec))
        rows = [Row(PROMPT, PROMPT.text, path, execution) for path in NOISES for execution in NOISES]
        run = reading.run(rows, reading.settings(()), SEED)
        pictures = torch.cat([batch.pictures() for batch in fill(run)])
        sheets[spec] = contact_sheet(pictures.unflatten(0, (len(NOISES), len(NOISES))))
    side_by_side(sheets).save(Path(__file__).with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
