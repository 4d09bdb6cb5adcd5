"""What makes a model the one that it is: a hash of its content, whatever it is called and wherever it was found.

Counted are the bytes of all tensors with their names, dtypes and shapes, and all settings that change what is drawn or
shown. Not counted are names, paths, the device, and whether a network is compiled. A model says what it consists of by
an `identity` of its own (`divlens.models.protocol.Identified`). There is no fingerprint where an equal hash would not
mean an equal model: where code is involved from outside of this package and of those that it loads networks from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass
from itertools import chain
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Place = tuple[str, ...]  # the names that lead to a part
Leaf = tuple[Place, str | Tensor]

# The packages whose classes and functions are known by their names. Elsewhere the code behind a name may change.
LIBRARIES = ("builtins", "diffusers", "torch", "transformers")
KNOWN_CODE = (*LIBRARIES, "divlens")
# What a network or its configuration says besides what it computes; which dtype it has, the tensors say.
ASIDE = (
    *("architectures", "dtype", "torch_dtype", "transformers_version"),
    *("config", "gradient_checkpointing", "hf_device_map", "max_seq_len_cached", "name_or_path", "training"),
)
VALUES_AT_ONCE = 1 << 24  # of a tensor, brought to the CPU and hashed


class UnknownContentError(Exception):
    """Something of which a hash would not tell whether it is the same."""


def fingerprint_of(model: object) -> str | None:
    """32 hexadecimal digits, the same for models of the same content; None for one whose content is not known.

    Takes a second or so per gigabyte of weights and core, and keeps nothing: weights can be changed in place.
    """
    if not declares(model):
        return None
    try:
        return content_hash(model)
    except UnknownContentError:
        return None


def weights_digits(*networks: nn.Module) -> str:
    """Eight hexadecimal digits of the weights: what a wrapped model is called, so that two never share a name."""
    found = [chain(network.named_parameters(), network.named_buffers()) for network in networks]
    tensors = [{name: tensor if is_readable(tensor) else tensor.shape for name, tensor in named} for named in found]
    return content_hash(tensors)[:8]


def all_but(record: Any, *aside: str) -> dict[str, object]:
    """The fields of a dataclass but those named: an identity to which a new field belongs unless it is named."""
    return {field.name: getattr(record, field.name) for field in fields(record) if field.name not in aside}


def content_hash(content: object) -> str:
    """32 hexadecimal digits. Raises UnknownContentError for what cannot be hashed."""
    leaves = list(leaves_of((), content))
    tensors = {id(leaf): leaf for _, leaf in leaves if isinstance(leaf, Tensor)}  # in several places, read once
    with ThreadPoolExecutor() as pool:  # hashing leaves the interpreter free
        hashes = dict(zip(tensors, pool.map(tensor_hash, tensors.values()), strict=True))
    lines = [[place, leaf if isinstance(leaf, str) else hashes[id(leaf)]] for place, leaf in leaves]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:32]


def tensor_hash(tensor: Tensor, at_once: int = VALUES_AT_ONCE) -> str:
    """Of the dtype, the shape and the bytes in the order of the indices, whatever the layout in memory."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    for piece in tensor.detach().reshape(-1).split(at_once):
        digest.update(piece.cpu().view(torch.uint8).numpy().data)
    return f"tensor {digest.hexdigest()}"


def is_readable(tensor: Tensor) -> bool:
    """Whether its bytes are all there is: neither left on disk, nor packed by a class that knows how to unpack them."""
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided
    return plain and not (tensor.is_meta or tensor.is_quantized)


def declares(part: object) -> bool:
    """Whether its own class says what it consists of: one that inherits the words may have changed what they mean."""
    return callable(vars(type(part)).get("identity")) and package_of(type(part)) not in LIBRARIES


