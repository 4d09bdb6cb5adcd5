"""How often each code comes out of a model: shipped with it, or measured once and kept in the user's cache."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.models.protocol import Model

SAMPLES = 8  # per calibration prompt

Encode = Callable[[Sequence[str]], Tensor]  # conditions of wordings, each encoded once in a run


def frequencies_of(
    model: Model, encode: Encode, generate: Callable[[], Int[Tensor, "*any"]]
) -> Float[Tensor, " codes"]:
    """Global code frequencies of `model`, float64, summing to 1.

    Taken from the model when it ships them; else from the cache; else `generate()` draws the tokens of a calibration
    run and the result is cached under the model's `identity`.
    """
    shipped = model.frequencies()
    if shipped is not None:
        return shipped.double()
    path = cache_folder() / cache_name(model, encode)
    if path.exists():
        return torch.from_numpy(np.load(path))
    counts = torch.bincount(generate().flatten(), minlength=model.codes).double()
    share = counts / counts.sum()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.npy")
    np.save(partial, share.numpy())
    os.replace(partial, path)
    return share


def cache_name(model: Model, encode: Encode) -> str:
    """A file name that two models never share: the readable part is cut and cleaned, the digest tells them apart."""
    readable = re.sub(r"[^A-Za-z0-9]+", "_", model.name)[:60]
    digest = hashlib.blake2b(identity(model, encode).encode(), digest_size=6).hexdigest()
    return f"{readable}-{digest}-{model.codes}.npy"


@torch.inference_mode()
def identity(model: Model, encode: Encode) -> str:
    """The name, the published sampling, and three numbers of the law of the first draw: other weights under the same
    name must not be taken for those that were calibrated. Rounded, so that another machine's last digits do not count.
    """
    conditions = encode(list(model.calibration_prompts()[:1]))
    empty = torch.full((1, math.prod(model.grid)), model.mask, dtype=torch.long, device=conditions.device)
    logits, _ = model.predictor(conditions, guided=False)(model.rule.view(empty, 0))
    law = logits.double().softmax(-1)
    wave = torch.cos(torch.arange(law.numel(), device=law.device)).view_as(law)
    numbers = [float(value.sum(-1).mean()) for value in (law**2, torch.special.entr(law), law * wave)]
    sampling = re.sub(r" at 0x[0-9a-f]+", "", repr(model.rule)), model.guidance, getattr(model, "top_k", 0)
    return f"{model.name} {sampling} " + " ".join(f"{number:.3e}" for number in numbers)


def cache_folder() -> Path:
    """`DIVLENS_CACHE`, or the platform's cache folder for divlens."""
    import platformdirs

    return Path(os.environ.get("DIVLENS_CACHE", platformdirs.user_cache_dir("divlens"))) / "calibration"
