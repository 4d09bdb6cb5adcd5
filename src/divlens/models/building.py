"""Networks of diffusers and transformers, built only when their configuration describes what their file holds.

`from_pretrained` believes a configuration: it allocates, and goes on adding layers, whatever the numbers say. So the
network is first built without memory, and given up as soon as it has more numbers than the file could fill.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from divlens.errors import DivlensError, is_whole
from divlens.models.loading import check_tensors, is_stored, read_parts

LARGEST = 2**24  # a number in a configuration: the sizes and vocabularies of all published models are smaller
SMALL = 2**20  # numbers a network may have besides those of its file, such as the angles of positions
STEMS = {  # of the files of weights: safetensors, and torch's own
    "diffusers": ("diffusion_pytorch_model", "diffusion_pytorch_model"),
    "transformers": ("model", "pytorch_model"),
}


def network_from(
    kind: Any,
    place: str,
    config: Path,
    source: str,
    *,
    subfolder: str = "",
    dtype: torch.dtype | None = None,
    ignored: Sequence[str] = (),
) -> Any:
    """A network of class `kind`, in evaluation mode, that found exactly its own tensors.

    place: a folder, or a repository on the model hub; `subfolder` of it. config: where its configuration file is.
    source: where a user finds such files. ignored: how names of tensors begin that may be there and are not read.
    Raises DivlensError for damaged files, for a configuration that is none of `kind` or asks for more than the weights
    hold, and names tensors that are missing, extra or of another shape.
    """
    where = f"{place}/{subfolder}" if subfolder else place

    def read() -> tuple[Any, Any]:
        check_numbers(config)
        if files := weight_files(place, subfolder, STEMS[package_of(kind)]):
            check_built(kind, place, subfolder, where, sum(map(numbers_in, files)))
        cast = {} if dtype is None else {"dtype": dtype}
        return kind.from_pretrained(
            place, subfolder=subfolder, output_loading_info=True, ignore_mismatched_sizes=True, **cast
        )

    network, found = read_parts(where, f"the configuration and weights of a {kind.__name__}", source, read)
    extra = [key for key in found["unexpected_keys"] if not key.startswith(tuple(ignored))]
    check_tensors(where, {**found, "unexpected_keys": extra})
    return network


def package_of(kind: Any) -> str:
    return "diffusers" if hasattr(kind, "load_config") else "transformers"


def check_numbers(config: Path) -> None:
    """Raises DivlensError for a whole number in a configuration file that no network of any size has."""

    def walk(content: object, place: str) -> None:
        if isinstance(content, dict):
            for key, value in content.items():
                walk(value, f"{place}.{key}" if place else str(key))
        elif isinstance(content, list):
            for value in content:
                walk(value, place)
        elif is_whole(content) and abs(content) > LARGEST:
            raise DivlensError(f"{config} expects numbers up to {LARGEST}, got {content} as {place}")

    walk(json.loads(config.read_text(encoding="utf-8")), "")


def weight_files(place: str, subfolder: str, stems: Sequence[str]) -> list[Path]:
    """The file with the weights, or its shards, as `from_pretrained` would choose it; none when it would find none."""
    safe, torch_own = stems
    for name in (f"{safe}.safetensors", f"{torch_own}.bin"):
        if path := located(place, subfolder, name):
            return [path]
        if index := located(place, subfolder, f"{name}.index.json"):
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            return [path for shard in shards if (path := located(place, subfolder, shard))]
    return []


def located(place: str, subfolder: str, name: str) -> Path | None:
    """Where a file of a folder or of a hub repository is, if it has it."""
    folder = Path(place)
    if folder.is_dir():
        path = folder / subfolder / name
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(place, name, subfolder=subfolder or None))
    except EntryNotFoundError:
        return None


def numbers_in(path: Path) -> int:
    """How many numbers a file of weights holds, or could hold by its size."""
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            return sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    check_stored(path)
    return path.stat().st_size


def check_stored(path: Path) -> None:
    """Raises DivlensError for a compressed archive, whose bytes transformers and diffusers take for the numbers."""
    if zipfile.is_zipfile(path) and not is_stored(path):
        raise DivlensError(f"{path} expects an archive that is stored as torch.save does it, got a compressed one")


def check_built(kind: Any, place: str, subfolder: str, where: str, held: int) -> None:
    """Raises DivlensError when the network would have more numbers than a file that holds `held` could fill."""
    # Twice, because a tensor that two layers share is stored once, and is built twice before they are tied.
    with torch.device("meta"), at_most(2 * held + SMALL, f"{where} expects a configuration that fits its weights"):
        if package_of(kind) == "diffusers":
            kind.from_config(kind.load_config(place, subfolder=subfolder))
        else:
            kind(kind.config_class.from_pretrained(place, subfolder=subfolder))


@contextmanager
def at_most(numbers: int, expectation: str) -> Iterator[None]:
    """Building a network inside raises DivlensError as soon as its parameters and buffers have more than `numbers`."""
    built = 0

    def count(owner: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal built
        built += 0 if tensor is None else tensor.numel()
        if built > numbers:
            raise DivlensError(
                f"{expectation}, got one of more than {numbers} numbers ({name} of a {type(owner).__name__})"
            )

    registered = [
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in registered:
            hook.remove()
