"""`reworded`: prompts get the wordings of a source, each checked, and each question asked once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from divlens.errors import DivlensError, check_whole
from divlens.prompts import distinct_prompts
from divlens.showing import counted, visible
from divlens.store.place import Place
from divlens.store.record import ANSWERS
from divlens.types import Prompt
from divlens.wordings.meaning import why_different
from divlens.wordings.sources import Source, SourceError

Similarity = Callable[[str, str], float]
LEAST = 0.8  # of a similarity that does not say it itself


@dataclass(frozen=True)
class Rejected:
    """A wording that was not taken, and why."""

    prompt: str
    wording: str
    reason: str

    def __str__(self) -> str:
        return f"rejected for {visible(self.prompt)!r}: {visible(self.wording)!r} ({self.reason})"


@dataclass(frozen=True)
class Reworded:
    """`prompts`: all that were asked for, in order, with the wordings that were taken besides those that they had.
    `rejected`: the others. `missing`: a line for each prompt that got none, and one where the source gave up."""

    prompts: tuple[Prompt, ...]
    rejected: tuple[Rejected, ...]
    missing: tuple[str, ...]

    @property
    def notes(self) -> list[str]:
        return [*map(str, self.rejected), *self.missing]


def reworded(
    prompts: Sequence[str | Prompt],
    source: Source,
    count: int = 8,
    *,
    answers: str | Path | None = None,
    similarity: Similarity | None = None,
    least: float | None = None,
) -> Reworded:
    """Other wordings of prompts, up to `count` of each, that mean the same as far as can be told.

    A wording is taken when its negations, counts, colours and places are those of the prompt (`meaning`) and, where
    there is a `similarity` of two texts, such as `divlens.similarity_of(model)`, that is `least` or more; None is what
    the similarity itself holds for enough, or 0.8. `answers`: the folder of a run, or any other, in which what language
    models answered is kept, so that nothing is asked twice. Where the source cannot answer, it is not asked again: what
    was made is kept, and `missing` says it in one line.

    Raises DivlensError for what is no list of prompts, for a count below 1, and for `least` without a similarity.
    """
    check_whole("count", count, 1)
    if least is not None and similarity is None:
        raise DivlensError(f"least is that of a similarity, got {least} and no similarity")
    enough = getattr(similarity, "least", LEAST) if least is None else least
    place = None if answers is None else Place(answers)
    done: list[Prompt] = []
    rejected: list[Rejected] = []
    missing: list[str] = []
    failed = False
    for prompt in distinct_prompts(prompts):
        given: Sequence[str] | None = None
        if not failed or source.remembered:
            try:
                given = asked_once(source, prompt.text, count, place, only_kept=failed)
            except SourceError as error:
                failed = True
                missing.append(f"{error}: the wordings that were made before are kept")
        taken, turned_down = sorted_out(prompt, given or (), similarity, enough)
        rejected += turned_down
        if given is not None and not taken:
            missing.append(f"no other wording of {visible(prompt.text)!r}: {counted(len(given), 'answer')}, none taken")
        done.append(replace(prompt, paraphrases=tuple(dict.fromkeys((*prompt.paraphrases, *taken)))))
    return Reworded(tuple(done), tuple(rejected), tuple(missing))


def asked_once(
    source: Source, text: str, count: int, place: Place | None, only_kept: bool = False
) -> Sequence[str] | None:
    """The wordings that a source gives, or gave before. `only_kept`: it is not asked; None where nothing is kept."""
    question = {**source.identity, "text": text, "count": count}
    digest = sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:32]
    name = f"{ANSWERS}/{digest}.json"
    if place is not None and source.remembered and (kept := kept_answer(place, name)) is not None:
        return kept
    if only_kept:
        return None
    found = list(source.wordings(text, count))[:count]
    if place is not None and source.remembered:
        place.write(name, json.dumps({**question, "wordings": found}, ensure_ascii=False, indent=1).encode())
    return found


def kept_answer(place: Place, name: str) -> list[str] | None:
    """Raises DivlensError for a file that is none of `asked_once`."""
    try:
        found = json.loads(place.read(name))["wordings"]
        if isinstance(found, list) and all(isinstance(one, str) for one in found):
            return found
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError):
        pass
    raise DivlensError(f"{place}/{name} expects a JSON object with wordings, a list of texts: remove it to ask again")


def sorted_out(
    prompt: Prompt, wordings: Sequence[str], similarity: Similarity | None, least: float
) -> tuple[list[str], list[Rejected]]:
    """Those that are taken, and the others with the reason; the prompt itself and repeats are neither."""
    taken: list[str] = []
    rejected: list[Rejected] = []
    same = {" ".join(prompt.text.lower().split()).strip(" .")}
    for wording in wordings:
        key = " ".join(wording.lower().split()).strip(" .")
        if not key or key in same:
            continue
        same.add(key)
        reason = why_different(prompt.text, wording)
        if reason is None and similarity is not None:
            reason = why_unlike(prompt.text, wording, similarity, least)
        if reason is None:
            taken.append(wording)
        else:
            rejected.append(Rejected(prompt.text, wording, reason))
    return taken, rejected


def why_unlike(text: str, wording: str, similarity: Similarity, least: float) -> str | None:
    """What a text encoder has against a wording, which it may not even read; None where it has nothing."""
    try:
        found = similarity(text, wording)
    except DivlensError as error:
        return str(error)
    return None if found >= least else f"similarity {found:.2f}, below {least:g}"
