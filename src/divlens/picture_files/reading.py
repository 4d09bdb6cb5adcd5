"""Pictures in files: found in folders, checked before anything is measured, and read as float32 (3, height, width) in
[0, 1].

What counts is what a viewer shows: a picture is turned as its camera says, what is transparent lies on white, grey has
three equal colours, and of an animation the first picture counts. Grey levels of 8 bits are divided by 255, those of 16
bits by 65535.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from divlens.errors import DivlensError
from divlens.pictures import pictures_from_bytes
from divlens.showing import counted, first_of

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
BROKEN_NAMED = 5


@dataclass(frozen=True)
class PictureFile:
    """A file that holds a picture of so many pixels; `digits`: a hash of its bytes."""

    path: Path
    height: int
    width: int
    digits: str

    def read(self) -> Float32[Tensor, "3 height width"]:
        return read_picture(self.path)


def read_picture(path: Path) -> Float32[Tensor, "3 height width"]:
    """Raises DivlensError, in one line, for what is no picture that can be read whole."""
    return picture_and_content(path)[0]


def picture_and_content(path: Path) -> tuple[Float32[Tensor, "3 height width"], bytes]:
    """The picture in a file, and the bytes that it is read from."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            return pixels_of(ImageOps.exif_transpose(image)), content
    except DivlensError as error:
        raise DivlensError(f"{path}: {error}") from None
    except Exception as error:  # the readers of the many formats let almost any error out of a damaged file
        known = {FileNotFoundError: "no such file", UnidentifiedImageError: "bytes of no known format"}
        reason = known.get(type(error)) or " ".join(str(error).split())[:120]
        raise DivlensError(f"{path}: expected a picture, got {reason or type(error).__name__}") from error


def pixels_of(image: Image.Image) -> Float32[Tensor, "3 height width"]:
    if image.mode == "F":
        raise DivlensError("expected grey levels of 8 or 16 bits, got floating point numbers, whose range is not known")
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float32)
        if grey.min() < 0 or grey.max() > 65535:
            raise DivlensError(f"expected grey levels of 8 or 16 bits, got {grey.min():g} to {grey.max():g}")
        return torch.from_numpy(grey / 65535).expand(3, -1, -1).contiguous()
    if image.mode in ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return pictures_from_bytes(torch.from_numpy(np.array(image.convert("RGB")))[None])[0].contiguous()


def files_by_folder(folder: Path) -> Mapping[str, Sequence[Path]]:
    """The pictures in each sub-folder, by its name, in the order of names; or, where there are no sub-folders, those in
    the folder itself, under its own name. What is hidden does not count, nor do files with other suffixes.

    Raises DivlensError for what is no folder, for pictures beside sub-folders, and where there is no picture.
    """
    if not folder.is_dir():
        raise DivlensError(f"expected a folder of pictures, got {folder}, which is {kind_of(folder)}")
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    folders, own = [path for path in inside if path.is_dir()], pictures_among(inside)
    if folders and own:
        raise DivlensError(
            f"expected pictures in {folder} or in its sub-folders, got {counted(len(own), 'picture')} beside "
            f"{counted(len(folders), 'sub-folder')}"
        )
    found = {path.name: pictures_among(sorted(path.iterdir())) for path in folders} or {folder.resolve().name: own}
    if empty := [name for name, files in found.items() if not files]:
        where = f"the sub-folders {first_of(empty, 3)} of {folder}" if folders else str(folder)
        raise DivlensError(f"expected pictures ({', '.join(sorted(SUFFIXES))}) in {where}, found none")
    return found


def kind_of(path: Path) -> str:
    return "a file" if path.exists() else "not there"


def pictures_among(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]


def checked_files(paths: Sequence[Path], skip_broken: bool) -> tuple[list[PictureFile | None], list[str]]:
    """What each file holds, and why those that are None are broken. Every file is read whole, so that a measurement
    does not stop in the middle. Raises DivlensError, which counts and names them, for broken ones, unless they are to
    be skipped."""
    found: list[PictureFile | None] = []
    broken: list[str] = []
    for path in paths:
        try:
            picture, content = picture_and_content(path)
            height, width = picture.shape[1:]
            found.append(PictureFile(path, height, width, hashlib.sha256(content).hexdigest()[:16]))
        except DivlensError as error:
            found.append(None)
            broken.append(str(error))
    if broken and not skip_broken:
        named = "; ".join(broken[:BROKEN_NAMED]) + ("; ..." if len(broken) > BROKEN_NAMED else "")
        raise DivlensError(
            f"{len(broken)} of {counted(len(paths), 'picture')} cannot be read, --skip-broken leaves them out: {named}"
        )
    return found, broken


def checked_groups(
    found: Mapping[str, Sequence[Path]], skip_broken: bool
) -> tuple[dict[str, tuple[PictureFile, ...]], list[str]]:
    """What the files of each name hold, without those that are broken, and why these are; see `checked_files`."""
    paths = [path for files in found.values() for path in files]
    checked, broken = checked_files(paths, skip_broken)
    whole = {path: file for path, file in zip(paths, checked, strict=True) if file is not None}
    return {name: tuple(whole[path] for path in files if path in whole) for name, files in found.items()}, broken


def batches(files: Sequence[PictureFile], most: int) -> Iterator[Float32[Tensor, "some 3 height width"]]:
    """The pictures, in order, as many at once as have one size and `most` allows."""
    for _, same in groupby(files, lambda file: (file.height, file.width)):
        whole = list(same)
        for start in range(0, len(whole), most):
            yield torch.stack([file.read() for file in whole[start : start + most]])


def digits_of(files: Mapping[str, Sequence[PictureFile]]) -> str:
    """Eight hexadecimal digits of the content of files, and of how they are grouped."""
    text = repr([(name, [file.digits for file in group]) for name, group in files.items()])
    return hashlib.sha256(text.encode()).hexdigest()[:8]
