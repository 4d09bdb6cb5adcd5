"""What a study returns: the results of all of its parts, and the verdict on its models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from divlens.doses.result import Doses
from divlens.results import Result
from divlens.showing import Block, Shown, counted
from divlens.verdict import Verdict


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class Study(Shown):
    """`run`: the folder that holds everything. `results`: of information, probe, decompose and score, as far as the
    study asks for them, those of information and decompose by model. `doses`: the curves of its sweeps; None where it
    has none. `verdict`: None where none is possible, and then `no_verdict` is what it takes."""

    run: str
    results: Sequence[Result]
    verdict: Verdict | None
    no_verdict: str = ""
    doses: Doses | None = None

    def of(self, command: str) -> list[Result]:
        """The results of one verb."""
        return [result for result in self.results if result.request["command"] == command]

    @property
    def headline(self) -> str:
        parts = ", ".join(dict.fromkeys(result.request["command"] for result in self.results))
        models = dict.fromkeys(model for result in self.results for model in result.request["models"])
        return f"Study: {parts} of {counted(len(models), 'model')} in {self.run}"

    @property
    def blocks(self) -> list[Block]:
        """The tables of every part, as of its verb, with the verb before the title; doses and verdict last."""
        return list(self.titled_blocks())

    def titled_blocks(self) -> Iterator[Block]:
        for result in self.results:
            for block in result.blocks:
                yield replace(block, title=f"{result.request['command']}: {block.title}")
        for name, of_the_run in (("doses", self.doses), ("verdict", self.verdict)):
            for block in of_the_run.blocks if of_the_run else ():
                yield replace(block, title=f"{name}: {block.title}")

    @property
    def notes(self) -> list[str]:
        shown: list[Shown] = [*self.results, *(one for one in (self.doses, self.verdict) if one)]
        notes = [note for one in shown for note in one.notes]
        return [*dict.fromkeys(notes), *([f"No verdict: it takes {self.no_verdict}."] if self.no_verdict else [])]
