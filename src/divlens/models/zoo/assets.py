"""What ships with the zoo: weights, code frequencies, what the judge misreads; each file under a checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from divlens.errors import DivlensError
from divlens.models.failures import one_line

CHECKSUMS = "checksums.json"


def packaged_folder() -> Path:
    return Path(str(files("divlens.models.zoo").joinpath("assets")))


def read_tensors(name: str, folder: Path | None = None) -> dict[str, Tensor]:
    """The tensors of `<name>.safetensors`, float32 where they are stored in half precision.

    Raises DivlensError when the file is missing or is not the one that `checksums.json` beside it speaks of.
    """
    folder = folder or packaged_folder()
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        raise DivlensError(f"zoo weights are missing: expected {path.name} in {folder}")
    content = path.read_bytes()
    expected = read_checksums(folder).get(path.name, "no entry")
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DivlensError(f"{path.name} is damaged: expected sha256 {expected[:16]}..., found {found[:16]}...")
    with one_line(f"{path} expects tensors in the format of safetensors"):
        tensors = load(content)
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def read_checksums(folder: Path) -> dict[str, str]:
    path = folder / CHECKSUMS
    try:
        sums = json.loads(path.read_text())
    except (OSError, ValueError):
        raise DivlensError(f"expected {CHECKSUMS} in {folder}, found none that can be read") from None
    if not isinstance(sums, dict):
        raise DivlensError(f"expected {path} to map file names to sha256, got {type(sums).__name__}")
    return sums


def write_tensors(name: str, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Store as fp16 (whole numbers as they are) and enter the checksum."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    halves = {k: (v.half() if v.is_floating_point() else v).contiguous().cpu() for k, v in tensors.items()}
    content = save(halves)
    path.write_bytes(content)  # not `save_file`, which makes a file that its owner alone may read
    sums_path = folder / CHECKSUMS
    sums = json.loads(sums_path.read_text()) if sums_path.exists() else {}
    sums[path.name] = hashlib.sha256(content).hexdigest()
    sums_path.write_text(json.dumps(sums, indent=1, sort_keys=True) + "\n")
