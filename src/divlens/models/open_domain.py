"""Systems that draw whatever is asked for: the prompts by which their code frequencies are found.

`open_domain.jsonl` holds 64 prompts of ordinary things, eight of each of eight categories.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files


@cache
def prompts_by_category() -> dict[str, list[str]]:
    """The calibration prompts, in the order of the file."""
    found: dict[str, list[str]] = {}
    for line in files("divlens.models").joinpath("open_domain.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        found.setdefault(record["category"], []).append(record["prompt"])
    return found


class OpenDomain:
    """What a model says that draws anything, and whose weights come without code frequencies."""

    @property
    def recipe(self) -> str:
        """What `divlens.enhance` does unless it is told otherwise (`divlens.recipes`)."""
        return "everyday"

    def frequencies(self) -> None:
        return None

    def calibration_prompts(self) -> Sequence[str]:
        return [prompt for prompts in prompts_by_category().values() for prompt in prompts]
