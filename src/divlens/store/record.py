"""run.json: what was asked of a run, of which models, and who wrote it when; and whether a request fits to it."""

from __future__ import annotations

import json
import os
import platform
import socket
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from divlens.errors import DivlensError
from divlens.output import Record, as_read, versions
from divlens.showing import first_few
from divlens.store.place import Place
from divlens.store.share import Share

NAME = "run.json"
ANSWERS = "paraphrases"  # the folder in a run for what sources of wordings answered, which may be there before it
MARKER, FORMAT = "divlens run", 1
# Fields of a request that may grow: what is stored stays as it is, and only what is missing is drawn.
GROWING = ("models", "prompts", "conditions", "setup", "n", "measures", "levels")
# Of a model's set-up: what does not change its draws, so that another session may have it otherwise.
ANY_SETUP = ("device", "batch_size", "compiled")


def read_record(place: Place) -> dict[str, Any] | None:
    """The record of the run in a folder; None for a folder that is empty or not there.

    Raises DivlensError for a folder that holds something else, and for a run of a newer format.
    """
    try:
        found = json.loads(place.read(NAME))
        marker, number = found["written by"], found["format"]
    except FileNotFoundError:
        if others := [name for name in place.names() if name != ANSWERS]:
            expected = "a run needs a new or empty folder, or one of a run"
            raise DivlensError(f"{expected}; {place} holds {first_few(others)}") from None
        return None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DivlensError(f"{place}/{NAME} is not the record of a run of divlens: it was cut or changed") from None
    if marker != MARKER:
        raise DivlensError(f"{place} holds results of divlens but no run, which `--out` and `out=` write")
    if not isinstance(number, int) or number > FORMAT:
        raise DivlensError(f"{place} was written by a newer divlens: format {number}, this one reads {FORMAT}")
    if lacking := [name for name, part in new_record().items() if not isinstance(found.get(name), type(part))]:
        raise DivlensError(f"{place}/{NAME} was changed: {', '.join(lacking)} is missing or something else")
    return found


def existing_record(place: Place) -> dict[str, Any]:
    """Raises DivlensError where there is no run."""
    if (found := read_record(place)) is None:
        raise DivlensError(f"expected the folder of a run, got {place}, which is empty or not there")
    return found


def write_record(place: Place, record: Mapping[str, Any]) -> None:
    place.write(NAME, (json.dumps(as_read(record), indent=1) + "\n").encode())


def new_record() -> dict[str, Any]:
    """`stored`: of each table, how many files had been begun when this was written."""
    lists = {"complete": [], "sessions": []}
    return {"written by": MARKER, "format": FORMAT, "models": {}, "requests": {}, "found": {}, "stored": {}, **lists}


def check_grown(before: Record, request: Record, place: Place) -> None:
    """Refuse a request that does not ask for all that was asked for before, and maybe more. Raises DivlensError, which
    names the fields that differ."""
    now = as_read(request)
    if differing := [line for key in now if (line := difference(key, before.get(key), now[key]))]:
        raise DivlensError(
            f"{place} holds `divlens {before.get('command')}` asked for differently: {'; '.join(differing)}. "
            "A run can grow (more samples, prompts, models, conditions, measures); else name another folder"
        )


def differing(request: Record, other: Record) -> list[str]:
    """The names of the fields in which two requests differ, but for what changes no draw."""

    def counted(one: Record) -> dict[str, Any]:
        return {**one, "setup": {model: fixed(setup) for model, setup in one["setup"].items()}}

    mine, others = counted(request), counted(other)
    return [key.replace("_", " ") for key in {**mine, **others} if mine.get(key) != others.get(key)]


def share_in(record: Mapping[str, Any]) -> Share | None:
    """Which share of a run a folder holds; None for a whole run."""
    return Share(*record["shard"]) if "shard" in record else None


def check_share(record: Mapping[str, Any], share: Share | None, place: Place) -> None:
    """Refuse a folder that holds another share, or a whole run where a share is asked for, and the other way round."""
    before = share_in(record)
    if before == share or not record["requests"]:
        return
    if share is None:
        raise DivlensError(
            f"{place} holds shard {before} of a run: go on with --shard {before}, or make the whole run of all "
            "shards with `divlens merge`"
        )
    held = "a whole run" if before is None else f"shard {before}"
    raise DivlensError(f"{place} holds {held}, asked for is shard {share}: name another folder")


def check_request(path: str | Path, request: Record, share: Share | None = None) -> None:
    """Refuse a folder that cannot hold the run of a request, or a share of it: before any work, with as much of the
    request as is known."""
    place = Place(path)
    about = read_record(place) or new_record()
    check_share(about, share, place)
    before = about["requests"].get(request["command"])
    if before is not None:
        check_grown(before, request, place)
    place.check_writable()


def check_content(place: Place, model: str, before: str | None, now: str | None, remedy: str = "") -> None:
    """Raises DivlensError where a model's content is another than that with which its samples were drawn."""
    if before != now:
        raise DivlensError(
            f"{place} holds samples of {model} with the content {before}, now it is {now}: its weights or settings are "
            f"others{remedy}"
        )


def difference(key: str, before: Any, now: Any) -> str:
    """How a field of a request does not contain what it was before; empty where it does."""
    name = key.replace("_", " ")
    if before is None or before == now:
        return ""
    if key not in GROWING:
        return f"{name} was {before!r:.60}, now {now!r:.60}"
    if key == "n":
        return "" if now >= before else f"n was {before}, now {now}"
    if key == "setup":
        parts = [
            f"{field} of {model} was {value!r}, now {now[model].get(field)!r}"
            for model in before
            if model in now
            for field, value in fixed(before[model]).items()
            if value != now[model].get(field)
        ]
        return "; ".join(parts)
    if isinstance(before, Mapping):
        other = [each for each, value in before.items() if now.get(each) != value]
    else:
        other = [each["text"] if isinstance(each, Mapping) else each for each in before if each not in now]
    return f"{name} {', '.join(repr(each) for each in other[:3])} no longer asked for, or otherwise" if other else ""


def fixed(setup: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a model's set-up that its draws depend on."""
    return {key: value for key, value in setup.items() if key not in ANY_SETUP}


def new_session(arguments: Sequence[str]) -> dict[str, Any]:
    """Who begins to write a run, when, and with what. Times are for reading only: nothing is decided by them."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "arguments": list(arguments),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": now(),
        "ended": None,
        "how": "running",
        "samples_drawn": None,
        "seconds": None,
        "samples_per_second": None,
        "device": device,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "versions": versions(),
    }


def no_longer_running(session: Mapping[str, Any]) -> dict[str, Any]:
    """A session that is not this one: it was killed, or could not write how it ended."""
    return {**session, "how": "broken off"} if session["how"] == "running" else dict(session)


def ended(session: Mapping[str, Any], how: str, drawn: int, seconds: float) -> dict[str, Any]:
    rate = drawn / seconds if seconds > 0 else None
    found = {"ended": now(), "how": how, "samples_drawn": drawn, "seconds": round(seconds, 3)}
    return {**session, **found, "samples_per_second": rate and round(rate, 2), "versions": versions()}


def now() -> str:
    return datetime.now().astimezone().isoformat(" ", "seconds")
