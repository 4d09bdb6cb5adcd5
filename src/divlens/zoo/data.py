"""EmojiStyles: Unicode emoji concepts, each drawn in up to six open-licensed styles.

The art comes from npm packages that hold plain SVG in JSON; names and keywords from `emojibase-data` (MIT). A style
is never named in a caption: which style comes out is the diversity of a prompt, and its ground truth is known.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import unicodedata
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from divlens.errors import DivlensError
from divlens.files import written_beside
from divlens.models.zoo.lexicon import concepts
from divlens.models.zoo.networks import IMAGE_SIZE


@dataclass(frozen=True)
class Source:
    """An npm package, the version that was read, and the licence of what is in it (SPDX)."""

    package: str
    version: str
    licence: str


STYLES: dict[str, Source] = {
    "noto": Source("@iconify-json/noto", "1.2.9", "Apache-2.0"),
    "noto-v1": Source("@iconify-json/noto-v1", "1.2.5", "Apache-2.0"),
    "twemoji": Source("@iconify-json/twemoji", "1.2.5", "CC-BY-4.0"),
    "fluent-emoji": Source("@iconify-json/fluent-emoji", "1.2.7", "MIT"),
    "fluent-emoji-flat": Source("@iconify-json/fluent-emoji-flat", "1.2.6", "MIT"),
    "emojione": Source("@iconify-json/emojione", "1.2.3", "CC-BY-4.0"),
}
NAMES = Source("emojibase-data", "17.0.0", "MIT")
HELD_OUT_PAIRS = 84
MARGIN = 4  # pixels of white on each side of the longer axis
COMPONENTS_AND_FLAGS = {2, 9}  # emojibase groups that hold no concept of their own


@dataclass(frozen=True)
class Pictures:
    """Rendered pictures. `concept` is -1 for art outside the zoo's concepts (it trains tokenizer and judge only)."""

    images: np.ndarray  # uint8 (n, 64, 64, 3)
    concept: np.ndarray  # int64 (n,)
    entry: np.ndarray  # int64 (n,), which emoji of all, zoo concept or not
    style: np.ndarray  # int64 (n,), an index into STYLES
    held_out: np.ndarray  # bool (n,), (concept, style) pairs that nothing is trained on


def fetch(source: Source, folder: Path) -> Path:
    """Bring a package with the ordinary npm client and unpack it, once; its `package` folder is returned."""
    target = folder / source.package.replace("/", "_").lstrip("@")
    if not (target / "package" / "package.json").exists():
        target.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", "--pack-destination", str(target), f"{source.package}@{source.version}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            said = " ".join(done.stderr.split())[-200:]
            raise DivlensError(f"npm cannot fetch {source.package}@{source.version}: {said}")
        with tarfile.open(next(target.glob("*.tgz"))) as archive:
            archive.extractall(target, filter="data")
    return target / "package"


def check_tools() -> None:
    """Raises DivlensError for what is missing to fetch and render the art, before any of it is fetched."""
    if find_spec("resvg_py") is None:
        raise DivlensError("the zoo's art is rendered by the package resvg_py: pip install 'divlens[zoo]'")
    if shutil.which("npm") is None:
        raise DivlensError("the zoo's art is fetched by npm, which is not installed")


def slug(name: str) -> str:
    plain = unicodedata.normalize("NFKD", re.sub(r"[’“”.]", "", name.lower()).replace("&", "and"))
    return re.sub(r"[^a-z0-9]+", "-", plain.encode("ascii", "ignore").decode()).strip("-")


