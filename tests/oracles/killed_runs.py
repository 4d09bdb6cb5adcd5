"""A run that is killed with SIGKILL and gone on with, until it is finished; and an undisturbed one to hold it against.

    python tests/oracles/killed_runs.py FOLDER --kills 30 [--at-changes] [--quick] [--control] -- toy/mim -n 8 ...

What follows `--` is a call of `divlens probe`. One process imports everything and starts no threads; each attempt is a
fork of it that runs the command line, the first time `probe`, then `resume`. It is killed at a random moment: soon
after it has stored so many files, a number drawn from none to all that are missing, or at any time after all; time
alone would tell little on a busy machine. When a run is finished all the same, another one like it is begun, until all
kills are spent. With `--at-changes` a run is killed before each of its changes to the folder in turn. Prints what was
found as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # a fork has no threads but its first
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# All that the command line will need, so that an attempt is forked and not imported.
import divlens.cli
import divlens.experiment.comparison as comparison
import divlens.resume
import divlens.store.draw as draw
import divlens.store.shards as shards
from divlens.output import versions
from divlens.run import Run, fill
from divlens.store.cells import cells_of, stratum_of
from divlens.store.folder import RunFolder
from oracles.colour_network import colour_network
from oracles.runs_in_folders import contents, differing

WARM_UP = ("toy/ar", "--limit", "1", "-n", "2", "--condition", "few=Subset(0.5)")  # which imports all
SHARE = 1 / 8  # of the undisturbed duration, in which a process is killed after it has stored so many files
FOLDED = 4  # files, so that short runs fold theirs, too


def count_drawn(log: Path) -> None:
    """In this process, write the cells of every batch that is drawn into a file, before the batch is stored."""

    def counted(run: Run) -> Any:
        stratum = stratum_of(run, None)
        for batch in fill(run):
            line = json.dumps(cells_of(stratum, batch.rows).tolist()) + "\n"
            with log.open("a") as file:
                file.write(line)
            yield batch

    draw.fill = counted  # type: ignore[assignment]


def kill_before_change(number: int, counted: Path) -> None:
    """In this process, die just before the change of that number to any folder; keep the count in a file."""
    changes = 0

    def watched(change: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal changes
            changes += 1
            counted.write_text(str(changes))
            if changes == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **options)

        return call

    for name in ("replace", "unlink", "rmdir"):  # what is written beside is seen by nobody before
        setattr(os, name, watched(getattr(os, name)))


def name_modules(names: Path) -> None:
    """When this process writes the last of its tables, write the names of all modules that it has imported."""
    finish = RunFolder.finish

    def named(*arguments: Any) -> None:
        finish(*arguments)
        names.write_text("\n".join(sys.modules))

    RunFolder.finish = named  # type: ignore[method-assign]


def import_all(names: Path) -> None:
    """What an attempt would import, and other work of beginning, so that it is killed while it does something else."""
    for name in names.read_text().splitlines():
        if name.partition(".")[0] not in ("__main__", "__mp_main__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    versions()  # reads which packages there are, and remembers it


def attempt(arguments: Sequence[str], folder: Path, prepare: Callable[[], None]) -> int:
    """Fork a process that begins the run or goes on with it. Its number."""
    if number := os.fork():
        return number
    code = 1
    try:
        for stream in (1, 2):
            os.dup2(os.open(f"{folder}.said", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        prepare()
        begun = (folder / "run.json").exists()
        divlens.cli.main(["resume", str(folder)] if begun else ["probe", *arguments, "--out", str(folder)])
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    finally:
        os._exit(code)


def ended(process: int, folder: Path) -> bool:
    """Whether an attempt came to its end, else it was killed. Raises AssertionError for one that failed."""
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status in (0, -signal.SIGKILL), Path(f"{folder}.said").read_text()
    return status == 0


def is_running(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def drawn_in(log: Path) -> list[int]:
    return [cell for line in log.read_text().splitlines() for cell in json.loads(line)] if log.exists() else []


def stored_in(folder: Path) -> int:
    """How many files of samples have been begun."""
    return max((int(path.name[7:13]) + 1 for path in (folder / "samples").glob("[0-9]*.parquet")), default=0)


class Killed:
    """What was found: of each kill how many files of samples there were; of each attempt how many samples it drew that
    were drawn before; and the files in which a finished run is other than an undisturbed one."""

    def __init__(self, where: Path, arguments: Sequence[str]) -> None:
        self.where, self.arguments = where, arguments
        self.kills, self.runs = 0, 0
        self.other: set[str] = set()
        self.stored: list[int] = []
        self.again: list[int] = []
        self.undisturbed(WARM_UP)
        import_all(where / "modules")
        self.seconds, self.expected = self.undisturbed(arguments)
        self.files = stored_in(self.where / "whole")

    def folder(self, name: str) -> Path:
        folder = self.where / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def undisturbed(self, arguments: Sequence[str]) -> tuple[float, dict[str, Any]]:
        """How long it takes, and what it leaves."""
        folder, begun = self.folder("whole"), time.monotonic()
        assert ended(attempt(arguments, folder, lambda: name_modules(self.where / "modules")), folder)
        return time.monotonic() - begun, contents(folder)

    def run(self, name: str, prepare: Callable[[int], None], wait: Callable[[int, Path], bool]) -> None:
        """Begin a run and go on with it until it is finished. `prepare`: what a process of so many kills before does
        first. `wait`: comes back when a process is to be killed, or with False when it is to be left alone."""
        folder, seen, done, earlier = self.folder(name), set[int](), False, 0
        while not done:
            log = self.where / "drawn"
            log.unlink(missing_ok=True)

            def first(earlier: int = earlier, log: Path = log) -> None:
                count_drawn(log)
                prepare(earlier)

            process = attempt(self.arguments, folder, first)
            if wait(process, folder):
                os.kill(process, signal.SIGKILL)
            done = ended(process, folder)
            drawn = drawn_in(log)
            self.again.append(len(seen & set(drawn)) + len(drawn) - len(set(drawn)))
            seen |= set(drawn)
            if not done:
                self.kills, earlier = self.kills + 1, earlier + 1
                self.stored.append(stored_in(folder))
        self.runs += 1
        self.other |= differing(contents(folder), self.expected)
        shutil.rmtree(folder)

    def at_random(self, kills: int) -> None:
        moments = random.Random(0)

        def wait(process: int, folder: Path) -> bool:
            if self.kills == kills:
                return False
            files = moments.randint(stored_in(folder), self.files)
            seconds = moments.uniform(0, self.seconds * (1 if files == self.files else SHARE))
            while stored_in(folder) < files and is_running(process):
                time.sleep(0.001)
            time.sleep(seconds)
            return True

        while self.kills < kills:
            self.run("killed", lambda earlier: None, wait)

    def at_every_change(self) -> None:
        counted, number, before = self.where / "changes", 1, -1
        while self.kills > before:  # the last run had no change of that number

            def prepare(earlier: int, number: int = number) -> None:
                if earlier == 0:
                    kill_before_change(number, counted)

            before = self.kills
            self.run("killed", prepare, lambda process, folder: False)
            number += 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("where", type=Path)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--at-changes", action="store_true")
    parser.add_argument("--quick", action="store_true", help="pictures are compared by their colours alone")
    parser.add_argument("--control", action="store_true", help="a run with another seed must be another")
    parser.add_argument("probe", nargs="+")
    options = parser.parse_args()
    shards.FOLDED = FOLDED
    if options.quick:
        comparison.load_network = lambda name="": colour_network()
    killed = Killed(options.where, options.probe)
    killed.at_random(options.kills)
    if options.at_changes:
        killed.at_every_change()
    other = killed.undisturbed([*options.probe, "--seed", "1"])[1] if options.control else {}
    found = {
        "seconds": round(killed.seconds, 3),
        "kills": killed.kills,
        "runs": killed.runs,
        "stored": killed.stored,
        "drawn again": killed.again,
        "other": sorted(killed.other),
        "files": len(killed.expected),
        "other with another seed": sorted(differing(other, killed.expected)) if options.control else None,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
