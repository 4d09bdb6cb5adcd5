"""Results on disk: written whole or not at all, and never over somebody else's files."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from divlens.experiment.measure import SampleRecord
from divlens.experiment.probe import ProbeResult
from divlens.types import DivlensError

MARKER = "divlens.json"


def check_output(folder: Path) -> None:
    """Refuse a folder that holds something divlens did not write; to be called before any work."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DivlensError(f"--out expects a folder, got the file {folder}")
    if any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise DivlensError(f"--out expects a new or empty folder, or one that divlens wrote; {folder} holds other files")


def write_output(folder: Path, about: dict[str, object], write: Callable[[Path], None]) -> None:
    """Let `write` fill a sibling folder, then put it in place of `folder`."""
    from divlens import __version__

    check_output(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write(partial)
        (partial / MARKER).write_text(json.dumps({"divlens": __version__, **about}, indent=1) + "\n")
        partial.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_samples(samples: Sequence[SampleRecord], path: Path) -> None:
    """Tokens and seeds of every sample, in Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [asdict(record) | {"tokens": list(record.tokens)} for record in samples]
    schema = pa.schema(
        [
            ("model", pa.string()),
            ("condition", pa.string()),
            ("prompt", pa.string()),
            ("sample", pa.int32()),
            ("seed", pa.int64()),
            ("wording", pa.string()),
            ("tokens", pa.list_(pa.int32())),
            ("judged_concept", pa.string()),
            ("judged_style", pa.string()),
        ]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def write_probe(result: ProbeResult, folder: Path) -> None:
    """table.csv and per_prompt.csv (NaN written as NaN), samples.parquet, divlens.json."""

    def write(partial: Path) -> None:
        result.table.to_csv(partial / "table.csv", index=False, na_rep="NaN")
        result.per_prompt.to_csv(partial / "per_prompt.csv", index=False, na_rep="NaN")
        write_samples(result.samples, partial / "samples.parquet")

    about: dict[str, object] = {"command": "probe", "seed": result.seed, "n": result.n, "lpips": result.lpips}
    write_output(folder, about, write)
