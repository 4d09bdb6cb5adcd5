"""The folder of a run as any reader finds it, without the code that wrote it."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

OF_THE_WRITER = ("run.json", ".lock", ".holder.json")  # when, by whom: they differ between two runs of one request


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def request_of(folder: Path, command: str) -> dict[str, Any]:
    return record_of(folder)["requests"][command]


def table_of(folder: Path, command: str, name: str = "table") -> pd.DataFrame:
    return pd.read_csv(folder / "tables" / command / f"{name}.csv")


def samples_of(folder: Path) -> pd.DataFrame:
    """In the order in which they were stored."""
    return pq.read_table(folder / "samples").to_pandas()


def files_in(folder: Path) -> dict[str, bytes]:
    """What every file holds, by its path in the folder, but for those of the writer."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name not in OF_THE_WRITER}


def snapshot(folder: Path) -> dict[Path, bytes | None]:
    """All that is in a folder."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
