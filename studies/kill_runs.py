"""Runs killed with SIGKILL at 30 random moments: what is lost, and whether the end is that of an undisturbed one.

    python studies/kill_runs.py [--kills 30] [--models zoo/ar ...] > studies/kill_runs.txt

Each run is `divlens probe MODEL --limit 2 -n 4 --batch-size 2` under baseline and a higher temperature. It is killed
soon after it has stored so many files of samples, a number drawn from none to all that are missing, or at any time
after all, and gone on with by `divlens resume`, until it is finished; runs are begun until all kills are spent.
Columns: the seconds of an undisturbed run; kills, and finished runs; the files of samples that there were at the kills
(smallest, median, largest); the kills after which samples were drawn again; the most samples that one kill lost; and
the files in which any finished run is other than the undisturbed one, of how many. The last line is the control: the
files that are other with another seed. Takes some minutes for each model.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

DRIVER = Path(__file__).resolve().parent.parent / "tests" / "oracles" / "killed_runs.py"
REQUEST = ("--limit", "2", "-n", "4", "--batch-size", "2", "--condition", "hot=Temperature(1.3)")


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs killed at random moments, against undisturbed ones.")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--models", nargs="+", default=["zoo/ar"])
    options = parser.parse_args()
    print("model   seconds  kills  runs  files at the kills  drew again  most lost  other files")
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(DRIVER), folder, "--kills", str(options.kills), "--control"]
            environment = {**os.environ, "DIVLENS_CACHE": f"{folder}/cache"}
            done = subprocess.run([*command, "--", model, *REQUEST], env=environment, stdout=subprocess.PIPE, text=True)
            done.check_returncode()
        found = json.loads(done.stdout)
        stored, again = found["stored"], found["drawn again"]
        at_kills = f"{min(stored)}, {statistics.median(stored):g}, {max(stored)}"
        print(
            f"{model:7} {found['seconds']:7.1f}  {found['kills']:5}  {found['runs']:4}  {at_kills:18}  "
            f"{sum(map(bool, again)):10}  {max(again):9}  {len(found['other'])} of {found['files']}"
        )
        print(
            f"        with another seed {len(found['other with another seed'])} files that only one of both has",
            flush=True,
        )


if __name__ == "__main__":
    main()
