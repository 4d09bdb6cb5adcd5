"""Results on disk: written whole or not at all, and never over somebody else's files."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from divlens.experiment.measure import SampleRecord
from divlens.experiment.probe import ProbeResult
from divlens.types import DivlensError

if TYPE_CHECKING:
    import pandas as pd

RECORD = "run.json"
SAMPLES_AT_ONCE = 4096  # written; it bounds memory
BESIDE = ".divlens-"  # begins the name of the folder that results are first written to
MARKER = {"written by": "divlens", "format": 1}


def check_output(folder: Path) -> None:
    """Refuse a folder that cannot be written or that holds something divlens did not write; call it before any work.

    A folder is ours when it holds our record of a run, and nothing besides the files which that record lists.
    """
    folder = folder.resolve()
    if folder.exists():
        if not folder.is_dir():
            raise DivlensError(f"--out expects a folder, got the file {folder}")
        if folder.is_mount():
            raise DivlensError(f"--out expects a folder that can be replaced; {folder} is a mount point: add a name")
        if folder == Path.cwd():  # what stands in it would be left in a folder that is gone
            raise DivlensError(f"--out expects a folder that can be replaced; {folder} is the current one: add a name")
        if others := foreign_files(folder):
            shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
            raise DivlensError(f"--out expects a new or empty folder, or one of divlens; {folder} holds {shown}")
    above = existing_parent(folder)
    try:  # permissions do not tell: nobody can make a folder in some file systems
        tempfile.TemporaryDirectory(prefix=BESIDE, dir=above).cleanup()
    except OSError:
        raise DivlensError(f"--out expects a folder that can be made, but {above} cannot be written to") from None


def existing_parent(folder: Path) -> Path:
    return next(parent for parent in folder.parents if parent.exists())


def foreign_files(folder: Path) -> list[str]:
    """What a folder holds that a run of divlens did not write, sorted."""
    try:
        record = json.loads((folder / RECORD).read_text())
        if MARKER.items() <= record.items():
            return sorted(contents(folder) - {RECORD, *record["files"]})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass  # no record of ours: all of it is somebody else's
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> set[str]:
    """Relative paths of all that is in a folder, besides folders that hold something."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir() or not any(path.iterdir()))
    return {path.relative_to(folder).as_posix() for path in found}


def write_output(folder: Path, about: Mapping[str, object], write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder beside `folder`, add the record of the run, then put it in its place.

    What a previous run left in `folder` goes. Raises DivlensError for a folder that holds something else, and when
    the system refuses to write; then `folder` is as it was.
    """
    check_output(folder)
    folder = folder.resolve()
    above = existing_parent(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=BESIDE, dir=above, ignore_cleanup_errors=True) as name:
            partial, replaced = Path(name) / "new", Path(name) / "old"
            partial.mkdir()
            write(partial)
            record = MARKER | {"versions": versions(), **about, "files": sorted(contents(partial))}
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


def versions() -> dict[str, str]:
    """Of what a result may depend on."""
    # Not `import divlens`: the package imports every module, so for the layers that would be an import of all.
    own = str(vars(sys.modules["divlens"])["__version__"])
    return {"divlens": own, "python": platform.python_version()} | {
        name: version(name) for name in ("torch", "numpy", "pandas")
    }


def write_samples(samples: Iterable[SampleRecord], path: Path) -> None:
    """Seed, wording, tokens and verdict of every sample, in Parquet; no verdict and no cut are null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = ("model", "condition", "prompt", "wording", "cut", "judged_concept", "judged_style")
    types = {name: pa.string() for name in text} | {
        "sample": pa.int32(),
        "seed": pa.uint64(),
        "tokens": pa.list_(pa.int32()),
    }
    order = ("model", "condition", "prompt", "sample", "seed", "wording", "cut", "tokens")
    schema = pa.schema([(name, types[name]) for name in (*order, "judged_concept", "judged_style")])
    remaining = iter(samples)
    with pq.ParquetWriter(path, schema) as writer:
        while part := [vars(record) for record in islice(remaining, SAMPLES_AT_ONCE)]:
            writer.write_table(pa.Table.from_pylist(part, schema=schema))


def write_probe(result: ProbeResult, folder: Path) -> None:
    """table.csv and per_prompt.csv (undefined is NaN, never empty), samples.parquet, run.json."""

    def write(partial: Path) -> None:
        write_csv({"table": [result.table], "per_prompt": [result.per_prompt]}, partial)
        write_samples(result.samples, partial / "samples.parquet")

    about: dict[str, object] = {
        "command": "probe",
        "models": list(dict.fromkeys(result.table["model"])),
        "conditions": dict(result.conditions),
        "prompts": list(dict.fromkeys(result.per_prompt["prompt"])),
        "n": result.n,
        "seed": result.seed,
        "lpips": result.lpips,
        "drawn_with": {model: asdict(how) for model, how in result.drawn_with.items()},
    }
    write_output(folder, about, write)


def write_tables(tables: Mapping[str, Sequence[pd.DataFrame]], about: Mapping[str, object], folder: Path) -> None:
    """The tables as `write_csv` does, and run.json."""
    write_output(folder, about, lambda partial: write_csv(tables, partial))


def write_csv(tables: Mapping[str, Sequence[pd.DataFrame]], folder: Path) -> None:
    """`<name>.csv` for each name, its tables one below the other (undefined is NaN, never empty)."""
    import pandas as pd

    for name, parts in tables.items():
        pd.concat(parts, ignore_index=True).to_csv(folder / f"{name}.csv", index=False, na_rep="NaN")