class IconSet:
    """The icons of one style, looked up by Unicode name or code point."""

    def __init__(self, folder: Path) -> None:
        self.icons: dict[str, Any] = json.loads((folder / "icons.json").read_text())
        chars = folder / "chars.json"
        self.chars: dict[str, str] = json.loads(chars.read_text()) if chars.exists() else {}

    def svg(self, entry: dict[str, Any]) -> str | None:
        """The SVG of an emojibase entry, or None when this style has not drawn it."""
        code = entry["hexcode"].lower()
        names = [slug(entry["label"])] + [self.chars[c] for c in (code, code.replace("-fe0f", "")) if c in self.chars]
        for name in names:
            alias = self.icons.get("aliases", {}).get(name, {})
            if name not in self.icons["icons"] and set(alias) == {"parent"}:
                name = alias["parent"]
            if name in self.icons["icons"]:
                return self.drawn(name)
        return None

    def drawn(self, name: str) -> str:
        icon = self.icons["icons"][name]
        sizes = [icon.get(key, self.icons.get(key, 16)) for key in ("width", "height")]
        box = f"{icon.get('left', 0)} {icon.get('top', 0)} {sizes[0]} {sizes[1]}"
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{box}" width="160" height="160">{icon["body"]}</svg>'
        )


def rasterise(svg: str) -> np.ndarray:
    """Render on white, cropped to the drawing and fitted to the frame: uint8 (64, 64, 3)."""
    from PIL import Image
    from resvg_py import svg_to_bytes

    drawing = Image.open(io.BytesIO(bytes(svg_to_bytes(svg_string=svg)))).convert("RGBA")
    drawing = drawing.crop(drawing.getchannel("A").point([255 * (alpha > 16) for alpha in range(256)]).getbbox())
    scale = (IMAGE_SIZE - 2 * MARGIN) / max(drawing.size)
    width, height = (max(1, round(side * scale)) for side in drawing.size)
    # Premultiplied alpha: otherwise the invisible colour of transparent pixels bleeds into the edges.
    drawing = drawing.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS).convert("RGBA")
    canvas = Image.new("RGBA", (IMAGE_SIZE, IMAGE_SIZE), (255, 255, 255, 255))
    canvas.alpha_composite(drawing, ((IMAGE_SIZE - width) // 2, (IMAGE_SIZE - height) // 2))
    return np.asarray(canvas.convert("RGB"))


def choose_held_out(concept: np.ndarray, style: np.ndarray, seed: int = 0) -> np.ndarray:
    """At most one style per concept, spread evenly over the styles."""
    generator = np.random.default_rng(seed)
    held_out = np.zeros(len(concept), bool)
    chosen = generator.permutation(concept.max() + 1)[:HELD_OUT_PAIRS]
    for turn, index in enumerate(chosen):
        rows = np.flatnonzero(concept == index)
        wanted = rows[style[rows] == turn % len(STYLES)]
        held_out[wanted if len(wanted) else generator.choice(rows, 1)] = True
    return held_out


def build(folder: Path, progress: Any = iter) -> Pictures:
    """Fetch, render and split; everything is kept in `folder` (pictures.npz, words.json) and reused."""
    target = folder / "pictures.npz"
    missing = not os.path.exists(target)  # a name that is too long is told of below
    if missing:
        check_tools()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DivlensError(f"expected a folder that can be made, got {str(folder)!r}: {error.strerror}") from None
    if missing:
        entries = json.loads((fetch(NAMES, folder) / "en" / "data.json").read_text())
        index = {name: i for i, name in enumerate(concepts())}
        sets = [IconSet(fetch(source, folder)) for source in STYLES.values()]
        rows: list[tuple[np.ndarray, int, int, int]] = []
        for place, entry in enumerate(progress(entries)):
            if entry.get("group") in COMPONENTS_AND_FLAGS | {None}:
                continue
            for number, icons in enumerate(sets):
                if svg := icons.svg(entry):
                    rows.append((rasterise(svg), index.get(entry["label"], -1), number, place))
        concept, style, entry = (np.array([row[i] for row in rows]) for i in (1, 2, 3))
        images = np.stack([row[0] for row in rows])
        held_out = choose_held_out(concept, style)
        stored = Pictures(images, concept, entry, style, held_out)
        tags = {entry["label"]: entry.get("tags", []) for entry in entries if entry["label"] in index}
        (folder / "words.json").write_text(json.dumps({name: tags[name] for name in index}, indent=0))
        with written_beside(target) as partial:  # last and at once: where the pictures are, all is
            np.savez_compressed(partial, **vars(stored))
    with np.load(target) as stored:
        return Pictures(**{key: stored[key] for key in Pictures.__annotations__})
