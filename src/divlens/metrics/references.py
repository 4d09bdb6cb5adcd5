"""The reference pictures that a prompt's pictures are held against: one set for all prompts, or one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from divlens.diversity import FeatureNetwork, PictureNetwork
from divlens.errors import DivlensError
from divlens.metrics.manifolds import NEIGHBOURS, Reference
from divlens.picture_files.reading import PictureFile, batches, checked_groups, digits_of, files_by_folder
from divlens.showing import counted

PICTURES_PER_PASS = 32  # of the network; it bounds memory


@dataclass(frozen=True, eq=False)
class References:
    """Pictures in a folder. `files`: those of each prompt by its text or, where they are for all prompts, all of them
    under the name of the folder. `known`: what a network saw in the set that was asked for last."""

    folder: Path
    files: Mapping[str, Sequence[PictureFile]]
    of_prompts: bool
    version: str
    known: dict[tuple[PictureNetwork, str], Reference] = field(default_factory=dict)
    neighbours: int = NEIGHBOURS

    @classmethod
    def read(cls, folder: Path, skip_broken: bool = False) -> References:
        """Raises DivlensError for a folder without pictures, for broken ones unless they are to be skipped, and for a
        set of too few."""
        found = files_by_folder(folder)
        files, _ = checked_groups(found, skip_broken)
        for name, group in files.items():
            if len(group) <= NEIGHBOURS:
                raise DivlensError(
                    f"expected more than {NEIGHBOURS} reference pictures, as many as neighbours count, got "
                    f"{len(group)} in {name} of {folder}"
                )
        return remembered(
            folder, tuple(files.items()), next(iter(found.values()))[0].parent != folder, digits_of(files)
        )

    @property
    def described(self) -> str:
        total = counted(sum(map(len, self.files.values())), "picture")
        each = f"of the sub-folder that is called as the prompt, {total} in all" if self.of_prompts else f"all {total}"
        return f"reference pictures in {self.folder.name}, {each}"

    def seen_by(self, network: PictureNetwork, prompt: str, size: tuple[int, int]) -> Reference | None:
        """The reference of a prompt as a network sees it; None where there is none. `size`: height and width of the
        pictures that are held against it. Raises DivlensError for another size, where features depend on it."""
        name = prompt if self.of_prompts else next(iter(self.files))
        if name not in self.files:
            return None
        sizes = {(file.height, file.width) for file in self.files[name]}
        if isinstance(network, FeatureNetwork) and sizes != {size}:
            got = " and ".join(f"{height} x {width}" for height, width in sorted(sizes)[:2])
            raise DivlensError(
                f"expected reference pictures of {size[0]} x {size[1]} pixels as those that are measured, got {got} in "
                f"{self.folder}; networks behind @, such as clip and dinov2, take pictures of any size"
            )
        if (network, name) not in self.known:
            self.known.clear()  # features are large
            self.known[network, name] = Reference.of(list(self.features(network, name)), self.neighbours)
        return self.known[network, name]

    @torch.inference_mode()
    def features(self, network: PictureNetwork, name: str) -> list[Float[Tensor, "some features"]]:
        return [network(pictures.to(network.device)).cpu() for pictures in batches(self.files[name], PICTURES_PER_PASS)]


@lru_cache(maxsize=4)
def remembered(
    folder: Path, files: tuple[tuple[str, Sequence[PictureFile]], ...], of_prompts: bool, version: str
) -> References:
    """The four ratios of one folder share what a network saw in it."""
    return References(folder, dict(files), of_prompts, version)