def leaves_of(place: Place, part: Any, by_class: bool = False) -> Iterator[Leaf]:
    """The texts and tensors that `part` consists of, each with its place.

    `by_class`: an object of which nothing else is known counts by its class.
    """
    part = uncompiled(part)
    if declares(part):
        if not isinstance(identity := part.identity(), Mapping):
            raise UnknownContentError(f"the identity of a {type(part).__name__} is no mapping")
        yield place, f"{type(part).__module__}.{type(part).__qualname__}"
        yield from leaves_of(place, identity)
    elif isinstance(part, Tensor):
        if not is_readable(part):
            raise UnknownContentError(f"{'.'.join(place)} cannot be read as plain numbers")
        yield place, part
    elif isinstance(part, nn.Module):
        yield from network_leaves(place, part)
    elif part is None or isinstance(part, str | bool | int | float | torch.dtype | np.generic):
        yield place, text_of(part)
    elif isinstance(part, Mapping):
        yield place, f"{len(part)} by name"
        for key, value in sorted(part.items(), key=lambda item: str(item[0])):
            yield from leaves_of((*place, str(key)), value, by_class)
    elif isinstance(part, list | tuple):
        yield place, f"{len(part)} in order"
        for index, value in enumerate(part):
            yield from leaves_of((*place, str(index)), value, by_class)
    elif isinstance(part, set | frozenset):
        yield from leaves_of(place, sorted(part, key=repr), by_class)
    elif isinstance(part, MethodType):
        yield place, f"the method {part.__func__.__qualname__}"
        yield from leaves_of(place, part.__self__)
    elif isinstance(part, FunctionType | BuiltinFunctionType | type):
        yield place, code_name(place, part)
    elif is_dataclass(part) and package_of(type(part)) == "divlens":
        yield place, code_name(place, type(part))
        yield from leaves_of(place, all_but(part))
    elif hasattr(part, "backend_tokenizer"):
        yield from tokenizer_leaves(place, part)
    elif by_class:
        yield place, code_name(place, type(part))
    else:
        raise UnknownContentError(f"{'.'.join(place)} is a {type(part).__name__}, whose content is not known")


def network_leaves(place: Place, network: nn.Module) -> Iterator[Leaf]:
    """Its configuration and, of every module in it, the class, the tensors and the attributes that are not private."""
    config: Any = getattr(network, "config", {})
    yield from leaves_of((*place, "config"), without_aside(config.to_dict() if hasattr(config, "to_dict") else config))
    for name, module in network.named_modules(remove_duplicate=False):
        inside = (*place, *name.split(".")) if name else place
        yield inside, code_name(inside, type(module))
        if "forward" in vars(module):
            raise UnknownContentError(f"{'.'.join(inside)} has a forward of its own")
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
            check_known((*inside, "hook"), hook)  # those that only read are put in place by a first call
        tensors = module.named_parameters(recurse=False), module.named_buffers(recurse=False)
        settings = without_aside({key: value for key, value in vars(module).items() if not key.startswith("_")})
        for key, value in chain(*tensors, settings.items()):
            yield from leaves_of((*inside, key), value, by_class=True)


def without_aside(settings: Any) -> Any:
    """Settings without the entries that say nothing of what is computed, in mappings inside of them, too."""
    if not isinstance(settings, Mapping):
        return settings
    kept = {key: value for key, value in settings.items() if not (str(key).startswith("_") or key in ASIDE)}
    return {key: without_aside(value) for key, value in kept.items() if not isinstance(value, torch.device)}


def tokenizer_leaves(place: Place, tokenizer: Any) -> Iterator[Leaf]:
    """How texts become tokens: all of the fast tokenizer but how its last call cut and padded, which each call sets."""
    yield place, code_name(place, type(tokenizer))
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content = {key: value for key, value in content.items() if key not in ("padding", "truncation")}
    sides = tokenizer.padding_side, tokenizer.truncation_side
    special = {key: str(token) for key, token in tokenizer.special_tokens_map.items()}
    yield place, json.dumps([content, special, sides, tokenizer.split_special_tokens], sort_keys=True)


def uncompiled(part: Any) -> Any:
    """What `torch.compile` was given, when `part` came out of it."""
    return getattr(part, "_orig_mod", getattr(part, "_torchdynamo_orig_callable", part))


def parts_of(part: Any) -> Iterator[Any]:
    """It and, where it is a record, the parts of its fields."""
    yield part
    if is_dataclass(part) and not isinstance(part, type):
        for value in vars(part).values():
            yield from parts_of(value)


def is_compiled(model: Any) -> bool:
    """Whether `torch.compile` made a part of it."""
    return any(uncompiled(part) is not part for part in parts_of(model))


def cuts_wordings(model: Any) -> bool:
    """Whether it, or a part of it, cuts a wording that it cannot read whole."""
    return any(is_dataclass(part) and getattr(part, "truncate", False) is True for part in parts_of(model))


def text_of(value: Any) -> str:
    """Of a setting; 5 and 5.0 are the same number, True and 1 are not the same."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{type(value).__name__} {value!r}"


def package_of(code: Any) -> str:
    return (getattr(code, "__module__", None) or "").partition(".")[0]


def check_known(place: Place, code: Any) -> None:
    """Raises UnknownContentError for a class or function that is not of the known packages."""
    if package_of(code) not in KNOWN_CODE:
        raise UnknownContentError(f"{'.'.join(place)} is code of {package_of(code) or 'no package'}")


def code_name(place: Place, code: Any) -> str:
    """A class or function by its name. Raises UnknownContentError where that does not tell which code it is."""
    check_known(place, code)
    if "<" in code.__qualname__:
        raise UnknownContentError(f"{'.'.join(place)} is {code.__qualname__}, which has no name of its own")
    return f"{code.__module__}.{code.__qualname__}"
