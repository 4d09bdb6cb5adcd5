"""Runs in folders, as the tests look at them: what a command refuses, and what a folder holds."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from divlens.store.folder import RunFolder

PROBE = ("probe", "toy/mim", "--limit", "2", "--batch-size", "2", "--condition", "hot=Temperature(1.3)")
N = ("-n", "8")


def contents(folder: Path) -> dict[str, Any]:
    """Each file of a run by its name; of run.json all but the sessions. What is hidden is listed, but for the lock."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name == "run.json":
            found[name] = {key: value for key, value in json.loads(path.read_text()).items() if key != "sessions"}
        elif name not in (".lock", ".holder.json"):
            found[name] = path.read_bytes()
    return found


def differing(files: Mapping[str, Any], expected: Mapping[str, Any]) -> set[str]:
    """The names of files that only one of both has, or that are not the same."""
    return {name for name in {**files, **expected} if files.get(name) != expected.get(name)}


def refused(answer, *words):
    """The exit code is 2, and one line holds the words."""
    code, out, err = answer
    assert (code, out) == (2, "")
    assert err.startswith("divlens: error: ") and err.count("\n") == 1
    for word in words:
        assert str(word) in err


def about(folder) -> dict:
    return json.loads((Path(folder) / "run.json").read_text())


def how_it_ended(folder) -> list[str]:
    return [session["how"] for session in about(folder)["sessions"]]


def files_of(folder, table="samples") -> list[Path]:
    return sorted((Path(folder) / table).glob("*.parquet"))


def tokens_in(folder) -> dict[int, list[int]]:
    tables = [pq.read_table(file, columns=["cell", "tokens"]).to_pydict() for file in files_of(folder)]
    pairs = [pair for table in tables for pair in zip(table["cell"], table["tokens"], strict=True)]
    assert len(dict(pairs)) == len(pairs)  # no sample is there twice
    return dict(pairs)


def tables_in(folder) -> dict[str, bytes]:
    return {name: content for name, content in contents(Path(folder)).items() if name.startswith("tables/")}


def snapshot(folder) -> dict[str, bytes]:
    """All files but that of the lock, and who held it last."""
    files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
    return {str(path): path.read_bytes() for path in files if path.name not in (".lock", ".holder.json")}


def process(*arguments, **options):
    """It hears Ctrl-C, which a shell lets what it starts in the background ignore."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        **options,
    )


@contextmanager
def interrupted_after(batches, monkeypatch):
    """While the block runs, Ctrl-C comes as soon as so many batches are stored."""
    add, stored = RunFolder.add, []

    def interrupted(*arguments):
        add(*arguments)
        stored.append("")
        if len(stored) == batches:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "add", interrupted)
        yield
