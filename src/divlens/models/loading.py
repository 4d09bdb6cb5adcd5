"""What every model that comes from outside needs: files found or named, tensors checked, weights put in place."""

from __future__ import annotations

import importlib
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from divlens.errors import DivlensError
from divlens.models.failures import one_line, reason_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Loaded = TypeVar("Loaded")
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Options:
    """How a model is set up. `dtype`: of the weights ("float32", "bfloat16", "float16"); draws stay in float32.
    `truncate`: cut a wording that the text encoder cannot read whole. `compile`: `torch.compile` the network."""

    device: str = "cpu"
    dtype: str = "float32"
    truncate: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise DivlensError(f"dtype expects one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.device.startswith("meta"):
            raise DivlensError(f"device expects one that holds numbers, got {self.device!r}")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DivlensError(f"device expects one that torch can use here, got {self.device!r}: {reason}") from error

    def only_device(self, name: str) -> None:
        """Raises DivlensError when anything but the device was asked for, of a model that knows nothing else."""
        if asked := [word for word in ("truncate", "compile") if getattr(self, word)]:
            raise DivlensError(f"{name} has no option {' or '.join(asked)}")
        if self.dtype != "float32":
            raise DivlensError(f"{name} expects dtype float32, got {self.dtype}")

    def place(self, network: Network) -> Network:
        """The network for inference: on its device, in its dtype, frozen.

        Buffers that no checkpoint holds, such as the frequencies of rotary embeddings, keep the precision in which
        they were computed, as `from_pretrained(dtype=...)` leaves them.
        """
        stored = network.state_dict().keys()
        computed = {
            name: buffer for name, buffer in network.named_buffers(remove_duplicate=False) if name not in stored
        }
        # Not the network's own `to`: that of diffusers warns of modules kept in float32 even where there are none.
        nn.Module.to(network, device=self.device, dtype=DTYPES[self.dtype])
        for key, buffer in computed.items():
            module, _, name = key.rpartition(".")
            setattr(network.get_submodule(module), name, buffer.to(self.device))
        return network.eval().requires_grad_(False)

    def compiled(self, network: Callable[..., Loaded]) -> Callable[..., Loaded]:
        """`torch.compile` when it was asked for. Give it what is called once a step, so that a graph is built once."""
        return torch.compile(network) if self.compile else network


CPU = Options()


def device_name(device: str | torch.device) -> str:
    """What `Options` calls a device. Raises DivlensError for what is neither its name nor a torch.device."""
    if not isinstance(device, str | torch.device):
        raise DivlensError(f'device expects a name such as "cpu" or "cuda:0", or a torch.device, got {device!r}')
    return str(device)


def needed(name: str, *attributes: str) -> list[Any]:
    """Attributes of transformers. Raises DivlensError that names the extra which brings them."""
    try:
        package = importlib.import_module("transformers")
        return [getattr(package, attribute) for attribute in attributes]
    except (ImportError, AttributeError) as error:
        raise DivlensError(
            f"{name} needs the package transformers, with {', '.join(attributes)} ({error}): "
            "pip install 'divlens[transformers]'"
        ) from error


def find_files(checkpoint: str, names: Sequence[str], source: str) -> dict[str, Path]:
    """Where files are: in the folder `checkpoint`, or downloaded from the hub's repository of that name.

    `source`: where a user finds them, for the error, which lists every file that is missing.
    """
    folder = Path(checkpoint)
    if folder.is_dir():
        found = {name: folder / name for name in names}
        if missing := [name for name, path in found.items() if not path.exists()]:
            raise DivlensError(f"{checkpoint} lacks {', '.join(missing)}; expected the files of {source}")
        return found
    from huggingface_hub import hf_hub_download

    def download() -> dict[str, Path]:
        return {name: Path(hf_hub_download(checkpoint, name)) for name in names}

    return fetched(checkpoint, source, download)


def fetched(checkpoint: str, source: str, load: Callable[[], Loaded]) -> Loaded:
    """`load()`, whose download or file errors become one line that says what was expected of `checkpoint`."""
    try:
        return load()
    # Wrong names, missing files and a hub that cannot be reached come as OSError or ValueError, in several packages.
    except (OSError, ValueError, KeyError) as error:
        raise DivlensError(
            f"cannot load {checkpoint!r}: expected a folder, or a repository on the model hub, laid out as {source}; "
            f"got {reason_of(error)}"
        ) from error


def read_parts(place: str, expected: str, source: str, read: Callable[[], Loaded]) -> Loaded:
    """`read()`, any failure of which is one line: the packages raise errors of every kind for a bad configuration."""
    with one_line(f"{place} expects {expected}"):
        return fetched(place, source, read)


def json_object(path: Path, expected: str) -> Mapping[str, Any]:
    """The object in a configuration file, which is that of `expected`. Raises DivlensError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"got {type(found).__name__}")
    except (OSError, ValueError) as error:
        raise DivlensError(f"{path} expects the JSON object of {expected}: {error}") from error
    return found


def is_stored(path: Path) -> bool:
    """Whether it is a zip archive with nothing compressed in it: only then do the numbers lie in the file itself."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())


def read_pt(path: Path) -> Mapping[str, object]:
    """A `.pt` file, tensors only: a pickle that would run code is refused, and so is a damaged file."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # it is refused or read all the same
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_stored(path))
    except Exception as error:  # torch's reader lets almost any error out of a damaged file
        said = str(error)
        if isinstance(error, pickle.UnpicklingError) and ("GLOBAL" in said or "Unsupported class" in said):
            raise DivlensError(
                f"{path} is refused: expected tensors only, got a pickle that asks to run code of its own"
            ) from error
        reason = (said.splitlines() or [type(error).__name__])[0]
        raise DivlensError(f"{path} cannot be read as a torch checkpoint: {reason}") from error
    if not isinstance(content, Mapping):
        raise DivlensError(f"{path} expects a dictionary of tensors, got {type(content).__name__}")
    return content


def load_checked(network: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load `state` into `network`, all of it. Raises DivlensError that names missing, extra and mis-shaped tensors, and
    those that are no plain numbers."""
    wanted = network.state_dict()
    problems = [f"missing {key} {tuple(wanted[key].shape)}" for key in wanted if key not in state]
    problems += [f"not expected {key} {tuple(state[key].shape)}" for key in state if key not in wanted]
    problems += [
        f"{key}: expected {tuple(wanted[key].shape)}, found {tuple(state[key].shape)}"
        for key in wanted
        if key in state and wanted[key].shape != state[key].shape
    ]
    problems += [f"{key}: expected plain floating point numbers, found {kind}" for key, kind in odd_tensors(state)]
    refuse_misfit(name, problems)
    network.load_state_dict(state)


def odd_tensors(state: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Names of tensors that are not all there as an array of finite floating point numbers, and what they are."""
    for key, tensor in state.items():
        if tensor.is_quantized:
            yield key, f"quantised ones, {tensor.dtype}"
        elif tensor.layout != torch.strided or tensor.is_nested:
            yield key, f"a tensor of layout {tensor.layout}"
        elif not tensor.is_floating_point():
            yield key, str(tensor.dtype)
        elif tensor.device.type == "meta" or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            yield key, f"fewer than its shape {tuple(tensor.shape)} has"
        elif not bool(tensor.isfinite().all()):
            yield key, "NaN or infinite ones"


def refuse_misfit(place: str, problems: Sequence[str]) -> None:
    """Raises DivlensError with the first of the problems, if there are any."""
    if problems:
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise DivlensError(f"{place} does not fit its network: {'; '.join(problems[:8])}{more}")


def check_lengths(name: str, wordings: Sequence[str], lengths: Sequence[int], limit: int, truncate: bool) -> None:
    """Raises DivlensError for the first wording of more tokens than the text encoder reads, unless it may be cut."""
    for wording, length in zip(wordings, lengths, strict=True):
        if length > limit and not truncate:
            raise DivlensError(
                f"{name} reads at most {limit} tokens, got {length}: {wording[:40]!r}...; shorten it, or allow the cut "
                "with --truncate (truncate=True)"
            )


def pictures_of(
    name: str,
    tokens: Int[Tensor, "batch h w"],
    decode: Callable[[Tensor], Tensor],
    at_once: int,
    finish: Callable[[Tensor], Tensor] = lambda pixels: pixels,
) -> Float[Tensor, "batch 3 H W"]:
    """Token grids as pictures in [0, 1], float32, on the CPU, `at_once` of them decoded at a time.

    `finish`: what is to be done to the decoder's output, float32, before it is cut to that range. Raises DivlensError
    for a decoder that gives numbers that are not finite, as one in half precision does when it overflows.
    """
    pictures = []
    for part in tokens.split(at_once):
        decoded = decode(part)
        if not bool(decoded.isfinite().all()):
            hint = "; a decoder in float32 has room for larger ones" if decoded.dtype != torch.float32 else ""
            raise DivlensError(f"{name} expects finite numbers from its decoder, got others in {decoded.dtype}{hint}")
        pictures.append(finish(decoded.float().cpu()).clamp(0, 1))
    return torch.cat(pictures)


def check_tensors(place: str, found: Mapping[str, Any]) -> None:
    """Raises DivlensError that names the tensors a network missed, did not expect, or found in another shape."""
    # Checkpoints of old transformers versions hold position_ids, which are constants.
    extra = [key for key in found["unexpected_keys"] if not key.endswith("position_ids")]
    mismatched = found["mismatched_keys"]
    problems = [f"missing {key}" for key in sorted(set(found["missing_keys"]) - {entry[0] for entry in mismatched})]
    problems += [f"not expected {key}" for key in sorted(extra)]
    problems += [f"{key}: expected {tuple(own)}, found {tuple(theirs)}" for key, theirs, own in sorted(mismatched)]
    refuse_misfit(place, problems)


def check_equal(name: str, quantity: str, sizes: Mapping[str, int]) -> None:
    """Raises DivlensError when the parts of a model do not agree on a size."""
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{part} {size}" for part, size in sizes.items())
        raise DivlensError(f"{name} expects one {quantity} in all its parts, got {listed}")
