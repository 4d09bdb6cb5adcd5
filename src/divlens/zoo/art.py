"""The art that sprites are made of: icons of Unicode emoji in open-licensed styles.

It comes from npm packages that hold plain SVG in JSON; the names from `emojibase-data` (MIT).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
import unicodedata
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from divlens.errors import DivlensError


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
