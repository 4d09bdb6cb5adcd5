"""LPIPS of five fixed pictures, by divlens and by its peers, as they come in and as they may be mistaken.

`python tests/oracles/pinned_pictures.py` prints the table of docs/measures.md.
"""

import io
import itertools
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lpips
import numpy as np
import piq
import torch
from PIL import Image
from torch import Tensor
from torch.nn import Sequential
from torchmetrics.functional.image.lpips import _LPIPS, _lpips_update

from divlens.diversity import FeatureNetwork, adapt_lpips, load_network, lpips_diversity
from divlens.errors import DivlensError
from divlens.picture_files.reading import read_picture

COLUMNS = ("divlens", "stlpips_pytorch", "divlens", "lpips", "torchmetrics", "divlens", "piq")
NETWORKS = ("stlpips", "stlpips", "alex", "alex", "alex", "vgg", "vgg")
REFUSED, NOT_ASKED = "refused", ""
Pair = Callable[[Tensor, Tensor], Tensor]
Cell = float | str


def files() -> list[Image.Image]:
    """Five pictures of 64 x 64 pixels, 8 bits, in colour."""
    with Image.open(Path(__file__).parent.parent / "data" / "emoji8.png") as strip:
        whole = strip.convert("RGB")
    return [whole.crop((64 * place, 0, 64 * place + 64, 64)) for place in range(5)]


def read(images: Sequence[Image.Image], kind: str = "PNG", **options: object) -> Tensor:
    """The pictures, written to files of this kind and read again as divlens reads them."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for image in images:
            path = Path(folder) / f"a.{kind.lower()}"
            image.save(path, kind, **options)
            found.append(read_picture(path))
    return torch.stack(found)


def with_alpha(image: Image.Image) -> Image.Image:
    """Transparent outside of a disc; what it hides keeps its colours."""
    y, x = np.mgrid[:64, :64] - 31.5
    alpha = np.where(x**2 + y**2 < 24**2, 255, 0).astype(np.uint8)
    return Image.merge("RGBA", (*image.split(), Image.fromarray(alpha)))


def colours_of(images: Sequence[Image.Image]) -> Tensor:
    """As `convert("RGB")` has them, which forgets what is transparent."""
    return torch.stack([torch.from_numpy(np.array(image.convert("RGB"))) for image in images]).permute(0, 3, 1, 2) / 255


@dataclass(frozen=True)
class Models:
    """A network of each name, and each peer's LPIPS of two batches with its [0, 1] or [-1, 1] switch."""

    networks: Mapping[str, FeatureNetwork]
    pairs: Mapping[str, Callable[[Tensor, Tensor, bool], Tensor]]


def models() -> Models:
    """The published linear weights over backbones that are seeded, for those of alex and vgg need a download."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        alex, vgg = (lpips.LPIPS(net=name, pnet_rand=True, verbose=False).eval() for name in ("alex", "vgg"))
        metric = _LPIPS(net="alex", pnet_rand=True)
        metric.net.load_state_dict(alex.net.state_dict())
        from stlpips_pytorch import stlpips

        shift_tolerant = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    slices = [getattr(vgg.net, f"slice{number}") for number in range(1, 6)]
    last = [list(one._modules)[-1] for one in slices]
    flat = Sequential()
    for one in slices:
        for name, module in one._modules.items():
            flat.add_module(name, module)
    linears: Any = vgg.lins
    weights = [linear.model[-1].weight.detach() for linear in linears]
    content = piq.ContentLoss(flat, layers=last, weights=weights, normalize_features=True, reduction="none")
    return Models(
        {"stlpips": load_network("stlpips"), "alex": adapt_lpips(alex), "vgg": adapt_lpips(vgg)},
        {
            "stlpips_pytorch": lambda a, b, unit: shift_tolerant(a, b, normalize=unit),
            "lpips": lambda a, b, unit: alex(a, b, normalize=unit),
            "torchmetrics": lambda a, b, unit: _lpips_update(a, b, metric, normalize=unit),
            "piq": lambda a, b, unit: content(a, b),
        },
    )


@dataclass(frozen=True)
class Row:
    """What is measured. unit: what a peer's switch is told. of_divlens: whether divlens has such a call at all.
    with_vgg: the large network, too."""

    name: str
    pictures: Tensor
    unit: bool = True
    of_divlens: bool = True
    with_vgg: bool = False


def rows() -> list[Row]:
    images = files()
    plain = read(images)
    between = (plain + plain.roll(1, 3)) / 2
    return [
        Row("files of 8 bits (PNG)", plain, with_vgg=True),
        Row("floats between grey levels", between),
        Row("the same, rounded to 8 bits", (between * 255).round() / 255),
        Row("JPEG of quality 75", read(images, "JPEG", quality=75)),
        Row("grey (PNG, one channel)", read([image.convert("L") for image in images])),
        Row("transparent outside of a disc, on white", read(list(map(with_alpha, images)))),
        Row("the same, transparency forgotten", colours_of(list(map(with_alpha, images)))),
        Row("64 x 48 pixels", plain[..., :48], with_vgg=True),
        Row("1 pixel wide", plain[..., 30:31]),
        Row("[0, 1] taken for [-1, 1]", plain, unit=False, of_divlens=False),
        Row("[-1, 1] taken for [0, 1]", 2 * plain - 1),
        Row("0 to 255 taken for [0, 1]", plain * 255),
    ]


@torch.inference_mode()
def cells(row: Row, known: Models) -> list[Cell]:
    """Mean LPIPS of the ten pairs, by each column; REFUSED where it raises."""
    first, second = map(list, zip(*itertools.combinations(range(5), 2), strict=True))
    found: list[Cell] = []
    for column, network in zip(COLUMNS, NETWORKS, strict=True):
        try:
            if (network == "vgg" and not row.with_vgg) or (column == "divlens" and not row.of_divlens):
                found.append(NOT_ASKED)
            elif column == "divlens":
                found.append(float(lpips_diversity(row.pictures[None], known.networks[network])[0]))
            else:
                pair = known.pairs[column]
                found.append(float(pair(row.pictures[first], row.pictures[second], row.unit).double().mean()))
        except (DivlensError, RuntimeError, ValueError):
            found.append(REFUSED)
    return found


def table() -> str:
    known, text = models(), io.StringIO()
    names = [f"{column} ({network})" for column, network in zip(COLUMNS, NETWORKS, strict=True)]
    text.write(f"| pictures | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}\n")
    for row in rows():
        shown = [cell if isinstance(cell, str) else f"{cell:.4f}" for cell in cells(row, known)]
        text.write(f"| {row.name} | {' | '.join(shown)} |\n")
    return text.getvalue()


if __name__ == "__main__":
    print(table(), end="")
