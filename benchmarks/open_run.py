"""How long it takes to open a run of a million samples, to print its table, and to answer a question in SQL.

    python benchmarks/open_run.py [--samples 1000000] [--positions 256] [--codes 8192]

The folder is made without a model: random tokens, as many on a grid as aMUSEd has, in the shards that drawing them
would leave. Each step is timed in a process that has read nothing before; the files are in the system's cache. "sql,
tokens": a mean over all tokens, which are read for it. Exits with 1 when opening the run and printing its table take
more than 5 s.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from divlens.output import write_tables
from divlens.store.place import Place
from divlens.store.record import new_record, write_record
from divlens.store.schemas import SAMPLES, SCORES, TABLES, VERDICTS, schema_of
from divlens.store.shards import FOLDED, Shards

MOST = 5.0  # seconds
MODEL, CONDITIONS, PROMPTS = "amused:amused/amused-256", ("baseline", "subset", "argmax", "paraphrase", "enhanced"), 50
FIGURES = ("diversity", "coverage", "fidelity", "duplicates")
BATCH = 96
STEPS = {
    "open, print table": "print(divlens.open_run(sys.argv[1]).table)",
    "open, print run": "print(divlens.open_run(sys.argv[1]))",
    "scores of all prompts": "divlens.open_run(sys.argv[1]).scores",
    "sql, samples by condition": "divlens.open_run(sys.argv[1]).sql("
    "'SELECT condition, count(*), count(DISTINCT wording) FROM samples GROUP BY condition')",
    "sql, tokens": "divlens.open_run(sys.argv[1]).sql("
    "'SELECT condition, avg(list_sum(tokens)) FROM samples GROUP BY condition')",
}


def samples_of(condition: str, n: int, positions: int, codes: int, first_cell: int) -> Iterator[pa.Table]:
    """The samples of a condition, as many in a table as drawing them would leave in a file."""
    random = np.random.default_rng(first_cell)
    rows = PROMPTS * n
    for first in range(0, rows, BATCH * FOLDED):
        count = min(BATCH * FOLDED, rows - first)
        number = np.arange(first, first + count)
        tokens = random.integers(codes, size=count * positions, dtype=np.int32)
        prompts = [f"prompt number {i}" for i in number // n]
        columns = {
            "cell": (first_cell + number).astype(np.uint64),
            "model": [MODEL] * count,
            "condition": [condition] * count,
            "prompt": prompts,
            "wording": prompts,
            "sample": (number % n).astype(np.int32),
            "seed": np.zeros(count, np.uint64),
            "path": (number % n).astype(np.int32),
            "execution": (number % n).astype(np.int32),
            "tokens": pa.ListArray.from_arrays(np.arange(0, len(tokens) + 1, positions, dtype=np.int32), tokens),
        }
        yield pa.table(columns, schema_of(SAMPLES))


def make(folder: Path, samples: int, positions: int, codes: int) -> None:
    """The folder of a finished probe."""
    place, n = Place(folder), samples // (len(CONDITIONS) * PROMPTS)
    tables = {name: Shards(place, name) for name in (SAMPLES, SCORES, VERDICTS)}
    random = np.random.default_rng(0)
    for number, condition in enumerate(CONDITIONS):
        owner = {"model": MODEL, "condition": condition}
        for part in samples_of(condition, n, positions, codes, number * samples):
            tables[SAMPLES].append(part, owner)
            judged = part.select(["cell", "model", "condition", "prompt", "sample"])
            for name, texts in (("of", np.zeros(len(part), np.uint64)), ("judged_concept", part["prompt"])):
                judged = judged.append_column(name, pa.array(texts) if name == "of" else texts)
            judged = judged.append_column("judged_style", pa.nulls(len(part), pa.string()))
            tables[VERDICTS].append(judged.cast(schema_of(VERDICTS)), owner)
        figures = [
            {**owner, "prompt": f"prompt number {i}", "n": n, "of": i, "name": name, "value": random.random()}
            for i in range(PROMPTS)
            for name in FIGURES
        ]
        tables[SCORES].append(pa.Table.from_pylist(figures, schema_of(SCORES)), owner)
    setup = {"device": "cuda", "dtype": "float32", "batch_size": BATCH, "compiled": False, "truncate": False}
    request = {
        "command": "probe",
        "models": [MODEL],
        "prompts": [{"text": f"prompt number {i}", "paraphrases": [], "concept": None} for i in range(PROMPTS)],
        "conditions": dict.fromkeys(CONDITIONS, "none"),
        "seed": 0,
        "setup": {MODEL: setup},
        "n": n,
        "lpips": "stlpips",
    }
    about = new_record() | {"models": {MODEL: {"content": "0"}}, "requests": {"probe": request}, "complete": ["probe"]}
    write_record(place, about)
    target = folder / TABLES / "probe"
    target.mkdir(parents=True)
    rows = [
        {"model": MODEL, "condition": one, "n": n, **{name: random.random() for name in FIGURES}} for one in CONDITIONS
    ]
    write_tables({"table": [pd.DataFrame(rows)]}, target)


def seconds_of(step: str, folder: Path) -> tuple[float, float]:
    """Of a step in a new process, without and with the imports."""
    code = (
        f"import sys, time; start = time.monotonic(); import divlens, divlens.store.reader, duckdb, pandas\n"
        f"ready = time.monotonic()\n{step}\nprint('took', time.monotonic() - ready, time.monotonic() - start)"
    )
    out = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True).stdout
    alone, whole = out.rpartition("took")[2].split()
    return float(alone), float(whole)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--positions", type=int, default=256)
    parser.add_argument("--codes", type=int, default=8192)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, start = Path(name) / "run", time.monotonic()
        make(folder, asked.samples, asked.positions, asked.codes)
        files = list(folder.rglob("*.parquet"))
        size = sum(path.stat().st_size for path in files)
        print(
            f"{asked.samples:,} samples of {asked.positions} tokens of {asked.codes:,}: {len(files)} files, "
            f"{size / 1e6:,.0f} MB, made in {time.monotonic() - start:.0f} s"
        )
        print(f"{'step':26}  seconds  with imports")
        times = {name: seconds_of(step, folder) for name, step in STEPS.items()}
    for name, (alone, whole) in times.items():
        print(f"{name:26}  {alone:7.2f}  {whole:12.2f}")
    slow = times["open, print table"][1] > MOST
    print(f"open, print table: {'more' if slow else 'less'} than {MOST:.0f} s")
    sys.exit(slow)


if __name__ == "__main__":
    main()
