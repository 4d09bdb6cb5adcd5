"""Results on disk: written whole or not at all, and never over somebody else's files or another run's."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.metadata import packages_distributions, version
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from divlens.errors import DivlensError
from divlens.files import BESIDE
from divlens.showing import first_few

if TYPE_CHECKING:
    import pandas as pd

RECORD = "run.json"
MARKER = {"written by": "divlens", "format": 3}

Record = Mapping[str, Any]


def as_read(record: Record) -> Record:
    """As run.json gives it back: a tuple is a list there, and a number of numpy one of Python."""
    return json.loads(json.dumps(record, default=plain))


def plain(number: Any) -> int | float:
    """A number of any kind, as Python has it. Raises TypeError for anything else."""
    if isinstance(number, Integral):
        return int(number)
    if isinstance(number, Real):
        return float(number)
    raise TypeError(f"a record holds numbers, texts, lists and mappings, got {type(number).__name__}")


def check_output(folder: Path, request: Record) -> None:
    """Refuse a folder that cannot be written, that holds something divlens did not write, or the results of another
    request; call it before any work.

    A folder is ours when it holds our record of a run, and nothing besides the files which that record lists.
    """
    folder = resolved(folder)
    if folder.exists():
        if not folder.is_dir():
            raise DivlensError(f"results need a folder, got the file {folder}")
        if folder.is_mount():
            raise DivlensError(f"results need a folder that can be replaced; {folder} is a mount point: add a name")
        if folder == Path.cwd():  # what stands in it would be left in a folder that is gone
            raise DivlensError(f"results need a folder that can be replaced; {folder} is the current one: add a name")
        record = record_in(folder)
        if others := sorted(contents(folder) - {RECORD, *record["files"]} if record else os.listdir(folder)):
            expected = "results need a new or empty folder, or one of divlens"
            raise DivlensError(f"{expected}; {folder} holds {first_few(others)}")
        if record:
            refuse_another(record, as_read(request), folder)
    above = existing_parent(folder)
    try:  # permissions do not tell: nobody can make a folder in some file systems
        tempfile.TemporaryDirectory(prefix=BESIDE, dir=above).cleanup()
    except OSError:
        raise DivlensError(f"results need a folder that can be made, but {above} cannot be written to") from None


def resolved(folder: Path) -> Path:
    """Where the folder is or would be. Raises DivlensError for a name that no folder can have: too long, or a link that
    leads back to itself."""
    place = Path(os.path.realpath(folder)) if "\0" not in str(folder) else folder
    try:
        os.stat(place)
    except (FileNotFoundError, NotADirectoryError):  # the latter: a file stands above it, which cannot be written to
        pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DivlensError(f"results need a folder that can be made, got {str(folder)[:80]!r}: {reason}") from None
    return place


def existing_parent(folder: Path) -> Path:
    return next(parent for parent in folder.parents if parent.exists())


def record_in(folder: Path) -> dict[str, Any] | None:
    """Our record of the run whose results a folder holds, if it does."""
    try:
        record = json.loads((folder / RECORD).read_text())
        if MARKER.items() <= record.items() and all(isinstance(name, str) for name in record["files"]):
            return record
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass  # whatever it is, we did not write it
    return None


def refuse_another(record: Record, request: Record, folder: Path) -> None:
    """Raise DivlensError, which says what is there, unless it answers the same request."""
    differing = [key.replace("_", " ") for key in request if key not in record or record[key] != request[key]]
    if not differing:
        return
    models, date = ", ".join(map(str, record.get("models", ()))), record.get("date")
    other = "" if record.get("command") != request["command"] else f", with other {', '.join(differing)}"
    raise DivlensError(
        f"results need a folder without the results of another run; {folder} holds those of "
        f"`divlens {record.get('command')}` of {models}, {date}{other}: name another folder, or remove this one"
    )


def contents(folder: Path) -> set[str]:
    """Relative paths of all that is in a folder, besides folders that hold something."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir() or not any(path.iterdir()))
    return {path.relative_to(folder).as_posix() for path in found}


def write_output(folder: Path, request: Record, found: Record, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder beside `folder`, add the record of the run, then put it in its place.

    The record is `request` and, of what came of it, `found`; with the date, and the versions of all packages that were
    used. What an earlier run of the same request left in `folder` goes. Raises DivlensError for a folder that holds
    something else, and when the system refuses to write; then `folder` is as it was.
    """
    check_output(folder, request)
    folder = resolved(folder)
    above = existing_parent(folder)
    about = {"date": datetime.now().astimezone().isoformat(" ", "seconds"), "versions": versions(), **request, **found}
    try:
        with tempfile.TemporaryDirectory(prefix=BESIDE, dir=above, ignore_cleanup_errors=True) as name:
            partial, replaced = Path(name) / "new", Path(name) / "old"
            partial.mkdir()
            write(partial)
            record = MARKER | about | {"files": sorted(contents(partial))}
            (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n")
            folder.parent.mkdir(parents=True, exist_ok=True)
            put_in_place(partial, folder, replaced)
    except OSError as error:
        raise DivlensError(f"cannot write to {folder}: {error.strerror or error}") from error


def put_in_place(partial: Path, folder: Path, replaced: Path) -> None:
    """Rename, with what was there put aside, and back again when the second rename fails."""
    if not folder.exists():
        os.replace(partial, folder)
        return
    os.replace(folder, replaced)
    try:
        os.replace(partial, folder)
    except OSError:
        os.replace(replaced, folder)
        raise


# It reads the list of files of every package: more than a second.
packages_by_name = cache(packages_distributions)


def versions() -> dict[str, str]:
    """Of Python, of divlens, and of every installed package of which something has been imported."""
    # Not `import divlens`: the package imports every module, so for the layers that would be an import of all.
    own = str(vars(sys.modules["divlens"])["__version__"])
    imported = {name.partition(".")[0] for name in sys.modules}
    used = {package for name, packages in packages_by_name().items() if name in imported for package in packages}
    return {"python": platform.python_version(), **{name: version(name) for name in sorted(used)}, "divlens": own}


def with_one_nan(values: np.ndarray) -> np.ndarray:
    """With the same bits for every NaN, whose sign an operation may leave either way: equal tables are equal files."""
    return np.where(np.isnan(values), np.nan, values).astype(values.dtype) if values.dtype.kind == "f" else values


def write_tables(tables: Mapping[str, Sequence[pd.DataFrame]], folder: Path) -> None:
    """`<name>.csv` and `<name>.parquet` for each name, its tables one below the other; undefined is NaN, never empty.

    Cells of a CSV file are what they are, and a spreadsheet may take a prompt that begins with =, +, - or @ for a
    formula. The Parquet file has the same rows with their types.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, parts in tables.items():
        # One without rows has no types, and would take them from the others.
        table = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
        table.to_csv(folder / f"{name}.csv", index=False, na_rep="NaN")
        # Column by column: pyarrow's own way from pandas would make null of NaN.
        columns = {
            str(column): pa.array(with_one_nan(values.to_numpy()), from_pandas=False)
            if pd.api.types.is_numeric_dtype(values)
            else pa.array(values.tolist(), pa.string(), from_pandas=False)
            for column, values in table.items()
        }
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
