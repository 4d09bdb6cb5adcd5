"""How often each code comes out of a model: shipped with it, or measured once and kept in the user's cache.

The cache is a convenience: what it holds is looked at before it is used, and where it cannot be read or written the
calibration is drawn instead. It may be deleted at any time.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.errors import DivlensWarning
from divlens.files import written_beside
from divlens.models.answers import calibration_prompts_of, frequencies_that_ship
from divlens.models.fingerprint import content_hash
from divlens.models.protocol import Model

SAMPLES = 8  # per calibration prompt
OWN = "own-"  # begins the names of files that hold what the user calibrated a model by
FOLDER = "DIVLENS_CACHE"  # the environment's word for another place
SUM_ROUNDING = 1e-9  # of tens of thousands of float64 shares


def frequencies_of(
    model: Model, fingerprint: Callable[[], str | None], generate: Callable[[], Int[Tensor, "*any"]]
) -> Float[Tensor, " codes"]:
    """Global code frequencies of `model`, float64, summing to 1.

    Those that `divlens.calibrate` kept, where it did; else taken from the model when it ships them; else from the
    cache; else `generate()` draws the tokens of a calibration run, and the result is kept. Nothing of a model without a
    fingerprint is kept.
    """
    shipped = frequencies_that_ship(model)
    own = has_own()  # a fingerprint takes its time, so it is asked for where it is needed
    known = fingerprint() if own or shipped is None else None
    if own and known is not None and (kept := read(own_name(known), model.codes)) is not None:
        return kept
    if shipped is not None:
        return shipped
    place = None if known is None else cache_name(known, calibration_prompts_of(model))
    if place is not None and (kept := read(place, model.codes)) is not None:
        return kept
    share = share_of(generate(), model.codes)
    if place is not None:
        keep(share, place)
    return share


def share_of(tokens: Int[Tensor, "*any"], codes: int) -> Float[Tensor, " codes"]:
    """How often each code is among the tokens, float64, summing to 1."""
    counts = torch.bincount(tokens.flatten(), minlength=codes).double()
    return counts / counts.sum()


def own_name(fingerprint: str) -> str:
    """The file of what the user calibrated a model by."""
    return f"{OWN}{fingerprint}.npy"


def has_own() -> bool:
    """Whether any model is calibrated by what the user gave."""
    try:
        return any(cache_folder().glob(f"{OWN}*.npy"))
    except OSError:
        return False


def keep_own(share: Float[Tensor, " codes"], fingerprint: str) -> None:
    """From now on these are the frequencies of the model. Warns where they cannot be kept."""
    keep(share, own_name(fingerprint))


def forget_own(fingerprint: str) -> None:
    """The model is calibrated as usual again."""
    with suppress(OSError):
        (cache_folder() / own_name(fingerprint)).unlink(missing_ok=True)


def cache_name(fingerprint: str, prompts: Sequence[str]) -> str:
    """The file of all that the shares depend on: the model's content, the prompts, and the code that draws."""
    # Not `import divlens`: the package imports every module, so for the layers that would be an import of all.
    version = vars(sys.modules["divlens"])["__version__"]
    return f"{content_hash([fingerprint, list(prompts), SAMPLES, version])}.npy"


def cache_folder() -> Path:
    """Below `DIVLENS_CACHE`, or below the platform's cache folder for divlens where that is empty or not set.

    Raises OSError where the path begins with the home folder of a user who has none.
    """
    import platformdirs

    above = os.environ.get(FOLDER, "").strip() or platformdirs.user_cache_dir("divlens")
    try:
        return Path(above).expanduser() / "calibration"
    except RuntimeError:
        raise OSError(f"there is no home folder for {above}") from None


def file_of(share: Float[Tensor, " codes"]) -> bytes:
    """As numpy stores it."""
    content = io.BytesIO()
    np.save(content, share.numpy(), allow_pickle=False)
    return content.getvalue()


def read(name: str, codes: int) -> Float[Tensor, " codes"] | None:
    """The shares that are kept under `name`; None where there are none, or anything but a distribution over codes."""
    like = file_of(torch.zeros(codes, dtype=torch.float64))
    begins = like[: len(like) - 8 * codes]  # says that float64 of this shape follow, so numpy need not be asked
    try:
        path = cache_folder() / name
        if not path.is_file() or path.stat().st_size != len(like):
            return None
        content = path.read_bytes()
    except OSError:
        return None
    if len(content) != len(like) or not content.startswith(begins):
        return None
    share = torch.from_numpy(np.frombuffer(content, offset=len(begins)).copy())
    return share if bool((share >= 0).all()) and abs(float(share.sum()) - 1) < SUM_ROUNDING else None


def keep(share: Float[Tensor, " codes"], name: str) -> None:
    """Put the shares in the cache, whole or not at all, whoever else does the same. Warns where that is impossible."""
    folder = None
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with written_beside(folder / name) as partial:
            partial.write_bytes(file_of(share))
    except OSError as error:
        reason = error if folder is None else f"cannot write to {folder}: {error.strerror or error}"
        warnings.warn(
            f"the calibration is not kept, and the next run draws it again: {reason}; {FOLDER} can name another folder",
            DivlensWarning,
            stacklevel=2,
        )
