"""Runs blocks of Python from the pages, read as JSON from stdin, and says of each what it raised.

A process of its own, for under pytest every call is checked for the shapes of its arguments, which makes toys slow.
Each block has what its page takes for granted: the run of a probe, pictures, and names for a few things.
"""

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

import divlens
from oracles.tiny_diffusers import amused, quiet


def prepared() -> dict[str, Any]:
    """The working directory as a page expects it, and the names that it uses."""
    divlens.probe("toy/mim", ["rocket", "fox"], n=2, out="run")
    images = divlens.sample("toy/mim", ["red heart", "rocket"], n=4).images
    for prompt, of_prompt in zip(("red heart", "rocket"), images, strict=True):
        Path("pictures", prompt).mkdir(parents=True)
        for index, picture in enumerate(of_prompt):
            pixels = (picture.permute(1, 2, 0) * 255).round().byte().numpy()
            Image.fromarray(pixels).save(Path("pictures", prompt, f"{index}.png"))
    return {"divlens": divlens, "images": images, "pipe": quiet(amused())}


def raised_by(code: str) -> str:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        names = prepared()
        try:
            exec(code, names)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    json.dump({name: raised_by(code) for name, code in json.load(sys.stdin).items()}, sys.stdout)
