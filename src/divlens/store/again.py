"""One sample of a run, drawn again: whether the tokens are those that are stored and, if not, what differs now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from divlens.errors import DivlensError, check_whole
from divlens.models.fingerprint import fingerprint_of
from divlens.output import Record
from divlens.planning import plan
from divlens.run import Run, fill
from divlens.showing import Block, Shown
from divlens.store.asked import conditions_of, prompts_of
from divlens.store.cells import cells_of, stratum_of
from divlens.store.reader import StoredRun
from divlens.store.record import new_session

SHOWN = 12  # tokens that differ


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class DrawnAgain(Shown):
    """`tokens` as they were drawn now, `stored` as the run has them, and the picture of those drawn now. `differences`:
    what is not as it was when the run was drawn."""

    model: str
    condition: str
    prompt: str
    sample: int
    seed: int
    wording: str
    tokens: Int[Tensor, " positions"]
    stored: Int[Tensor, " positions"]
    picture: Float[Tensor, "3 H W"]
    differences: tuple[str, ...]

    @property
    def equal(self) -> bool:
        return torch.equal(self.tokens, self.stored)

    @property
    def headline(self) -> str:
        return (
            f"DrawnAgain: sample {self.sample} of {self.prompt!r}, {self.model} under {self.condition}: {self.verdict}"
        )

    @property
    def verdict(self) -> str:
        other = int((self.tokens != self.stored).sum())
        return "the tokens are equal" if self.equal else f"{other} of {len(self.tokens)} tokens differ"

    @property
    def blocks(self) -> list[Block]:
        rows = [
            ("model", self.model),
            ("condition", self.condition),
            ("prompt", self.prompt),
            ("wording", self.wording),
            ("sample, seed", f"{self.sample}, {self.seed}"),
            ("result", self.verdict),
        ]
        places = (self.tokens != self.stored).nonzero().flatten().tolist()
        rows += [(f"position {i}", f"stored {int(self.stored[i])}, now {int(self.tokens[i])}") for i in places[:SHOWN]]
        return [Block("", ("", "drawn again"), rows)]

    @property
    def notes(self) -> list[str]:
        if self.equal:
            return []
        found = "; ".join(self.differences)
        return [
            f"What differs from when the run was drawn: {found}."
            if found
            else "Device, dtype and versions are those with which the run was drawn.",
            "Most models' logits differ by a rounding error with the number of samples in a batch, too: here it is 1.",
        ]


def draw_again(
    run: StoredRun, prompt: str | int, condition: str, index: int, model: str | None = None, device: str | None = None
) -> DrawnAgain:
    """Draw sample `index` of a prompt under a condition of a run once more; nothing is stored. Arguments as of
    `StoredRun.images`. Raises DivlensError for one that the run does not hold, and as `StoredRun.images` does."""
    check_whole("the number of a sample", index, 0)
    name, text = run.model_named(model), run.prompt_named(prompt)
    request = request_with(run, name, run.condition_named(condition), text, index)
    single, stored = stored_single(run, request, name, condition, text, index, device)
    (filled,) = fill(single)
    return DrawnAgain(
        model=name,
        condition=condition,
        prompt=text,
        sample=index,
        seed=single.seed,
        wording=single.rows[0].wording,
        tokens=filled.tokens.flatten().cpu(),
        stored=stored,
        picture=filled.pictures()[0],
        differences=tuple(differences(run.record["sessions"], request["setup"][name], single)),
    )


def stored_single(
    run: StoredRun, request: Record, model: str, condition: str, prompt: str, index: int, device: str | None = None
) -> tuple[Run, Int[Tensor, " positions"]]:
    """What draws one sample of a request once more, a run of one row, and its tokens as they are stored. Raises
    DivlensError where none are, and for a model that is not what it was."""
    (asked,) = (one for one in prompts_of(request) if one.text == prompt)
    interventions = conditions_of(request)[condition]
    whole = plan(run.model(model, device), [asked], index + 1, request["seed"], interventions, batch_size=1)
    single = replace(whole, rows=[whole.rows[index]])
    return single, tokens_of(run, single)


def request_with(run: StoredRun, model: str, condition: str, prompt: str, index: int) -> Record:
    """A request of the run that draws this sample. Raises DivlensError where none does."""
    for request in run.requests.values():
        there = model in request["models"] and condition in request["conditions"]
        if there and index < request.get("n", 0) and prompt in [one["text"] for one in request["prompts"]]:
            return request
    sizes = ", ".join(f"{command} {one['n']}" for command, one in run.requests.items() if "n" in one)
    raise DivlensError(
        f"{run.place} was not asked for sample {index} of {prompt!r} by {model} under {condition}; samples of each "
        f"prompt, counted from 0: {sizes or 'none, but a crossed design'}"
    )


def tokens_of(run: StoredRun, single: Run) -> Int[Tensor, " positions"]:
    """The stored tokens of a run of one row. Raises DivlensError where there are none."""
    (cell,) = cells_of(stratum_of(single, fingerprint_of(single.model)), single.rows)
    found = run.sql(f"SELECT tokens FROM samples WHERE cell = {int(cell)} LIMIT 1")
    if not len(found):
        row = single.rows[0]
        raise DivlensError(
            f"{run.place} does not hold this sample of {row.prompt.text!r} yet, or the codes that its condition allows "
            "come from another calibration here"
        )
    return torch.from_numpy(np.asarray(found["tokens"][0]).astype(np.int64))


def differences(sessions: Sequence[Mapping[str, Any]], setup: Mapping[str, Any], single: Run) -> Iterator[str]:
    """What is not as it was in the sessions that drew samples, or may have: of one that was killed nobody knows."""
    now, here = new_session(()), single.drawn_with
    before = [session for session in sessions if session["samples_drawn"] != 0] or list(sessions)
    if setup["dtype"] != here.dtype:
        yield f"dtype {setup['dtype']}, now {here.dtype}"
    for what, was, now_is in (
        ("device", setup["device"], here.device),
        *((f"{key} of the machine", sorted({str(one[key]) for one in before}), str(now[key])) for key in KEYS),
    ):
        if now_is not in (was if isinstance(was, list) else [was]):
            yield f"{what} {' or '.join(was) if isinstance(was, list) else was}, now {now_is}"
    current = now["versions"]
    packages = sorted({name for one in before for name in one["versions"]} & current.keys())
    for package in packages:
        was = sorted({one["versions"][package] for one in before if package in one["versions"]})
        if current[package] not in was:
            yield f"{package} {' or '.join(was)}, now {current[package]}"


KEYS = ("device", "platform", "threads")
