"""Pictures and the prompts that they were made for: a folder with a sub-folder for each prompt, a table of paths and
prompts, or tensors."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, no_type_check

import torch
from jaxtyping import Float32
from torch import Tensor

from divlens.errors import DivlensError, check_text
from divlens.picture_files.reading import PictureFile, batches, checked_groups, digits_of, files_by_folder, kind_of
from divlens.pictures import checked_pictures
from divlens.showing import first_few

if TYPE_CHECKING:
    import pandas as pd

PATH, PROMPT = "path", "prompt"  # the columns of a table
TABLES = (".csv", ".parquet")
ALONE = "pictures"  # what a tensor is called, and the prompt of pictures of which none is told
Pictures = Tensor | tuple[PictureFile, ...]


@dataclass(frozen=True, eq=False)
class Album:
    """name: what they are called. pictures: those of each prompt, a tensor (n, 3, h, w) or files. size: height and
    width of all. broken: why files that were left out are. digits: a hash of what is in the pictures."""

    name: str
    pictures: Mapping[str, Pictures]
    size: tuple[int, int]
    broken: tuple[str, ...]
    digits: str

    def of(self, prompt: str, most: int) -> Iterator[Float32[Tensor, "some 3 h w"]]:
        """The pictures of a prompt, so many at once."""
        pictures = self.pictures[prompt]
        if isinstance(pictures, Tensor):
            yield from pictures.split(most) if len(pictures) else ()
        else:
            yield from batches(pictures, most)

    @property
    def counts(self) -> list[int]:
        """How many pictures each prompt has."""
        return [len(pictures) for pictures in self.pictures.values()]


def album_of(
    images: str | Path | Tensor | Sequence[str | Path], groups: Sequence[str] | None = None, skip_broken: bool = False
) -> Album:
    """The pictures of a folder, of a table (.csv or .parquet with the columns path and prompt), of a list of files, or
    of a tensor.

    groups: of a list of files, or of a tensor (n, 3, h, w), the prompt of each picture; of a tensor
    (prompts, n, 3, h, w) each prompt; None is one prompt for all, or numbers. skip_broken: files that cannot be read
    are left out.

    Raises DivlensError, in a line, for what is none of these, for files that cannot be read, for pictures of several
    sizes, and where no prompt has two pictures.
    """
    if isinstance(images, Tensor):
        return checked(album_of_tensor(images, groups))
    if not isinstance(images, str | Path):
        paths = list(map(Path, listed_texts(images)))
        return checked(album_of_files(ALONE, grouped(paths, groups, "files"), skip_broken))
    place = Path(images)
    if groups is not None:
        raise DivlensError(f"groups is for tensors and lists of files; {place} tells the prompts itself")
    if place.suffix.lower() in TABLES:
        return checked(album_of_files(place.name, files_in_table(place), skip_broken))
    return checked(album_of_files(place.resolve().name, files_by_folder(place), skip_broken))


def checked(album: Album) -> Album:
    """Raises DivlensError where no prompt has two pictures."""
    if max(album.counts, default=0) < 2:
        raise DivlensError(
            f"expected at least 2 pictures of a prompt, for diversity is between them, got {sum(album.counts)} of "
            f"{len(album.counts)} in {album.name}"
        )
    return album


def listed_texts(images: object) -> list[str]:
    if not isinstance(images, list | tuple) or not all(isinstance(one, str | Path) for one in images):
        raise DivlensError(
            f"images expects a folder, a table, a list of files or a float32 tensor, got {type(images).__name__}"
        )
    return [str(one) for one in images]


@no_type_check  # it checks its input itself; the shapes are for readers
def album_of_tensor(images: Float32[Tensor, "*prompts n 3 h w"], groups: Sequence[str] | None) -> Album:
    if images.ndim == 5:
        images = checked_pictures(images, "images", "prompts", "n")
        names = list(groups) if groups is not None else [f"{ALONE} {number}" for number in range(len(images))]
        if len(names) != len(images) or len(set(names)) != len(names):
            raise DivlensError(f"groups expects {len(images)} different prompts, got {len(names)}: {first_few(names)}")
        pictures = dict(zip(names, images, strict=True))
    else:
        images = checked_pictures(images, "images", "n")
        places = grouped(list(range(len(images))), groups, "pictures")
        pictures = {name: images[torch.tensor(rows, dtype=torch.long)] for name, rows in places.items()}
    for name in pictures:
        check_prompt("groups", name)
    digits = hashlib.sha256(repr(list(pictures)).encode() + images.cpu().contiguous().numpy().tobytes())
    return Album(ALONE, pictures, (images.shape[-2], images.shape[-1]), (), digits.hexdigest()[:8])


def grouped(things: list, groups: Sequence[str] | None, kind: str) -> dict[str, list]:
    """Things by their prompt, in the order in which prompts come first."""
    if groups is None:
        return {ALONE: things}
    if isinstance(groups, str) or len(groups) != len(things):
        got = repr(groups)[:40] if isinstance(groups, str) else len(groups)
        raise DivlensError(f"groups expects the prompt of each of {len(things)} {kind}, got {got}")
    found: dict[str, list] = {}
    for thing, name in zip(things, groups, strict=True):
        check_prompt("groups", name)
        found.setdefault(name, []).append(thing)
    return found


def check_prompt(where: str, name: object) -> None:
    check_text(f"a prompt of {where}", name)
    if not str(name).strip():
        raise DivlensError(f"a prompt of {where} is empty: expected at least one word")


def files_in_table(place: Path) -> dict[str, list[Path]]:
    """Paths by prompt. A path that is not absolute begins at the folder of the table."""
    table = read_table(place)
    if lacking := [name for name in (PATH, PROMPT) if name not in table.columns]:
        columns = first_few([str(name) for name in table.columns], 8) or "none"
        raise DivlensError(
            f"{place} expects the columns {PATH} and {PROMPT}, lacks {' and '.join(lacking)}, and has {columns}"
        )
    if not len(table):
        raise DivlensError(f"{place} expects a picture in each row, got no rows")
    paths = [place.parent / str(path) for path in table[PATH]]
    found = grouped(paths, table[PROMPT].tolist(), "rows")
    for prompt, files in found.items():
        path, times = Counter(files).most_common(1)[0]
        if times > 1:  # it would count as a picture that was drawn twice
            raise DivlensError(f"{place} expects a picture of a prompt once, got {path} {times} times for {prompt!r}")
    return found


def read_table(place: Path) -> pd.DataFrame:
    import pandas as pd

    if not place.is_file():
        raise DivlensError(f"expected a table of pictures, got {place}, which is {kind_of(place)}")
    try:
        if place.suffix.lower() == ".parquet":
            return pd.read_parquet(place)
        return pd.read_csv(place, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:  # those of both readers are among them
        raise DivlensError(f"{place} cannot be read as a table: {' '.join(str(error).split())[:120]}") from error


def album_of_files(name: str, found: Mapping[str, Sequence[Path]], skip_broken: bool) -> Album:
    """All files are read once, so that what is broken is known before anything is measured."""
    for prompt in found:
        check_prompt(name, prompt)
    pictures, broken = checked_groups(found, skip_broken)
    files = [file for group in pictures.values() for file in group]
    first = files[0] if files else None
    for file in files:
        if first is not None and (file.height, file.width) != (first.height, first.width):
            raise DivlensError(
                f"expected pictures of one size, for LPIPS depends on it, got {first.height} x {first.width} pixels in "
                f"{first.path} and {file.height} x {file.width} in {file.path}: scale them first"
            )
    size = (first.height, first.width) if first is not None else (0, 0)
    return Album(name, pictures, size, tuple(broken), digits_of(pictures))
