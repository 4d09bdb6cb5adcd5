"""Pictures: float32 (..., 3, height, width) in [0, 1]. Wherever they come in, they are checked here."""

from __future__ import annotations

from typing import no_type_check

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from divlens.errors import DivlensError

# How far from [0, 1] the arithmetic of a decoder in float32 may end. A grey level of 8 bits is 400 times as much.
ROUNDING = 1e-5


class PictureError(DivlensError, ValueError):
    """What came is no picture. One line: what was expected and what came."""


def pictures_from_bytes(images: UInt8[Tensor, "n height width 3"]) -> Float32[Tensor, "n 3 height width"]:
    """From grey levels of 0 to 255, colours last, as files and numpy have them."""
    return images.permute(0, 3, 1, 2).float() / 255


@no_type_check  # it checks its input itself; the shapes are for readers
def checked_pictures(
    images: Float32[Tensor, "*leading 3 height width"], name: str, *leading: str | int
) -> Float32[Tensor, "*leading 3 height width"]:
    """`images` as they are; values outside of [0, 1] by no more than rounding are put on its border.

    `leading`: the axes before the colours, each by its name or, where it is known, its size. `name` begins the message.
    Raises PictureError for what is no tensor, another shape or dtype, and values outside of [0, 1], NaN among them.
    """
    if isinstance(images, Tensor) and images.dtype == torch.float32 and fits(images, leading):
        if images.numel() == 0:
            return images
        low, high = (float(bound) for bound in images.aminmax())
        if low >= 0 and high <= 1:
            return images
        if low >= -ROUNDING and high <= 1 + ROUNDING:
            return images.clamp(0, 1)
    axes = ", ".join(map(str, (*leading, 3, "H", "W")))
    raise PictureError(f"expected {name} as a float32 tensor ({axes}) in [0, 1], got {described(images)}")


def fits(images: Tensor, leading: tuple[str | int, ...]) -> bool:
    """Whether there are as many axes as there should be, with those sizes that are known."""
    sizes = zip((*leading, 3, "H", "W"), images.shape, strict=False)
    return images.ndim == len(leading) + 3 and all(isinstance(known, str) or known == size for known, size in sizes)


def described(images: object) -> str:
    """Dtype, shape and range of what came."""
    if not isinstance(images, Tensor):
        return type(images).__name__
    kind = f"{str(images.dtype).removeprefix('torch.')} of shape {tuple(images.shape)}"
    if images.numel() == 0 or images.is_complex():
        return kind
    missing = int(images.isnan().sum())
    if missing:
        return f"{kind} with NaN in {missing} values"
    low, high = (float(bound) for bound in images.aminmax())
    return f"{kind} with values in [{low:g}, {high:g}]"
