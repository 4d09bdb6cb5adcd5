"""`calibrate`: how often a model uses each code, by the samples of a run or by the user's own pictures.

Subset and DisableTop then go by that, in this process and in others, until the model is calibrated anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

from divlens.calibration import forget_own, keep_own, share_of
from divlens.conditions import BASELINE
from divlens.errors import DivlensError
from divlens.models.answers import loaded_model
from divlens.models.fingerprint import fingerprint_of
from divlens.models.protocol import Model, Tokenizing
from divlens.picture_files.reading import batches, checked_files, files_by_folder
from divlens.planning import Reading
from divlens.showing import Block, Shown, counted, visible
from divlens.store.reader import open_run
from divlens.store.record import check_content
from divlens.store.views import literal

AT_ONCE = 8  # pictures: an encoder's activations are far larger than its input


@dataclass(frozen=True, eq=False)
class Calibration(Shown):
    """How often a model uses each code. `share`: float64 (codes,), sums to 1. `source`: what it goes by. `tokens`: how
    many were counted; None where it came with the model, or was kept."""

    model: str
    source: str
    share: Float[Tensor, " codes"]
    tokens: int | None

    @property
    def headline(self) -> str:
        return f"{self.model} is calibrated by {self.source}"

    @property
    def used(self) -> int:
        """How many codes came out at all."""
        return int((self.share > 0).sum())

    @property
    def blocks(self) -> Sequence[Block]:
        return ()

    @property
    def notes(self) -> Sequence[str]:
        ordered = self.share.sort(descending=True).values
        top = max(1, round(0.05 * len(ordered)))
        known = "" if self.tokens is None else f"{counted(self.tokens, 'token')} were counted: "
        notes = [
            f"{self.headline}. {known}{self.used} of {len(ordered)} codes came out, and the {top} most used of them "
            f"(5% of the codebook) make up {float(ordered[:top].sum()):.0%}."
        ]
        if self.tokens is not None and self.tokens < 10 * len(ordered):
            notes.append(
                f"{self.tokens} tokens are few for {len(ordered)} codes: which are the most used ones is partly "
                "chance; ten for each code are better."
            )
        return notes


def calibrate(
    model: str | Model, *, run: str | Path | None = None, pictures: str | Path | None = None, condition: str = BASELINE
) -> Calibration:
    """Measure how often `model` uses each code, and keep it for Subset and DisableTop wherever the same model is used.

    `run`: the folder of a run, whose samples of this model under `condition` are counted. `pictures`: a folder of
    pictures, cut and scaled to the model's size, whose tokens are counted; its tokenizer must have an encoder here
    (aMUSEd, VQ-Diffusion, LlamaGen, the zoo). With neither, what was kept of either is forgotten, and the usual
    calibration is made: what came with the model, or a run of its calibration prompts.

    The result is kept by the fingerprint of the model, whole or not at all, whoever else does the same. Raises
    DivlensError for both sources at once, a model without a fingerprint, a run without such samples or of a model that
    had another content, and a folder without pictures.
    """
    if run is not None and pictures is not None:
        raise DivlensError("calibrate expects a run or pictures, got both")
    found = loaded_model(model)
    fingerprint = fingerprint_of(found)
    if run is None and pictures is None:
        if fingerprint is not None:
            forget_own(fingerprint)
        return Calibration(found.name, "its own calibration", Reading(found).frequencies(), None)
    if fingerprint is None:
        raise DivlensError(f"calibrate expects a model whose content is known, {found.name} has unknown parts")
    if run is not None:
        tokens, source = tokens_of_run(found, fingerprint, run, condition), f"the run {run}"
    else:
        assert pictures is not None
        tokens, source = tokens_of_pictures(found, Path(pictures)), f"the pictures in {pictures}"
    share = share_of(tokens, found.codes)
    keep_own(share, fingerprint)
    return Calibration(found.name, visible(source), share, tokens.numel())


def tokens_of_run(model: Model, fingerprint: str, folder: str | Path, condition: str) -> Int[Tensor, "n positions"]:
    """The tokens of the stored samples of a model. Raises DivlensError for a run without any, or of another content."""
    stored = open_run(folder)
    name = stored.model_named(model.name)
    check_content(stored.place, name, stored.record["models"][name]["content"], fingerprint)
    under = stored.condition_named(condition)
    where = f"model = {literal(name)} AND condition = {literal(under)} AND {stored.numbered(name, under)}"
    rows = stored.sql(f"SELECT tokens FROM samples WHERE {where}")
    if not len(rows):
        raise DivlensError(f"calibrate expects samples of {name} under {under}, {stored.place} has none yet")
    return torch.from_numpy(np.stack(rows["tokens"].to_list()).astype(np.int64))


@torch.inference_mode()
def tokens_of_pictures(model: Model, folder: Path) -> Int[Tensor, "n h w"]:
    """What the model's tokenizer makes of the pictures in a folder, and in its sub-folders."""
    if not isinstance(model, Tokenizing):
        raise DivlensError(
            f"calibrate expects a model whose tokenizer reads pictures (aMUSEd, VQ-Diffusion, LlamaGen, the zoo), got "
            f"{model.name}: use a run"
        )
    paths = [path for files in files_by_folder(folder).values() for path in files]
    files = [file for file in checked_files(paths, skip_broken=False)[0] if file is not None]
    blank = torch.zeros(1, *model.grid, dtype=torch.long)
    height, width = model.decode(blank.to(device_of(model))).shape[2:]
    parts = [model.encode_pictures(scaled(part, height, width)).cpu() for part in batches(files, AT_ONCE)]
    return torch.cat(parts)


def device_of(model: Model) -> torch.device:
    """Where the model runs."""
    return model.encode(list(model.calibration_prompts())[:1]).device


def scaled(pictures: Float[Tensor, "n 3 h w"], height: int, width: int) -> Float[Tensor, "n 3 height width"]:
    """The middle of each picture, of the wanted proportions, in the wanted size."""
    high, wide = pictures.shape[2:]
    scale = min(high / height, wide / width)
    keep_high, keep_wide = min(high, round(height * scale)), min(wide, round(width * scale))
    top, left = (high - keep_high) // 2, (wide - keep_wide) // 2
    middle = pictures[:, :, top : top + keep_high, left : left + keep_wide]
    return interpolate(middle, (height, width), mode="bilinear", antialias=True).clamp(0, 1)
