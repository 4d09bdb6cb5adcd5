"""How often each code comes out of a model: shipped with it, or measured once and kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.models.protocol import Model

SAMPLES = 8  # per calibration prompt


def frequencies_of(model: Model, generate: Callable[[], Int[Tensor, "*any"]]) -> Float[Tensor, " codes"]:
    """Global code frequencies of `model`, float64, summing to 1.

    Taken from the model when it ships them; else from the cache; else `generate()` draws the tokens of a calibration
    run and the result is cached under the model's name.
    """
    shipped = model.frequencies()
    if shipped is not None:
        return shipped.double()
    path = cache_folder() / cache_name(model)
    if path.exists():
        return torch.from_numpy(np.load(path))
    counts = torch.bincount(generate().flatten(), minlength=model.codes).double()
    share = counts / counts.sum()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.npy")
    np.save(partial, share.numpy())
    os.replace(partial, path)
    return share


def cache_name(model: Model) -> str:
    """A file name that two models never share: the readable part is cut and cleaned, the digest tells them apart."""
    readable = re.sub(r"[^A-Za-z0-9]+", "_", model.name)[:60]
    digest = hashlib.blake2b(identity(model.name).encode(), digest_size=6).hexdigest()
    return f"{readable}-{digest}-{model.codes}.npy"


def identity(name: str) -> str:
    """The name, and for a model from a local folder where that is and when a file in it last changed: other weights
    under the same name must not be taken for those that were calibrated."""
    checkpoint = name.partition(":")[2]
    for place in (checkpoint, checkpoint.rpartition("#")[0]):
        if os.path.isdir(place):  # False, and no error, for what cannot be a path at all
            folder = Path(place)
            newest = max((file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()), default=0)
            return f"{name} {folder.resolve()} {newest}"
    return name


def cache_folder() -> Path:
    """`DIVLENS_CACHE`, or the platform's cache folder for divlens."""
    import platformdirs

    return Path(os.environ.get("DIVLENS_CACHE", platformdirs.user_cache_dir("divlens"))) / "calibration"
