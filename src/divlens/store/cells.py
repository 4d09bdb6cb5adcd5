"""What a stored sample is called: a hash of all that its tokens depend on, so that nothing is drawn twice.

A cell is (model, settings, seed, prompt, wording, path noise, execution noise). Its hash does not depend on where or
beside what it is drawn: a batch, a device, a worker, a shard. `COUNTS` says of each field of `Run.identity`, and of its
rows, whether it is part of the cell; a test fails for a field that is not there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt64

from divlens.run import Row, Run

VERSION = 1  # of what a cell's hash is made of: another number makes all cells new
# Of each field of `Run.identity`, of a run's `Settings` and `DrawnWith`, and of a `Row`: whether another value makes
# another cell. The name of a model counts where its content is not known. Device, batch size and compilation matter by
# rounding alone, and rarely (ARCHITECTURE.md).
COUNTS: Mapping[str, bool] = {
    "model": False,
    "model_content": True,
    "settings.rule": True,
    "settings.guidance": True,
    "settings.temperature": True,
    "settings.allowed": True,
    "settings.top_k": True,
    "settings.top_p": True,
    "settings.greedy": True,
    "settings.frozen": True,
    "settings.grid": False,  # a part of the model
    "settings.clustered": False,  # the same
    "settings.log_factors": True,
    "settings.min_p": True,
    "settings.by_entropy": True,
    "settings.guided": True,
    "settings.condition_noise": True,
    "settings.strata": True,
    "settings.repulsion": True,
    "seed": True,
    "rows": False,  # the list of all; each row makes a cell
    "drawn_with.device": False,
    "drawn_with.dtype": True,
    "drawn_with.batch_size": False,
    "drawn_with.compiled": False,
    "row.prompt.text": True,
    "row.prompt.paraphrases": False,  # of which one may be the wording
    "row.prompt.concept": False,
    "row.wording": True,
    "row.path": True,
    "row.execution": True,
}
# Fields that came when runs were stored already: where they are None, as usual, cells are called as before.
LATER = frozenset(
    f"settings.{name}"
    for name in ("log_factors", "min_p", "by_entropy", "guided", "condition_noise", "strata", "repulsion")
)


def stratum_of(run: Run, content: str | None) -> str:
    """A hash of what the cells of a run have in common. `content`: the fingerprint of its model."""
    return hashed(common(run.identity_of_all_rows(content))).hexdigest()


def common(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Run.identity` that count, those of its parts by names with a dot."""
    parts = {key: value if isinstance(value, Mapping) else {"": value} for key, value in identity.items()}
    flat = {f"{key}.{name}".rstrip("."): value for key, part in parts.items() for name, value in part.items()}
    counted = {key: value for key, value in flat.items() if COUNTS[key] and not (key in LATER and value is None)}
    if identity["model_content"] is None:
        counted["model"] = identity["model"]
    return {"version": VERSION, **counted}


def cells_of(stratum: str, rows: Sequence[Row]) -> UInt64[np.ndarray, " rows"]:
    """The cell of each row."""
    named = ([stratum, row.prompt.text, row.wording, row.path, row.execution] for row in rows)
    return np.array(list(map(number_of, named)), np.uint64)


def number_of(values: object) -> int:
    """A hash of plain values as a number of 64 bits."""
    return int.from_bytes(hashed(values).digest(), "little")


def hashed(values: object) -> Any:
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=8)


def name_of_code(thing: object) -> str | None:
    """A function, or an object by its class, as its place in the code names it; None for nothing."""
    if thing is None:
        return None
    named: Any = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"
